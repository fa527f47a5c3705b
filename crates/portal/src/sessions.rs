//! The sessions that this portal has seen: when each was last used, and whether it is over.
//!
//! A ticket says who and until when; this table adds what a signed text can't: use since then (idle expiry), and an
//! end before time. A session that is over ends its tunnels through [`Session::is_live`], which `flows.rs` asks.

mod memory;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use portreeve_model::{Audience, Claims, Secret, SessionId, SignIn, UserName};

use self::memory::Memory;
use crate::limits;

/// One sign-in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) user: UserName,
    /// The same as a header value for applications.
    pub(crate) user_header: HeaderValue,
    pub(crate) uid: u32,
    /// Effective and supplementary groups, from the system, never from the ticket.
    groups: ArcSwap<Box<[u32]>>,
    /// The claims it was admitted with; renewal starts from them.
    pub(crate) claims: Claims,
    /// The ticket that was shown last, and whether it is for the portal's own origin.
    ticket: Mutex<(Secret, bool)>,
    last_used: AtomicI64,
    over: AtomicBool,
    /// It is on the list of ended sessions, which is asked about each that is admitted.
    listed: AtomicBool,
    /// It is in the table no more.
    forgotten: AtomicBool,
    in_flight: AtomicU32,
    foreign: AtomicU32,
    pages: AtomicU32,
    files: AtomicU32,
    watchers: AtomicU32,
    memory: Memory,
}

/// What the portal's own answers are about. Each sort has places of its own: what lasts takes none away from the pages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sort {
    /// A page.
    Page,
    /// A file, or a question about files.
    File,
    /// Somebody is told when something changes.
    Watcher,
}

impl Session {
    /// Notes that the person is there.
    pub(crate) fn touch(&self, now: i64) {
        // Concurrent requests write nearly the same second; a store only when it changed keeps the line shared.
        if self.last_used.load(Relaxed) < now {
            self.last_used.store(now, Relaxed);
        }
    }

    /// Neither ended, nor past its end, nor idle for too long. `idle` in seconds.
    /// A program's token is left alone for as long as its owner likes.
    pub(crate) fn is_live(&self, now: i64, idle: i64) -> bool {
        !self.over.load(Relaxed) && now < self.claims.exp && !self.is_unused(now, idle)
    }

    fn is_unused(&self, now: i64, idle: i64) -> bool {
        !matches!(self.claims.how, SignIn::Token(_)) && now >= self.last_used.load(Relaxed) + idle
    }

    /// Whether nothing but the ticket itself, or the list of ended sessions, is needed to know that it is over. An idle one's
    /// tickets are all at least as old as its last use, from which a new one begins to count.
    fn is_dispensable(&self, now: i64, idle: i64) -> bool {
        now >= self.claims.exp || self.listed.load(Relaxed) || self.is_unused(now, idle)
    }

    /// Only too long unused: another portal may know better.
    pub(crate) fn is_idle(&self, now: i64, idle: i64) -> bool {
        !self.over.load(Relaxed) && now < self.claims.exp && self.is_unused(now, idle)
    }

    /// The groups as they were read last.
    pub(crate) fn groups(&self) -> Guard<Arc<Box<[u32]>>> {
        self.groups.load()
    }

    /// They were read again.
    pub(crate) fn set_groups(&self, groups: &[u32]) {
        if ***self.groups.load() != *groups {
            self.groups.store(Arc::new(groups.into()));
        }
    }

    /// A ticket that whoever does something for this session wants to see: the one that was shown last at the portal's own
    /// origin, or else at an application's, which is good for less.
    pub(crate) fn ticket(&self) -> Secret {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// A ticket of this session was verified, for this origin.
    pub(crate) fn note_ticket(&self, ticket: &str, audience: &Audience) {
        let mut known = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        let is_portals = *audience == Audience::Portal;
        if is_portals || !known.1 {
            *known = (Secret::new(ticket.to_owned()), is_portals);
        }
    }

    /// Ends it in this portal.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// The same, and the list of ended sessions has it.
    pub(crate) fn end_as_listed(&self) {
        self.listed.store(true, Relaxed);
        self.end();
    }

    /// Whether the table has let it go: what was remembered of its tickets is to be found out anew.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Relaxed)
    }

    /// Takes one of the session's places for a request; `None` when all are taken.
    pub(crate) fn begin(self: &Arc<Self>, most: u32) -> Option<InFlight> {
        if self.in_flight.fetch_add(1, Relaxed) >= most {
            self.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(InFlight { session: Arc::clone(self), foreign: Cell::new(false) })
    }

    /// Takes one of the session's places for answers of ours, which applications never take away.
    pub(crate) fn begin_own(self: &Arc<Self>, sort: Sort) -> Option<OwnInFlight> {
        let (taken, most) = self.own_places(sort);
        let place = OwnInFlight { session: Arc::clone(self), sort };
        (taken.fetch_add(1, Relaxed) < most).then_some(place)
    }

    /// How many are taken, and how many there are.
    fn own_places(&self, sort: Sort) -> (&AtomicU32, u32) {
        match sort {
            Sort::Page => (&self.pages, limits::PAGES),
            Sort::File => (&self.files, limits::FILES),
            Sort::Watcher => (&self.watchers, limits::WATCHERS),
        }
    }
}

/// An answer of ours that is being made, or is on its way. Counted against its session until dropped.
#[derive(Debug)]
pub(crate) struct OwnInFlight {
    session: Arc<Session>,
    sort: Sort,
}

impl Drop for OwnInFlight {
    fn drop(&mut self) {
        self.session.own_places(self.sort).0.fetch_sub(1, Relaxed);
    }
}

/// A request, answer or tunnel that is going on. Counted against its session until dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    session: Arc<Session>,
    foreign: Cell<bool>,
}

