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
mod tests;
