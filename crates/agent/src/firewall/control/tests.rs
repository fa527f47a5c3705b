//! What `portreeve why` is told, in a network namespace of its own. No other node answers there.

use super::*;
use crate::firewall::counts::Counts;
use crate::firewall::outgoing::Sent;
use crate::firewall::tests::{ALICE, BOB, alone, given, identity, listener_of, one_of, settings, shared};
use crate::lookup::tests::FORKS;
use std::net::{SocketAddr, TcpStream, UdpSocket};

/// A machine that no node map has.
const STRANGER: &str = "203.0.113.9:2000";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn desk(shared: &Arc<Shared>) -> Arc<ControlDesk> {
    let dir = tempfile::tempdir().unwrap();
    Arc::new(ControlDesk::listen(&dir.path().join("control.sock"), shared).unwrap())
}

/// With these users exempt.
fn exempt(connectors: &[u32], listeners: &[u32]) -> Settings {
    let uids = |all: &[u32]| all.iter().map(|uid| *uid..=*uid).collect();
    let mut settings = settings(&identity(), &[("c2", identity().public(), &["10.9.0.2"])]);
    settings.exempt.connectors = uids(connectors);
    settings.exempt.listeners = uids(listeners);
    settings
}

fn why(shared: &Arc<Shared>, transport: Transport, from: SocketAddr, to: SocketAddr) -> (Explained, Owners) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = shared.settings.load_full();
    runtime.block_on(desk(shared).explain(&settings, Flow { transport, from, to }))
}

fn says(explained: &Explained, what: &str) -> bool {
    explained.steps.iter().any(|step| step.contains(what))
}

#[test]
fn to_reach_who_is_exempt_nobody_is_asked_and_everybody_may_hear_that() {
    alone(&["10.9.0.1/32"], || {
        let listener = listener_of(ALICE, at("10.9.0.1:0"));
        let to = listener.local_addr().unwrap();
        for from in [STRANGER, "10.9.0.2:2000", "10.9.0.1:2000"] {
            let (told, owners) = why(&shared(exempt(&[], &[ALICE])), Transport::Tcp, at(from), to);
            assert_eq!(told.verdict, Some(Ok(LetThrough::ExemptListener)), "{from}: {told:?}");
            assert!(says(&told, "nobody is asked who does"), "{told:?}");
            let flow = Flow { transport: Transport::Tcp, from: at(from), to };
            assert_eq!(owners.may_hear(BOB, flow), Ok(()));
        }
        // Where she is not exempt, it is asked; and what is found out is not for everybody.
        let (told, owners) = why(&shared(exempt(&[], &[BOB])), Transport::Tcp, at(STRANGER), to);
        assert_eq!(told.verdict, Some(Err(Refused::UnknownNode(at(STRANGER).ip()))));
        let flow = Flow { transport: Transport::Tcp, from: at(STRANGER), to };
        assert!(owners.may_hear(BOB, flow).is_err() && owners.may_hear(ALICE, flow).is_ok());
        let (told, _) = why(&shared(exempt(&[], &[])), Transport::Tcp, at("10.9.0.1:2000"), to);
        assert_eq!(told.verdict, Some(Err(Refused::NoConnector(to.ip()))), "{told:?}");
    });
}

#[test]
fn sockets_of_several_users_are_judged_each() {
    alone(&["10.9.0.1/32"], || {
        let alices = one_of(ALICE, 0);
        let port = alices.local_addr().unwrap().port();
        let _bobs = one_of(BOB, port);
        let to = SocketAddr::new(at("10.9.0.1:0").ip(), port);
        let sender = |uid| given(UdpSocket::bind("10.9.0.1:0").unwrap(), uid);
        let (roots, hers) = (sender(0), sender(ALICE));
        let told = |connectors: &[u32], listeners: &[u32], sender: &UdpSocket| {
            let from = sender.local_addr().unwrap();
            why(&shared(exempt(connectors, listeners)), Transport::Udp, from, to).0
        };
        let by_root = told(&[0], &[], &roots);
        assert_eq!(by_root.verdict, Some(Ok(LetThrough::ExemptConnector)), "{by_root:?}");
        assert!(says(&by_root, "Sockets of several users may get it"), "{by_root:?}");
        let to_all = told(&[], &[ALICE, BOB], &roots);
        assert_eq!(to_all.verdict, Some(Ok(LetThrough::ExemptListener)), "{to_all:?}");
        // Alice reaches her own, and bob's if everybody may.
        assert!(matches!(told(&[], &[BOB], &hers).verdict, Some(Ok(_))));
        for (sender, listeners) in [(&hers, &[ALICE][..]), (&hers, &[]), (&roots, &[ALICE])] {
            let others = told(&[], listeners, sender);
            let Some(Err(Refused::OtherUser { listener: BOB, .. })) = others.verdict else {
                // Of root's, the first one that is not open to it is named.
                panic!("{listeners:?}: {others:?}");
            };
        }
    });
}

