//! Names that come from outside: users, forwards, nodes, ports, sessions, access tokens.
//! Invariant: a value of one of these types has passed its `parse`, so that it can stand in a path, a host name or a
//! log line as it is.

mod node;
mod session_id;

pub use node::{NodeName, NodePort, Port};
pub use session_id::SessionId;

use std::fmt;

/// What a name was meant to be; knows what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A [`UserName`].
    User,
    /// A [`ForwardName`].
    Forward,
    /// A [`NodeName`].
    Node,
    /// A [`Port`].
    Port,
    /// A [`SessionId`].
    Session,
    /// A [`NodePort`].
    NodePort,
    /// An audience of a ticket.
    Audience,
    /// A [`TokenName`].
    Token,
}

impl NameKind {
    fn allowed(self) -> &'static str {
        match self {
            Self::User => {
                "a user name has 1 to 64 of A-Z a-z 0-9 . _ @ - and does not start with '-', nor is it '.' or '..'"
            }
            Self::Forward => "a forward has 1 to 63 of A-Z a-z 0-9 . _ - and does not start with '.' or '-'",
            Self::Node => {
                "a node is a host name (labels of 1 to 63 of A-Z a-z 0-9 _ - joined by dots, none starting or ending \
                 with '-', the last not a number), an IPv4 address, or an IPv6 address in brackets"
            }
            Self::Port => "a port is a decimal number from 1 to 65535 without leading zeros",
            Self::Session => "a session id has 22 characters of base64url",
            Self::NodePort => "the form is NODE:PORT, [IPV6]:PORT or, with a host name, NODE-PORT",
            Self::Audience => {
                "an audience is 'portal' or an application's host name in lower case, with a dot in it"
            }
            Self::Token => "a token's name has 1 to 64 of A-Z a-z 0-9 . _ - and does not start with '-'",
        }
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user name",
            Self::Forward => "forward name",
            Self::Node => "node name",
            Self::Port => "port",
            Self::Session => "session id",
            Self::NodePort => "node and port",
            Self::Audience => "audience",
            Self::Token => "name of a token",
        })
    }
}

/// A name that was refused. Display says what was wrong and what is allowed; it holds no more of the input than one
/// escaped character, so that it can be logged and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the {kind} is empty; {}", .kind.allowed())]
    Empty {
        /// What it was meant to be.
        kind: NameKind,
    },
    /// More bytes than allowed.
    #[error("the {kind} has {length} bytes; {}", .kind.allowed())]
    TooLong {
        /// What it was meant to be.
        kind: NameKind,
        /// Bytes found.
        length: usize,
    },
    /// A character that has no place there.
    #[error("the {kind} has {found:?} where that is not allowed; {}", .kind.allowed())]
    Character {
        /// What it was meant to be.
        kind: NameKind,
        /// The first such character.
        found: char,
    },
    /// Allowed characters in a form that is not.
    #[error("this is not a {kind}; {}", .kind.allowed())]
    Form {
        /// What it was meant to be.
        kind: NameKind,
    },
    /// An address that can't be one node's.
    #[error("the address is {what}, which is no single node; give the node's own address")]
    NoNode {
        /// Which sort of address.
        what: &'static str,
    },
}

/// Checks length and characters, the part that all names share. `max` is in bytes.
fn check(kind: NameKind, text: &str, max: usize, allowed: impl Fn(char) -> bool) -> Result<(), NameError> {
    match text.len() {
        0 => return Err(NameError::Empty { kind }),
        length if length > max => return Err(NameError::TooLong { kind, length }),
        _ => {}
    }
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(NameError::Character { kind, found }),
        None => Ok(()),
    }
}

/// What every name held as text has besides its own `parse`: `as_str`, Display, Debug, and serde by way of `parse`.
macro_rules! text_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        crate::names::parsed_text!($name);
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// serde as a string, in only through `parse`, out through Display.
macro_rules! parsed_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use {parsed_text, text_name};

/// The name of an account, as the user database spells it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Box<str>);
text_name!(UserName);

