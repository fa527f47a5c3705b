//! Single-use codes: what an address like `/-/enter?code=...` carries.
//!
//! Invariants: a code works once and for a short while; what is kept is its hash, so that a look into memory or a
//! timing difference of the look-up gives nothing away; the table is bounded.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use portreeve_model::Claims;

/// Codes kept at most, used ones included. Past that a used one makes room, or else the one that ends first.
pub const MAX_CODES: usize = 4096;

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
        claims: Box<Claims>,
        /// SHA-256 of a secret that only the asking browser has in a cookie of that origin, base64url.
        browser: String,
    },
}

/// Why a code was refused.
pub use portreeve_model::wire::broker::BadCode as CodeError;

struct Entry<P> {
    purpose: P,
    ends: i64,
    used: bool,
}

/// The codes that are out, each with what it is good for.
pub struct Codes<P = Purpose> {
    by_hash: HashMap<[u8; 32], Entry<P>>,
}

impl<P> Default for Codes<P> {
    fn default() -> Self {
        Self { by_hash: HashMap::new() }
    }
}

fn hash(code: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, code.as_bytes()).as_ref());
    out
}

impl<P: Clone> Codes<P> {
    /// Hands out a code made from `random` that can be redeemed until `ends` (seconds since 1970).
    pub fn issue(&mut self, random: [u8; 16], purpose: P, now: i64, ends: i64) -> String {
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
    pub fn redeem(&mut self, code: &str, now: i64) -> Result<P, CodeError> {
        let purpose = self.look(code, now)?.clone();
        if let Some(entry) = self.by_hash.get_mut(&hash(code)) {
            entry.used = true;
        }
        Ok(purpose)
    }

    /// What a code is good for, without taking it.
    ///
    /// # Errors
    /// As [`Codes::redeem`].
    pub fn look(&self, code: &str, now: i64) -> Result<&P, CodeError> {
        let entry = self.by_hash.get(&hash(code)).ok_or(CodeError::Unknown)?;
        if entry.used {
            return Err(CodeError::Used);
        }
        if now >= entry.ends {
            return Err(CodeError::Expired);
        }
        Ok(&entry.purpose)
    }

    /// How many codes of this sort could be redeemed now.
    pub fn open(&self, now: i64, is: impl Fn(&P) -> bool) -> usize {
        self.by_hash.values().filter(|entry| !entry.used && now < entry.ends && is(&entry.purpose)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_works_once_and_only_in_time() {
        let mut codes = Codes::<Purpose>::default();
        let code = codes.issue([7; 16], Purpose::SignIn, 100, 200);
        assert_eq!((codes.look(&code, 150), codes.open(150, |_| true)), (Ok(&Purpose::SignIn), 1));
        assert_eq!(codes.redeem(&code, 150), Ok(Purpose::SignIn));
        assert_eq!((codes.look(&code, 150), codes.open(150, |_| true)), (Err(CodeError::Used), 0));
        assert_eq!(codes.redeem(&code, 151), Err(CodeError::Used));
        let late = codes.issue([8; 16], Purpose::SignIn, 100, 200);
        assert_eq!(codes.redeem(&late, 200), Err(CodeError::Expired));
    }

    #[test]
    fn an_altered_code_is_unknown() {
        let mut codes = Codes::<Purpose>::default();
        let mut code = codes.issue([7; 16], Purpose::SignIn, 0, 10);
        code.replace_range(0..1, "x");
        for wrong in [code.as_str(), "", "AAAA"] {
            assert_eq!(codes.redeem(wrong, 1), Err(CodeError::Unknown), "{wrong}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_spent_codes_leave_first() {
        let mut codes = Codes::<Purpose>::default();
        let live = codes.issue([255; 16], Purpose::SignIn, 0, 10);
        for n in 0..(MAX_CODES as u128 * 2) {
            let code = codes.issue(n.to_be_bytes(), Purpose::SignIn, 0, 100);
            codes.redeem(&code, 1).unwrap();
        }
        assert!(codes.by_hash.len() <= MAX_CODES);
        assert_eq!(codes.redeem(&live, 1), Ok(Purpose::SignIn));
    }
}
