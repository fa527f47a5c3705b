//! Which sessions the broker said are over, and how fresh that is.
//!
//! Invariant: a session that was said to be over is over in this portal from then on, seen before or not. Whoever admits
//! one looks here afterwards, so that nothing falls between.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portreeve_model::wire::broker::UserEnded;
use portreeve_model::{Claims, SessionId};

use crate::limits;

/// What is known of ended sessions.
pub(super) struct Ended {
    list: Mutex<List>,
    began: Instant,
    /// When the broker spoke last, in milliseconds since `began`, and one more; 0: never.
    heard: AtomicU64,
}

/// Sessions, and users of whom all sessions up to a moment are over.
#[derive(Debug, Default)]
pub(super) struct List {
    sessions: HashSet<SessionId>,
    users: HashMap<u32, i64>,
}

impl List {
    pub(super) fn add(
        &mut self,
        sessions: impl IntoIterator<Item = SessionId>,
        users: impl IntoIterator<Item = UserEnded>,
    ) {
        self.sessions.extend(sessions);
        for UserEnded { uid, until } in users {
            let known = self.users.entry(uid).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// There is too much in it to be true, or it grew for months: to be had anew.
    pub(super) fn is_full(&self) -> bool {
        self.sessions.len() + self.users.len() > limits::ENDED_SESSIONS
    }

    /// Whether this session is over.
    pub(super) fn has(&self, claims: &Claims) -> bool {
        self.sessions.contains(&claims.sid)
            || self.users.get(&claims.uid).is_some_and(|until| claims.auth_time <= *until)
    }
}

impl Ended {
    pub(super) fn new() -> Self {
        Self { list: Mutex::default(), began: Instant::now(), heard: AtomicU64::new(0) }
    }

    /// The list, to read or to add to.
    pub(super) fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the list is what the broker has now.
    pub(super) fn note_heard(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.heard.store(now + 1, Ordering::Relaxed);
    }

    /// How long ago the broker spoke; `None`: never.
    pub(super) fn age(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed).checked_sub(1)?;
        let nanoseconds = u32::try_from(heard % 1000).unwrap_or_default() * 1_000_000;
        Some(self.began.elapsed().saturating_sub(Duration::new(heard / 1000, nanoseconds)))
    }

    /// Whether the list is young enough to answer anybody.
    pub(super) fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age < limits::BROKER_FRESH)
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{Audience, SignIn, UserName};

    use super::*;

    fn claims(n: u8, uid: u32, auth_time: i64) -> Claims {
        Claims {
            iss: "portreeve".into(),
            sub: UserName::parse("alice").unwrap(),
            uid,
            sid: SessionId::from_bytes([n; 16]),
            iat: auth_time,
            auth_time,
            exp: 1000,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    #[test]
    fn sessions_and_all_of_a_users_up_to_a_moment() {
        let mut list = List::default();
        list.add([claims(1, 1, 0).sid], [UserEnded { uid: 2, until: 50 }, UserEnded { uid: 2, until: 40 }]);
        for (claims, over) in [
            (claims(1, 1, 0), true),
            (claims(2, 1, 0), false),
            (claims(3, 2, 50), true),
            (claims(3, 2, 51), false),
        ] {
            assert_eq!(list.has(&claims), over, "{claims:?}");
        }
        list.add(
            (0..=limits::ENDED_SESSIONS).map(|n| {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
                SessionId::from_bytes(bytes)
            }),
            [],
        );
        assert!(list.is_full());
    }

    #[test]
    fn a_list_that_was_never_had_is_not_fresh() {
        let ended = Ended::new();
        assert!(!ended.is_fresh() && ended.age().is_none());
        ended.note_heard();
        assert!(ended.is_fresh());
    }
}
