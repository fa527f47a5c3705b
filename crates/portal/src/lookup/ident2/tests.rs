//! What is made of the answers of a service that is played here: a right one, and wrong ones.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_model::NodeMap;
use portreeve_model::wire::ident2::{Message, QUESTION, Request, parse};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::*;
use crate::agents::Rules;
use crate::lookup::Lookup;

const UID: u32 = 20_001;
const GID: u32 = 20_100;

fn tuple() -> Tuple {
    let end = |text: &str| text.parse().unwrap();
    Tuple { client: end("10.0.0.1:40000"), server: end("10.0.0.2:8888") }
}

/// What is asked, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Exact,
    ExactGroup,
    Listener,
    ListenerGroup,
}

use Asked::{Exact, ExactGroup, Listener, ListenerGroup};

fn asked(request: &Request) -> Asked {
    assert_eq!((request.op, request.protocol, request.local), (Op::Remote, Protocol::Tcp, tuple().server));
    let group = match request.flags {
        Flags(0) => false,
        flags => {
            assert_eq!(flags, Flags::GID.and(Flags::PROCESS));
            true
        }
    };
    match (request.states, request.remote) {
        (TcpStates::CONNECTED, remote) if remote == tuple().client => {
            if group {
                ExactGroup
            } else {
                Exact
            }
        }
        (TcpStates::LISTEN, remote) if remote == "0.0.0.0:0".parse().unwrap() => {
            if group {
                ListenerGroup
            } else {
                Listener
            }
        }
        other => panic!("{other:?}"),
    }
}

fn pair() -> (OwnedFd, UnixStream) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let theirs = StdUnixStream::from(theirs);
    theirs.set_nonblocking(true).unwrap();
    (ours, UnixStream::from_std(theirs).unwrap())
}

fn lookup() -> Arc<Lookup> {
    let nodes = "[[node]]\nname = 'c1'\naddresses = ['10.0.0.2']\n";
    let nodes = NodeMap::parse(nodes, "nodes.toml").unwrap();
    let rules = Rules { key: None, nodes, plain_networks: Vec::new() };
    let agents = Agents::new(rules, tokio::sync::mpsc::channel(1).0).unwrap();
    Arc::new(Lookup::new(&portreeve_model::config::LookupConfig::Ident2("/unused".into()), Arc::new(agents)))
}

/// What a service does with a question.
enum Does {
    Says(Option<Found>),
    Sends(Vec<u8>),
    Nothing,
    Closes,
}

/// A service that does this with each question, and a new connection whenever one has ended.
async fn played(lookup: Arc<Lookup>, does: impl Fn(Asked) -> Does) {
    let Lookup::Ident2(ident2) = &*lookup else { panic!() };
    loop {
        let (ours, peer) = pair();
        let serve = async {
            let mut buffer = [0; QUESTION + 1];
            loop {
                peer.readable().await.unwrap();
                let request = match peer.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => match parse(&buffer[..length]) {
                        Ok(Message::Question(request)) => request,
                        other => panic!("{other:?}"),
                    },
                    Err(_) => continue,
                };
                let bytes = match does(asked(&request)) {
                    Does::Says(found) => request.answer(found).to_bytes(),
                    Does::Sends(bytes) => bytes,
                    Does::Nothing => continue,
                    Does::Closes => break,
                };
                let _ = peer.try_write(&bytes);
            }
            drop(peer);
        };
        let (_, ()) = tokio::join!(ident2.client().serve(ours), serve);
    }
}

/// With such a service.
async fn with<T>(does: impl Fn(Asked) -> Does, ask: impl AsyncFnOnce(&Lookup) -> T) -> T {
    let lookup = lookup();
    tokio::select! {
        biased;
        answer = ask(&lookup) => answer,
        () = played(Arc::clone(&lookup), does) => unreachable!(),
    }
}

fn only(uid: u32) -> Option<Found> {
    Some(Found { uid, gid: None, pid: None, groups: None })
}

fn held(uid: u32, gid: u32) -> Option<Found> {
    Some(Found { uid, gid: Some(gid), pid: Some(7), groups: None })
}

/// An owner without the listener's id, which is another one each time.
fn plain(owner: Owner) -> (u32, OwnerGroups, bool) {
    (owner.uid, owner.groups, owner.accepted)
}

