//! An error with everything that caused it, for the log.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// Shows an error and what caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> impl Display + '_ {
    Chain(error)
}

struct Chain<'a>(&'a dyn Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
