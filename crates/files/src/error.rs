//! Every way to fail that a page has its own sentence and status for.
//! Invariant: no variant holds a path: names can hold anything, and who asked knows which it was.

use std::io;

use nix::errno::Errno;

use crate::status::Kind;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It, or a directory on the way, does not exist; or a link leads nowhere.
    #[error("there is no such file or directory")]
    NotFound,
    /// The user may not, or the file system is mounted read-only.
    #[error("the system does not permit it")]
    Denied,
    /// It was to be new, and the name is taken.
    #[error("there is something of that name already")]
    Exists,
    /// Something on the way, or what was to be a directory, is none.
    #[error("it is not a directory")]
    NotADirectory,
    /// What was to be a file is a directory.
    #[error("it is a directory")]
    IsADirectory,
    /// A FIFO, a socket, a device.
    #[error("it is {0}, and not a regular file")]
    NotRegular(Kind),
    /// It is no longer what the caller had seen.
    #[error("it has changed meanwhile")]
    Changed,
    /// The file system is full: ENOSPC.
    #[error("the file system is full")]
    Full,
    /// The user's or project's share is used up: EDQUOT.
    #[error("the quota is used up")]
    Quota,
    /// The file system permits shorter names than Linux, or the way with its links is too long.
    #[error("the name or the path is too long")]
    TooLong,
    /// Links that lead in a circle, or one of those of `/proc` that are more than text.
    #[error("a link on the way leads in a circle, or is one that is not followed")]
    Loop,
    /// A link leads out of the root, and the root is kept to.
    #[error("a link on the way leads outside")]
    Outside,
    /// It would be moved to another file system, which is to copy it.
    #[error("the two are on different file systems")]
    Apart,
    /// The kernel or the file system can't do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The operating system refused, with a reason that has no variant of its own.
    #[error("can't {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What the system said when `doing` failed. An `EXDEV` of openat2 means something else (`root`).
pub(crate) fn failed(doing: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| match errno {
        Errno::ENOENT => Error::NotFound,
        Errno::EACCES | Errno::EPERM | Errno::EROFS => Error::Denied,
        Errno::EEXIST | Errno::ENOTEMPTY => Error::Exists,
        Errno::ENOTDIR => Error::NotADirectory,
        Errno::EISDIR => Error::IsADirectory,
        Errno::ENOSPC => Error::Full,
        Errno::EDQUOT => Error::Quota,
        Errno::ENAMETOOLONG => Error::TooLong,
        Errno::ELOOP => Error::Loop,
        Errno::EXDEV => Error::Apart,
        Errno::EOPNOTSUPP => Error::Unsupported("this file system can't do that"),
        other => Error::Io { doing, source: other.into() },
    }
}

/// The same for what the standard library says.
pub(crate) fn failed_io(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| match source.raw_os_error() {
        Some(number) => failed(doing)(Errno::from_raw(number)),
        None => Error::Io { doing, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarcity_has_its_own_names_whoever_reports_it() {
        assert!(matches!(failed("write")(Errno::ENOSPC), Error::Full));
        assert!(matches!(failed("write")(Errno::EDQUOT), Error::Quota));
        let of_std = |errno: Errno| failed_io("write")(io::Error::from(errno));
        assert!(matches!(of_std(Errno::ENOSPC), Error::Full));
        assert!(matches!(of_std(Errno::EDQUOT), Error::Quota));
        assert!(matches!(of_std(Errno::EROFS), Error::Denied));
    }

    #[test]
    fn other_reasons_are_told_by_the_source_alone() {
        let error = failed("write it")(Errno::EIO);
        assert_eq!(error.to_string(), "can't write it");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("os error 5"), "{source}");
    }
}
