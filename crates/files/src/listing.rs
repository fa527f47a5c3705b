//! What a directory holds, entry by entry: it may hold more than fits into memory.
//! Invariants: to list them no entry is opened but by `O_PATH`, which touches neither devices nor what a FIFO's other end waits for;
//! whoever goes on into one goes by the descriptor of its directory, so that nothing that is swapped in leads elsewhere.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use rustix::fs::{Dir, DirEntry, FileType};

use crate::error::{Error, failed};
use crate::limits;
use crate::reading::OpenFile;
use crate::rel_path::RelPath;
use crate::root::Root;
use crate::status::{Kind, Status, errno};

const DOING: &str = "read the directory";

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Any bytes but `/` and zero.
    pub name: OsString,
    /// What it is; a link is a link.
    pub kind: Kind,
    /// `None` when the system would not say: the directory may be read but not entered, or a server is away. One such
    /// file does not hide the others.
    pub status: Option<Status>,
    /// What a link leads to, as the root's policy permits: `None` if nowhere or outside, and for what is no link.
    pub link_to: Option<Status>,
}

/// How a listing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Every entry was visited.
    All,
    /// There are more.
    Part,
}

/// A directory that is being read. It holds one descriptor.
#[derive(Debug)]
pub struct Entries {
    names: Dir,
}

impl Root {
    /// Visits up to `most` entries ([`limits::ENTRIES`] at most) of the directory at `path`, or of the root itself, in
    /// the file system's order, until `visit` breaks off. What is made or removed meanwhile may be among them or not.
    ///
    /// # Errors
    /// When there is no such directory or it can't be read.
    pub fn list(
        &self,
        path: Option<&RelPath>,
        most: usize,
        mut visit: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<Listed, Error> {
        let mut entries = self.overview(path)?;
        let mut left = most.min(limits::ENTRIES);
        while let Some(entry) = entries.next(self) {
            if left == 0 {
                return Ok(Listed::Part);
            }
            left -= 1;
            if visit(entry?).is_break() {
                return Ok(Listed::Part);
            }
        }
        Ok(Listed::All)
    }

    /// Opens the directory at `path`, or the root itself, to be read in steps.
    ///
    /// # Errors
    /// When there is no such directory or it can't be read.
    pub fn entries(&self, path: Option<&RelPath>) -> Result<Entries, Error> {
        let base = path.map_or(&b"."[..], RelPath::as_bytes);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        Entries::of(self.resolve(base, flags)?)
    }
}

impl Entries {
    /// The next entry; what a link leads to is not looked at.
    ///
    /// # Errors
    /// When the directory can't be read on.
    pub fn next_itself(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            let told = match self.next_told()? {
                Ok(told) => told,
                Err(error) => return Some(Err(error)),
            };
            if let Some(entry) = looked(&told, self.inside().map(|inside| look(inside, &told))) {
                return Some(Ok(entry));
            }
        }
    }

    /// The next name alone.
    pub(crate) fn next_name(&mut self) -> Option<Result<OsString, Error>> {
        Some(self.next_told()?.map(|told| name_of(&told).to_owned()))
    }

    /// The next name, and what the directory says that it is.
    pub(crate) fn next_told(&mut self) -> Option<Result<DirEntry, Error>> {
        loop {
            match self.names.next()? {
                Ok(told) if matches!(told.file_name().to_bytes(), b"." | b"..") => {}
                told => return Some(told.map_err(|error| failed(DOING)(errno(error)))),
            }
        }
    }

    /// Of a directory that is open.
    pub(crate) fn of(dir: OwnedFd) -> Result<Self, Error> {
        Ok(Self { names: Dir::new(dir).map_err(|error| failed(DOING)(errno(error)))? })
    }

    /// The directory itself.
    pub(crate) fn inside(&self) -> Result<BorrowedFd<'_>, Error> {
        self.names.fd().map_err(|error| failed(DOING)(errno(error)))
    }

    /// One of its directories. What is a link by now is none.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] among others.
    pub fn descend(&self, name: &OsStr) -> Result<Self, Error> {
        Self::of(enter(self.inside()?, name)?)
    }

    /// Opens one of its regular files. What is a link by now is none.
    ///
    /// # Errors
    /// [`Error::NotRegular`] among others.
    pub fn read(&self, name: &OsStr) -> Result<OpenFile, Error> {
        OpenFile::at(self.inside()?, name)
    }

    /// Where one of its links leads, as it says.
    ///
    /// # Errors
    /// When it is no link.
    pub fn link(&self, name: &OsStr) -> Result<Vec<u8>, Error> {
        readlinkat(self.inside()?, name).map(OsString::into_vec).map_err(failed("read a link"))
    }
}

/// Looks at what has the name.
pub(crate) fn look(dir: impl AsFd, told: &DirEntry) -> Result<Status, Errno> {
    let look = match told.file_type() {
        FileType::Directory => Status::of_directory_at,
        _ => Status::at,
    };
    look(dir, told.file_name())
}

/// What has the name, by what a look found; `None` if it is gone.
pub(crate) fn looked(told: &DirEntry, found: Result<Result<Status, Errno>, Error>) -> Option<Entry> {
    let status = match found {
        Ok(Ok(status)) => Some(status),
        Ok(Err(Errno::ENOENT)) => return None,
        Ok(Err(_)) | Err(_) => None,
    };
    let kind = status.map_or(told.file_type().into(), |status| status.kind);
    Some(Entry { name: name_of(told).to_owned(), kind, status, link_to: None })
}

pub(crate) fn name_of(told: &DirEntry) -> &OsStr {
    OsStr::from_bytes(told.file_name().to_bytes())
}

/// The directory of that name, and nothing that a link leads to.
pub(crate) fn enter(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Error> {
    let flags =
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ELOOP => Error::NotADirectory,
        other => failed(DOING)(other),
    })
}
