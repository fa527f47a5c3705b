//! What a terminal is to be. Invariant: a [`Token`] is long enough, needs no escaping anywhere, and is not printed.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits;

/// What a terminal is to be. Fields may be changed after [`Settings::new`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program and its arguments.
    pub program: Vec<OsString>,
    /// Where it listens; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Who shows it may look.
    pub token: Token,
    /// Shown above the terminal.
    pub title: String,
    /// The user whose it is, as the portal names them in `X-Forwarded-User`. With `None` whoever is named is somebody else.
    pub owner: Option<String>,
    /// Others than the owner may type as well.
    pub others_may_type: bool,
    /// Where the program begins; with `None` where this process is.
    pub directory: Option<PathBuf>,
    /// What the program's environment has besides this process's.
    pub environment: Vec<(OsString, OsString)>,
    /// How long the server stays once the program has ended, for browsers to show its end.
    pub linger: Duration,
    /// How long it stays then for a browser of somebody who may type, to fetch what the program wrote.
    pub fetch: Duration,
    /// Where paths begin that do not begin with a slash, and what `~` means.
    pub home: PathBuf,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(program: Vec<OsString>, listen: SocketAddr, token: Token) -> Self {
        let title = program.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Self {
            program,
            listen,
            token,
            title,
            owner: None,
            others_may_type: false,
            directory: None,
            environment: Vec::new(),
            linger: limits::LINGER,
            fetch: limits::FETCH,
            home: std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")),
        }
    }
}

/// The environment variable that a token is given in. The program does not get it.
pub const TOKEN_VARIABLE: &str = "PORTREEVE_TOKEN";

/// What lets a browser in. Letters, digits, `-`, `_`, `.` and `~`; 16 to 256 of them.
#[derive(Clone)]
pub struct Token(String);

/// Why a text is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short to keep anybody out, or too long for a cookie.
    #[error("a token has {} to {} characters", limits::TOKEN.start(), limits::TOKEN.end())]
    Length,
    /// A character that an address or a cookie can't hold as it is.
    #[error("a token has only letters, digits, '-', '_', '.' and '~'")]
    Character,
    /// The system has no random numbers.
    #[error("there are no random numbers")]
    Random(#[source] getrandom::Error),
}

impl Token {
    /// A given one.
    ///
    /// # Errors
    /// When it has another length or another character.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if !limits::TOKEN.contains(&text.len()) {
            return Err(TokenError::Length);
        }
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if text.bytes().all(good) { Ok(Self(text.to_owned())) } else { Err(TokenError::Character) }
    }

    /// One that nobody can guess: 256 bits.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<Self, TokenError> {
        random::<32>().map(Self).map_err(TokenError::Random)
    }

    /// The text, for the one link that holds it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// In a time that says nothing of where they differ.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), shown).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(..)")
    }
}

/// So many random bytes, in hexadecimal digits.
pub(crate) fn random<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_plain() {
        assert!(Token::parse("0123456789abcdef").is_ok());
        for bad in ["", "0123456789abcde", "0123456789abcde;", "0123456789abcdeä", &"a".repeat(257)] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
        let token = Token::generate().unwrap();
        assert!(
            token.is(token.reveal().as_bytes())
                && !token.is(b"")
                && !token.is(&token.reveal().as_bytes()[1..])
        );
        assert!(!format!("{token:?}").contains(token.reveal()));
    }
}
