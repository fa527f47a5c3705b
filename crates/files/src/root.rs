//! The directory that paths begin at, and how far links may lead. Before: `rel_path`. After: everything else.
//! Invariant: nothing else in this crate gives the kernel a path of more than one name.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::unistd::Uid;

use crate::error::{Error, failed};
use crate::limits;
use crate::rel_path::RelPath;
use crate::status::{Kind, Status};
use crate::tree::look;

const NO_OPENAT2: &str = "the kernel can't keep a path inside of a directory: openat2(2) is there from Linux 5.6 on, \
                          unless a sandbox forbids it";

/// How far links may lead. In neither case are the links of `/proc` followed that are more than text
/// (`/proc/self/root`, `/proc/self/fd/3`): with them a path would mean what some process has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Links are followed as long as they stay below the root; an absolute one never does, wherever it leads.
    Root,
    /// Links lead wherever the user may go. The root is no more than where paths begin.
    Anywhere,
}

/// A directory by its descriptor: it stays the same one when it is renamed.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    within: Within,
}

/// A name in a directory that was resolved. Whoever acts on it acts there, whatever becomes of the path meanwhile.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    pub(crate) name: OsString,
}

impl Root {
    /// The directory at `path`, which is the caller's own and not a browser's: links in it are followed.
    ///
    /// # Errors
    /// When there is no such directory, or the kernel has no openat2(2): [`Error::Unsupported`].
    pub fn open(path: &Path, within: Within) -> Result<Self, Error> {
        // With openat2 already here, so that a kernel without it is found out before the first file.
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        match openat2(AT_FDCWD, path, how) {
            Ok(dir) => Ok(Self { dir, within }),
            // To open a directory is refused with EACCES: EPERM is a sandbox that does not know the call.
            Err(Errno::EPERM) => Err(Error::Unsupported(NO_OPENAT2)),
            Err(errno) => Err(refused("open the directory", errno)),
        }
    }

    /// The directory itself.
    ///
    /// # Errors
    /// When the system would not say.
    pub fn own_status(&self) -> Result<Status, Error> {
        Status::of(&self.dir)
    }

    /// What the path means, links followed.
    ///
    /// # Errors
    /// When there is nothing, or it may not be reached.
    pub fn status(&self, path: &RelPath) -> Result<Status, Error> {
        Status::of(self.resolve(path.as_bytes(), OFlag::O_PATH)?)
    }

    /// Where a link leads, as it says.
    ///
    /// # Errors
    /// When it is no link.
    pub fn link(&self, path: &RelPath) -> Result<Vec<u8>, Error> {
        let Place { dir, name } = self.place(path)?;
        readlinkat(&dir, &*name).map(OsString::into_vec).map_err(failed("read a link"))
    }

    /// A directory that is open, as a root of its own, which nothing leads out of.
    pub(crate) fn of(dir: OwnedFd) -> Self {
        Self { dir, within: Within::Root }
    }

    /// Whether anything has the name, a link that leads nowhere included.
    ///
    /// # Errors
    /// When its directory can't be reached.
    pub fn has_name(&self, path: &RelPath) -> Result<bool, Error> {
        look(&self.place(path)?).map(|found| found.is_some())
    }

