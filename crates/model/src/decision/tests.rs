use super::*;
use crate::owner::ListenerId;

const ALICE: u32 = 1001;
const BOB: u32 = 1002;
const USERS: u32 = 100; // a login group of many
const PROJECT: u32 = 5000;
const ALICES: u32 = 6001; // alice's user-private group
const LISTED: u32 = 7000;

const BOB_IN_ALL: Visitor<'static> = Visitor { uid: BOB, groups: &[0, USERS, PROJECT, ALICES, LISTED] };
const BOB_IN_NONE: Visitor<'static> = Visitor { uid: BOB, groups: &[] };
const ROOT: Visitor<'static> = Visitor { uid: 0, groups: &[0] };
const LOGIN_USERS: Option<LoginGroup> = Some(LoginGroup { gid: USERS, private: false });
const LOGIN_PRIVATE: Option<LoginGroup> = Some(LoginGroup { gid: ALICES, private: true });

fn owner(uid: u32, groups: OwnerGroups) -> Owner {
    Owner { uid, groups, listener: ListenerId(1), accepted: true }
}

fn rules() -> GroupRules {
    GroupRules { never: vec![LISTED] }
}

fn file(uid: u32, gid: u32, mode: u32) -> ForwardStat {
    ForwardStat { uid, gid, mode }
}

use OwnerGroups::{Egid, NotLooked, Unknown};
use UnknownGroup::{Disagree, NoHolderSeen, NotPermitted};

#[test]
fn which_groups_grant() {
    for (gid, login, grants) in [
        (PROJECT, LOGIN_USERS, true),
        (PROJECT, LOGIN_PRIVATE, true),
        (ALICES, LOGIN_PRIVATE, true),
        (USERS, LOGIN_PRIVATE, true),
        (USERS, LOGIN_USERS, false),
        (PROJECT, None, false),
        (ALICES, None, false),
        (LISTED, LOGIN_USERS, false),
        (LISTED, Some(LoginGroup { gid: LISTED, private: true }), false),
        (0, LOGIN_USERS, false),
        (0, Some(LoginGroup { gid: 0, private: true }), false),
    ] {
        assert_eq!(rules().grants(gid, login), grants, "{gid} {login:?}");
    }
}

#[test]
fn direct_allows() {
    for (visitor, owner, login, why) in [
        (BOB_IN_NONE, owner(BOB, NotLooked), None, Why::Owner),
        (BOB_IN_NONE, owner(BOB, Unknown(Disagree)), None, Why::Owner),
        (ROOT, owner(0, NotLooked), None, Why::Owner),
        (BOB_IN_ALL, owner(ALICE, Egid(PROJECT)), LOGIN_USERS, Why::OwnersGroup(PROJECT)),
        (BOB_IN_ALL, owner(ALICE, Egid(PROJECT)), LOGIN_PRIVATE, Why::OwnersGroup(PROJECT)),
    ] {
        assert_eq!(judge_direct(visitor, &owner, &rules(), login), Decision::Allow(why));
    }
}

