//! Sessions that ended before their tickets did: signed out, or revoked. Small, and it survives a restart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portreeve_model::SessionId;

use crate::private_file::{self, FileError};

/// The list, kept in one file.
pub struct Revocations {
    path: PathBuf,
    /// Session id as text, and when its ticket ends by itself (seconds since 1970).
    ends: BTreeMap<String, i64>,
}

/// Why the list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Reading or writing failed.
    #[error("the list of ended sessions can't be kept")]
    File(#[from] FileError),
    /// The file is damaged. It is not ignored: a session that was ended would come back.
    #[error("{0} is damaged; remove it together with the ticket key beside it (everybody signs in again)")]
    Damaged(PathBuf),
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
        Ok(Self { path, ends })
    }

    /// Whether this session was ended.
    #[must_use]
    pub fn contains(&self, session: &SessionId) -> bool {
        self.ends.contains_key(session.as_str())
    }

    /// Ends a session whose ticket would last until `ticket_ends`. In force at once, also when writing fails.
    ///
    /// # Errors
    /// When the list could not be written: the session is over, but would come back after a restart.
    pub fn add(&mut self, session: &SessionId, ticket_ends: i64, now: i64) -> Result<(), RevocationError> {
        self.ends.retain(|_, end| *end > now);
        self.ends.insert(session.as_str().to_owned(), ticket_ends);
        let text = serde_json::to_vec(&self.ends).unwrap_or_default();
        Ok(private_file::write(&self.path, &text)?)
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
        let mut list = Revocations::load(path.clone(), 0).unwrap();
        list.add(&session, 100, 0).unwrap();
        assert!(list.contains(&session));
        assert!(Revocations::load(path.clone(), 99).unwrap().contains(&session));
        assert!(!Revocations::load(path, 100).unwrap().contains(&session));
    }

    #[test]
    fn a_damaged_list_is_refused_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked.json");
        private_file::write(&path, b"{").unwrap();
        assert!(matches!(Revocations::load(path, 0), Err(RevocationError::Damaged(_))));
    }
}
