//! With real sockets on the loopback interface. What needs other uids is in `other_users` and `groups`.

use super::*;
use portreeve_sys::Family;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::RwLock;

mod groups;
mod growth;
pub(crate) mod other_users;

/// Written to while a process is started: until it execs, the child holds every socket of every test, so that none
/// really closes. Tests that rely on closing read it.
pub(crate) static FORKS: RwLock<()> = RwLock::new(());

fn connect(listener: &TcpListener) -> (TcpStream, Tuple) {
    let mut at = listener.local_addr().unwrap();
    if at.ip().is_unspecified() {
        at.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let client = TcpStream::connect(at).unwrap();
    let tuple = Tuple { client: client.local_addr().unwrap(), server: client.peer_addr().unwrap() };
    (client, tuple)
}

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[test]
fn our_own_listener_before_and_after_accept() {
    let lookup = Lookup::open().unwrap();
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let (_client, tuple) = connect(&listener);
        let before = lookup.owner(&tuple).unwrap();
        assert_eq!(
            (before.uid, before.groups, before.accepted),
            (me(), OwnerGroups::NotLooked, false),
            "{address}"
        );
        assert_eq!(lookup.confirm(&tuple, &before), Err(Unowned::NotAccepted), "{address}");

        let _accepted = listener.accept().unwrap();
        let after = Owner { accepted: true, ..before };
        assert_eq!(lookup.owner(&tuple), Ok(after), "{address}");
        assert_eq!(lookup.confirm(&tuple, &before), Ok(after), "{address}");
    }
}

#[test]
fn mapped_addresses_mean_the_same_connection() {
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("[::]:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let mapped = |end: SocketAddr| match end.ip() {
        std::net::IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), end.port())),
        std::net::IpAddr::V6(_) => end,
    };
    let asked = Tuple { client: mapped(tuple.client), server: mapped(tuple.server) };
    assert_eq!(lookup.owner(&asked), lookup.owner(&tuple));
    assert!(lookup.owner(&asked).is_ok());
}

#[test]
fn two_addresses_with_the_same_port_are_two_listeners() {
    let _quiet = FORKS.read().unwrap();
    let lookup = Lookup::open().unwrap();
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let two = TcpListener::bind(("127.0.0.2", one.local_addr().unwrap().port())).unwrap();
    let (_c1, first) = connect(&one);
    let (_c2, second) = connect(&two);
    assert_ne!(lookup.owner(&first).unwrap().listener, lookup.owner(&second).unwrap().listener);
    drop(two);
    lookup.owner(&first).unwrap();
    assert_eq!(lookup.owner(&second), Err(Unowned::NoSuchConnection));
}

#[test]
fn what_is_no_evidence() {
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    for (asked, why) in [
        // Only the listener fits: as under address translation.
        (Tuple { client: parse("127.0.0.7:9"), ..tuple }, Unowned::ListenerOnly),
        (Tuple { client: parse("0.0.0.0:0"), ..tuple }, Unowned::ListenerOnly),
        // Nothing fits.
        (
            Tuple { server: SocketAddr::new(parse("127.0.0.9:1").ip(), tuple.server.port()), ..tuple },
            Unowned::NoSuchConnection,
        ),
        // The client's end is a socket with an owner, but nobody listened there.
        (Tuple { client: tuple.server, server: tuple.client }, Unowned::NoListener),
    ] {
        assert_eq!(lookup.owner(&asked), Err(why), "{asked:?}");
    }
    let mixed = Tuple { client: parse("[::1]:9"), ..tuple };
    assert!(matches!(lookup.owner(&mixed), Err(Unowned::Lookup(_))));
}

#[test]
fn a_connection_that_is_ending_has_no_owner() {
    let _quiet = FORKS.read().unwrap();
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let before = lookup.owner(&tuple).unwrap();
    drop(listener.accept().unwrap());
    assert_eq!(lookup.owner(&tuple), Err(Unowned::Closing));
    assert_eq!(lookup.confirm(&tuple, &before), Err(Unowned::Closing));
    assert_eq!(lookup.with_group(&tuple, before).groups, OwnerGroups::Unknown(UnknownGroup::NoHolderSeen));

    // The client gave up before anybody accepted.
    let (client, tuple) = connect(&listener);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(lookup.owner(&tuple), Err(Unowned::Closing));
}

