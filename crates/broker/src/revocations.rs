//! Sessions that ended before their tickets did: signed out, or revoked, one by one or all of a user's. Small, and it
//! survives a restart.
//!
//! Invariants: to end a session, or to ask about one, never waits for the file system where that matters ([`Revocations::add`]):
//! writing is a step of its own. What is over stays over. An entry is forgotten only long after the ticket would have ended by itself, and
//! [`Revocations::forgot`] says up to when: a clock that goes back behind that could wake a session.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portreeve_model::wire::broker::UserEnded;
use portreeve_model::{Claims, SessionId};
use serde::{Deserialize, Serialize};

use crate::private_file::{self, FileError};

/// For so long after its ticket's own end an entry is kept, in seconds: a clock that is put right by less wakes nobody.
pub const KEPT_LONGER: i64 = 2 * 24 * 3600;

/// Entries of one user. Whoever signs out more often has all sessions up to now ended by one entry.
const MOST_OF_A_USER: usize = 256;

/// Entries of all users, none of them longer than 80 bytes in the file, which so stays below what is read again. Past that
/// the user with the most has all sessions up to now ended by one entry.
const MOST: usize = 48 * 1024;

/// The list, kept in one file.
pub struct Revocations {
    path: PathBuf,
    kept: Kept,
    /// Changes so far, and how many of them the file has.
    changes: u64,
    written: u64,
}

/// What the file does not have yet: to be written while nobody has to wait for it.
pub struct Unwritten {
    path: PathBuf,
    text: Vec<u8>,
    changes: u64,
}

impl Unwritten {
    /// Writes it. Blocks on the file system.
    ///
    /// # Errors
    /// When the list could not be written: the sessions are over, but would come back after a restart.
    pub fn write(&self) -> Result<(), RevocationError> {
        Ok(private_file::write(&self.path, &self.text)?)
    }
}

/// What the file holds. Times are unix seconds.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// By session id.
    sessions: BTreeMap<String, Ended>,
    /// By uid.
    users: BTreeMap<u32, AllEnded>,
    /// The latest end of a ticket whose entry was forgotten.
    forgot: i64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ended {
    /// When its ticket ends by itself.
    ends: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllEnded {
    /// Sessions that began then or earlier are over.
    until: i64,
    /// When the last of their tickets ends by itself.
    ends: i64,
}

/// Why the list could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Reading or writing failed.
    #[error("the list of ended sessions can't be kept")]
    File(#[from] FileError),
    /// Nothing was heard of the file system.
    #[error("the file system that holds the list of ended sessions does not answer")]
    Hanging,
    /// The file is damaged. It is not ignored: a session that was ended would come back.
    #[error("{0} is damaged; remove it together with the ticket keys beside it (everybody signs in again)")]
    Damaged(PathBuf),
}

impl Kept {
    /// Of the file's bytes; also of the first form that such a file had: a session's id and its ticket's end.
    fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().or_else(|| {
            let sessions: BTreeMap<String, i64> = serde_json::from_slice(bytes).ok()?;
            let sessions = sessions.into_iter().map(|(id, ends)| (id, Ended { ends, uid: None })).collect();
            Some(Self { sessions, ..Self::default() })
        })
    }

    fn forget_old(&mut self, now: i64) {
        let mut forgot = self.forgot;
        let mut keep = |ends: i64| {
            let keep = ends.saturating_add(KEPT_LONGER) > now;
            if !keep {
                forgot = forgot.max(ends);
            }
            keep
        };
        self.sessions.retain(|_, ended| keep(ended.ends));
        self.users.retain(|_, all| keep(all.ends));
        self.forgot = forgot;
    }
}

impl Revocations {
    /// Reads the list at `path`; a file that is not there is an empty list.
    ///
    /// # Errors
    /// When the file is there but can't be read or understood.
    pub fn load(path: PathBuf, now: i64) -> Result<Self, RevocationError> {
        let mut kept = match private_file::read(&path)? {
            None => Kept::default(),
            Some(bytes) => Kept::parse(&bytes).ok_or_else(|| RevocationError::Damaged(path.clone()))?,
        };
        kept.forget_old(now);
        Ok(Self { path, kept, changes: 0, written: 0 })
    }

    /// Whether this session was ended by itself. See [`Revocations::is_over`] for a session whose user is known.
    #[must_use]
    pub fn contains(&self, session: &SessionId) -> bool {
        self.kept.sessions.contains_key(session.as_str())
    }

