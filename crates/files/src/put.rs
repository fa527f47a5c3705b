//! Replaces a file whole, or not at all: a reader sees the old content or the new, never a part, also after a crash.
//! Invariant: whatever fails, until the rename the old file is as it was, and afterwards nothing of ours is left beside
//! it.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{AccessFlags, Gid, faccessat, fchown, fsync};

use crate::attributes::copy_all;
use crate::error::{Error, failed, failed_io};
use crate::rel_path::RelPath;
use crate::root::{Place, Root};
use crate::staging::{Staged, Staging};
use crate::status::{Identity, Kind, Status};
use crate::tree::{look, permissions};
use crate::turn::Turn;

/// A file being written. Dropped without [`Put::finish`], nothing has happened.
#[derive(Debug)]
#[must_use = "nothing is written until it is finished"]
pub struct Put {
    staged: Staged,
    /// Device and inode of the directory.
    directory: (u64, u64),
    written: u64,
    /// A part is missing, because it could not be written.
    torn: bool,
}

/// How a file that was written is put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Who may do what with it.
    pub mode: NewMode,
    /// Under which condition.
    pub only: Only,
}

/// The permissions of the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewMode {
    /// Those of the file that it replaces, or those that any new file gets in that directory: 0666 without the umask,
    /// or what the default access control list says. If the user may not give the new file the old one's group, the
    /// user's own group may no more than everybody: what was for one group is not for another.
    Kept,
    /// Those of any new file in that directory, or of any new program, as far as these go.
    AtMost(u32),
    /// These, whatever was there and whatever the umask. Of `0o777`: setuid and its like are not for a browser to give.
    Exactly(u32),
}

/// What must be true of the name when the file gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// Nothing: a file is replaced.
    Always,
    /// Nothing has it, or it is [`Error::Exists`]. The kernel sees to it.
    IfAbsent,
    /// It is still that file with that content, or it is [`Error::Changed`]. Other writers through this process can't
    /// get in between; another process can, in the moment between the look and the rename.
    IfStill(Identity),
}

impl Root {
    /// Begins to write the file at `path`, in its directory. If `path` is a link, what it leads to is written, as every
    /// program does that opens it: the link is followed now, once, and stays. What is written is a new file: other hard
    /// links to the old one keep the old content; owner and access control list are a new file's.
    ///
    /// # Errors
    /// When there can be no file. [`Error::IsADirectory`] and [`Error::NotRegular`] when something else is there.
    pub fn put(&self, path: &RelPath) -> Result<Put, Error> {
        self.put_by(path, Staging::ALL)
    }

    fn put_by(&self, path: &RelPath, ways: &[Staging]) -> Result<Put, Error> {
        let staged = Staged::begin(self.place_behind_links(path)?, ways)?;
        let directory = Status::of(&staged.place().dir)?.identity.place();
        Ok(Put { staged, directory, written: 0, torn: false })
    }
}

impl Put {
    /// Appends to what was written so far.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Quota`] among others. The file can't be finished then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.staged.file().write_all(bytes) {
            Ok(()) => {
                self.written = self.written.saturating_add(bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                self.torn = true;
                Err(failed_io("write it")(error))
            }
        }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the file in place, and returns when it would survive a crash of the machine.
    ///
    /// # Errors
    /// - [`Error::Full`] and [`Error::Quota`]: some file systems say so only now.
    /// - [`Error::Denied`]: the file that is there may not be written, though its directory may.
    /// - [`Error::Changed`]: the condition, or a link was put in the file's place meanwhile.
    ///
    /// In all these cases, the old file is as it was. Only an [`Error::Io`] "can't make sure of it" comes later: the
    /// new file is there, but a crash might undo it.
    pub fn finish(mut self, how: Finish) -> Result<Status, Error> {
        if self.torn {
            let source = io::Error::other("a part of it could not be written");
            return Err(Error::Io { doing: "finish it", source });
        }
        let before = self.judge(how.only)?;
        self.dress(before.as_ref(), how.mode)?;
        self.staged.file().sync_all().map_err(failed_io("write it"))?;
        {
            let _turn = Turn::take(self.directory);
            let now = self.judge(how.only)?;
            if now.map(clothes) != before.map(clothes) {
                self.dress(now.as_ref(), how.mode)?;
            }
            match how.only {
                Only::IfAbsent => self.staged.create()?,
                Only::Always if now.is_none() => self.create_or_replace(how)?,
                Only::Always | Only::IfStill(_) => self.staged.replace()?,
            }
        }
        self.make_sure()?;
        Status::of(self.staged.file())
    }

