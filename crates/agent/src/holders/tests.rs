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

fn look(verdict: impl FnOnce(&mut Look)) -> Result<u32, UnknownGroup> {
    let sockets = Sockets { listener: ListenerId(1), listening: vec![1], accepted: Some(2) };
    let mut look = Look::new(1000, &sockets);
    verdict(&mut look);
    look.verdict()
}

#[test]
fn only_a_full_answer_names_a_group() {
    assert_eq!(look(|_| {}), Err(UnknownGroup::NoHolderSeen));
    let full = |look: &mut Look| (look.gid, look.missing) = (Some(7), Vec::new());
    assert_eq!(look(full), Ok(7));
    assert_eq!(look(|look| (look.gid, look.missing) = (Some(7), vec![2])), Err(UnknownGroup::NoHolderSeen));
    assert_eq!(look(|look| (full(look), look.hidden = true).1), Err(UnknownGroup::NotPermitted));
    assert_eq!(look(|look| (full(look), look.disagree = true).1), Err(UnknownGroup::Disagree));
    assert_eq!(look(|look| look.hidden = true), Err(UnknownGroup::NotPermitted));
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