    /// Whether the session of these claims is over.
    #[must_use]
    pub fn is_over(&self, claims: &Claims) -> bool {
        self.contains(&claims.sid) || claims.auth_time <= self.user_until(claims.uid)
    }

    /// All sessions of this user that began then or earlier are over (unix seconds).
    #[must_use]
    pub fn user_until(&self, uid: u32) -> i64 {
        self.kept.users.get(&uid).map_or(i64::MIN, |all| all.until)
    }

    /// This user's sessions that are over each by itself: at most 256.
    #[must_use]
    pub fn sessions_of(&self, uid: u32) -> Vec<SessionId> {
        let own = self.kept.sessions.iter().filter(|(_, ended)| ended.uid == Some(uid));
        own.filter_map(|(id, _)| SessionId::parse(id).ok()).collect()
    }

    /// The latest end of a ticket whose entry is not kept any more.
    #[must_use]
    pub fn forgot(&self) -> i64 {
        self.kept.forgot
    }

    /// Everything that is over and whose tickets have not ended by themselves.
    #[must_use]
    pub fn all(&self, now: i64) -> (Vec<SessionId>, Vec<UserEnded>) {
        let live = self.kept.sessions.iter().filter(|(_, ended)| ended.ends > now);
        let sessions = live.filter_map(|(id, _)| SessionId::parse(id).ok()).collect();
        let users = self.kept.users.iter().filter(|(_, all)| all.ends > now);
        let users = users.map(|(uid, all)| UserEnded { uid: *uid, until: all.until }).collect();
        (sessions, users)
    }

    /// Ends a session whose ticket would last until `ticket_ends`. Does not write.
    pub fn add(&mut self, session: &SessionId, ticket_ends: i64, now: i64) {
        self.kept.sessions.insert(session.as_str().to_owned(), Ended { ends: ticket_ends, uid: None });
        self.changed(now);
    }

    /// What was added since the last time, if anything was.
    #[must_use]
    pub fn unwritten(&self) -> Option<Unwritten> {
        (self.written != self.changes).then(|| Unwritten {
            path: self.path.clone(),
            text: serde_json::to_vec(&self.kept).unwrap_or_default(),
            changes: self.changes,
        })
    }

    /// Notes what was written.
    pub fn note_written(&mut self, written: &Unwritten) {
        self.written = self.written.max(written.changes);
    }

    /// Ends a session, for one of many users, and writes. In force at once, also when writing fails. Returns what else
    /// ended by it: one who signs out all too often gets one entry for all sessions up to now.
    ///
    /// # Errors
    /// As [`Unwritten::write`].
    pub fn end_session(
        &mut self,
        claims: &Claims,
        now: i64,
    ) -> (Option<UserEnded>, Result<(), RevocationError>) {
        let ended = Ended { ends: claims.exp, uid: Some(claims.uid) };
        let of_user = self.kept.sessions.values().filter(|other| other.uid == ended.uid);
        if of_user.count() < MOST_OF_A_USER {
            self.kept.sessions.insert(claims.sid.as_str().to_owned(), ended);
            return (None, self.keep(now));
        }
        let last =
            self.kept.sessions.values().filter(|other| other.uid == ended.uid).map(|other| other.ends).max();
        let ends = last.unwrap_or(claims.exp).max(claims.exp);
        let (all, kept) = self.end_user(claims.uid, now.max(claims.auth_time), ends, now);
        (Some(all), kept)
    }

    /// Whose sessions must all be ended before another entry is made, since the list is full. `None` when there is room, or
    /// nobody has entries that one could stand for.
    #[must_use]
    pub fn crowded(&self) -> Option<u32> {
        if self.kept.sessions.len() + self.kept.users.len() < MOST {
            return None;
        }
        let mut of_user: BTreeMap<u32, usize> = BTreeMap::new();
        for uid in self.kept.sessions.values().filter_map(|ended| ended.uid) {
            *of_user.entry(uid).or_default() += 1;
        }
        // Their one entry is made now, or is there already.
        let frees = |uid: &u32, entries: usize| entries > usize::from(!self.kept.users.contains_key(uid));
        let most = of_user.into_iter().filter(|(uid, entries)| frees(uid, *entries));
        most.max_by_key(|(_, entries)| *entries).map(|(uid, _)| uid)
    }

