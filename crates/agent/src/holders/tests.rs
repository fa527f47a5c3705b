use super::*;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn inode(socket: &impl AsFd) -> u32 {
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
    u32::try_from(file.metadata().unwrap().ino()).unwrap()
}

type Said = (u32, u32, Option<Vec<u32>>);

fn look(verdict: impl FnOnce(&mut Look)) -> Result<Said, UnknownGroup> {
    let sockets = Sockets { listener: ListenerId(1), listening: vec![1], accepted: Some(2) };
    let mut look = Look::new(1000, &sockets, false);
    verdict(&mut look);
    look.verdict().map(|holder| (holder.pid, holder.gid, holder.groups))
}

#[test]
fn only_a_full_answer_names_a_group() {
    assert_eq!(look(|_| {}), Err(UnknownGroup::NoHolderSeen));
    let full = |look: &mut Look| (look.gid, look.missing, look.pids) = (Some(7), Vec::new(), vec![3, 4]);
    assert_eq!(look(full), Ok((3, 7, None)));
    for (groups, told) in [
        (Groups::NotWanted, None),
        (Groups::Wanted, None),
        (Groups::Unread, None),
        (Groups::Shared(vec![8, 9]), Some(vec![8, 9])),
    ] {
        assert_eq!(look(|look| (full(look), look.groups = groups).1), Ok((3, 7, told)));
    }
    assert_eq!(look(|look| (look.gid, look.missing) = (Some(7), vec![2])), Err(UnknownGroup::NoHolderSeen));
    assert_eq!(look(|look| (full(look), look.hidden = true).1), Err(UnknownGroup::NotPermitted));
    assert_eq!(look(|look| (full(look), look.disagree = true).1), Err(UnknownGroup::Disagree));
    assert_eq!(look(|look| look.hidden = true), Err(UnknownGroup::NotPermitted));
}

#[test]
fn supplementary_groups_are_those_of_all_holders() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = Sockets { listener: ListenerId(1), listening: vec![inode(&listener)], accepted: None };
    let ours = Process::open(std::process::id(), me())
        .unwrap()
        .status(true)
        .unwrap()
        .supplementary_groups()
        .unwrap();
    for (before, after) in [
        (Groups::NotWanted, None),
        (Groups::Wanted, Some(ours.clone())),
        (Groups::Unread, None),
        (Groups::Shared(Vec::new()), Some(Vec::new())),
        (Groups::Shared([&ours[..], &[3_999_999_999]].concat()), Some(ours)),
    ] {
        let mut look = Look::new(me(), &sockets, true);
        look.groups = before;
        look.examine(&Process::open(std::process::id(), me()).unwrap()).unwrap();
        assert_eq!(look.verdict().unwrap().groups, after);
    }
    let (now, no_group) = (Instant::now(), ours_first());
    let holder = found_before(no_group, now).holder(me(), &sockets, true, now);
    assert!(!holder.is_ok_and(|holder| holder.groups.is_some_and(|groups| groups.contains(&no_group))));
}

/// A group that this process is in.
fn ours_first() -> u32 {
    let groups = nix::unistd::getgroups().unwrap();
    groups.first().map_or(3_999_999_999, |gid| gid.as_raw())
}

/// As if this process had been found to hold the listener. A walk over everything that runs under our uid would make
/// the outcome depend on what else does.
fn found_before(no_group: u32, now: Instant) -> Holders {
    let holders = Holders::new(no_group);
    let held = Memory::Held { uid: me(), pids: vec![std::process::id()] };
    holders.remember(Of::Listener(ListenerId(1)), now, held);
    holders
}

#[test]
fn our_own_listener_is_held_by_our_own_group() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sockets = Sockets { listener: ListenerId(1), listening: vec![inode(&listener)], accepted: None };
    let egid = nix::unistd::getegid().as_raw();
    let (now, no_group) = (Instant::now(), 3_999_999_999);
    assert_eq!(found_before(no_group, now).group(me(), &sockets, now), OwnerGroups::Egid(egid));
    // The kernel's stand-in for unknown gids is no group.
    let hidden = OwnerGroups::Unknown(UnknownGroup::NotPermitted);
    assert_eq!(found_before(egid, now).group(me(), &sockets, now), hidden);
    // What is remembered of one uid is nothing to another.
    let nobody = OwnerGroups::Unknown(UnknownGroup::NoHolderSeen);
    assert_eq!(found_before(no_group, now).group(3_999_999_999, &sockets, now), nobody);
    // Nor does it answer for another socket: nothing here has inode 1 of sockfs.
    sockets.accepted = Some(1);
    assert!(matches!(found_before(no_group, now).group(me(), &sockets, now), OwnerGroups::Unknown(_)));
}

/// Memories as if these processes had been found to hold a user's connections.
fn connected_before(now: Instant, pids: &[u32]) -> Holders {
    let holders = Holders::new(3_999_999_999);
    let held = Memory::Held { uid: me(), pids: pids.to_vec() };
    holders.remember(Of::ConnectionsOf(me()), now, held);
    holders
}