impl InFlight {
    /// Notes that it goes to somebody else's application; false when as many as may do so already.
    pub(crate) fn take_foreign_place(&self, most: u32) -> bool {
        if !self.foreign.get() {
            if self.session.foreign.fetch_add(1, Relaxed) >= most.max(1) {
                self.session.foreign.fetch_sub(1, Relaxed);
                return false;
            }
            self.foreign.set(true);
        }
        true
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.foreign.get() {
            self.session.foreign.fetch_sub(1, Relaxed);
        }
        self.session.in_flight.fetch_sub(1, Relaxed);
    }
}

/// All of them, but not more than so many, and not more than so many of one user.
pub(crate) struct Sessions {
    most: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<SessionId, Arc<Session>>,
    by_uid: HashMap<u32, HashSet<SessionId>>,
    /// When it was last looked for those that need not be remembered (unix seconds).
    tidied: i64,
}

impl Sessions {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that was seen before.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.table().by_id.get(id).cloned()
    }

    /// All that have not ended.
    pub(crate) fn live(&self, now: i64, idle: i64) -> Vec<Arc<Session>> {
        self.table().by_id.values().filter(|session| session.is_live(now, idle)).cloned().collect()
    }

    /// Takes over the list of ended sessions: ends those of which `is_over` is true.
    pub(crate) fn end_those(&self, is_over: impl Fn(&Claims) -> bool) {
        for session in self.table().by_id.values() {
            match is_over(&session.claims) {
                true => session.end_as_listed(),
                false => session.listed.store(false, Relaxed),
            }
        }
    }

    /// The session that these claims belong to, by a ticket that was verified. `None` when there is no room for it. `idle` in
    /// seconds.
    pub(crate) fn admit(
        &self,
        claims: &Claims,
        ticket: &str,
        groups: &[u32],
        now: i64,
        idle: i64,
    ) -> Option<Arc<Session>> {
        let mut table = self.table();
        match table.by_id.get(&claims.sid) {
            // An access token keeps its session's id. The broker vouches for it anew: what ended it is over.
            Some(known) if known.over.load(Relaxed) && known.claims.auth_time < claims.auth_time => {
                table.forget(&claims.sid);
            }
            Some(known) => {
                // They were asked for just now.
                known.set_groups(groups);
                known.touch(claims.iat);
                known.note_ticket(ticket, &claims.aud);
                return Some(Arc::clone(known));
            }
            None => {}
        }
        if !table.make_room(claims.uid, self.most, now, idle) {
            return None;
        }
        let session = Arc::new(Session {
            user_header: HeaderValue::from_str(claims.sub.as_str()).ok()?,
            id: claims.sid.clone(),
            user: claims.sub.clone(),
            uid: claims.uid,
            groups: ArcSwap::from_pointee(groups.into()),
            claims: claims.clone(),
            ticket: Mutex::new((Secret::new(ticket.to_owned()), claims.aud == Audience::Portal)),
            last_used: AtomicI64::new(claims.iat),
            over: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            foreign: AtomicU32::new(0),
            pages: AtomicU32::new(0),
            files: AtomicU32::new(0),
            watchers: AtomicU32::new(0),
            memory: Memory::default(),
        });
        table.by_uid.entry(claims.uid).or_default().insert(claims.sid.clone());
        table.by_id.insert(claims.sid.clone(), Arc::clone(&session));
        Some(session)
    }
}

impl Table {
    /// Room for one more of this user's. Of their own, the one that was used longest ago gives way; of another's only what need
    /// not be remembered.
    fn make_room(&mut self, uid: u32, most: usize, now: i64, idle: i64) -> bool {
        if let Some(own) = self.by_uid.get(&uid).filter(|own| own.len() >= limits::SESSIONS_OF_A_USER) {
            let own: Vec<Arc<Session>> = own.iter().filter_map(|id| self.by_id.get(id)).cloned().collect();
            let mut gone = own.iter().filter(|session| session.is_dispensable(now, idle)).peekable();
            if gone.peek().is_some() {
                gone.for_each(|session| self.forget(&session.id));
            } else {
                // One that ended, of which only this portal knows that, stays: its ticket would be good again.
                let live = own.iter().filter(|session| !session.over.load(Relaxed));
                match live.min_by_key(|session| session.last_used.load(Relaxed)) {
                    Some(oldest) => self.forget(&oldest.id),
                    None => return false,
                }
            }
        }
        if self.by_id.len() >= most && self.tidied != now {
            self.tidied = now;
            let gone = self.by_id.values().filter(|session| session.is_dispensable(now, idle));
            let gone: Vec<SessionId> = gone.map(|session| session.id.clone()).collect();
            gone.iter().for_each(|id| self.forget(id));
        }
        self.by_id.len() < most
    }

    /// Whoever holds it still sees that it is over. A ticket that is good for all that makes a new one.
    fn forget(&mut self, id: &SessionId) {
        let Some(session) = self.by_id.remove(id) else { return };
        session.end();
        session.forgotten.store(true, Relaxed);
        if let Some(own) = self.by_uid.get_mut(&session.uid) {
            own.remove(id);
            if own.is_empty() {
                self.by_uid.remove(&session.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
