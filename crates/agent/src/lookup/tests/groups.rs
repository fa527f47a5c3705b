//! The group rule's look, with processes of other users. Without root these tests say so and pass.

use super::other_users::{OTHER_PROJECT, Other, PROJECT, listener_of, skip, users};
use super::*;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use portreeve_model::firewall::ConnectorGroups;
use portreeve_model::wire::firewall::{Flow, Transport};
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::fchown;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn all_listeners_that_share_the_port_count() {
    let Some((alice, _)) = users() else { return };
    let sharing = |at: SocketAddrV4| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        setsockopt(&socket, sockopt::ReusePort, &true).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::from(at)).unwrap();
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
        fchown(&socket, Some(alice), None).unwrap();
        TcpListener::from(socket)
    };
    let one = sharing(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let SocketAddr::V4(at) = one.local_addr().unwrap() else { return };
    // The kernel lets only one uid share, so the second has to be made before the first is given away.
    fchown(&one, Some(0), None).unwrap();
    let two = sharing(at);
    fchown(&one, Some(alice), None).unwrap();
    let _first = Other::holds(&one, alice, PROJECT);
    let second = Other::holds(&two, alice, PROJECT);
    let lookup = Lookup::open().unwrap();
    let (_client, tuple) = connect(&one);
    let owner = lookup.owner(&tuple).unwrap();
    let start = Instant::now();
    let group = |seconds| lookup.with_group_at(&tuple, owner, start + Duration::from_secs(seconds)).groups;
    assert_eq!(group(0), OwnerGroups::Egid(PROJECT));
    drop(second);
    assert_eq!(group(10), OwnerGroups::Unknown(UnknownGroup::NoHolderSeen), "of one of the two");
    let _other = Other::holds(&two, alice, OTHER_PROJECT);
    assert_eq!(group(20), OwnerGroups::Unknown(UnknownGroup::Disagree));
}

