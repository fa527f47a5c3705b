use super::*;
use crate::channel::Identity;
use crate::channel::tls::client_config_for;
use crate::firewall::tests::{alone, identity, settings, shared, skip};
use portreeve_model::wire::firewall::Groups;
use portreeve_model::wire::{self, firewall::Transport};
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_node_may_ask_about_flows_to_itself_alone() {
    use Transport::{Tcp, Udp};
    let [own, c2, c3, gone] = [(); 4].map(|()| identity());
    let nodes: [(&str, AgentKey, &[&str]); 2] =
        [("c2", c2.public(), &["203.0.113.2", "2001:db8::2"]), ("c3", c3.public(), &["203.0.113.3"])];
    let shared = shared(settings(&own, &nodes));
    let desk = Desk::listen(0, &shared).unwrap();
    let Some(here) = portreeve_sys::local_addresses().unwrap().into_iter().find(|ip| !ip.is_loopback())
    else {
        return skip("needs an address that is not the loopback interface's");
    };
    let here = here.to_string();
    let may = |transport, from: &str, to: &str, key| {
        let end = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 4000);
        desk.may_ask(&Flow { transport, from: end(from), to: end(to) }, key)
    };
    let many = ["224.0.0.251", "255.255.255.255", "ff02::fb"];
    for asker in [&c2, &c3] {
        let theirs = |to: &str| (to == "203.0.113.3") == (asker.public() == c3.public());
        for transport in [Tcp, Udp] {
            for to in ["203.0.113.2", "2001:db8::2", "::ffff:203.0.113.2", "203.0.113.3"] {
                let may = may(transport, &here, to, asker.public());
                assert_eq!(may.is_ok(), theirs(to), "{to}: {may:?}");
            }
            // No node's, and this node's.
            for to in ["203.0.113.9", "2001:db8::9", "127.0.0.1", "0.0.0.0", &here] {
                let why = may(transport, &here, to, asker.public()).unwrap_err();
                assert!(why.contains("is not an address of c"), "{to}: {why}");
            }
        }
        for to in many {
            assert_eq!(may(Udp, &here, to, asker.public()), Ok(()), "{to}");
            assert!(may(Tcp, &here, to, asker.public()).is_err(), "{to}");
        }
    }
    for from in
        ["203.0.113.9", "203.0.113.2", "127.0.0.1", "127.0.1.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "::"]
    {
        for (transport, to) in [(Tcp, "203.0.113.2"), (Udp, "203.0.113.2"), (Udp, many[0])] {
            let why = may(transport, from, to, c2.public()).unwrap_err();
            assert!(why.ends_with("is no address of this node"), "{from}: {why}");
        }
    }
    // A key that the map does not have any more, on a connection that it has still.
    shared.settings.store(Arc::new(settings(&own, &nodes[1..])));
    for (key, to) in [(&gone, "203.0.113.2"), (&c2, "203.0.113.2"), (&c2, many[0])] {
        let why = may(Udp, &here, to, key.public()).unwrap_err();
        assert_eq!(why, "your key is not in the node map any more");
    }
    assert_eq!(may(Udp, &here, "203.0.113.3", c3.public()), Ok(()));
}

/// What is answered to whoever connects from there and has this key.
async fn answer(own: &Identity, desk: AgentKey, from: &str, at: SocketAddr) -> io::Result<Answer> {
    answer_with(own, desk, from, at, Groups::No).await
}

async fn answer_with(
    own: &Identity,
    desk: AgentKey,
    from: &str,
    at: SocketAddr,
    groups: Groups,
) -> io::Result<Answer> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    let stream = socket.connect(at).await?;
    let flow = Flow { transport: Transport::Tcp, from: at, to: stream.local_addr()? };
    let tls = client_config_for(PROTOCOL, own, vec![desk]).unwrap();
    let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    stream.write_all(&wire::encode(&Ask { id: 7, flow, groups }).unwrap()).await?;
    stream.flush().await?;
    FrameReader::new(stream).next(PATIENCE, PATIENCE).await.map_err(io::Error::other)
}