#[test]
fn direct_denies() {
    let nothing = |gid| Refusal::GroupGrantsNothing { gid };
    for (visitor, owner, login, refusal) in [
        // another user's
        (BOB_IN_ALL, owner(ALICE, Egid(8000)), LOGIN_USERS, Refusal::NotYours { owner: ALICE }),
        (BOB_IN_NONE, owner(ALICE, Egid(PROJECT)), LOGIN_USERS, Refusal::NotYours { owner: ALICE }),
        (BOB_IN_NONE, owner(ALICE, NotLooked), LOGIN_USERS, Refusal::NotYours { owner: ALICE }),
        (BOB_IN_NONE, owner(ALICE, Unknown(Disagree)), LOGIN_USERS, Refusal::NotYours { owner: ALICE }),
        // nobody is root's guest, not by a group either; and root is nobody's
        (BOB_IN_ALL, owner(0, NotLooked), LOGIN_USERS, Refusal::RootSocket),
        (BOB_IN_ALL, owner(0, Egid(0)), LOGIN_USERS, Refusal::RootSocket),
        (BOB_IN_ALL, owner(0, Egid(PROJECT)), LOGIN_USERS, Refusal::RootSocket),
        (ROOT, owner(ALICE, Egid(0)), LOGIN_USERS, nothing(0)),
        (ROOT, owner(ALICE, NotLooked), LOGIN_USERS, Refusal::NotYours { owner: ALICE }),
        // groups that everybody is in
        (BOB_IN_ALL, owner(ALICE, Egid(0)), LOGIN_USERS, nothing(0)),
        (BOB_IN_ALL, owner(ALICE, Egid(USERS)), LOGIN_USERS, nothing(USERS)),
        (BOB_IN_ALL, owner(ALICE, Egid(LISTED)), LOGIN_USERS, nothing(LISTED)),
        // alice's own, it is said; but bob is in it
        (BOB_IN_ALL, owner(ALICE, Egid(ALICES)), LOGIN_PRIVATE, nothing(ALICES)),
        (BOB_IN_ALL, owner(ALICE, Egid(PROJECT)), None, nothing(PROJECT)),
        // unknown means deny
        (BOB_IN_ALL, owner(ALICE, Unknown(Disagree)), LOGIN_USERS, Refusal::GroupUnknown(Disagree)),
        (BOB_IN_ALL, owner(ALICE, Unknown(NoHolderSeen)), LOGIN_USERS, Refusal::GroupUnknown(NoHolderSeen)),
        (BOB_IN_ALL, owner(ALICE, Unknown(NotPermitted)), LOGIN_USERS, Refusal::GroupUnknown(NotPermitted)),
        (BOB_IN_ALL, owner(ALICE, NotLooked), LOGIN_USERS, Refusal::GroupNotLooked),
    ] {
        assert_eq!(
            judge_direct(visitor, &owner, &rules(), login),
            Decision::Deny(refusal),
            "{owner:?} {login:?}"
        );
    }
}

#[test]
fn forward_allows() {
    for (visitor, file, owner, login, admin, why) in [
        (BOB_IN_NONE, file(ALICE, USERS, 0o100_755), owner(ALICE, NotLooked), None, false, Why::ForwardOwner),
        (
            BOB_IN_NONE,
            file(ALICE, USERS, 0o711),
            owner(ALICE, Unknown(Disagree)),
            None,
            true,
            Why::ForwardOwner,
        ),
        (
            BOB_IN_NONE,
            file(BOB, PROJECT, 0o777),
            owner(ALICE, Egid(PROJECT)),
            LOGIN_USERS,
            false,
            Why::ForwardGroup(PROJECT),
        ),
        (
            BOB_IN_NONE,
            file(ALICE, PROJECT, 0o770),
            owner(ALICE, Egid(PROJECT)),
            LOGIN_USERS,
            false,
            Why::ForwardGroup(PROJECT),
        ),
        (
            BOB_IN_NONE,
            file(0, PROJECT, 0o755),
            owner(ALICE, Egid(PROJECT)),
            LOGIN_USERS,
            false,
            Why::ForwardGroup(PROJECT),
        ),
        (BOB_IN_NONE, file(0, 0, 0o101_755), owner(ALICE, NotLooked), None, true, Why::AdminForward),
        (BOB_IN_NONE, file(0, 0, 0o1755), owner(0, NotLooked), None, true, Why::AdminForward),
        (ROOT, file(0, 0, 0o755), owner(0, NotLooked), None, false, Why::ForwardOwner),
    ] {
        let decision = judge_forward(visitor, &file, &owner, &rules(), login, admin);
        assert_eq!(decision, Decision::Allow(why), "{file:?} {owner:?}");
    }
}

