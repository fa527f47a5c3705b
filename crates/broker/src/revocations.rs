//! Sessions that ended before their tickets did: signed out, or revoked. Small, and it survives a restart.
//!
//! Invariant: to end a session, or to ask about one, never waits for the file system. Writing is a step of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portreeve_model::SessionId;

use crate::private_file::{self, FileError};

/// The list, kept in one file.
pub struct Revocations {
    list: Mutex<List>,
    /// Locked while it is written.
    file: Mutex<PathBuf>,
}

struct List {
    /// Session id as text, and when its ticket ends by itself (seconds since 1970).
    ends: BTreeMap<String, i64>,
    /// Sessions that were added, and how many of these additions the file has.
    added: u64,
    kept: u64,
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
    #[error("{0} is damaged; remove it together with the ticket key beside it (everybody signs in again)")]
    Damaged(PathBuf),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Revocations {
    /// Reads the list at `path`; a file that is not there is an empty list.
    ///
    /// # Errors
    /// When the file is there but can't be read or understood.
    pub fn load(path: PathBuf, now: i64) -> Result<Self, RevocationError> {
        let mut ends: BTreeMap<String, i64> = match private_file::read(&path)? {
            None => BTreeMap::new(),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|_| RevocationError::Damaged(path.clone()))?
            }
        };
        ends.retain(|_, end| *end > now);
        Ok(Self { list: Mutex::new(List { ends, added: 0, kept: 0 }), file: Mutex::new(path) })
    }

    /// Whether this session was ended.
    #[must_use]
    pub fn contains(&self, session: &SessionId) -> bool {
        lock(&self.list).ends.contains_key(session.as_str())
    }

    /// Ends a session whose ticket would last until `ticket_ends`.
    pub fn add(&self, session: &SessionId, ticket_ends: i64, now: i64) {
        let mut list = lock(&self.list);
        list.ends.retain(|_, end| *end > now);
        list.ends.insert(session.as_str().to_owned(), ticket_ends);
        list.added += 1;
    }

    /// Writes what was added since the last time, if anything was. Blocks on the file system.
    ///
    /// # Errors
    /// When the list could not be written: the sessions are over, but would come back after a restart.
    pub fn keep(&self) -> Result<(), RevocationError> {
        let path = lock(&self.file);
        let (added, text) = {
            let list = lock(&self.list);
            if list.kept == list.added {
                return Ok(());
            }
            (list.added, serde_json::to_vec(&list.ends).unwrap_or_default())
        };
        private_file::write(&path, &text)?;
        lock(&self.list).kept = added;
        Ok(())
    }

    /// Whether the file has everything that was added.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        let list = lock(&self.list);
        list.kept == list.added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_stays_ended_after_a_restart_until_its_ticket_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        let session = SessionId::from_bytes([1; 16]);
        let list = Revocations::load(path.clone(), 0).unwrap();
        list.add(&session, 100, 0);
        assert!(list.contains(&session) && !list.are_kept());
        list.keep().unwrap();
        assert!(list.are_kept());
        assert!(Revocations::load(path.clone(), 99).unwrap().contains(&session));
        assert!(!Revocations::load(path, 100).unwrap().contains(&session));
    }

    #[test]
    fn what_could_not_be_written_is_in_force_and_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let path = state.join("revoked.json");
        let list = Revocations::load(path.clone(), 0).unwrap();
        let [first, second] = [1, 2].map(|n| SessionId::from_bytes([n; 16]));
        for session in [&first, &second] {
            list.add(session, 100, 0);
            assert!(list.keep().is_err() && !list.are_kept() && list.contains(session));
        }
        std::fs::create_dir(&state).unwrap();
        list.keep().unwrap();
        assert!(list.are_kept());
        let again = Revocations::load(path, 0).unwrap();
        assert!(again.contains(&first) && again.contains(&second));
    }

    #[test]
    fn a_damaged_list_is_refused_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        private_file::write(&path, b"{").unwrap();
        assert!(matches!(Revocations::load(path, 0), Err(RevocationError::Damaged(_))));
    }
}
