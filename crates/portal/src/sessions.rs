//! The sessions that this portal has seen: when each was last used, and whether it is over.
//!
//! A ticket says who and until when; this table adds what a signed text can't: use since then (idle expiry), and an
//! end before time. A session that is over ends its tunnels through [`Session::is_live`], which `flows.rs` asks.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use portreeve_model::{Claims, Secret, SessionId, SignIn, UserName};

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
    /// The ticket that was shown last: whoever does something for this session wants to see it.
    ticket: Mutex<Secret>,
    last_used: AtomicI64,
    over: AtomicBool,
    in_flight: AtomicU32,
    foreign: AtomicU32,
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
        let is_used =
            || matches!(self.claims.how, SignIn::Token(_)) || now < self.last_used.load(Relaxed) + idle;
        !self.over.load(Relaxed) && now < self.claims.exp && is_used()
    }

    /// Only too long unused: another portal may know better.
    pub(crate) fn is_idle(&self, now: i64, idle: i64) -> bool {
        !self.over.load(Relaxed) && now < self.claims.exp && !self.is_live(now, idle)
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

    /// The ticket that was shown last.
    pub(crate) fn ticket(&self) -> Secret {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A ticket of this session was verified.
    pub(crate) fn note_ticket(&self, ticket: &str) {
        *self.ticket.lock().unwrap_or_else(PoisonError::into_inner) = Secret::new(ticket.to_owned());
    }

    /// Ends it in this portal.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Takes one of the session's places for a request; `None` when all are taken.
    pub(crate) fn begin(self: &Arc<Self>, most: u32) -> Option<InFlight> {
        if self.in_flight.fetch_add(1, Relaxed) >= most {
            self.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(InFlight { session: Arc::clone(self), foreign: Cell::new(false) })
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

/// All of them, but not more than so many.
pub(crate) struct Sessions {
    most: usize,
    by_id: Mutex<HashMap<SessionId, Arc<Session>>>,
}

impl Sessions {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, by_id: Mutex::default() }
    }

    /// A session that was seen before.
    pub(crate) fn find(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All that have not ended.
    pub(crate) fn live(&self, now: i64, idle: i64) -> Vec<Arc<Session>> {
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        by_id.values().filter(|session| session.is_live(now, idle)).cloned().collect()
    }

    /// Ends those of which `is_over` is true.
    pub(crate) fn end_those(&self, is_over: impl Fn(&Claims) -> bool) {
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        by_id.values().filter(|session| is_over(&session.claims)).for_each(|session| session.end());
    }

    /// The session that these claims belong to, by a ticket that was verified. `None` when the table is full of live ones.
    pub(crate) fn admit(
        &self,
        claims: &Claims,
        ticket: &str,
        groups: &[u32],
        now: i64,
    ) -> Option<Arc<Session>> {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        match by_id.get(&claims.sid) {
            // An access token keeps its session's id. The broker vouches for it anew: what ended it is over.
            Some(known) if known.over.load(Relaxed) && known.claims.auth_time < claims.auth_time => {
                by_id.remove(&claims.sid);
            }
            Some(known) => {
                // They were asked for just now.
                known.set_groups(groups);
                known.touch(claims.iat);
                return Some(Arc::clone(known));
            }
            None => {}
        }
        if by_id.len() >= self.most {
            by_id.retain(|_, session| now < session.claims.exp);
            if by_id.len() >= self.most {
                return None;
            }
        }
        let session = Arc::new(Session {
            user_header: HeaderValue::from_str(claims.sub.as_str()).ok()?,
            id: claims.sid.clone(),
            user: claims.sub.clone(),
            uid: claims.uid,
            groups: ArcSwap::from_pointee(groups.into()),
            claims: claims.clone(),
            ticket: Mutex::new(Secret::new(ticket.to_owned())),
            last_used: AtomicI64::new(claims.iat),
            over: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            foreign: AtomicU32::new(0),
        });
        by_id.insert(claims.sid.clone(), Arc::clone(&session));
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::Audience;

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
    fn idle_absolute_and_early_end() {
        let sessions = Sessions::new(9);
        let session = sessions.admit(&claims(100, 1000), "", &[1000], 100).unwrap();
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
        let [one, two] = [1, 2].map(|n| sessions.admit(&of(n), "ticket", &[7], 0).unwrap());
        one.set_groups(&[7, 8]);
        assert_eq!((&***one.groups(), &***two.groups()), (&[7, 8][..], &[7][..]));
        two.note_ticket("younger");
        assert_eq!((one.ticket().reveal(), two.ticket().reveal()), ("ticket", "younger"));
        sessions.end_those(|claims| claims.uid == 1);
        assert!(!one.is_live(1, 50) && two.is_live(1, 50));
        assert_eq!(sessions.live(1, 50).len(), 1);
    }

    #[test]
    fn an_old_ticket_does_not_wake_an_ended_session() {
        let sessions = Sessions::new(9);
        sessions.admit(&claims(0, 1000), "", &[], 0).unwrap().end();
        let again = sessions.admit(&claims(0, 1000), "", &[], 1).unwrap();
        assert!(!again.is_live(1, 500));
        // But an access token for which the broker vouched again does.
        let later = Claims { auth_time: 2, iat: 2, ..claims(0, 1000) };
        assert!(sessions.admit(&later, "", &[], 2).unwrap().is_live(2, 500));
    }

    #[test]
    fn a_full_table_takes_nobody_until_a_ticket_has_ended() {
        let sessions = Sessions::new(2);
        let of = |n: u8, exp| Claims { sid: SessionId::from_bytes([n; 16]), ..claims(0, exp) };
        let admit = |n, exp, now| sessions.admit(&of(n, exp), "", &[], now);
        assert!(admit(1, 100, 0).is_some() && admit(2, 200, 0).is_some());
        assert!(admit(3, 300, 99).is_none(), "nobody who is signed in is dropped for somebody new");
        assert!(admit(1, 100, 99).is_some(), "who is in stays in");
        assert!(admit(3, 300, 100).is_some(), "the first one's ticket has ended");
        assert!(sessions.find(&of(1, 100).sid).is_none());
        assert!(sessions.find(&of(2, 200).sid).is_some());
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let sessions = Sessions::new(9);
        let session = sessions.admit(&claims(0, 10), "", &[], 0).unwrap();
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