#[test]
fn who_is_not_a_node_or_has_all_its_places_is_not_heard() {
    let ours = ["10.9.0.1/32", "10.9.0.2/32", "10.9.0.3/32", "10.9.0.4/32", "10.9.0.9/32"];
    alone(&ours, || {
        let [own, c2, c3, c4, stranger] = [(); 5].map(|()| identity());
        let nodes: [(&str, AgentKey, &[&str]); 3] = [
            ("c2", c2.public(), &["10.9.0.2"]),
            ("c3", c3.public(), &["10.9.0.3"]),
            ("c4", c4.public(), &["10.9.0.4"]),
        ];
        let desk = Desk::listen(0, &shared(settings(&own, &nodes))).unwrap();
        let bound = desk.socket.local_addr().unwrap();
        let at = SocketAddr::from(([10, 9, 0, 1], bound.port()));
        // As if so many were there already: of c3's users, who have no key, and of c4.
        let v4 = Ipv4Addr::new(10, 9, 0, 3);
        let users = if bound.is_ipv6() { v4.to_ipv6_mapped().into() } else { v4.into() };
        let mut strangers: Vec<_> = (0..limits::STRANGERS_OF_ONE)
            .map(|_| desk.strangers.take(users, limits::STRANGERS_OF_ONE).unwrap())
            .collect();
        let mut of_c4: Vec<_> = (0..limits::OF_ONE_NODE)
            .map(|_| desk.connections.take(c4.public(), limits::OF_ONE_NODE).unwrap())
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(desk.serve().unwrap());
            let desk = own.public();
            for (from, key, heard) in [
                ("10.9.0.2:600", &c2, true),
                ("10.9.0.2:1024", &c2, false),
                ("10.9.0.2:40000", &c2, false),
                ("10.9.0.9:601", &c2, false),
                ("10.9.0.2:602", &stranger, false),
                ("10.9.0.3:603", &c3, false),
                ("10.9.0.4:604", &c4, false),
                ("10.9.0.2:1023", &c2, true),
            ] {
                let answer = answer(key, desk, from, at).await;
                assert_eq!(answer.is_ok(), heard, "{from}: {answer:?}");
            }
            // With one place less taken there is one.
            drop((strangers.pop(), of_c4.pop()));
            for (from, key) in [("10.9.0.3:605", &c3), ("10.9.0.4:606", &c4)] {
                let answer = answer(key, desk, from, at).await;
                assert!(answer.is_ok(), "{from}: {answer:?}");
            }
        });
    });
}

#[test]
fn with_the_last_place_taken_nobody_is_heard_until_one_is_given_back() {
    alone(&["10.9.0.1/32", "10.9.0.2/32", "10.9.0.3/32"], || {
        let [own, c2, c3] = [(); 3].map(|()| identity());
        let nodes: [(&str, AgentKey, &[&str]); 2] =
            [("c2", c2.public(), &["10.9.0.2"]), ("c3", c3.public(), &["10.9.0.3"])];
        let desk = Desk::listen(0, &shared(settings(&own, &nodes))).unwrap();
        let at = SocketAddr::from(([10, 9, 0, 1], desk.socket.local_addr().unwrap().port()));
        let places =
            [(Arc::clone(&desk.unknown), limits::STRANGERS), (Arc::clone(&desk.all), limits::CONNECTIONS)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(desk.serve().unwrap());
            let desk = own.public();
            let mut port = 600;
            for (places, most) in places {
                // What was heard before has given its places back.
                let whole = timeout(PATIENCE, Arc::clone(&places).acquire_many_owned(most as u32)).await;
                let mut taken = whole.unwrap().unwrap();
                for heard in [false, true] {
                    for (from, key) in [("10.9.0.2", &c2), ("10.9.0.3", &c3)] {
                        port += 1;
                        let answer = answer(key, desk, &format!("{from}:{port}"), at).await;
                        assert_eq!(answer.is_ok(), heard, "{from}, of {most}: {answer:?}");
                        if heard {
                            // The one that was just heard is ending, and may still have its place.
                            let again = Arc::clone(&places).acquire_owned();
                            drop(timeout(PATIENCE, again).await.unwrap());
                        }
                    }
                    drop(taken.split(1));
                }
            }
        });
    });
}

/// Many searches are for others' groups: they must not keep a user from their own ports.
#[test]
fn with_all_searches_taken_the_uid_is_told_all_the_same() {
    alone(&["10.9.0.1/32", "10.9.0.2/32"], || {
        let [own, c2] = [(); 2].map(|()| identity());
        let nodes: [(&str, AgentKey, &[&str]); 1] = [("c2", c2.public(), &["10.9.0.2"])];
        let desk = Desk::listen(0, &shared(settings(&own, &nodes))).unwrap();
        let at = SocketAddr::from(([10, 9, 0, 1], desk.socket.local_addr().unwrap().port()));
        let mut searches: Vec<_> = (0..limits::LOOKS).map(|_| desk.looks.place().unwrap()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(desk.serve().unwrap());
            let uid = nix::unistd::geteuid().as_raw();
            let own = own.public();
            for (port, groups) in [(600, Groups::No), (601, Groups::AtAGlance)] {
                let told = answer_with(&c2, own, &format!("10.9.0.2:{port}"), at, groups).await.unwrap();
                assert_eq!(
                    told.found,
                    Ok(Connector { uid, groups: ConnectorGroups::NotLooked }),
                    "{groups:?}"
                );
            }
            let refused = answer_with(&c2, own, "10.9.0.2:602", at, Groups::Yes).await.unwrap();
            assert!(matches!(refused.found, Err(NoConnector::Lookup(_))), "{refused:?}");
            searches.pop();
            let told = answer_with(&c2, own, "10.9.0.2:603", at, Groups::Yes).await.unwrap();
            assert!(told.found.is_ok_and(|found| found.groups != ConnectorGroups::NotLooked));
        });
    });
}
