//! What a session ticket says. Signed by the broker, verified by the portal and by each worker.
//! Invariant: times are unix seconds (RFC 7519, NumericDate), and a claim that is not known here is refused, since
//! a limit that goes unread is no limit.

use crate::names::{NameError, NameKind, NodeName, SessionId, UserName, parsed_text};
use crate::scopes::{Scope, Scopes};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The `typ` of a ticket's header (RFC 8725, section 3.11): no other token of ours can pass for a ticket.
pub const TICKET_TYP: &str = "portreeve-session+jwt";

/// The claims of a session ticket. Whether they hold now is for the verifier, who has the clock and the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who signed: the broker's name.
    pub iss: String,
    /// Who signed in.
    pub sub: UserName,
    /// That user's uid.
    pub uid: u32,
    /// The session.
    pub sid: SessionId,
    /// When the ticket was last renewed.
    pub iat: i64,
    /// When the user signed in.
    pub auth_time: i64,
    /// When the session ends whatever happens; fixed at sign-in.
    pub exp: i64,
    /// How the user signed in.
    pub how: SignIn,
    /// Where the ticket is good.
    pub aud: Audience,
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignIn {
    /// A single-use address from `portreeve login` or `portreeve up`.
    Code,
    /// PAM's prompts.
    Pam,
    /// OpenID Connect.
    Oidc,
    /// A client certificate.
    Certificate,
    /// An access token of a program, and all that it is good for.
    Token(Scopes),
}

impl Claims {
    /// Whether the session may be used for this. A person's is good for everything, an access token's for its scopes.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        match self.how {
            SignIn::Token(scopes) => scopes.has(scope),
            SignIn::Code | SignIn::Pam | SignIn::Oidc | SignIn::Certificate => true,
        }
    }
}

/// Where a ticket is good: on the portal, or on one application's origin. On the wire `portal` or the host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Audience {
    /// The portal's own origin.
    Portal,
    /// The origin of one application.
    Application(ApplicationHost),
}
parsed_text!(Audience);

/// An application's host name: lower case, no port, and a dot in it, so that it can't read `portal`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApplicationHost(NodeName);

impl ApplicationHost {
    /// The host name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Audience {
    /// `portal`, or an application's host name in lower case.
    ///
    /// # Errors
    /// Capitals, an address, a single label or anything that is no host name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refused = Err(NameError::Form { kind: NameKind::Audience });
        if text == "portal" {
            return Ok(Self::Portal);
        }
        match NodeName::parse(text) {
            Ok(host) if host.as_ip().is_none() && host.as_str() == text && text.contains('.') => {
                Ok(Self::Application(ApplicationHost(host)))
            }
            _ => refused,
        }
    }

    /// The text on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Portal => "portal",
            Self::Application(host) => host.as_str(),
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str = r#"{"iss":"portreeve","sub":"alice","uid":1000,"sid":"AAECAwQFBgcICQoLDA0ODw","iat":200,"auth_time":100,"exp":300,"how":"code","aud":"portal"}"#;

    #[test]
    fn the_form_on_the_wire_is_fixed() {
        let claims: Claims = serde_json::from_str(TICKET).unwrap();
        assert_eq!((claims.uid, claims.how, &claims.aud), (1000, SignIn::Code, &Audience::Portal));
        assert_eq!(serde_json::to_string(&claims).unwrap(), TICKET);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (from, to) in [
            ("\"uid\":1000", "\"uid\":-1"),
            ("\"uid\":1000", "\"uid\":4294967296"),
            ("\"uid\":1000,", ""),
            ("\"exp\":300,", ""),
            ("\"exp\":300", "\"exp\":3e99"),
            ("\"sub\":\"alice\"", "\"sub\":\"-alice\""),
            ("\"how\":\"code\"", "\"how\":\"magic\""),
            // A token without a scope, with an unknown one, with one twice; a person with scopes.
            ("\"how\":\"code\"", "\"how\":\"token\""),
            ("\"how\":\"code\"", "\"how\":{\"token\":[]}"),
            ("\"how\":\"code\"", "\"how\":{\"token\":[\"everything\"]}"),
            ("\"how\":\"code\"", "\"how\":{\"token\":[\"apps\",\"root\"]}"),
            ("\"how\":\"code\"", "\"how\":{\"token\":[\"apps\",\"apps\"]}"),
            ("\"how\":\"code\"", "\"how\":{\"token\":[\"apps\"],\"pam\":null}"),
            ("\"how\":\"code\"", "\"how\":{\"code\":[\"apps\"]}"),
            ("\"how\":\"code\"", "\"how\":\"code\",\"scopes\":[\"apps\"]"),
            ("\"aud\":\"portal\"", "\"aud\":[\"portal\"]"),
            ("\"aud\":\"portal\"", "\"aud\":\"Portal\""),
            ("\"aud\":\"portal\"", "\"aud\":\"portal\",\"only\":\"read\""),
        ] {
            let changed = TICKET.replacen(from, to, 1);
            assert_ne!(changed, TICKET);
            assert!(serde_json::from_str::<Claims>(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn a_token_is_good_for_its_scopes_and_a_person_for_everything() {
        let person: Claims = serde_json::from_str(TICKET).unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| person.allows(scope)));
        let text = TICKET.replace(r#""code""#, r#"{"token":["files","api"]}"#);
        let token: Claims = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&token).unwrap(), text);
        let allowed: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| token.allows(*scope)).collect();
        assert_eq!(allowed, [Scope::Files, Scope::Api]);
    }

    #[test]
    fn audiences() {
        for good in ["portal", "c1-8888.localhost", "tb.fn.example.org"] {
            assert_eq!(Audience::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "Portal",
            "localhost",
            "C1.localhost",
            "c1.localhost.",
            "c1.localhost:8443",
            "127.0.0.1",
            "[::1]",
        ] {
            assert!(Audience::parse(bad).is_err(), "{bad:?}");
        }
    }
}