#[test]
fn a_glance_finds_a_users_next_connection_where_the_last_one_was() {
    let (now, ours) = (Instant::now(), std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connector = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let next = |inode: u32| Sockets {
        listener: ListenerId(inode.into()),
        listening: Vec::new(),
        accepted: Some(inode),
    };
    let sockets = next(inode(&connector));
    let holder = connected_before(now, &[ours]).glance(me(), &sockets, true, now).unwrap().unwrap();
    let groups = Process::open(ours, me()).unwrap().status(true).unwrap().supplementary_groups().unwrap();
    assert_eq!((holder.pid, holder.gid), (ours, nix::unistd::getegid().as_raw()));
    assert_eq!(holder.groups, Some(groups));
    let opened = connected_before(now, &[ours]).glance(me(), &sockets, false, now);
    assert_eq!(opened, None, "where its own group opens it, all that hold it are searched for");
    // One that nobody remembered holds, one of a process that has ended, another user's, one of too many processes, and
    // one that is looked for too late must be searched for.
    for (of, pids, sockets, after) in [
        (me(), vec![ours], next(1), Duration::ZERO),
        (me(), vec![u32::MAX], next(inode(&connector)), Duration::ZERO),
        (3_999_999_999, vec![ours], next(inode(&connector)), Duration::ZERO),
        (me(), vec![ours], next(inode(&connector)), HOLDERS_AGE),
    ] {
        let glance = connected_before(now, &pids).glance(of, &sockets, true, now + after);
        assert_eq!(glance, None, "{of} {pids:?} {:?} {after:?}", sockets.accepted);
    }
}

#[test]
fn a_glance_at_a_listener_is_at_all_that_share_its_address() {
    let (now, ours) = (Instant::now(), std::process::id());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = inode(&listener);
    let glance = |listening: &[u32], pids: &[u32]| {
        let sockets = Sockets { listener: ListenerId(1), listening: listening.to_vec(), accepted: None };
        let holders = Holders::new(3_999_999_999);
        let before = (holders.glance(me(), &sockets, false, now), holders.know(me(), ListenerId(1), now));
        assert_eq!(before, (None, false));
        holders.remember(Of::Listener(ListenerId(1)), now, Memory::Held { uid: me(), pids: pids.to_vec() });
        assert!(holders.know(me(), ListenerId(1), now));
        assert!(!holders.know(me() ^ 1, ListenerId(1), now), "another user's");
        holders.glance(me(), &sockets, false, now)
    };
    for listening in [&[one][..], &[one, one]] {
        assert_eq!(glance(listening, &[ours]).unwrap().unwrap().pid, ours, "{listening:?}");
    }
    assert_eq!(glance(&[one, 1], &[ours]), None, "who holds the other one is not known");
    let many: Vec<u32> =
        (0..u32::try_from(FEW).unwrap()).map(|number| u32::MAX - number).chain([ours]).collect();
    assert_eq!(glance(&[one], &many), None, "too many processes");
    assert!(glance(&[one], &many[1..]).unwrap().is_ok(), "as many as there may be");
}

#[test]
fn a_glance_is_not_at_a_process_with_many_descriptors() {
    let now = Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let more: Vec<_> = (0..300).map(|_| listener.try_clone().unwrap()).collect();
    let last = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = Sockets { listener: ListenerId(1), listening: Vec::new(), accepted: Some(inode(&last)) };
    let holders = connected_before(now, &[std::process::id()]);
    assert_eq!(holders.glance(me(), &sockets, true, now), None);
    assert!(holders.holder(me(), &sockets, true, now).is_ok(), "whoever may take the time looks at all");
    drop(more);
}

#[test]
fn a_refusal_is_told_at_a_glance() {
    let (holders, now) = (Holders::new(65_534), Instant::now());
    let sockets = Sockets { listener: ListenerId(1), listening: vec![1], accepted: None };
    let refused = Memory::Refused { uid: 5, why: UnknownGroup::Disagree };
    holders.remember(Of::Listener(ListenerId(1)), now, refused);
    assert_eq!(holders.glance(5, &sockets, false, now), Some(Err(UnknownGroup::Disagree)));
    assert!(!holders.know(5, ListenerId(1), now), "no group is to be expected");
}

#[test]
fn a_user_has_several_programs() {
    let (holders, now) = (Holders::new(65_534), Instant::now());
    let of = Of::ConnectionsOf(5);
    let found = |pid, at| {
        holders.remember(of, at, Memory::Held { uid: 5, pids: vec![pid] });
    };
    let pids = |at| match holders.recall(5, of, at) {
        Some(Memory::Held { pids, .. }) => pids,
        _ => Vec::new(),
    };
    let later = now + HOLDERS_AGE / 2;
    for (pid, at) in [(1, now), (2, later), (1, later), (3, later), (4, later), (5, later)] {
        found(pid, at);
    }
    assert_eq!(pids(later), [5, 4, 3, 1]);
    // All together are as old as the first: a program that goes on does not keep the others.
    assert_eq!(pids(now + HOLDERS_AGE), [0; 0]);
    found(6, now + HOLDERS_AGE);
    assert_eq!(pids(now + HOLDERS_AGE), [6]);
}

#[test]
fn memories_end() {
    let holders = Holders::new(65_534);
    let now = Instant::now();
    let (one, two) = (Of::Listener(ListenerId(1)), Of::Listener(ListenerId(2)));
    holders.remember(one, now, Memory::Held { uid: 5, pids: vec![1] });
    holders.remember(two, now, Memory::Refused { uid: 5, why: UnknownGroup::Disagree });
    for (listener, uid, after, kept) in [
        (one, 5, Duration::ZERO, true),
        (one, 6, Duration::ZERO, false),
        (one, 5, HOLDERS_AGE - Duration::from_millis(1), true),
        (one, 5, HOLDERS_AGE, false),
        (two, 5, REFUSAL_AGE - Duration::from_millis(1), true),
        (two, 5, REFUSAL_AGE, false),
        (Of::Listener(ListenerId(3)), 5, Duration::ZERO, false),
    ] {
        assert_eq!(
            holders.recall(uid, listener, now + after).is_some(),
            kept,
            "{listener:?} {uid} {after:?}"
        );
    }
}