    /// Ends all sessions of this user that began at `until` or earlier, known or not; the last of their tickets ends by
    /// itself at `tickets_end`. What began after the last such end may have an `auth_time` that lies ahead of the clock; it is
    /// ended as well, whether or not anybody has seen it since a restart.
    ///
    /// # Errors
    /// As [`Unwritten::write`].
    pub fn end_user(
        &mut self,
        uid: u32,
        until: i64,
        tickets_end: i64,
        now: i64,
    ) -> (UserEnded, Result<(), RevocationError>) {
        let before = self.kept.users.get(&uid).copied();
        let until = before.map_or(until, |all| all.until.saturating_add(1).max(until));
        let ends = before.map_or(tickets_end, |all| all.ends.max(tickets_end));
        self.kept.users.insert(uid, AllEnded { until, ends });
        // All of them began before now, and are covered.
        self.kept.sessions.retain(|_, ended| ended.uid != Some(uid));
        (UserEnded { uid, until }, self.keep(now))
    }

    /// Forgets everything. For whoever dropped every key at the same time: then no ticket is left to be over.
    ///
    /// # Errors
    /// As [`Unwritten::write`].
    pub fn clear(&mut self, now: i64) -> Result<(), RevocationError> {
        self.kept = Kept::default();
        self.keep(now)
    }

    /// Writes what could not be written before, if anything. Says whether there was anything.
    ///
    /// # Errors
    /// As [`Unwritten::write`].
    pub fn write_again(&mut self) -> Result<bool, RevocationError> {
        let Some(unwritten) = self.unwritten() else { return Ok(false) };
        unwritten.write()?;
        self.note_written(&unwritten);
        Ok(true)
    }

    fn changed(&mut self, now: i64) {
        self.kept.forget_old(now);
        self.changes += 1;
    }

    fn keep(&mut self, now: i64) -> Result<(), RevocationError> {
        self.changed(now);
        self.write_again().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{Audience, SignIn, UserName};

    use super::*;

    fn claims(number: u128, auth_time: i64, exp: i64) -> Claims {
        Claims {
            iss: "portreeve".to_owned(),
            sub: UserName::parse("alice").unwrap(),
            uid: 1000,
            sid: SessionId::from_bytes(number.to_be_bytes()),
            iat: auth_time,
            auth_time,
            exp,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    #[test]
    fn an_ended_session_stays_ended_after_a_restart_until_its_ticket_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        let session = SessionId::from_bytes([1; 16]);
        let mut list = Revocations::load(path.clone(), 0).unwrap();
        list.add(&session, 100, 0);
        assert!(list.contains(&session));
        let unwritten = list.unwritten().unwrap();
        unwritten.write().unwrap();
        list.note_written(&unwritten);
        assert!(list.unwritten().is_none());
        assert!(Revocations::load(path.clone(), 99).unwrap().contains(&session));
        assert_eq!(Revocations::load(path.clone(), 99).unwrap().all(99).0, std::slice::from_ref(&session));
        assert!(Revocations::load(path.clone(), 100).unwrap().all(100).0.is_empty());
        let late = Revocations::load(path, 100 + KEPT_LONGER).unwrap();
        assert_eq!((late.contains(&session), late.forgot()), (false, 100));
    }

    #[test]
    fn what_could_not_be_written_is_in_force_and_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let path = state.join("revoked.json");
        let mut list = Revocations::load(path.clone(), 0).unwrap();
        let [first, second] = [1, 2].map(|n| SessionId::from_bytes([n; 16]));
        for session in [&first, &second] {
            list.add(session, 100, 0);
            assert!(list.unwritten().unwrap().write().is_err() && list.contains(session));
        }
        let early = list.unwritten().unwrap();
        list.add(&SessionId::from_bytes([3; 16]), 100, 0);
        list.note_written(&early);
        std::fs::create_dir(&state).unwrap();
        list.unwritten().unwrap().write().unwrap();
        let again = Revocations::load(path, 0).unwrap();
        assert!(again.contains(&first) && again.contains(&second));
    }

    #[test]
    fn all_of_a_users_sessions_end_known_or_not_and_new_ones_live() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        let mut list = Revocations::load(path.clone(), 0).unwrap();
        list.end_session(&claims(1, 10, 1000), 20).1.unwrap();
        let (ended, kept) = list.end_user(1000, 50, 1000, 50);
        kept.unwrap();
        assert_eq!(ended, UserEnded { uid: 1000, until: 50 });
        for list in [list, Revocations::load(path, 60).unwrap()] {
            assert!(list.is_over(&claims(1, 10, 1000)));
            assert!(list.is_over(&claims(2, 50, 1000)));
            assert!(!list.is_over(&claims(3, 51, 1000)));
            assert!(!list.is_over(&Claims { uid: 1001, ..claims(2, 50, 1000) }));
            assert_eq!(list.all(60).1, [UserEnded { uid: 1000, until: 50 }]);
        }
    }