#[test]
fn the_holders_groups() {
    let Some((alice, bob)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let lookup = Lookup::open().unwrap();
    let owner = lookup.owner(&tuple).unwrap();
    let start = Instant::now();
    let group = |seconds| lookup.with_group_at(&tuple, owner, start + Duration::from_secs(seconds)).groups;

    // Root holds it too, but root's processes are not asked.
    assert_eq!(group(0), OwnerGroups::Unknown(UnknownGroup::NoHolderSeen));
    let _bobs = Other::holds(&listener, bob, OTHER_PROJECT);
    assert_eq!(group(10), OwnerGroups::Unknown(UnknownGroup::NoHolderSeen), "another user's process");
    let first = Other::holds(&listener, alice, PROJECT);
    assert_eq!(group(20), OwnerGroups::Egid(PROJECT));
    let second = Other::holds(&listener, alice, PROJECT);
    assert_eq!(group(30), OwnerGroups::Egid(PROJECT));
    let third = Other::holds(&listener, alice, OTHER_PROJECT);
    assert_eq!(group(40), OwnerGroups::Unknown(UnknownGroup::Disagree));
    drop(third);
    assert_eq!(group(40), OwnerGroups::Unknown(UnknownGroup::Disagree), "a refusal is remembered");
    assert_eq!(group(50), OwnerGroups::Egid(PROJECT));
    drop((first, second));
    assert_eq!(group(50), OwnerGroups::Unknown(UnknownGroup::NoHolderSeen), "a gid is never remembered");
}

#[test]
fn the_connections_holder_counts_too() {
    let Some((alice, _)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let _holder = Other::holds(&listener, alice, PROJECT);
    let lookup = Lookup::open().unwrap();
    let before = lookup.with_group(&tuple, lookup.owner(&tuple).unwrap());
    assert_eq!(before.groups, OwnerGroups::Egid(PROJECT));
    let (accepted, _) = listener.accept().unwrap();
    fchown(&accepted, Some(alice), None).unwrap();
    // Accepted, but by nobody of alice's.
    let groups = lookup.confirm(&tuple, &before).unwrap().groups;
    assert_eq!(groups, OwnerGroups::Unknown(UnknownGroup::NoHolderSeen));
    // By a process of alice's with another group: what was remembered of the listener does not answer for it.
    let _acceptor = Other::holds(&accepted, alice, OTHER_PROJECT);
    let groups = lookup.confirm(&tuple, &before).unwrap().groups;
    assert_eq!(groups, OwnerGroups::Unknown(UnknownGroup::Disagree));
}

#[test]
fn the_group_is_looked_at_again_where_it_was_before() {
    let Some((alice, _)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let _holder = Other::holds(&listener, alice, PROJECT);
    let lookup = Lookup::open().unwrap();
    let before = lookup.with_group(&tuple, lookup.owner(&tuple).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    fchown(&accepted, Some(alice), None).unwrap();
    let _acceptor = Other::holds(&accepted, alice, PROJECT);
    // A stale answer is not carried on, and a look nobody asked for is not made.
    for (known, after) in [
        (before.groups, OwnerGroups::Egid(PROJECT)),
        (OwnerGroups::Egid(OTHER_PROJECT), OwnerGroups::Egid(PROJECT)),
        (OwnerGroups::Unknown(UnknownGroup::Disagree), OwnerGroups::Egid(PROJECT)),
        (OwnerGroups::NotLooked, OwnerGroups::NotLooked),
    ] {
        let known = Owner { groups: known, ..before };
        assert_eq!(lookup.confirm(&tuple, &known).unwrap().groups, after);
    }
    drop(listener);
    assert_eq!(lookup.confirm(&tuple, &before).map(|owner| owner.accepted), Ok(true));
}

#[test]
fn a_set_user_id_program_brings_no_group() {
    let Some((alice, bob)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let ids = [
        &*format!("--ruid={bob}"),
        &*format!("--euid={alice}"),
        "--regid=20002",
        "--clear-groups",
        "sleep",
        "300",
    ];
    let socket = Stdio::from(listener.as_fd().try_clone_to_owned().unwrap());
    let alone = FORKS.write().unwrap();
    let Ok(child) = Command::new("setpriv").args(ids).stdin(socket).spawn() else {
        skip("needs setpriv");
        return;
    };
    drop(alone);
    let _bobs = Other(child);
    let lookup = Lookup::open().unwrap();
    let owner = lookup.owner(&tuple).unwrap();
    let start = Instant::now();
    for second in 0..50 {
        let groups = lookup.with_group_at(&tuple, owner, start + Duration::from_secs(second * 2)).groups;
        assert!(!matches!(groups, OwnerGroups::Egid(_)), "{groups:?}");
        if groups == OwnerGroups::Unknown(UnknownGroup::Disagree) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("the process was not seen");
}

/// What a connector may reach is by groups of its user's, not by one that somebody else's program has.
#[test]
fn a_set_group_id_program_brings_no_group_to_where_it_connects() {
    let Some((alice, _)) = users() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lookup = Lookup::open().unwrap();
    for (rgid, egid) in [(PROJECT, PROJECT), (PROJECT, OTHER_PROJECT)] {
        let (client, tuple) = connect(&listener);
        fchown(&client, Some(alice), None).unwrap();
        let ids = [
            &*format!("--reuid={alice}"),
            &format!("--rgid={rgid}"),
            &format!("--egid={egid}"),
            "--groups=20007",
        ];
        let socket = Stdio::from(client.as_fd().try_clone_to_owned().unwrap());
        let alone = FORKS.write().unwrap();
        let Ok(child) = Command::new("setpriv").args(ids).args(["sleep", "300"]).stdin(socket).spawn() else {
            skip("needs setpriv");
            return;
        };
        drop(alone);
        let _alices = Other(child);
        let flow = Flow { transport: Transport::Tcp, from: tuple.client, to: tuple.server };
        let end = lookup.comes_from(&flow).unwrap();
        assert_eq!(end.uid, alice);
        let expected = if rgid == egid {
            ConnectorGroups::Gids(vec![20_007, PROJECT])
        } else {
            ConnectorGroups::Unknown(UnknownGroup::Disagree)
        };
        // Until setpriv is done.
        let is_seen = (0..500).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            let groups = lookup.connectors_groups(&end);
            let names = |gid| matches!(&groups, ConnectorGroups::Gids(gids) if gids.contains(&gid));
            assert!(!names(OTHER_PROJECT), "{groups:?}");
            groups == expected
        });
        assert!(is_seen, "{rgid} {egid}");
    }
}

#[test]
fn without_the_right_to_look_there_is_no_group() {
    let Some((alice, bob)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let _holder = Other::holds(&listener, alice, PROJECT);
    let role = format!("look {} {}", tuple.client, tuple.server);
    let said = Other::plays(&role, bob, PROJECT, Stdio::null()).says();
    assert!(said.contains(&format!("uid: {alice}")) && said.contains("Unknown(NotPermitted)"), "{said}");
}

/// A figure, not a check: `cargo test -p portreeve-agent --release -- --ignored --nocapture how_long`.
#[test]
#[ignore = "measures, with 2,000 processes"]
fn how_long_a_look_takes() {
    let Some((alice, _)) = users() else { return };
    let listener = listener_of(alice);
    let (_client, tuple) = connect(&listener);
    let lookup = Lookup::open().unwrap();
    let nothing = std::fs::File::open("/dev/null").unwrap();
    let _crowd: Vec<Other> = (0..2_000).map(|n| Other::holds(&nothing, 30_000 + n % 50, PROJECT)).collect();
    let _holders: Vec<Other> = (0..40).map(|_| Other::holds(&listener, alice, PROJECT)).collect();
    let start = Instant::now();
    let figures = |what: &str, times: usize, ask: &mut dyn FnMut(u64)| {
        let mut took: Vec<Duration> = (0..times)
            .map(|n| {
                let started = Instant::now();
                ask(n as u64);
                started.elapsed()
            })
            .collect();
        took.sort_unstable();
        println!("{what}: p50 {:?}, p99 {:?}", took[times / 2], took[times * 99 / 100]);
    };
    figures("owner", 5_000, &mut |_| assert!(lookup.owner(&tuple).is_ok()));
    let owner = lookup.owner(&tuple).unwrap();
    figures("group, first look", 50, &mut |n| {
        let owner = lookup.with_group_at(&tuple, owner, start + Duration::from_secs(10 * n));
        assert_eq!(owner.groups, OwnerGroups::Egid(PROJECT));
    });
    figures("group, remembered", 500, &mut |_| {
        let owner = lookup.with_group_at(&tuple, owner, start + Duration::from_secs(490));
        assert_eq!(owner.groups, OwnerGroups::Egid(PROJECT));
    });
}
