//! What a directory holds, entry by entry: it may hold more than fits into memory.
//! Invariant: no entry is opened but by `O_PATH`, which touches neither devices nor what a FIFO's other end waits for.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::{Dir, OwningIter, Type};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{Error, failed, failed_io};
use crate::limits;
use crate::rel_path::RelPath;
use crate::root::Root;
use crate::status::{Kind, Status};

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

/// A directory that is being read.
#[derive(Debug)]
pub struct Entries {
    names: OwningIter,
    inside: OwnedFd,
    base: Vec<u8>,
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
        let mut entries = self.entries(path)?;
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
        let inside = self.resolve(base, flags)?;
        let dir = Dir::from_fd(inside.try_clone().map_err(failed_io(DOING))?).map_err(failed(DOING))?;
        Ok(Entries { names: dir.into_iter(), inside, base: base.to_vec() })
    }
}

impl Entries {
    /// The next entry. `root` is the one that the directory was opened below.
    ///
    /// # Errors
    /// When the directory can't be read on.
    pub fn next(&mut self, root: &Root) -> Option<Result<Entry, Error>> {
        loop {
            let entry = match self.names.next()? {
                Ok(entry) => entry,
                Err(errno) => return Some(Err(failed(DOING)(errno))),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let status = match Status::at(&self.inside, name) {
                Ok(status) => Some(status),
                Err(Errno::ENOENT) => continue,
                Err(_) => None,
            };
            let kind = status.map_or(entry.file_type().map_or(Kind::Unknown, kind), |status| status.kind);
            let link_to = (kind == Kind::Link).then(|| self.behind(root, name)).flatten();
            return Some(Ok(Entry { name: name.to_owned(), kind, status, link_to }));
        }
    }

    /// The directory itself.
    pub(crate) fn inside(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    fn behind(&self, root: &Root, name: &OsStr) -> Option<Status> {
        let path = [&self.base[..], b"/", name.as_bytes()].concat();
        Status::of(root.resolve(&path, OFlag::O_PATH).ok()?).ok()
    }
}

fn kind(told: Type) -> Kind {
    match told {
        Type::Fifo => Kind::Fifo,
        Type::CharacterDevice => Kind::CharacterDevice,
        Type::Directory => Kind::Directory,
        Type::BlockDevice => Kind::BlockDevice,
        Type::File => Kind::File,
        Type::Symlink => Kind::Link,
        Type::Socket => Kind::Socket,
    }
}