#[test]
fn half_closed_but_held_still_has_its_owner() {
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (client, tuple) = connect(&listener);
    let (accepted, _) = listener.accept().unwrap();
    let before = lookup.owner(&tuple).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(lookup.owner(&tuple), Ok(before));
    accepted.shutdown(Shutdown::Write).unwrap();
    // Both directions have ended; the kernel goes to TIME_WAIT at once or keeps the socket until it is closed.
    assert!(matches!(
        lookup.owner(&tuple),
        Ok(_) | Err(Unowned::Closing | Unowned::NoSuchConnection | Unowned::ListenerOnly)
    ));
}

#[test]
fn a_listener_that_closed_after_accept() {
    let _quiet = FORKS.read().unwrap();
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let before = lookup.owner(&tuple).unwrap();
    let (_accepted, _) = listener.accept().unwrap();
    drop(listener);
    // Asked for the first time, the two can't agree; the known owner may go on.
    assert_eq!(lookup.owner(&tuple), Err(Unowned::NoListener));
    assert_eq!(lookup.confirm(&tuple, &before), Ok(Owner { accepted: true, ..before }));
}

#[test]
fn a_listener_that_closed_before_accept_takes_the_connection_with_it() {
    let _quiet = FORKS.read().unwrap();
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let before = lookup.owner(&tuple).unwrap();
    drop(listener);
    let again = TcpListener::bind(tuple.server).unwrap();
    for asked in [lookup.owner(&tuple), lookup.confirm(&tuple, &before)] {
        assert!(matches!(asked, Err(Unowned::NoSuchConnection | Unowned::ListenerOnly)), "{asked:?}");
    }
    let (_client, tuple) = connect(&again);
    assert_ne!(lookup.owner(&tuple).unwrap().listener, before.listener);
}

#[test]
fn the_known_owner_must_be_the_same() {
    let lookup = Lookup::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_client, tuple) = connect(&listener);
    let _accepted = listener.accept().unwrap();
    let known = lookup.owner(&tuple).unwrap();
    let other = Owner { uid: me() + 1, ..known };
    assert!(matches!(lookup.confirm(&tuple, &other), Err(Unowned::OwnersDiffer { .. })));
    assert_eq!(lookup.with_group(&tuple, other).groups, OwnerGroups::Unknown(UnknownGroup::NoHolderSeen));
}

#[test]
fn the_stage_by_state_and_inode() {
    use TcpState::*;
    let tuple = Tuple { client: "10.0.0.1:9".parse().unwrap(), server: "10.0.0.2:80".parse().unwrap() };
    let record = |state, inode| SocketRecord {
        state,
        family: Family::V4,
        local: tuple.server,
        remote: tuple.client,
        uid: 0,
        inode,
        cookie: 1,
        v6only: None,
        cgroup: None,
        silent_for: None,
    };
    for (state, without, with) in [
        (Established, Ok(Stage::Waiting), Ok(Stage::Accepted)),
        (SynRecv, Ok(Stage::Waiting), Ok(Stage::Accepted)),
        (CloseWait, Err(Unowned::Closing), Ok(Stage::Accepted)),
        (FinWait1, Err(Unowned::Closing), Ok(Stage::Accepted)),
        (FinWait2, Err(Unowned::Closing), Ok(Stage::Accepted)),
        (Closing, Err(Unowned::Closing), Ok(Stage::Accepted)),
        (LastAck, Err(Unowned::Closing), Ok(Stage::Accepted)),
        (TimeWait, Err(Unowned::Closing), Err(Unowned::Closing)),
        (Close, Err(Unowned::Closing), Err(Unowned::Closing)),
        (SynSent, Err(Unowned::NoSuchConnection), Err(Unowned::NoSuchConnection)),
        (Listen, Err(Unowned::ListenerOnly), Err(Unowned::ListenerOnly)),
        (Other(99), Err(Unowned::NoSuchConnection), Err(Unowned::NoSuchConnection)),
    ] {
        assert_eq!(stage(&record(state, 0), &tuple), without, "{state:?}");
        assert_eq!(stage(&record(state, 7), &tuple), with, "{state:?}");
    }
    let elsewhere = SocketRecord { remote: "10.0.0.1:10".parse().unwrap(), ..record(Established, 7) };
    assert_eq!(stage(&elsewhere, &tuple), Err(Unowned::NoSuchConnection));
    let elsewhere = SocketRecord { local: "10.0.0.3:80".parse().unwrap(), ..record(Established, 7) };
    assert_eq!(stage(&elsewhere, &tuple), Err(Unowned::NoSuchConnection));
}
