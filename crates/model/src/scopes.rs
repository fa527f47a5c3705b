//! What an access token is good for. A person's session is good for everything; a token's is for what its owner chose.
//! Invariant: a token has one scope or more, and no other name is understood: a limit that goes unread is no limit.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What every access token begins with, so that people and programs that look for secrets know one.
pub const TOKEN_PREFIX: &str = "ptr_";

/// One thing that a token may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Applications: `/fw/`, `/fw2/` and their own origins.
    Apps,
    /// Files: `/dav/`, `/api/v1/files/`.
    Files,
    /// The portal's interface for programs: `/api/v1/`.
    Api,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Apps, Self::Files, Self::Api];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apps => "apps",
            Self::Files => "files",
            Self::Api => "api",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Apps => 1,
            Self::Files => 2,
            Self::Api => 4,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scopes of a token. On the wire a list of their names, each once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(u8);

/// A list of scopes that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopesError {
    /// A token that is good for nothing.
    #[error("there is no scope: a token needs one at least")]
    None,
    /// It stands there twice.
    #[error("the scope {0} is there twice")]
    Twice(Scope),
}

impl Scopes {
    /// Of a list in any order.
    ///
    /// # Errors
    /// An empty list, or one that names a scope twice.
    pub fn new(scopes: &[Scope]) -> Result<Self, ScopesError> {
        let mut bits = 0;
        for scope in scopes {
            if bits & scope.bit() != 0 {
                return Err(ScopesError::Twice(*scope));
            }
            bits |= scope.bit();
        }
        if bits == 0 { Err(ScopesError::None) } else { Ok(Self(bits)) }
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Those that are there.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl TryFrom<Vec<Scope>> for Scopes {
    type Error = ScopesError;

    fn try_from(scopes: Vec<Scope>) -> Result<Self, ScopesError> {
        Self::new(&scopes)
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, good) in [
            (r#"["apps"]"#, Some("apps")),
            (r#"["api","files","apps"]"#, Some("apps,files,api")),
            ("[]", None),
            (r#"["apps","apps"]"#, None),
            (r#"["all"]"#, None),
            (r#"["Apps"]"#, None),
            (r#"["apps",null]"#, None),
            (r#""apps""#, None),
            ("7", None),
        ] {
            let scopes = serde_json::from_str::<Scopes>(text).ok();
            assert_eq!(scopes.map(|scopes| scopes.to_string()).as_deref(), good, "{text}");
        }
        let two = Scopes::new(&[Scope::Api, Scope::Apps]).unwrap();
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"["apps","api"]"#);
        assert!(two.has(Scope::Apps) && two.has(Scope::Api) && !two.has(Scope::Files));
    }

    #[test]
    fn what_is_written_is_what_serde_reads() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{scope}\""));
        }
    }
}
