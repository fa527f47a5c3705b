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
    let ours = Process::open(std::process::id(), me()).unwrap().supplementary_groups().unwrap();
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
    holders.remember(ListenerId(1), now, Memory::Pids { uid: me(), pids: vec![std::process::id()] });
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

#[test]
fn memories_end() {
    let holders = Holders::new(65_534);
    let now = Instant::now();
    let (one, two) = (ListenerId(1), ListenerId(2));
    holders.remember(one, now, Memory::Pids { uid: 5, pids: vec![1] });
    holders.remember(two, now, Memory::Refused { uid: 5, why: UnknownGroup::Disagree });
    for (listener, uid, after, kept) in [
        (one, 5, Duration::ZERO, true),
        (one, 6, Duration::ZERO, false),
        (one, 5, HOLDERS_AGE - Duration::from_millis(1), true),
        (one, 5, HOLDERS_AGE, false),
        (two, 5, REFUSAL_AGE - Duration::from_millis(1), true),
        (two, 5, REFUSAL_AGE, false),
        (ListenerId(3), 5, Duration::ZERO, false),
    ] {
        assert_eq!(
            holders.recall(uid, listener, now + after).is_some(),
            kept,
            "{listener:?} {uid} {after:?}"
        );
    }
}
