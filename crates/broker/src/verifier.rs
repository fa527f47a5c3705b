//! Verifies tickets, with public keys only: the portal, the broker and every worker do it with this.
//!
//! Invariant: one algorithm, one `typ`, one issuer, and the very key that the ticket names; everything else is no ticket.

use std::collections::{HashMap, HashSet};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use portreeve_model::wire::broker::PublicKey;
use portreeve_model::{Claims, TICKET_TYP};

use crate::authority::ISSUER;

/// How far a clock may be behind the one that a ticket was signed by, in seconds.
pub const CLOCK_SKEW: i64 = 60;

/// No ticket is longer, in bytes: names, ids and hosts are bounded.
const MAX_TICKET: usize = 4096;

/// Knows the public keys.
#[derive(Clone)]
pub struct Verifier {
    keys: HashMap<Box<str>, DecodingKey>,
    validation: Validation,
}

/// A key that is none: not 32 bytes in base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key of the broker's has not the form of one")]
pub struct NotAKey;

impl Verifier {
    /// Knows these keys, each with its id. A key is the 32 bytes of RFC 8032.
    #[must_use]
    pub fn new<'k>(keys: impl IntoIterator<Item = (&'k str, &'k [u8])>) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times and audience are compared here, with the caller's clock and the request's origin.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims = HashSet::new();
        validation.set_issuer(&[ISSUER]);
        let keys = keys.into_iter().map(|(id, key)| (id.into(), DecodingKey::from_ed_der(key))).collect();
        Self { keys, validation }
    }

    /// Knows the keys that the broker said.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn of_keys(keys: &[PublicKey]) -> Result<Self, NotAKey> {
        let decoded: Vec<(&str, Vec<u8>)> = keys
            .iter()
            .map(|key| match BASE64URL_NOPAD.decode(key.key.as_bytes()) {
                Ok(bytes) if bytes.len() == 32 => Ok((key.id.as_str(), bytes)),
                _ => Err(NotAKey),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::new(decoded.iter().map(|(id, bytes)| (*id, bytes.as_slice()))))
    }

    /// The ids of the keys it knows.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(AsRef::as_ref)
    }

    /// Whether it knows a key of this id.
    #[must_use]
    pub fn knows_key(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    /// What the ticket says, if it is genuine, for this audience, and not past its end.
    #[must_use]
    pub fn verify(&self, ticket: &str, audience: &str, now: i64) -> Option<Claims> {
        self.verify_anywhere(ticket, now).filter(|claims| claims.aud.as_str() == audience)
    }

    /// As [`Verifier::verify`], for the broker, which serves the tickets of all origins.
    #[must_use]
    pub fn verify_anywhere(&self, ticket: &str, now: i64) -> Option<Claims> {
        if ticket.len() > MAX_TICKET {
            return None;
        }
        // The header is not believed: it picks one of our own keys, and the signature must be that one's.
        let named = jsonwebtoken::decode_header(ticket).ok()?.kid?;
        let key = self.keys.get(named.as_str())?;
        let verified = jsonwebtoken::decode::<Claims>(ticket, key, &self.validation).ok()?;
        let header = verified.header;
        let claims = verified.claims;
        let genuine = header.typ.as_deref() == Some(TICKET_TYP)
            // Extensions that must be understood are not (RFC 7515 section 4.1.11).
            && header.crit.is_none()
            && Self::is_time_for(&claims, now);
        genuine.then_some(claims)
    }

    /// Whether it is time for a ticket that was verified before.
    #[must_use]
    pub fn is_time_for(claims: &Claims, now: i64) -> bool {
        claims.iat <= now + CLOCK_SKEW && now < claims.exp
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{Audience, SessionId, SignIn, UserName};

    use super::*;
    use crate::tickets::TicketKey;

    fn claims() -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            sub: UserName::parse("alice").unwrap(),
            uid: 1000,
            sid: SessionId::from_bytes([1; 16]),
            iat: 100,
            auth_time: 100,
            exp: 1000,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    /// Two keys, and who knows both.
    fn two() -> (TicketKey, TicketKey, Verifier) {
        let (one, two) = (TicketKey::generate().unwrap().0, TicketKey::generate().unwrap().0);
        let both = Verifier::new([(one.id(), one.public()), (two.id(), two.public())]);
        (one, two, both)
    }

    #[test]
    #[ignore = "measures"]
    fn how_long_a_check_takes() {
        let (one, _, verifier) = two();
        let ticket = one.sign(&claims()).unwrap();
        let times = 10_000;
        let began = std::time::Instant::now();
        for _ in 0..times {
            assert!(verifier.verify(&ticket, "portal", 100).is_some());
        }
        println!("a ticket's check: {:?}, the mean of {times}", began.elapsed() / times);
    }

    #[test]
    fn tickets_of_every_known_key_are_good() {
        let (old, new, both) = two();
        for key in [&old, &new] {
            assert_eq!(both.verify(&key.sign(&claims()).unwrap(), "portal", 100), Some(claims()));
        }
        let only_new = Verifier::new([(new.id(), new.public())]);
        assert_eq!(only_new.verify(&old.sign(&claims()).unwrap(), "portal", 100), None);
        assert_eq!(Verifier::new([]).verify(&old.sign(&claims()).unwrap(), "portal", 100), None);
    }

    #[test]
    fn times_and_audience_count() {
        let (key, _, both) = two();
        let ticket = key.sign(&claims()).unwrap();
        for (audience, now, good) in [
            ("portal", 100, true),
            ("portal", 40, true),
            ("portal", 39, false),
            ("portal", 999, true),
            ("portal", 1000, false),
            ("a.example.org", 100, false),
        ] {
            assert_eq!(both.verify(&ticket, audience, now).is_some(), good, "{audience} {now}");
        }
        let elsewhere = Claims { aud: Audience::parse("a.example.org").unwrap(), ..claims() };
        let ticket = key.sign(&elsewhere).unwrap();
        assert_eq!(both.verify(&ticket, "portal", 100), None);
        assert_eq!(both.verify_anywhere(&ticket, 100), Some(elsewhere));
    }

    /// The ticket with another header, which the signature then no longer covers; or signed anew by `signer`.
    fn with_header(ticket: &str, header: &str) -> String {
        let (_, rest) = ticket.split_once('.').unwrap();
        format!("{}.{rest}", BASE64URL_NOPAD.encode(header.as_bytes()))
    }

    #[test]
    fn an_altered_header_is_no_ticket() {
        let (one, two, both) = two();
        let ticket = one.sign(&claims()).unwrap();
        let header =
            |kid: &str, more: &str| format!(r#"{{"typ":"{TICKET_TYP}","alg":"EdDSA"{more},"kid":"{kid}"}}"#);
        for altered in [
            header(two.id(), ""),
            header("", ""),
            header("../../etc/passwd", ""),
            header(one.id(), r#","crit":["x"]"#),
            header(one.id(), "").replace("EdDSA", "none"),
            header(one.id(), "").replace("EdDSA", "HS256"),
            header(one.id(), "").replace(TICKET_TYP, "JWT"),
            format!(r#"{{"typ":"{TICKET_TYP}","alg":"EdDSA"}}"#),
            String::new(),
        ] {
            assert_eq!(both.verify(&with_header(&ticket, &altered), "portal", 100), None, "{altered}");
        }
        assert_eq!(both.verify(&format!("{ticket}{}", "A".repeat(MAX_TICKET)), "portal", 100), None);
        assert_eq!(both.verify("", "portal", 100), None);
    }

    #[test]
    fn a_token_of_another_kind_is_no_ticket() {
        let (key, _, both) = two();
        for (typ, issuer) in [("JWT", ISSUER), ("portreeve-mark+jwt", ISSUER), (TICKET_TYP, "somebody")] {
            let token = key.sign_as(typ, &Claims { iss: issuer.to_owned(), ..claims() }).unwrap();
            assert_eq!(both.verify(&token, "portal", 100), None, "{typ} {issuer}");
        }
    }

    #[test]
    fn keys_on_the_wire() {
        let key = TicketKey::generate().unwrap().0;
        let good = key.public_key();
        let ticket = key.sign(&claims()).unwrap();
        let verifier = Verifier::of_keys(std::slice::from_ref(&good)).unwrap();
        assert!(verifier.verify(&ticket, "portal", 100).is_some());
        for bad in ["", "AAAA", "====", &format!("{}A", good.key)] {
            let bad = PublicKey { id: good.id.clone(), key: bad.to_owned() };
            assert_eq!(Verifier::of_keys(&[bad]).err(), Some(NotAKey));
        }
    }
}