#[test]
fn a_node_that_only_answers_says_that_it_guards_nothing() {
    alone(&["10.9.0.1/32"], || {
        let listener = listener_of(ALICE, at("10.9.0.1:0"));
        let to = listener.local_addr().unwrap();
        let guarding = shared(exempt(&[], &[]));
        let only_answers = Arc::new(Shared {
            settings: arc_swap::ArcSwap::new(guarding.settings.load_full()),
            counts: Counts::new(&[]),
            sent: Sent::default(),
        });
        let client = given(TcpStream::connect(to).unwrap(), BOB);
        for from in [client.local_addr().unwrap(), at(STRANGER), at("10.9.0.2:0")] {
            let (told, _) = why(&only_answers, Transport::Tcp, from, to);
            assert_eq!(told.verdict, None, "{told:?}");
            assert!(told.steps.len() == 1 && says(&told, "This node guards nothing"), "{told:?}");
        }
        // Of another node's port it knows nothing at all.
        let (told, _) = why(&only_answers, Transport::Tcp, to, at("10.9.0.2:5000"));
        assert!(told.verdict.is_some() && says(&told, "ask on c2"), "{told:?}");
    });
}

#[test]
fn a_port_below_the_first_one_is_said_not_to_be_asked_about() {
    alone(&["10.9.0.1/32"], || {
        for first in [1024, 80] {
            let mut told = exempt(&[], &[]);
            told.config.first_port = Port::new(first).unwrap();
            let shared = shared(told);
            for (port, looked_at) in [(22, false), (first - 1, false), (first, true)] {
                let to = SocketAddr::new(at("10.9.0.1:0").ip(), port);
                let _listener = listener_of(ALICE, to);
                for from in [STRANGER, "10.9.0.2:0"] {
                    let (told, _) = why(&shared, Transport::Tcp, at(from), to);
                    assert_eq!(told.verdict.is_some(), looked_at, "{port} from {from}: {told:?}");
                    let said =
                        format!("Port {port} is not asked about: the rules leave ports below {first} alone");
                    assert_eq!(says(&told, &said), !looked_at, "{told:?}");
                }
            }
        }
    });
}

#[test]
fn nobody_has_all_places_and_nobody_has_roots() {
    let places = Places::default();
    let all_of = |uid| std::iter::from_fn(|| places.take(uid)).collect::<Vec<_>>();
    let hers = all_of(ALICE);
    assert_eq!(hers.len(), limits::CONTROLS_OF_ONE);
    let others: Vec<_> = (0..100).flat_map(|number| all_of(BOB + number)).collect();
    assert_eq!(hers.len() + others.len(), limits::CONTROLS);
    let roots = all_of(0);
    assert_eq!(roots.len(), limits::CONTROLS);
    drop(hers);
    // What root has leaves the others theirs, and each place is given back.
    assert_eq!(all_of(BOB + 200).len(), limits::CONTROLS_OF_ONE);
    drop((others, roots));
    assert_eq!(all_of(ALICE).len(), limits::CONTROLS_OF_ONE);
}

#[test]
fn of_what_goes_to_many_this_node_says_what_it_does_with_it() {
    alone(&["10.9.0.1/32"], || {
        let _quiet = FORKS.read().unwrap();
        let alices = one_of(ALICE, 0);
        let port = alices.local_addr().unwrap().port();
        let hers = given(UdpSocket::bind("10.9.0.1:0").unwrap(), ALICE).local_addr().unwrap();
        let by = |uid| given(UdpSocket::bind("10.9.0.1:0").unwrap(), uid);
        let (own, others, nobody) = (by(ALICE), by(BOB), at("10.9.0.1:0"));
        let sender = |socket: &UdpSocket| socket.local_addr().unwrap();
        let told = |listeners: &[u32], group: &str, from| {
            why(
                &shared(exempt(&[0], listeners)),
                Transport::Udp,
                from,
                SocketAddr::new(group.parse().unwrap(), port),
            )
            .0
        };
        for group in ["239.77.0.1", "255.255.255.255"] {
            let by_herself = told(&[], group, sender(&own));
            assert_eq!(by_herself.verdict, Some(Ok(LetThrough::SameUser)), "{by_herself:?}");
            assert!(says(&by_herself, &format!("{group} is for many")), "{by_herself:?}");
            let by_bob = told(&[], group, sender(&others));
            assert!(matches!(by_bob.verdict, Some(Err(Refused::ConnectorGroupsUnknown(_)))), "{by_bob:?}");
            let who = told(&[], group, nobody);
            assert!(says(&who, &format!("uid {ALICE} and whoever is exempt may connect")), "{who:?}");
        }
        // One more hears it, and then she is not let through either.
        let bobs = one_of(BOB, port);
        for (listeners, who_may) in [
            (&[][..], "Whoever is exempt may connect, and nobody else."),
            (&[BOB], "Uid 20900 and whoever is exempt may connect."),
            (&[ALICE, BOB], "everybody may connect"),
        ] {
            let outcome = told(listeners, "239.77.0.1", sender(&own)).verdict.unwrap();
            assert_eq!(outcome.is_ok(), !listeners.is_empty(), "{listeners:?}: {outcome:?}");
            let who = told(listeners, "239.77.0.1", nobody);
            assert!(says(&who, "Sockets of several users") && says(&who, who_may), "{who:?}");
        }
        drop((alices, bobs));
        assert_eq!(told(&[], "239.77.0.1", hers).verdict, Some(Err(Refused::NoListener)));
        // No connection goes to many.
        let to = SocketAddr::new("239.77.0.1".parse().unwrap(), port);
        let (tcp, _) = why(&shared(exempt(&[], &[])), Transport::Tcp, hers, to);
        assert_eq!(tcp.verdict, Some(Err(Refused::UnknownNode(to.ip()))), "{tcp:?}");
    });
}
