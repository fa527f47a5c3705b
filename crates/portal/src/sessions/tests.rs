use super::*;

fn claims(iat: i64, exp: i64) -> Claims {
    Claims {
        iss: "portreeve".into(),
        sub: UserName::parse("alice").unwrap(),
        uid: 1000,
        sid: SessionId::from_bytes([1; 16]),
        iat,
        auth_time: iat,
        exp,
        how: SignIn::Code,
        aud: Audience::Portal,
    }
}

#[test]
fn answers_of_ours_have_places_of_their_own() {
    let sessions = Sessions::new(9);
    let session = sessions.admit(&claims(100, 1000), "", &[1000], 100, 50).unwrap();
    let requests: Vec<_> = (0..3).map(|_| session.begin(3).unwrap()).collect();
    assert!(session.begin(3).is_none());
    let all = |sort, most: u32| (0..most).map(|_| session.begin_own(sort).unwrap()).collect::<Vec<_>>();
    let files = all(Sort::File, limits::FILES);
    let watchers = all(Sort::Watcher, limits::WATCHERS);
    let pages = all(Sort::Page, limits::PAGES);
    drop(requests);
    for (sort, places) in [(Sort::File, files), (Sort::Watcher, watchers), (Sort::Page, pages)] {
        assert!(session.begin_own(sort).is_none(), "{sort:?}");
        drop(places);
        assert!(session.begin_own(sort).is_some(), "{sort:?}");
    }
}

#[test]
fn idle_absolute_and_early_end() {
    let sessions = Sessions::new(9);
    let session = sessions.admit(&claims(100, 1000), "", &[1000], 100, 50).unwrap();
    assert!(session.is_live(149, 50));
    assert!(!session.is_live(150, 50), "idle for 50 s");
    session.touch(960);
    assert!(session.is_live(999, 50));
    assert!(!session.is_live(1000, 50), "use does not move the end");
    session.end();
    assert!(!session.is_live(961, 50));
}

#[test]
fn groups_are_replaced_and_the_right_ones_are_ended() {
    let sessions = Sessions::new(9);
    let of = |n: u8| Claims { sid: SessionId::from_bytes([n; 16]), uid: n.into(), ..claims(0, 100) };
    let [one, two] = [1, 2].map(|n| sessions.admit(&of(n), "ticket", &[7], 0, 50).unwrap());
    one.set_groups(&[7, 8]);
    assert_eq!((&***one.groups(), &***two.groups()), (&[7, 8][..], &[7][..]));
    two.note_ticket("younger", &Audience::Portal);
    assert_eq!((one.ticket().reveal(), two.ticket().reveal()), ("ticket", "younger"));
    // One of an application's origin is good for less, but better than none.
    let application = Audience::parse("c1-8888.example.org").unwrap();
    two.note_ticket("application's", &application);
    assert_eq!(two.ticket().reveal(), "younger");
    let claims = Claims { aud: application, ..of(3) };
    let three = sessions.admit(&claims, "application's", &[7], 0, 50).unwrap();
    assert_eq!(three.ticket().reveal(), "application's");
    sessions.admit(&of(3), "portal's", &[7], 0, 50).unwrap();
    assert_eq!(three.ticket().reveal(), "portal's");
    sessions.end_those(|claims| claims.uid == 1);
    assert!(!one.is_live(1, 50) && two.is_live(1, 50));
    assert_eq!(sessions.live(1, 50).len(), 2);
}

#[test]
fn an_old_ticket_does_not_wake_an_ended_session() {
    let sessions = Sessions::new(9);
    sessions.admit(&claims(0, 1000), "", &[], 0, 500).unwrap().end();
    let again = sessions.admit(&claims(0, 1000), "", &[], 1, 500).unwrap();
    assert!(!again.is_live(1, 500));
    // But an access token for which the broker vouched again does.
    let later = Claims { auth_time: 2, iat: 2, ..claims(0, 1000) };
    assert!(sessions.admit(&later, "", &[], 2, 500).unwrap().is_live(2, 500));
}

#[test]
fn a_full_table_takes_nobody_until_a_ticket_has_ended() {
    let sessions = Sessions::new(2);
    let of = |n: u8, exp| Claims { sid: SessionId::from_bytes([n; 16]), ..claims(0, exp) };
    let admit = |n, exp, now| sessions.admit(&of(n, exp), "", &[], now, 1000);
    assert!(admit(1, 100, 0).is_some() && admit(2, 200, 0).is_some());
    assert!(admit(3, 300, 99).is_none(), "nobody who is signed in is dropped for somebody new");
    assert!(admit(1, 100, 99).is_some(), "who is in stays in");
    assert!(admit(3, 300, 100).is_some(), "the first one's ticket has ended");
    assert!(sessions.find(&of(1, 100).sid).is_none());
    assert!(sessions.find(&of(2, 200).sid).is_some());
}

