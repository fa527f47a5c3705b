//! Verifies tickets. The portal has the public key only.
//!
//! Invariant: one algorithm, one key id, one `typ`, one issuer, one audience; everything else is no ticket.

use std::collections::HashSet;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use portreeve_model::{Claims, TICKET_TYP};

use crate::limits;

/// Knows the public key.
pub(crate) struct Verifier {
    key: DecodingKey,
    key_id: String,
    validation: Validation,
}

impl Verifier {
    pub(crate) fn new(public: &[u8], key_id: &str) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Times and audience are compared here, with the caller's clock and the request's origin.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims = HashSet::new();
        validation.set_issuer(&["portreeve"]);
        Self { key: DecodingKey::from_ed_der(public), key_id: key_id.to_owned(), validation }
    }

    /// What the ticket says, if it is genuine, for this audience, and not past its end.
    pub(crate) fn verify(&self, ticket: &str, audience: &str, now: i64) -> Option<Claims> {
        let verified = jsonwebtoken::decode::<Claims>(ticket, &self.key, &self.validation).ok()?;
        let header = verified.header;
        let claims = verified.claims;
        let genuine = header.typ.as_deref() == Some(TICKET_TYP)
            && header.kid.as_deref() == Some(self.key_id.as_str())
            // Extensions that must be understood are not (RFC 7515 section 4.1.11).
            && header.crit.is_none()
            && claims.aud.as_str() == audience
            && claims.iat <= now + limits::CLOCK_AHEAD.as_secs().cast_signed()
            && now < claims.exp;
        genuine.then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::SignIn;

    use super::*;

    #[test]
    fn a_ticket_from_the_future_is_none() {
        let (_state, room) = crate::room::tests::room();
        let (claims, ticket) = room.portal.broker.start_session(SignIn::Code, 1000).unwrap();
        let ahead = limits::CLOCK_AHEAD.as_secs().cast_signed();
        for (now, genuine) in [
            (1000, true),
            (1000 - ahead, true),
            (1000 - ahead - 1, false),
            (claims.exp - 1, true),
            (claims.exp, false),
        ] {
            let verified = room.portal.verifier.verify(&ticket, claims.aud.as_str(), now);
            assert_eq!(verified.is_some(), genuine, "{now}");
        }
    }
}
