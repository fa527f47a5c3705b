//! Messages between `portreeve`, the command, and a running portal or broker, on a socket of its own.
//! With the portal of `portreeve up` it is a stream, with a cluster's broker SEQPACKET.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Scopes, Secret, SessionId, SignIn, TokenName, UserName};

/// Rows of one `ControlReply::Sessions` at most.
pub const MAX_SESSION_ROWS: usize = 128;
/// Rows of one `ControlReply::Tokens` at most.
pub const MAX_TOKEN_ROWS: usize = 128;
/// An access token lasts so long at least, in seconds: an hour.
pub const MIN_TOKEN_LIFETIME: u32 = 3600;
/// An access token lasts so long at most, in seconds: 400 days.
pub const MAX_TOKEN_LIFETIME: u32 = 400 * 24 * 3600;

/// What a caller may ask. The caller's identity comes from the socket's peer credentials, never from the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// A single-use sign-in address for the caller.
    Login,
    /// Where the portal is.
    Where,
    /// Ends all of the caller's sessions and access tokens.
    SignOutEverywhere,
    /// Root asks: who is signed in.
    Sessions {
        /// Only this user's.
        user: Option<UserName>,
        /// Only those whose id is greater: to go on after an answer that had `more`.
        after: Option<SessionId>,
    },
    /// Root asks: end all sessions and access tokens of this user.
    Revoke {
        /// Whose.
        user: UserName,
    },
    /// Makes an access token of the caller's.
    MakeToken {
        /// What its owner calls it.
        name: TokenName,
        /// What it is good for.
        scopes: Scopes,
        /// How long, in seconds: from `MIN_TOKEN_LIFETIME` to `MAX_TOKEN_LIFETIME`.
        lifetime: u32,
    },
    /// The caller's access tokens.
    Tokens {
        /// Root asks for this user's; without it, for everybody's. Nobody else may name anybody.
        user: Option<UserName>,
        /// Only those whose id is greater: to go on after an answer that had `more`.
        after: Option<SessionId>,
    },
    /// Ends an access token of the caller's.
    RevokeToken {
        /// Root says whose. Nobody else may name anybody.
        user: Option<UserName>,
        /// What its owner calls it.
        name: TokenName,
    },
}

/// A session as the sysadmin sees it. Its id opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Whose.
    pub user: UserName,
    /// That user's uid.
    pub uid: u32,
    /// Since when (unix seconds).
    pub since: i64,
    /// When its ticket was last renewed (unix seconds).
    pub renewed: i64,
    /// When it ends by itself (unix seconds).
    pub ends: i64,
    /// The address it was begun from; `None` for one that began before the broker did.
    pub from: Option<IpAddr>,
    /// How it was begun.
    pub how: SignIn,
}

/// An access token as its owner and the sysadmin see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// The session that it is. Opens nothing.
    pub id: SessionId,
    /// What its owner calls it.
    pub name: TokenName,
    /// Whose.
    pub user: UserName,
    /// That user's uid.
    pub uid: u32,
    /// What it is good for.
    pub scopes: Scopes,
    /// When it was made (unix seconds).
    pub created: i64,
    /// When it ends, or ended, by itself (unix seconds).
    pub expires: i64,
    /// The day on which it was last used: its beginning in UTC (unix seconds). `None`: never.
    pub used: Option<i64>,
}

/// What the portal answers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlReply {
    /// The answer to `Login`.
    Address {
        /// An address with a single-use code in it: a secret until used, hence left out of Debug.
        url: String,
    },
    /// The answer to `Where`.
    Portal {
        /// The portal's base address.
        url: String,
        /// The portal's process; on a cluster, the broker's.
        pid: u32,
    },
    /// The answer to `Sessions`, by id.
    Sessions {
        /// At most `MAX_SESSION_ROWS`.
        rows: Vec<SessionRow>,
        /// There are more behind the last one.
        more: bool,
    },
    /// The answer to `SignOutEverywhere`, `Revoke` and `RevokeToken`: done.
    Ended {
        /// How many of the sessions that ended were known; there may have been others.
        known: u32,
        /// How many access tokens ended.
        tokens: u32,
    },
    /// The answer to `MakeToken`.
    Token {
        /// The token. Nobody can have it shown again.
        token: Secret,
        /// When it ends by itself (unix seconds).
        expires: i64,
    },
    /// The answer to `Tokens`, by id.
    Tokens {
        /// At most `MAX_TOKEN_ROWS`.
        rows: Vec<TokenRow>,
        /// There are more behind the last one.
        more: bool,
    },
    /// The request was understood, and refused.
    Refused {
        /// One sentence for people.
        reason: String,
    },
}