/// The `n`th session of a user, which begins at this moment.
fn of(n: usize, uid: u32, iat: i64) -> Claims {
    Claims { sid: SessionId::from_bytes((n as u128).to_be_bytes()), uid, ..claims(iat, 100_000) }
}

#[test]
fn one_user_has_so_many_and_the_one_used_longest_ago_gives_way() {
    let sessions = Sessions::new(limits::SESSIONS);
    let admit = |n, uid, now| sessions.admit(&of(n, uid, now), "", &[], now, 10_000).unwrap();
    let other = admit(9999, 2, 0);
    let own: Vec<_> =
        (0..limits::SESSIONS_OF_A_USER).map(|n| admit(n, 1, 10 + i64::try_from(n).unwrap())).collect();
    own[0].touch(5000);
    admit(1000, 1, 6000);
    assert!(own[0].is_live(6000, 10_000) && other.is_live(6000, 10_000));
    assert!(own[1].is_forgotten() && !own[1].is_live(6000, 10_000), "who holds it sees that");
    assert!(sessions.find(&own[1].id).is_none());
    // Its ticket is good still, and another one's place is taken.
    assert!(admit(1, 1, 6000).is_live(6000, 10_000) && own[2].is_forgotten());
    assert_eq!(sessions.table().by_uid[&1].len(), limits::SESSIONS_OF_A_USER);
    // What ended goes first.
    own[9].end_as_listed();
    admit(1001, 1, 6001);
    assert!(own[9].is_forgotten() && !own[3].is_forgotten());
    // But for those of which nobody else knows that they ended.
    for session in &sessions.live(6001, 10_000) {
        session.end();
    }
    assert!(sessions.admit(&of(1002, 1, 6001), "", &[], 6001, 10_000).is_none());
    assert!(sessions.admit(&of(1003, 2, 6001), "", &[], 6001, 10_000).is_some(), "nobody else suffers");
    let again = sessions.admit(&of(4, 1, 14), "", &[], 6001, 10_000).unwrap();
    assert!(!again.is_live(6001, 10_000), "an old ticket stays dead");
}

#[test]
fn who_signs_in_and_out_all_day_leaves_room_for_others() {
    let sessions = Sessions::new(1000);
    let admit = |n, uid, now| sessions.admit(&of(n, uid, now), "", &[], now, 500);
    for n in 0..5000 {
        let now = i64::try_from(n / 100).unwrap();
        admit(n, u32::try_from(n % 10).unwrap(), now).unwrap().end_as_listed();
    }
    assert!(sessions.table().by_id.len() <= 1000);
    assert!(admit(5001, 77, 60).is_some());
    // The list was had anew, and has them no more: they stay.
    let uid = |n: usize| u32::try_from(100 + n / 100).unwrap();
    let live: Vec<_> = (6000..6990).filter_map(|n| admit(n, uid(n), 61)).collect();
    sessions.end_those(|_| true);
    sessions.end_those(|_| false);
    assert!((7000..8000).filter_map(|n| admit(n, uid(n), 62)).count() < 1000);
    assert!(admit(8001, 3, 62).is_none() && live.iter().all(|session| !session.is_live(62, 500)));
    // Idle ones go, and their tickets stay dead.
    assert!(admit(8002, 3, 700).is_some());
    let again = sessions.admit(&of(6000, uid(6000), 61), "", &[], 700, 500).unwrap();
    assert!(live[0].is_forgotten() && !again.is_live(700, 500));
}

#[test]
fn places_are_counted_and_given_back() {
    let sessions = Sessions::new(9);
    let session = sessions.admit(&claims(0, 10), "", &[], 0, 50).unwrap();
    let first = session.begin(1);
    assert!(first.is_some() && session.begin(1).is_none());
    drop(first);
    assert!(session.begin(1).is_some());
    let (one, other) = (session.begin(9).unwrap(), session.begin(9).unwrap());
    assert!(one.take_foreign_place(1) && one.take_foreign_place(1), "counted once");
    assert!(!other.take_foreign_place(1));
    drop(one);
    assert!(other.take_foreign_place(1));
}