#[test]
fn forward_denies() {
    let differs = |file_uid, owner| Refusal::ForwardOwnerDiffers { file_uid, owner };
    let nothing = |gid| Refusal::GroupGrantsNothing { gid };
    for (visitor, file, owner, login, admin, refusal) in [
        // owned by the right one, but others may write it
        (
            BOB_IN_ALL,
            file(ALICE, USERS, 0o775),
            owner(ALICE, Egid(8000)),
            LOGIN_USERS,
            false,
            Refusal::ForwardWritable,
        ),
        (
            BOB_IN_ALL,
            file(ALICE, USERS, 0o757),
            owner(ALICE, NotLooked),
            LOGIN_USERS,
            false,
            Refusal::ForwardWritable,
        ),
        (
            BOB_IN_ALL,
            file(ALICE, USERS, 0o775),
            owner(ALICE, Egid(USERS)),
            LOGIN_USERS,
            false,
            Refusal::ForwardWritable,
        ),
        (
            BOB_IN_ALL,
            file(ALICE, PROJECT, 0o777),
            owner(ALICE, Unknown(Disagree)),
            LOGIN_USERS,
            false,
            Refusal::ForwardWritable,
        ),
        // leads to somebody else's, the visitor's own included: the file decides, not the visitor's uid
        (
            BOB_IN_ALL,
            file(ALICE, 8000, 0o755),
            owner(1003, Egid(PROJECT)),
            LOGIN_USERS,
            false,
            differs(ALICE, 1003),
        ),
        (
            BOB_IN_ALL,
            file(ALICE, USERS, 0o755),
            owner(BOB, Egid(BOB)),
            LOGIN_USERS,
            false,
            differs(ALICE, BOB),
        ),
        (
            BOB_IN_ALL,
            file(BOB, 8000, 0o755),
            owner(ALICE, Egid(PROJECT)),
            LOGIN_USERS,
            false,
            differs(BOB, ALICE),
        ),
        // groups that everybody is in
        (BOB_IN_ALL, file(BOB, USERS, 0o755), owner(ALICE, Egid(USERS)), LOGIN_USERS, false, nothing(USERS)),
        (
            BOB_IN_ALL,
            file(BOB, LISTED, 0o755),
            owner(ALICE, Egid(LISTED)),
            LOGIN_USERS,
            false,
            nothing(LISTED),
        ),
        (BOB_IN_ALL, file(BOB, 0, 0o755), owner(ALICE, Egid(0)), LOGIN_USERS, false, nothing(0)),
        (BOB_IN_ALL, file(BOB, PROJECT, 0o755), owner(ALICE, Egid(PROJECT)), None, false, nothing(PROJECT)),
        // unknown means deny
        (
            BOB_IN_ALL,
            file(BOB, PROJECT, 0o755),
            owner(ALICE, Unknown(NoHolderSeen)),
            LOGIN_USERS,
            false,
            Refusal::GroupUnknown(NoHolderSeen),
        ),
        (
            BOB_IN_ALL,
            file(BOB, PROJECT, 0o755),
            owner(ALICE, NotLooked),
            LOGIN_USERS,
            false,
            Refusal::GroupNotLooked,
        ),
        (
            BOB_IN_ALL,
            file(BOB, 0, 0o755),
            owner(ALICE, Unknown(Disagree)),
            LOGIN_USERS,
            false,
            differs(BOB, ALICE),
        ),
        // root's sockets
        (BOB_IN_ALL, file(0, 0, 0o755), owner(0, NotLooked), LOGIN_USERS, false, Refusal::RootSocket),
        (
            BOB_IN_ALL,
            file(BOB, PROJECT, 0o755),
            owner(0, Egid(PROJECT)),
            LOGIN_USERS,
            false,
            Refusal::RootSocket,
        ),
        (ROOT, file(ALICE, 0, 0o755), owner(0, Egid(0)), LOGIN_USERS, false, nothing(0)),
        // the administrators' way needs all of: listed, root's, sticky, written by root alone
        (BOB_IN_ALL, file(0, 0, 0o1755), owner(0, NotLooked), LOGIN_USERS, false, Refusal::RootSocket),
        (BOB_IN_ALL, file(0, 0, 0o1755), owner(ALICE, Egid(USERS)), LOGIN_USERS, false, differs(0, ALICE)),
        (BOB_IN_ALL, file(0, 0, 0o755), owner(ALICE, Egid(USERS)), LOGIN_USERS, true, differs(0, ALICE)),
        (
            BOB_IN_ALL,
            file(BOB, 8000, 0o1755),
            owner(ALICE, Egid(USERS)),
            LOGIN_USERS,
            true,
            differs(BOB, ALICE),
        ),
        (BOB_IN_ALL, file(0, 0, 0o1775), owner(ALICE, Egid(USERS)), LOGIN_USERS, true, differs(0, ALICE)),
        (BOB_IN_ALL, file(0, 0, 0o1757), owner(0, NotLooked), LOGIN_USERS, true, Refusal::RootSocket),
    ] {
        let decision = judge_forward(visitor, &file, &owner, &rules(), login, admin);
        assert_eq!(decision, Decision::Deny(refusal), "{file:?} {owner:?} {login:?}");
    }
}

