//! Single-use codes: what an address like `/-/enter?code=...` carries.
//!
//! Invariants: a code works once and for a short while; what is kept is its hash, so that a look into memory or a
//! timing difference of the look-up gives nothing away; the table is bounded.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use portreeve_model::SessionId;

/// Codes kept at most, used ones included. Past that the one that ends first makes room.
pub const MAX_CODES: usize = 1024;

/// How long a code is remembered after its end, in seconds, so that its page can say that it was used or is too old.
const REMEMBERED: i64 = 3600;

/// What redeeming a code gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A new session for the person the codes were made for.
    SignIn,
    /// Lets a session that exists enter one application's own origin.
    EnterApplication {
        /// The host name of that origin, without port.
        host: String,
        /// The session that asked.
        session: SessionId,
        /// SHA-256 of a secret that only the asking browser has in a cookie of that origin, base64url.
        browser: String,
    },
}

/// Why a code was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It was redeemed before.
    #[error("this code was already used")]
    Used,
    /// Its time is over.
    #[error("this code has expired")]
    Expired,
    /// No such code was handed out by this process: altered, cut off, or from before a restart.
    #[error("this code is not one that was handed out")]
    Unknown,
}

struct Entry {
    purpose: Purpose,
    ends: i64,
    used: bool,
}

/// The codes that are out.
#[derive(Default)]
pub struct Codes {
    by_hash: HashMap<[u8; 32], Entry>,
}

fn hash(code: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, code.as_bytes()).as_ref());
    out
}

impl Codes {
    /// Hands out a code made from `random` that can be redeemed until `ends` (seconds since 1970).
    pub fn issue(&mut self, random: [u8; 16], purpose: Purpose, now: i64, ends: i64) -> String {
        self.by_hash.retain(|_, entry| entry.ends + REMEMBERED > now);
        while self.by_hash.len() >= MAX_CODES {
            let Some(first) = self.by_hash.iter().min_by_key(|(_, e)| (!e.used, e.ends)).map(|(k, _)| *k)
            else {
                break;
            };
            self.by_hash.remove(&first);
        }
        let code = BASE64URL_NOPAD.encode(&random);
        self.by_hash.insert(hash(&code), Entry { purpose, ends, used: false });
        code
    }

    /// Takes a code, once.
    ///
    /// # Errors
    /// When it was used before, is too old, or was never handed out.
    pub fn redeem(&mut self, code: &str, now: i64) -> Result<Purpose, CodeError> {
        let entry = self.by_hash.get_mut(&hash(code)).ok_or(CodeError::Unknown)?;
        if entry.used {
            return Err(CodeError::Used);
        }
        if now >= entry.ends {
            return Err(CodeError::Expired);
        }
        entry.used = true;
        Ok(entry.purpose.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_works_once_and_only_in_time() {
        let mut codes = Codes::default();
        let code = codes.issue([7; 16], Purpose::SignIn, 100, 200);
        assert_eq!(codes.redeem(&code, 150), Ok(Purpose::SignIn));
        assert_eq!(codes.redeem(&code, 151), Err(CodeError::Used));
        let late = codes.issue([8; 16], Purpose::SignIn, 100, 200);
        assert_eq!(codes.redeem(&late, 200), Err(CodeError::Expired));
    }

    #[test]
    fn an_altered_code_is_unknown() {
        let mut codes = Codes::default();
        let mut code = codes.issue([7; 16], Purpose::SignIn, 0, 10);
        code.replace_range(0..1, "x");
        for wrong in [code.as_str(), "", "AAAA"] {
            assert_eq!(codes.redeem(wrong, 1), Err(CodeError::Unknown), "{wrong}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_spent_codes_leave_first() {
        let mut codes = Codes::default();
        let live = codes.issue([255; 16], Purpose::SignIn, 0, 10);
        for n in 0..(MAX_CODES as u128 * 2) {
            let code = codes.issue(n.to_be_bytes(), Purpose::SignIn, 0, 100);
            codes.redeem(&code, 1).unwrap();
        }
        assert!(codes.by_hash.len() <= MAX_CODES);
        assert_eq!(codes.redeem(&live, 1), Ok(Purpose::SignIn));
    }
}