impl std::fmt::Debug for ControlReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address { url: _ } => f.debug_struct("Address").finish_non_exhaustive(),
            Self::Portal { url, pid } => {
                f.debug_struct("Portal").field("url", url).field("pid", pid).finish()
            }
            Self::Sessions { rows, more } => {
                f.debug_struct("Sessions").field("rows", rows).field("more", more).finish()
            }
            Self::Ended { known, tokens } => {
                f.debug_struct("Ended").field("known", known).field("tokens", tokens).finish()
            }
            Self::Token { token, expires } => {
                f.debug_struct("Token").field("token", token).field("expires", expires).finish()
            }
            Self::Tokens { rows, more } => {
                f.debug_struct("Tokens").field("rows", rows).field("more", more).finish()
            }
            Self::Refused { reason } => f.debug_struct("Refused").field("reason", reason).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use crate::wire::{MAX_FRAME, WireError, decode, encode, frame_length};

    #[test]
    fn messages_survive_the_way() {
        let user = UserName::parse("alice").unwrap();
        for request in [
            ControlRequest::Login,
            ControlRequest::Where,
            ControlRequest::SignOutEverywhere,
            ControlRequest::Sessions { user: None, after: Some(SessionId::from_bytes([1; 16])) },
            ControlRequest::Revoke { user: user.clone() },
            ControlRequest::MakeToken { name: token_name("ci"), scopes: all(), lifetime: MAX_TOKEN_LIFETIME },
            ControlRequest::Tokens { user: None, after: None },
            ControlRequest::RevokeToken { user: Some(user.clone()), name: token_name("ci") },
        ] {
            let frame = encode(&request).unwrap();
            let length = frame_length(frame[..4].try_into().unwrap()).unwrap();
            assert_eq!(length, frame.len() - 4);
            assert_eq!(decode::<ControlRequest>(&frame[4..]).unwrap(), request);
        }
        for reply in [
            ControlReply::Address { url: "https://localhost:8443/-/in?c=1".into() },
            ControlReply::Portal { url: "https://localhost:8443/".into(), pid: 7 },
            ControlReply::Sessions { rows: vec![row(user.clone())], more: true },
            ControlReply::Ended { known: 3, tokens: 1 },
            ControlReply::Token { token: Secret::new("ptr_a".to_owned()), expires: 7 },
            ControlReply::Tokens { rows: vec![token_row("t", user)], more: false },
            ControlReply::Refused { reason: "Not yours.".into() },
        ] {
            let frame = encode(&reply).unwrap();
            assert_eq!(decode::<ControlReply>(&frame[4..]).unwrap(), reply);
        }
    }

    fn token_name(text: &str) -> TokenName {
        TokenName::parse(text).unwrap()
    }

    fn all() -> Scopes {
        Scopes::new(&Scope::ALL).unwrap()
    }

    fn token_row(name: &str, user: UserName) -> TokenRow {
        let (end, id) = (i64::MIN, SessionId::from_bytes([1; 16]));
        let (name, scopes) = (token_name(name), all());
        TokenRow { id, name, user, uid: u32::MAX, scopes, created: end, expires: end, used: Some(end) }
    }

    fn row(user: UserName) -> SessionRow {
        let (id, from) = (SessionId::from_bytes([1; 16]), Some(IpAddr::from([255; 16])));
        let end = i64::MAX;
        SessionRow {
            id,
            user,
            uid: u32::MAX,
            since: end,
            renewed: end,
            ends: end,
            from,
            how: SignIn::Token(all()),
        }
    }

    #[test]
    fn a_full_list_of_the_longest_rows_fits_into_a_frame() {
        let longest = UserName::parse(&"u".repeat(64)).unwrap();
        let rows = vec![row(longest.clone()); MAX_SESSION_ROWS];
        encode(&ControlReply::Sessions { rows, more: true }).unwrap();
        let rows = vec![token_row(&"t".repeat(64), longest); MAX_TOKEN_ROWS];
        encode(&ControlReply::Tokens { rows, more: true }).unwrap();
    }

    #[test]
    fn the_form_on_the_wire_is_fixed() {
        assert_eq!(encode(&ControlRequest::Login).unwrap(), b"\x00\x00\x00\x07\"login\"");
        let portal = ControlReply::Portal { url: "u".into(), pid: 7 };
        assert_eq!(&encode(&portal).unwrap()[4..], br#"{"portal":{"url":"u","pid":7}}"#);
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(matches!(frame_length([0; 4]), Err(WireError::Empty)));
        assert_eq!(frame_length(65_536u32.to_be_bytes()).unwrap(), MAX_FRAME);
        for length in [65_537u32, 1 << 17, u32::MAX] {
            assert!(matches!(frame_length(length.to_be_bytes()), Err(WireError::TooLong { .. })), "{length}");
        }
        let long = ControlReply::Refused { reason: "x".repeat(MAX_FRAME) };
        assert!(matches!(encode(&long), Err(WireError::TooLong { .. })));
        assert!(matches!(decode::<ControlReply>(&vec![b' '; MAX_FRAME + 1]), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            &b""[..],
            b"login",
            b"\"logout\"",
            b"\"login\" \"where\"",
            b"{\"login\":{\"uid\":0}}",
            b"{\"revoke\":{}}",
            b"{\"revoke\":{\"user\":\"-a\"}}",
            b"{\"revoke\":{\"user\":\"a\",\"uid\":0}}",
            b"{\"make-token\":{\"name\":\"a\",\"scopes\":[],\"lifetime\":3600}}",
            b"{\"make-token\":{\"name\":\"a\",\"scopes\":[\"all\"],\"lifetime\":3600}}",
            b"{\"make-token\":{\"name\":\"a\",\"scopes\":[\"apps\"],\"lifetime\":-1}}",
            b"{\"make-token\":{\"name\":\"-a\",\"scopes\":[\"apps\"],\"lifetime\":3600}}",
            b"{\"make-token\":{\"name\":\"a\",\"scopes\":[\"apps\"],\"lifetime\":3600,\"user\":\"b\"}}",
            b"\xff",
            b"[[[[[[[[",
        ] {
            assert!(decode::<ControlRequest>(body).is_err(), "{body:?}");
        }
        for body in [
            &br#"{"portal":{"url":"u","pid":7,"root":true}}"#[..],
            br#"{"portal":{"url":"u"}}"#,
            br#"{"portal":{"url":"u","pid":7},"refused":{"reason":""}}"#,
        ] {
            assert!(decode::<ControlReply>(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn debug_keeps_the_code() {
        let reply = ControlReply::Address { url: "https://h/-/in?code=secret".into() };
        assert!(!format!("{reply:?}").contains("secret"));
        let reply = ControlReply::Token { token: Secret::new("ptr_secret".into()), expires: 0 };
        assert!(!format!("{reply:?}").contains("secret"));
    }
}