impl UserName {
    /// 1 to 64 bytes of `[A-Za-z0-9._@-]`, not starting with '-' (it would read as an option), and neither '.' nor
    /// '..' (it may become a directory).
    ///
    /// # Errors
    /// What was wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::User;
        check(kind, text, 64, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-'))?;
        match text {
            "." | ".." => Err(NameError::Form { kind }),
            _ if text.starts_with('-') => Err(NameError::Character { kind, found: '-' }),
            _ => Ok(Self(text.into())),
        }
    }
}

/// The name of a forward file.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForwardName(Box<str>);
text_name!(ForwardName);

impl ForwardName {
    /// 1 to 63 bytes of `[A-Za-z0-9._-]`, not starting with '.' (no hidden file, no way out of the directory) or '-'.
    ///
    /// # Errors
    /// What was wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::Forward;
        check(kind, text, 63, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
        match text.chars().next() {
            Some(found @ ('.' | '-')) => Err(NameError::Character { kind, found }),
            _ => Ok(Self(text.into())),
        }
    }

    /// Whether the name can be one label of a host name: only `[a-z0-9_-]`. Host names have no case, so a forward
    /// with a capital could be mistaken for another there.
    #[must_use]
    pub fn is_host_label(&self) -> bool {
        self.0.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    }
}

/// What the owner of an access token calls it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenName(Box<str>);
text_name!(TokenName);

impl TokenName {
    /// 1 to 64 bytes of `[A-Za-z0-9._-]`, not starting with '-' (it would read as an option).
    ///
    /// # Errors
    /// What was wrong, and what is allowed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let kind = NameKind::Token;
        check(kind, text, 64, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))?;
        if text.starts_with('-') {
            return Err(NameError::Character { kind, found: '-' });
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        let longest = "u".repeat(64);
        for good in ["alice", "a", "A.b_c-d", "alice@example.org", "_svc", "0", "a..b", "...", &longest] {
            assert_eq!(UserName::parse(good).unwrap().as_str(), good);
        }
        let too_long = "u".repeat(65);
        for bad in [
            "", "-a", "host$", "a b", "a/b", "..", ".", "a\0", "a\n", "é", "a:b", "a\\b", "a,b", "%41",
            &too_long,
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn forward_names() {
        let longest = "f".repeat(63);
        for (good, label) in [
            ("alice-tensorboard", true),
            ("a", true),
            ("x_1", true),
            ("Alice", false),
            ("a.b", false),
            ("a..b", false),
            (longest.as_str(), true),
        ] {
            let name = ForwardName::parse(good).unwrap();
            assert_eq!((name.as_str(), name.is_host_label()), (good, label));
        }
        let too_long = "f".repeat(64);
        for bad in
            ["", ".", "..", ".hidden", "-rf", "a/b", "a@b", "a b", "a\n", "ü", "a%2fb", "a\0", &too_long]
        {
            assert!(ForwardName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn token_names() {
        let longest = "t".repeat(64);
        for good in ["ci", "laptop.backup_2-b", ".", "0", &longest] {
            assert_eq!(TokenName::parse(good).unwrap().as_str(), good);
        }
        let too_long = "t".repeat(65);
        for bad in ["", "-x", "a b", "a/b", "a@b", "a\n", "a\0", "\u{1b}[m", "é", &too_long] {
            assert!(TokenName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn errors_say_what_and_what_is_allowed() {
        let shown = ForwardName::parse("a\u{1b}[31m").unwrap_err().to_string();
        assert_eq!(
            shown,
            "the forward name has '\\u{1b}' where that is not allowed; a forward has 1 to 63 of A-Z a-z 0-9 . _ - and \
             does not start with '.' or '-'"
        );
        assert!(!UserName::parse("s3cret\n").unwrap_err().to_string().contains("s3cret"));
    }

    #[test]
    fn serde_goes_through_parse() {
        assert_eq!(serde_json::from_str::<UserName>("\"alice\"").unwrap().as_str(), "alice");
        assert_eq!(serde_json::to_string(&UserName::parse("alice").unwrap()).unwrap(), "\"alice\"");
        assert!(serde_json::from_str::<UserName>("\"-alice\"").is_err());
        assert!(serde_json::from_str::<ForwardName>("\"../x\"").is_err());
        assert!(serde_json::from_str::<ForwardName>("7").is_err());
    }
}
