//! What a check found, as one line.

use std::fmt;
use std::io;
use std::path::Path;

/// One line of what `portreeve check` says.
pub(super) enum Finding {
    /// As it should be.
    Fine(String),
    /// It works; somebody should know.
    Warning { what: String, remedy: String },
    /// It does not work, or not for everybody, or it is not safe.
    Problem { what: String, remedy: String },
    /// Why nothing is known.
    NotChecked(String),
}

impl Finding {
    pub(super) fn fine(what: impl Into<String>) -> Self {
        Self::Fine(what.into())
    }

    pub(super) fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Warning { what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Problem { what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn not_checked(why: impl Into<String>) -> Self {
        Self::NotChecked(why.into())
    }

    /// Of a file that can't be read: only its owner may, or nobody can.
    pub(super) fn unreadable(file: &Path, error: &io::Error, remedy: &str) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::problem(format!("there is no {}", file.display()), remedy),
            io::ErrorKind::PermissionDenied => {
                Self::not_checked(format!("{} is not yours to read: do this as root", file.display()))
            }
            _ => Self::problem(format!("{} can't be read: {error}", file.display()), remedy),
        }
    }

    /// Whether something must be done.
    pub(super) fn is_problem(&self) -> bool {
        match self {
            Self::Problem { .. } => true,
            Self::Fine(_) | Self::Warning { .. } | Self::NotChecked(_) => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine(what) => write!(f, "ok: {what}"),
            Self::Warning { what, remedy } => write!(f, "warning: {what}; {remedy}"),
            Self::Problem { what, remedy } => write!(f, "problem: {what}; {remedy}"),
            Self::NotChecked(why) => write!(f, "not checked: {why}"),
        }
    }
}
