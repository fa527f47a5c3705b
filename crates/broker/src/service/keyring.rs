//! The keys that tickets are signed and verified with: one that signs, and those before it, until their last ticket ends.
//!
//! Invariants: a key that no longer signs has no private half any more; when a key is dropped every ticket that it signed
//! is dead; what a key may have signed is on disk before it is signed, so that a restart knows how long to keep it.

use std::path::PathBuf;

use data_encoding::BASE64;
use portreeve_model::Claims;
use portreeve_model::wire::broker::PublicKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::private_file::{self, FileError};
use crate::tickets::{TicketError, TicketKey};
use crate::verifier::{NotAKey, Verifier};

/// Notes on how long tickets live are made so far ahead, in seconds: one file write a day, not one a ticket.
const AHEAD: i64 = 24 * 3600;

/// A clock that goes back by less than this costs nobody the session, in seconds.
const CLOCK_MENDED: i64 = 2 * 24 * 3600;

/// The keys, kept in one file.
pub(super) struct Keyring {
    path: PathBuf,
    signer: TicketKey,
    verifier: Verifier,
    kept: Kept,
}

/// What the file holds. Times are unix seconds.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    signs: Signing,
    /// The youngest first.
    before: Vec<Old>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signing {
    /// PKCS#8 in base64.
    key: Zeroizing<String>,
    made: i64,
    /// No ticket of its lasts longer.
    until: i64,
    /// The longest that a ticket of its was to last, in seconds.
    longest: i64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Old {
    id: String,
    /// Base64url.
    key: String,
    /// Its last ticket ends then.
    until: i64,
    /// As it was while it signed.
    longest: i64,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Reading or writing failed.
    #[error("the ticket keys can't be kept")]
    File(#[from] FileError),
    /// The file is damaged.
    #[error("{0} is damaged; remove it to have a new key made (everybody signs in again)")]
    Damaged(PathBuf),
    /// The cryptographic library failed.
    #[error(transparent)]
    Key(#[from] TicketError),
}

/// What changed with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Another key signs from now on; the old ones verify.
    Rotated,
    /// Old keys went away: their last tickets have ended.
    Expired,
}

fn verifier(signer: &TicketKey, before: &[Old]) -> Result<Verifier, NotAKey> {
    let mut keys = vec![signer.public_key()];
    keys.extend(before.iter().map(|old| PublicKey { id: old.id.clone(), key: old.key.clone() }));
    Verifier::of_keys(&keys)
}

fn new_signing(now: i64) -> Result<(TicketKey, Signing), TicketError> {
    let (signer, pkcs8) = TicketKey::generate()?;
    let pkcs8 = Zeroizing::new(pkcs8);
    let key = Zeroizing::new(BASE64.encode(&pkcs8));
    Ok((signer, Signing { key, made: now, until: now, longest: 0 }))
}

impl Keyring {
    /// The keys kept at `path`; one is made if there is none.
    ///
    /// # Errors
    /// When they can't be read, written or understood.
    pub(super) fn load(path: PathBuf, now: i64) -> Result<Self, KeyringError> {
        let damaged = || KeyringError::Damaged(path.clone());
        let Some(bytes) = private_file::read(&path)?.map(Zeroizing::new) else {
            let (signer, signs) = new_signing(now)?;
            let kept = Kept { signs, before: Vec::new() };
            let verifier = verifier(&signer, &[]).map_err(|NotAKey| damaged())?;
            let made = Self { path, signer, verifier, kept };
            made.keep(&made.kept)?;
            return Ok(made);
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let pkcs8 = Zeroizing::new(BASE64.decode(kept.signs.key.as_bytes()).map_err(|_| damaged())?);
        let signer = TicketKey::from_pkcs8(&pkcs8).ok_or_else(damaged)?;
        let verifier = verifier(&signer, &kept.before).map_err(|NotAKey| damaged())?;
        Ok(Self { path, signer, verifier, kept })
    }

    /// A ticket that says `claims`.
    ///
    /// # Errors
    /// When the library refuses, or how long it lasts can't be noted.
    pub(super) fn sign(&mut self, claims: &Claims, now: i64) -> Result<String, KeyringError> {
        let lasts = claims.exp.saturating_sub(now);
        if claims.exp > self.kept.signs.until || lasts > self.kept.signs.longest {
            let mut kept = self.kept.clone();
            kept.signs.until = kept.signs.until.max(claims.exp.saturating_add(AHEAD));
            kept.signs.longest = kept.signs.longest.max(lasts);
            self.keep(&kept)?;
            self.kept = kept;
        }
        Ok(self.signer.sign(claims)?)
    }

    /// Knows all keys.
    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Every key that tickets may be signed with, the one that signs first.
    pub(super) fn public(&self) -> Vec<PublicKey> {
        let before = self.kept.before.iter();
        let mut keys = vec![self.signer.public_key()];
        keys.extend(before.map(|old| PublicKey { id: old.id.clone(), key: old.key.clone() }));
        keys
    }

    /// No live ticket ends later.
    pub(super) fn tickets_end(&self) -> i64 {
        self.kept.before.iter().map(|old| old.until).fold(self.kept.signs.until, i64::max)
    }

    /// Takes another key into use when the one that signs is `period` seconds old (a clock that went back counts as well),
    /// and forgets those whose tickets have all ended.
    ///
    /// # Errors
    /// When that can't be kept: then nothing has changed.
    pub(super) fn turn(&mut self, period: i64, now: i64) -> Result<Option<Change>, KeyringError> {
        let age = now.saturating_sub(self.kept.signs.made);
        if age < period && age > -CLOCK_MENDED {
            let mut kept = self.kept.clone();
            kept.before.retain(|old| now < old.until);
            if kept.before.len() == self.kept.before.len() {
                return Ok(None);
            }
            self.take(None, kept)?;
            return Ok(Some(Change::Expired));
        }
        let (signer, signs) = new_signing(now)?;
        let PublicKey { id, key } = self.signer.public_key();
        let Signing { until, longest, .. } = self.kept.signs;
        let mut before = vec![Old { id, key, until, longest }];
        before.extend(self.kept.before.iter().cloned());
        before.retain(|old| now < old.until);
        self.take(Some(signer), Kept { signs, before })?;
        Ok(Some(Change::Rotated))
    }

    /// Whether a clock that was ahead signed a ticket that lasts too long, or one whose end was forgotten before it came
    /// (`forgot`). Then the keys must be dropped.
    pub(super) fn clock_was_ahead(&self, forgot: i64, now: i64) -> bool {
        let Signing { until, longest, .. } = self.kept.signs;
        let mut keys = self.kept.before.iter().map(|old| (old.until, old.longest)).chain([(until, longest)]);
        forgot > now
            || keys.any(|(until, longest)| until > now.saturating_add(longest + AHEAD + CLOCK_MENDED))
    }

    /// Drops every key: no ticket that was signed before is good any more.
    ///
    /// # Errors
    /// When that can't be kept: then nothing has changed.
    pub(super) fn drop_all(&mut self, now: i64) -> Result<(), KeyringError> {
        let (signer, signs) = new_signing(now)?;
        self.take(Some(signer), Kept { signs, before: Vec::new() })
    }

    fn take(&mut self, signer: Option<TicketKey>, kept: Kept) -> Result<(), KeyringError> {
        let verifier = verifier(signer.as_ref().unwrap_or(&self.signer), &kept.before)
            .map_err(|NotAKey| KeyringError::Damaged(self.path.clone()))?;
        self.keep(&kept)?;
        if let Some(signer) = signer {
            self.signer = signer;
        }
        self.verifier = verifier;
        self.kept = kept;
        Ok(())
    }

    fn keep(&self, kept: &Kept) -> Result<(), KeyringError> {
        let text = Zeroizing::new(serde_json::to_vec(kept).unwrap_or_default());
        Ok(private_file::write(&self.path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use portreeve_model::{Audience, SessionId, SignIn, UserName};

    use super::*;

    const DAY: i64 = 24 * 3600;
    const PERIOD: i64 = 30 * DAY;

    fn claims(iat: i64, exp: i64) -> Claims {
        Claims {
            iss: "portreeve".to_owned(),
            sub: UserName::parse("alice").unwrap(),
            uid: 1000,
            sid: SessionId::from_bytes([1; 16]),
            iat,
            auth_time: iat,
            exp,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    fn load(dir: &Path, now: i64) -> Keyring {
        Keyring::load(dir.join("keys.json"), now).unwrap()
    }

    fn is_good(keys: &Keyring, ticket: &str, now: i64) -> bool {
        keys.verifier().verify(ticket, "portal", now).is_some()
    }

    #[test]
    fn an_old_key_verifies_until_its_last_ticket_ends_and_signs_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = load(dir.path(), 0);
        assert_eq!(keys.turn(PERIOD, PERIOD - 1).unwrap(), None);
        let old = keys.sign(&claims(PERIOD - 1, PERIOD + DAY), PERIOD - 1).unwrap();
        let old_id = keys.public()[0].id.clone();
        assert_eq!(keys.turn(PERIOD, PERIOD).unwrap(), Some(Change::Rotated));
        let new = keys.sign(&claims(PERIOD, PERIOD + DAY), PERIOD).unwrap();
        assert_eq!(keys.public()[1].id, old_id);
        for mut keys in [keys, load(dir.path(), PERIOD)] {
            assert!(is_good(&keys, &old, PERIOD + 1) && is_good(&keys, &new, PERIOD + 1));
            // The ticket has ended, and with it the use of its key.
            assert_eq!(keys.turn(PERIOD, PERIOD + 2 * DAY + 1).unwrap(), Some(Change::Expired));
            assert_eq!(keys.public().len(), 1);
            assert!(!is_good(&keys, &old, PERIOD + 1) && is_good(&keys, &new, PERIOD + 1));
        }
        let text = std::fs::read_to_string(dir.path().join("keys.json")).unwrap();
        assert!(!text.contains(&old_id), "nothing of the old key is left");
    }

    #[test]
    fn the_file_is_private_and_holds_one_private_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = load(dir.path(), 0);
        keys.sign(&claims(0, DAY), 0).unwrap();
        let before = keys.kept.signs.key.clone();
        keys.turn(PERIOD, PERIOD).unwrap();
        keys.turn(PERIOD, 2 * PERIOD).unwrap();
        let path = dir.path().join("keys.json");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains(before.as_str()));
    }

    #[test]
    fn how_long_a_key_is_needed_is_noted_before_it_signs() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = load(dir.path(), 0);
        keys.sign(&claims(0, 9 * DAY), 0).unwrap();
        assert!(load(dir.path(), 0).tickets_end() >= 9 * DAY);
        // A shorter one needs no new note.
        std::fs::remove_file(dir.path().join("keys.json")).unwrap();
        keys.sign(&claims(1, DAY), 1).unwrap();
        assert!(!dir.path().join("keys.json").exists());
        // Without the note nothing is signed.
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(keys.sign(&claims(2, 99 * DAY), 2).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_a_little_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let now = 1000 * DAY;
        let mut keys = load(dir.path(), now);
        keys.sign(&claims(now, now + DAY), now).unwrap();
        for back in [0, 60, DAY] {
            assert_eq!(keys.turn(PERIOD, now - back).unwrap(), None);
            assert!(!keys.clock_was_ahead(0, now - back), "{back}");
        }
    }

    #[test]
    fn a_clock_that_was_years_ahead_leaves_no_ticket_of_those_years() {
        let dir = tempfile::tempdir().unwrap();
        let (now, ahead) = (1000 * DAY, 9000 * DAY);
        let mut keys = load(dir.path(), now);
        let good = keys.sign(&claims(now, now + DAY), now).unwrap();
        assert_eq!(keys.turn(PERIOD, ahead).unwrap(), Some(Change::Rotated));
        let lasting = keys.sign(&claims(ahead, ahead + DAY), ahead).unwrap();
        let mut keys = load(dir.path(), now);
        assert!(keys.clock_was_ahead(0, now));
        keys.drop_all(now).unwrap();
        assert!(!keys.clock_was_ahead(0, now));
        assert!(!is_good(&keys, &good, now) && !is_good(&keys, &lasting, ahead));
        // Or the end of a ticket was forgotten before it came.
        assert!(keys.clock_was_ahead(now + 1, now));
    }

    #[test]
    fn a_shorter_lifetime_is_no_sign_of_a_wrong_clock() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = load(dir.path(), 0);
        keys.sign(&claims(0, 90 * DAY), 0).unwrap();
        keys.turn(PERIOD, PERIOD).unwrap();
        keys.sign(&claims(PERIOD, PERIOD + DAY), PERIOD).unwrap();
        assert!(!keys.clock_was_ahead(0, PERIOD));
    }

    #[test]
    fn a_damaged_file_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        load(dir.path(), 0);
        let good = std::fs::read_to_string(&path).unwrap();
        for damaged in ["".to_owned(), "{}".to_owned(), good.replacen("\"key\":\"", "\"key\":\"AA", 1)] {
            private_file::write(&path, damaged.as_bytes()).unwrap();
            assert!(matches!(Keyring::load(path.clone(), 0), Err(KeyringError::Damaged(_))));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keyring::load(path, 0), Err(KeyringError::File(FileError::Exposed(_)))));
    }
}