    #[test]
    fn a_second_end_never_takes_the_first_one_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = Revocations::load(dir.path().join("revoked.json"), 0).unwrap();
        list.end_user(1000, 500, 9000, 500).1.unwrap();
        // The clock went back.
        list.end_user(1000, 100, 8000, 100).1.unwrap();
        assert_eq!(list.user_until(1000), 501, "what began since, too");
        assert_eq!(list.kept.users[&1000].ends, 9000);
    }

    #[test]
    fn one_user_does_not_fill_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = Revocations::load(dir.path().join("revoked.json"), 0).unwrap();
        for number in 0..3 * MOST_OF_A_USER as u128 {
            list.end_session(&claims(number, 10, 1000), 20).1.unwrap();
            assert!(list.is_over(&claims(number, 10, 1000)));
        }
        assert!(list.kept.sessions.len() <= MOST_OF_A_USER);
        assert!(list.is_over(&claims(0, 10, 1000)) && !list.is_over(&claims(0, 30, 1000)));
    }

    #[test]
    fn the_first_form_of_the_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        let session = SessionId::from_bytes([1; 16]);
        private_file::write(&path, format!(r#"{{"{session}":100}}"#).as_bytes()).unwrap();
        assert!(Revocations::load(path.clone(), 50).unwrap().contains(&session));
        private_file::write(&path, b"{}").unwrap();
        assert!(!Revocations::load(path, 50).unwrap().contains(&session));
    }

    #[test]
    fn a_list_of_very_many_stays_one_that_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        let mut list = Revocations::load(path.clone(), 0).unwrap();
        let (users, each, ends) = (100_u32, 1000_u128, i64::MAX - KEPT_LONGER - 1);
        for n in 0..u128::from(users) * each {
            let uid = u32::MAX - u32::try_from(n / each).unwrap();
            // Without writing each time.
            let ended = Ended { ends, uid: Some(uid) };
            let id = SessionId::from_bytes((n << 64).to_be_bytes());
            while let Some(crowded) = list.crowded() {
                assert!(list.kept.sessions.len() + list.kept.users.len() == MOST);
                list.kept.sessions.retain(|_, ended| ended.uid != Some(crowded));
                list.kept.users.insert(crowded, AllEnded { until: i64::MAX, ends });
            }
            list.kept.sessions.insert(id.as_str().to_owned(), ended);
        }
        assert!(list.kept.sessions.len() + list.kept.users.len() <= MOST);
        assert!(list.kept.users.len() > 50, "of so many the entries became one");
        list.changed(0);
        assert!(list.write_again().unwrap());
        let read = Revocations::load(path, 0).unwrap();
        assert_eq!(read.kept.sessions.len(), list.kept.sessions.len());
        for n in 0..users {
            let uid = u32::MAX - n;
            assert!(read.user_until(uid) == i64::MAX || read.sessions_of(uid).len() == 1000, "{uid}");
        }
    }

    #[test]
    fn a_full_list_of_one_entry_for_each_user_ends_nobodys_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let mut list = Revocations::load(dir.path().join("revoked.json"), 0).unwrap();
        for n in 0..u32::try_from(MOST).unwrap() {
            let id = SessionId::from_bytes((u128::from(n) << 64).to_be_bytes());
            list.kept.sessions.insert(id.as_str().to_owned(), Ended { ends: 100, uid: Some(n) });
        }
        assert_eq!(list.crowded(), None);
        list.kept.users.insert(7, AllEnded { until: 1, ends: 100 });
        assert_eq!(list.crowded(), Some(7));
    }

    #[test]
    fn a_damaged_list_is_refused_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        for damaged in [&b"{"[..], b"", b"[]", br#"{"sessions":{},"users":{}}"#] {
            private_file::write(&path, damaged).unwrap();
            assert!(matches!(Revocations::load(path.clone(), 0), Err(RevocationError::Damaged(_))));
        }
    }
}
