//! An error with everything that caused it, for the log. In quotes: what somebody sent, which an error may repeat, must not pass
//! for another field of the record.

use std::error::Error;
use std::fmt::{self, Display, Formatter, Write as _};

/// Shows an error and what caused it, in one line and in quotes.
pub(crate) fn chain(error: &dyn Error) -> impl Display + '_ {
    Chain(error)
}

struct Chain<'a>(&'a dyn Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let _ = write!(text, ": {cause}");
            next = cause.source();
        }
        write!(f, "{text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<Box<Said>>);

    #[test]
    fn what_somebody_sent_makes_no_field_and_no_line() {
        let hostile = Said("x verdict=\"allow\" user=\"bob\"\nINFO audit", None);
        let error = Said("no such host", Some(Box::new(hostile)));
        let shown = r#""no such host: x verdict=\"allow\" user=\"bob\"\nINFO audit""#;
        assert_eq!(chain(&error).to_string(), shown);
    }
}