fn before(groups: OwnerGroups, seen: Seen) -> Owner {
    let listener = ListenerId(100 | u64::from(seen == Seen::Exact));
    Owner { uid: UID, groups, listener, accepted: false }
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_who_has_the_very_connection_or_may_have_it() {
    use OwnerGroups::{Egid, NotLooked};
    let none = NotLooked;
    for (exact, listener, expected, by) in [
        (only(UID), only(UID), Ok((UID, none, false)), Seen::Exact),
        // The listener is not even asked about.
        (only(UID), only(9), Ok((UID, none, false)), Seen::Exact),
        // More than was asked for is not believed.
        (held(UID, GID), None, Ok((UID, none, false)), Seen::Exact),
        (None, only(UID), Ok((UID, none, false)), Seen::Listener),
        (only(0), only(UID), Ok((UID, none, false)), Seen::Listener),
        (None, None, Err(Unowned::NoSuchConnection), Seen::Exact),
        (only(0), only(0), Err(Unowned::NoSuchConnection), Seen::Exact),
        (None, only(65_534), Err(Unowned::NoSuchConnection), Seen::Exact),
        (only(u32::MAX), only(u32::MAX), Err(Unowned::NoSuchConnection), Seen::Exact),
    ] {
        let does = |asked| {
            Does::Says(match asked {
                Exact => exact.clone(),
                Listener => listener.clone(),
                other => panic!("{other:?}"),
            })
        };
        let owner = with(does, async |lookup| lookup.owner(&tuple()).await).await;
        assert!(owner.as_ref().is_ok_and(|owner| seen(owner.listener) == by) || owner.is_err());
        assert_eq!(owner.map(plain), expected, "{exact:?} {listener:?}");
    }
    // With a group.
    let unknown = OwnerGroups::Unknown(UnknownGroup::NoHolderSeen);
    let owner = before(NotLooked, Seen::Exact);
    let differ = |accepted| Err(Unowned::OwnersDiffer { listener: UID, accepted });
    let no_pid = Some(Found { pid: None, ..held(UID, GID).unwrap() });
    for (exact, listener, expected) in [
        (held(UID, GID), None, Ok((UID, Egid(GID), true))),
        (no_pid.clone(), None, Ok((UID, unknown, false))),
        (only(UID), None, Ok((UID, unknown, false))),
        (held(UID, u32::MAX), None, Ok((UID, unknown, true))),
        (None, held(UID, GID), Ok((UID, Egid(GID), false))),
        (None, only(UID), Ok((UID, unknown, false))),
        (held(9, GID), None, differ(9)),
        (None, held(9, GID), differ(9)),
        (held(0, 0), held(0, 0), Err(Unowned::NoSuchConnection)),
    ] {
        let does = |asked| {
            Does::Says(match asked {
                ExactGroup => exact.clone(),
                ListenerGroup => listener.clone(),
                other => panic!("{other:?}"),
            })
        };
        let again = with(does, async |lookup| lookup.with_group(&tuple(), owner).await).await;
        assert_eq!(again.map(plain), expected, "{exact:?} {listener:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_soon_is_seen_by_itself() {
    for (then, expected) in [
        (only(UID), Ok((UID, OwnerGroups::NotLooked, false))),
        (only(9), Err(Unowned::OwnersDiffer { listener: UID, accepted: 9 })),
        (only(0), Ok((UID, OwnerGroups::NotLooked, false))),
    ] {
        let times = std::cell::Cell::new(0);
        let does = |asked| {
            Does::Says(match asked {
                Exact if times.replace(times.get() + 1) == 0 => None,
                Exact => then.clone(),
                Listener => only(UID),
                other => panic!("{other:?}"),
            })
        };
        let owner = with(does, async |lookup| lookup.owner(&tuple()).await).await;
        let by = if then == only(UID) { Seen::Exact } else { Seen::Listener };
        assert!(owner.as_ref().map_or(true, |owner| seen(owner.listener) == by));
        assert_eq!(owner.map(plain), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_answer_goes_out_the_very_connection_must_be_the_same_users() {
    use OwnerGroups::{Egid, NotLooked};
    let unknown = OwnerGroups::Unknown(UnknownGroup::NoHolderSeen);
    let differ = |accepted| Err(Unowned::OwnersDiffer { listener: UID, accepted });
    for (groups, by, found, expected) in [
        (NotLooked, Seen::Exact, only(UID), Ok((UID, NotLooked, true))),
        (NotLooked, Seen::Listener, only(UID), Ok((UID, NotLooked, true))),
        (NotLooked, Seen::Exact, only(9), differ(9)),
        (NotLooked, Seen::Listener, only(9), differ(9)),
        // It answered and closed at once.
        (NotLooked, Seen::Exact, None, Ok((UID, NotLooked, true))),
        (NotLooked, Seen::Exact, only(0), Ok((UID, NotLooked, true))),
        // That somebody listened there is no evidence.
        (NotLooked, Seen::Listener, None, Err(Unowned::ListenerOnly)),
        (NotLooked, Seen::Listener, only(0), Err(Unowned::ListenerOnly)),
        // With which group, nobody saw.
        (Egid(GID), Seen::Exact, None, Err(Unowned::Closing)),
        (Egid(GID), Seen::Listener, None, Err(Unowned::ListenerOnly)),
        (Egid(GID), Seen::Exact, held(UID, 5), Ok((UID, Egid(5), true))),
        (Egid(GID), Seen::Exact, only(UID), Ok((UID, unknown, true))),
        (unknown, Seen::Listener, held(UID, GID), Ok((UID, Egid(GID), true))),
    ] {
        let does = |asked| {
            let looked = groups != NotLooked;
            assert_eq!(asked, if looked { ExactGroup } else { Exact });
            Does::Says(found.clone())
        };
        let was = before(groups, by);
        let confirmed = with(does, async |lookup| lookup.confirm(&tuple(), &was).await).await;
        assert_eq!(confirmed.map(plain), expected, "{groups:?} {by:?} {found:?}");
    }
    // What it did not find a moment ago it may find now.
    let times = std::cell::Cell::new(0);
    let does = |_| Does::Says(if times.replace(times.get() + 1) == 0 { None } else { only(UID) });
    let was = before(NotLooked, Seen::Listener);
    let confirmed = with(does, async |lookup| lookup.confirm(&tuple(), &was).await).await;
    assert_eq!(confirmed.map(plain), Ok((UID, NotLooked, true)));
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_nobodys() {
    let garbage = || Does::Sends(vec![2; 33]);
    let another = || Does::Sends([&[2u8][..], &[0; 33]].concat());
    let makers: [(&str, &dyn Fn() -> Does); 4] = [
        ("late", &|| Does::Nothing),
        ("closes", &|| Does::Closes),
        ("garbage", &garbage),
        ("another question's", &another),
    ];
    for (name, does) in makers {
        let began = Instant::now();
        let owner = with(|_| does(), async |lookup| lookup.owner(&tuple()).await).await;
        assert!(matches!(owner, Err(Unowned::Lookup(_))), "{name}: {owner:?}");
        let was = before(OwnerGroups::NotLooked, Seen::Exact);
        let confirmed = with(|_| does(), async |lookup| lookup.confirm(&tuple(), &was).await).await;
        assert!(matches!(confirmed, Err(Unowned::Lookup(_))), "{name}: {confirmed:?}");
        let group = with(|_| does(), async |lookup| lookup.with_group(&tuple(), was).await).await;
        assert!(matches!(group, Err(Unowned::Lookup(_))), "{name}: {group:?}");
        assert!(began.elapsed() <= 3 * limits::AGENT_ANSWER + Duration::from_millis(100), "{name}");
    }
    // One that never was there, and an address of no node, about which nobody is even asked.
    let lookup = lookup();
    let owner = lookup.owner(&tuple()).await;
    assert!(matches!(owner, Err(Unowned::Lookup(_))), "{owner:?}");
    let elsewhere = Tuple { server: "10.0.0.3:8888".parse().unwrap(), ..tuple() };
    let owner = with(|asked| panic!("{asked:?}"), async |lookup| lookup.owner(&elsewhere).await).await;
    assert_eq!(owner, Err(Unowned::Lookup("10.0.0.3 is no node's address".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_lost_datagram_costs_a_second() {
    let times = std::cell::Cell::new(0);
    let does = |_| if times.replace(times.get() + 1) == 0 { Does::Nothing } else { Does::Says(only(UID)) };
    let began = Instant::now();
    let owner = with(does, async |lookup| lookup.owner(&tuple()).await).await;
    assert_eq!(owner.map(plain), Ok((UID, OwnerGroups::NotLooked, false)));
    assert!(began.elapsed() >= limits::IDENT2_TRY && began.elapsed() < limits::AGENT_ANSWER);
}

#[tokio::test]
async fn nothing_is_learned_of_a_listener() {
    let does = |_| Does::Says(only(UID));
    let ids = with(does, async |lookup| {
        let mut ids = std::collections::HashSet::new();
        for _ in 0..100 {
            let owner = lookup.owner(&tuple()).await.unwrap();
            assert!(!lookup.listens_still(&tuple(), owner.listener).await);
            ids.insert(owner.listener);
        }
        assert_eq!(lookup.generation(tuple().server), 0);
        ids
    })
    .await;
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn many_are_asked_about_at_once() {
    let lookup = lookup();
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let lookup = Arc::clone(&lookup);
        asking.spawn(async move { lookup.owner(&tuple()).await.unwrap().uid });
    }
    let all = async {
        let uids = asking.join_all().await;
        assert_eq!(uids, [UID; 200]);
    };
    tokio::select! {
        () = all => {}
        () = played(Arc::clone(&lookup), |_| Does::Says(only(UID))) => unreachable!(),
    }
}