    /// Opens what the path means as the root's policy permits. The path is a `RelPath`, or was made of one and what
    /// links say.
    pub(crate) fn resolve(&self, path: &[u8], flags: OFlag) -> Result<OwnedFd, Error> {
        let resolve = match self.within {
            Within::Root => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            Within::Anywhere => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let mut tries = 0;
        loop {
            tries += 1;
            match openat2(&self.dir, path, how) {
                Ok(file) => return Ok(file),
                Err(Errno::EAGAIN | Errno::EINTR) if tries < limits::RESOLUTIONS => {}
                Err(errno) => return Err(refused("open it", errno)),
            }
        }
    }

    /// The directory at `path`, or the root itself, as one to act in.
    pub(crate) fn directory(&self, path: Option<&RelPath>) -> Result<OwnedFd, Error> {
        self.resolve(path.map_or(&b"."[..], RelPath::as_bytes), OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// Where the path's last name is; a link of that name is not followed.
    pub(crate) fn place(&self, path: &RelPath) -> Result<Place, Error> {
        let dir = self.directory(path.parent().as_ref())?;
        Ok(Place { dir, name: path.name().to_owned() })
    }

    /// The same, in a directory that is open for reading where that is permitted: then it can be synced, and asked for its defaults.
    fn place_to_write(&self, path: &RelPath) -> Result<Place, Error> {
        let parent = path.parent();
        let text = parent.as_ref().map_or(&b"."[..], RelPath::as_bytes);
        match self.resolve(text, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(dir) => Ok(Place { dir, name: path.name().to_owned() }),
            Err(Error::Denied) => self.place(path),
            Err(error) => Err(error),
        }
    }

    /// Where what the path means is, or would be if it were made: links are followed at the end as well.
    pub(crate) fn place_behind_links(&self, path: &RelPath) -> Result<Place, Error> {
        // Mostly it is no link, and all is known at once.
        let place = self.place_to_write(path)?;
        match look(&place)? {
            Some(status) if status.kind == Kind::Link => {}
            Some(status) => return status.regular().map(|_| place),
            None => return Ok(place),
        }
        // The kernel judges the whole way first. Below, the last link is followed by what it says: a magic one would
        // then be taken for text.
        match self.resolve(path.as_bytes(), OFlag::O_PATH) {
            Ok(file) => {
                Status::of(file)?.regular()?;
            }
            Err(Error::NotFound) => {}
            Err(other) => return Err(other),
        }
        let mut path = path.as_bytes().to_vec();
        for _ in 0..limits::LINKS {
            let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&path[..=slash], &path[slash + 1..]),
                None => (&b"./"[..], &path[..]),
            };
            // A link can end so, and then means a directory.
            if matches!(name, b"" | b"." | b"..") {
                return Err(Error::IsADirectory);
            }
            let dir = self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            let name = OsStr::from_bytes(name);
            match readlinkat(&dir, name) {
                Ok(link) => {
                    may_follow(&Status::of(&dir)?, &Status::at(&dir, name).map_err(failed("read a link"))?)?;
                    let link = link.into_vec();
                    path = if link.starts_with(b"/") { link } else { [parent, &link].concat() };
                }
                Err(Errno::EINVAL | Errno::ENOENT) => {
                    return Ok(Place { dir, name: name.to_owned() });
                }
                Err(errno) => return Err(failed("read a link")(errno)),
            }
        }
        Err(Error::Loop)
    }
}

/// What the kernel says of links that it follows (`fs.protected_symlinks`, proc(5)), for those that are followed here: in a directory
/// where everybody may make one, only its owner's and one's own.
fn may_follow(directory: &Status, link: &Status) -> Result<(), Error> {
    const SHARED: u32 = 0o1002;
    let is_shared = directory.mode & SHARED == SHARED;
    let is_trusted = link.uid == directory.uid || link.uid == Uid::effective().as_raw();
    if is_shared && !is_trusted { Err(Error::Denied) } else { Ok(()) }
}

/// What is open, as a path. To the kernel an `O_PATH` descriptor has no mode, time, attributes or second name but by this.
pub(crate) fn by_descriptor(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn refused(doing: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::ENOSYS => Error::Unsupported(NO_OPENAT2),
        Errno::EXDEV => Error::Outside,
        other => failed(doing)(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_link_in_a_shared_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let some = Status::of(std::fs::File::open(dir.path()).unwrap()).unwrap();
        let mine = Uid::effective().as_raw();
        let (shared, own) = (Status { mode: 0o1777, uid: 0, ..some }, Status { mode: 0o755, uid: 0, ..some });
        let of = |uid| Status { uid, ..some };
        assert!(matches!(may_follow(&shared, &of(mine + 1)), Err(Error::Denied)));
        for (directory, link) in [(&shared, mine), (&shared, 0), (&own, mine + 1)] {
            may_follow(directory, &of(link)).unwrap();
        }
        // Everybody may write there, and remove what is another's: the kernel does not mind, either.
        may_follow(&Status { mode: 0o777, ..shared }, &of(mine + 1)).unwrap();
    }
}
