//! Marks: what a browser keeps to show that somebody signed in with it under a name before. It signs nobody in; it only
//! saves its person from waiting for others' wrong tries.
//!
//! Invariant: a mark is a token of a kind of its own (`typ`), under a key of its own, and good for one name.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use portreeve_model::Secret;
use serde::{Deserialize, Serialize};

use super::random::random;
use super::throttle::NameKey;
use crate::private_file::{self, FileError};
use crate::verifier::CLOCK_SKEW;

/// How long a mark is good, in seconds: 90 days.
const LIFETIME: i64 = 90 * 24 * 3600;
/// The `typ` of a mark's header (RFC 8725 section 3.11).
const TYP: &str = "portreeve-mark+jwt";
/// No mark is longer, in bytes.
const MAX_MARK: usize = 1024;
const KEY_LENGTH: usize = 32;

/// Which mark: tries with it are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MarkId([u8; 16]);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    /// The name, as tries are counted for it.
    sub: String,
    /// 128 random bits.
    jti: String,
    iat: i64,
    exp: i64,
}

/// Makes marks, and knows them again.
pub(super) struct Marks {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

/// Why there are no marks.
#[derive(Debug, thiserror::Error)]
pub enum MarksError {
    /// Reading or writing failed.
    #[error("the key of the marks can't be kept")]
    File(#[from] FileError),
    /// No randomness.
    #[error("no key for the marks could be made")]
    Random,
}

impl Marks {
    /// With the key kept at `path`, made now if there is none, or if what is there is none: a lost mark costs a wait.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub(super) fn load(path: &Path) -> Result<Self, MarksError> {
        let key = match private_file::read(path)? {
            Some(kept) if kept.len() == KEY_LENGTH => kept,
            _ => {
                let mut made = vec![0; KEY_LENGTH];
                getrandom::fill(&mut made).map_err(|_| MarksError::Random)?;
                private_file::write(path, &made)?;
                made
            }
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        Ok(Self {
            encoding: EncodingKey::from_secret(&key),
            decoding: DecodingKey::from_secret(&key),
            validation,
        })
    }

    /// A mark for this name. `None` when there is no randomness: one can live without it.
    pub(super) fn make(&self, name: &NameKey, now: i64) -> Option<Secret> {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYP.to_owned());
        let jti = BASE64URL_NOPAD.encode(&random().ok()?);
        let claims = Claims { sub: name.as_str().to_owned(), jti, iat: now, exp: now + LIFETIME };
        jsonwebtoken::encode(&header, &claims, &self.encoding).ok().map(Secret::new)
    }

    /// Which mark this is, if it is genuine, for this name, and not too old.
    pub(super) fn known(&self, mark: &Secret, name: &NameKey, now: i64) -> Option<MarkId> {
        if mark.reveal().len() > MAX_MARK {
            return None;
        }
        let verified =
            jsonwebtoken::decode::<Claims>(mark.reveal(), &self.decoding, &self.validation).ok()?;
        let claims = verified.claims;
        let good = verified.header.typ.as_deref() == Some(TYP)
            && verified.header.crit.is_none()
            && claims.sub == name.as_str()
            && claims.iat <= now + CLOCK_SKEW
            && now < claims.exp;
        let mut id = [0; 16];
        id.copy_from_slice(&digest(&SHA256, claims.jti.as_bytes()).as_ref()[..16]);
        good.then_some(MarkId(id))
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::UserName;

    use super::*;

    fn key(name: &str) -> NameKey {
        NameKey::of(&UserName::parse(name).unwrap())
    }

    #[test]
    fn a_mark_is_known_again_for_its_name_and_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark-key");
        let marks = Marks::load(&path).unwrap();
        let mark = marks.make(&key("alice"), 100).unwrap();
        let other = marks.make(&key("alice"), 100).unwrap();
        let marks = Marks::load(&path).unwrap();
        let id = marks.known(&mark, &key("alice"), 100).unwrap();
        assert_eq!(marks.known(&mark, &key("Alice@EXAMPLE.org"), 100), Some(id), "counted together");
        assert_ne!(marks.known(&other, &key("alice"), 100), Some(id));
        assert!(marks.known(&mark, &key("alice"), 100 + LIFETIME - 1).is_some());
        for (name, now) in [("bob", 100), ("alice", 100 + LIFETIME), ("alice", 100 - CLOCK_SKEW - 1)] {
            assert_eq!(marks.known(&mark, &key(name), now), None, "{name} {now}");
        }
    }

    #[test]
    fn what_somebody_else_made_is_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::load(&dir.path().join("one")).unwrap();
        let others = Marks::load(&dir.path().join("other")).unwrap();
        let theirs = others.make(&key("alice"), 100).unwrap();
        assert_eq!(marks.known(&theirs, &key("alice"), 100), None);
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some("JWT".to_owned());
        let claims = Claims { sub: "alice".to_owned(), jti: "x".to_owned(), iat: 0, exp: 1000 };
        let untyped = jsonwebtoken::encode(&header, &claims, &marks.encoding).unwrap();
        assert_eq!(marks.known(&Secret::new(untyped), &key("alice"), 100), None);
        for nonsense in ["", ".", "a.b.c", &"A".repeat(4000)] {
            assert_eq!(marks.known(&Secret::new(nonsense.to_owned()), &key("alice"), 100), None);
        }
    }
}
