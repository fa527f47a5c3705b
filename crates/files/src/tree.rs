//! Makes directories, removes and renames. What these act on is the path's last name itself: a link there is made way
//! for, removed or renamed, not what it leads to.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, renameat, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::error::{Error, failed};
use crate::rel_path::RelPath;
use crate::root::{Place, Root};
use crate::status::{Kind, Status};

/// What becomes of something that has the new name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It is replaced, as rename(2) says: a file by a file, an empty directory by a directory.
    Replace,
    /// It stays, and the rename is [`Error::Exists`].
    Refuse,
}

impl Root {
    /// Makes a directory. The umask, or the parent's default access control list, takes bits of `mode` away.
    ///
    /// # Errors
    /// [`Error::Exists`] if anything has the name.
    pub fn make_dir(&self, path: &RelPath, mode: u32) -> Result<(), Error> {
        let place = self.place(path)?;
        mkdirat(&place.dir, &*place.name, permissions(mode)).map_err(failed("make the directory"))
    }

    /// Makes a directory and those above it that are missing. It may exist already; links to directories count.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] if something else has the name of one. Those made by then stay.
    pub fn make_dirs(&self, path: &RelPath, mode: u32) -> Result<(), Error> {
        for path in path.way() {
            // Looked for first: where nothing may be made, some file systems refuse even what exists already.
            match self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(_) => continue,
                Err(Error::NotFound) => {}
                Err(other) => return Err(other),
            }
            match self.make_dir(&RelPath::parse(path).map_err(|_| Error::TooLong)?, mode) {
                // Somebody else made it meanwhile, or it is a link that leads nowhere: the second look tells.
                Ok(()) | Err(Error::Exists) => {}
                Err(other) => return Err(other),
            }
            self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        }
        Ok(())
    }

    /// Removes whatever has the name and is no directory.
    ///
    /// # Errors
    /// [`Error::IsADirectory`] for a directory.
    pub fn remove_file(&self, path: &RelPath) -> Result<(), Error> {
        let place = self.place(path)?;
        unlinkat(&place.dir, &*place.name, UnlinkatFlags::NoRemoveDir).map_err(failed("remove it"))
    }

    /// Gives a file or directory another name, in one step.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the new name is on another file system.
    pub fn rename(&self, from: &RelPath, to: &RelPath, over: Over) -> Result<(), Error> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        match over {
            Over::Replace => {
                renameat(&from.dir, &*from.name, &to.dir, &*to.name).map_err(failed("rename it"))
            }
            Over::Refuse => rename_to_free(&from, &to),
        }
    }
}

pub(crate) fn rename_to_free(from: &Place, to: &Place) -> Result<(), Error> {
    let failed = failed("rename it");
    match renameat2(&from.dir, &*from.name, &to.dir, &*to.name, RenameFlags::RENAME_NOREPLACE) {
        // NFS and other file systems do not know the flag.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        answer => return answer.map_err(failed),
    }
    let is_directory = look(from)?.is_some_and(|status| status.kind == Kind::Directory);
    if is_directory {
        // A directory has no second link. Should one be made there after the look, only an empty one is replaced.
        return match look(to)? {
            Some(_) => Err(Error::Exists),
            None => renameat(&from.dir, &*from.name, &to.dir, &*to.name).map_err(failed),
        };
    }
    linkat(&from.dir, &*from.name, &to.dir, &*to.name, AtFlags::empty()).map_err(&failed)?;
    unlinkat(&from.dir, &*from.name, UnlinkatFlags::NoRemoveDir).map_err(failed)
}

/// What has the name in the directory, a link being a link; `None` for nothing.
pub(crate) fn look(place: &Place) -> Result<Option<Status>, Error> {
    match Status::at(&place.dir, &place.name) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(failed("look at it")(errno)),
    }
}

/// The permissions of a directory, and what else it keeps when these are set: that what is made in it gets its group, and that nobody
/// removes what is another's.
pub(crate) fn kept_by_directories(mode: u32) -> (Mode, Mode) {
    (permissions(mode), Mode::from_bits_truncate(mode) & (Mode::S_ISGID | Mode::S_ISVTX))
}

/// The permissions alone: setuid, setgid and sticky are not for a browser to give.
pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode) & (Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)
}