    /// Where nothing had the name: a step less than to replace.
    fn create_or_replace(&mut self, how: Finish) -> Result<(), Error> {
        match self.staged.create() {
            Err(Error::Exists) => {
                let now = self.judge(how.only)?;
                self.dress(now.as_ref(), how.mode)?;
            }
            Err(Error::Unsupported(_)) => {}
            done => return done,
        }
        self.staged.replace()
    }

    /// Looks at what has the name. An answer is permission to replace it.
    fn judge(&self, only: Only) -> Result<Option<Status>, Error> {
        let place = self.staged.place();
        let now = look(place)?;
        match (only, &now) {
            (Only::IfAbsent, Some(_)) => return Err(Error::Exists),
            (Only::IfStill(expected), now) if now.is_none_or(|now| now.identity != expected) => {
                return Err(Error::Changed);
            }
            _ => {}
        }
        if let Some(now) = now {
            // It was none when this began: links were followed then.
            if now.kind == Kind::Link {
                return Err(Error::Changed);
            }
            now.regular()?;
            // To replace a file takes rights to its directory alone. Whoever made it read-only meant the content.
            faccessat(&place.dir, &*place.name, AccessFlags::W_OK, AtFlags::AT_EACCESS)
                .map_err(failed("write it"))?;
        }
        Ok(now)
    }

    /// Gives the new file the group and mode that it shall have, and what was kept with the old one.
    fn dress(&self, old: Option<&Status>, mode: NewMode) -> Result<(), Error> {
        let file = self.staged.file();
        if old.is_some() {
            let Place { dir, name } = self.staged.place();
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            if let Ok(old) = openat(dir, &**name, flags, Mode::empty()) {
                copy_all(old.as_fd(), file.as_fd())?;
            }
        }
        let group_is_kept = match old {
            Some(old) => {
                Status::of(file)?.gid == old.gid || fchown(file, None, Some(Gid::from_raw(old.gid))).is_ok()
            }
            None => true,
        };
        let mode = match (mode, old) {
            (NewMode::Exactly(mode), _) => permissions(mode),
            (NewMode::AtMost(most), _) => {
                let usual = self.staged.usual_mode()?.bits();
                permissions((usual | (usual & 0o444) >> 2) & most)
            }
            (NewMode::Kept, None) => self.staged.usual_mode()?,
            (NewMode::Kept, Some(old)) if group_is_kept => permissions(old.mode),
            (NewMode::Kept, Some(old)) => {
                let others_as_group = (permissions(old.mode) & Mode::S_IRWXO).bits() << 3;
                permissions(old.mode) & (Mode::from_bits_truncate(others_as_group) | !Mode::S_IRWXG)
            }
        };
        fchmod(file, mode).map_err(failed("set its mode"))
    }

    /// A name is on disk when its directory is.
    fn make_sure(&self) -> Result<(), Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = &self.staged.place().dir;
        let synced = match fsync(dir) {
            // It was opened to be looked through alone.
            Err(Errno::EBADF) => openat(dir, ".", flags, Mode::empty()).and_then(fsync),
            synced => synced,
        };
        match synced {
            // Where files may be put but not listed, or where directories can't be synced, there is no way to be sure.
            Ok(()) | Err(Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(Error::Io { doing: "make sure of it", source: errno.into() }),
        }
    }
}

/// What [`Put::dress`] takes over from an old file.
fn clothes(status: Status) -> (u32, u32) {
    (status.mode, status.gid)
}

#[cfg(test)]
mod tests;