/// Over a grid of cases: whoever says "no look needed" is right whatever the look would have shown, and a judgement
/// without a needed look never allows.
#[test]
fn a_look_is_asked_for_exactly_when_it_can_matter() {
    let looks =
        [Egid(0), Egid(USERS), Egid(PROJECT), Egid(ALICES), Egid(LISTED), Egid(8000), Unknown(Disagree)];
    let uids = [0, ALICE, BOB];
    for visitor in [BOB_IN_ALL, BOB_IN_NONE, ROOT, Visitor { uid: ALICE, groups: &[USERS] }] {
        for owner_uid in uids {
            let judge =
                |groups| judge_direct(visitor, &owner(owner_uid, groups), &rules(), LOGIN_PRIVATE).is_allow();
            let needs = direct_needs_group(visitor, &owner(owner_uid, NotLooked), &rules());
            let changes = looks.iter().any(|&look| judge(look) != judge(NotLooked));
            assert_eq!(needs, changes, "{visitor:?} {owner_uid}");
            assert!(!(needs && judge(NotLooked)));

            for (file_uid, gid, mode, admin) in grid(&uids) {
                let file = file(file_uid, gid, mode);
                let judge = |groups| {
                    judge_forward(visitor, &file, &owner(owner_uid, groups), &rules(), LOGIN_PRIVATE, admin)
                        .is_allow()
                };
                let needs =
                    forward_needs_group(visitor, &file, &owner(owner_uid, NotLooked), &rules(), admin);
                let changes = looks.iter().any(|&look| judge(look) != judge(NotLooked));
                assert_eq!(needs, changes, "{visitor:?} {owner_uid} {file:?} {admin}");
                assert!(!(needs && judge(NotLooked)));
            }
        }
    }
    let looked = owner(ALICE, Unknown(NoHolderSeen));
    assert!(!direct_needs_group(BOB_IN_ALL, &looked, &rules()));
    assert!(!forward_needs_group(BOB_IN_ALL, &file(BOB, PROJECT, 0o755), &looked, &rules(), false));
}

fn grid(uids: &[u32]) -> Vec<(u32, u32, u32, bool)> {
    let mut grid = vec![];
    for &uid in uids {
        for gid in [0, USERS, PROJECT, LISTED] {
            for mode in [0o755, 0o775, 0o1755, 0o1777] {
                grid.extend([(uid, gid, mode, false), (uid, gid, mode, true)]);
            }
        }
    }
    grid
}

#[test]
fn refusals_have_a_sentence_and_a_code() {
    let refusals = [
        Refusal::NotYours { owner: 1 },
        Refusal::RootSocket,
        Refusal::GroupGrantsNothing { gid: 1 },
        Refusal::GroupUnknown(Disagree),
        Refusal::GroupNotLooked,
        Refusal::ForwardWritable,
        Refusal::ForwardOwnerDiffers { file_uid: 1, owner: 2 },
        Refusal::from(Unowned::Closing),
        Refusal::NotExecutable,
        Refusal::PrivilegedPort,
    ];
    let mut codes: Vec<_> = refusals.iter().map(Refusal::code).collect();
    for (refusal, code) in refusals.iter().zip(&codes) {
        let sentence = refusal.to_string();
        assert!(sentence.ends_with('.') && sentence.starts_with(char::is_uppercase), "{sentence}");
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), refusals.len());
    assert_eq!(
        Refusal::from(Unowned::OwnersDiffer { listener: 1, accepted: 2 }).to_string(),
        "It is not known who owns this application: the listener belongs to uid 1, but the accepted connection to uid 2."
    );
}
