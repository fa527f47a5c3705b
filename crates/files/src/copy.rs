//! Copies and moves, in the place of whatever has the new name. Invariant: until the copy is complete the new name means what it
//! meant; links are copied as links; whatever fails, nothing of ours is left.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::attributes::copy_all;
use crate::error::{Error, failed, failed_io};
use crate::limits;
use crate::listing::Entries;
use crate::rel_path::RelPath;
use crate::remove::remove_place;
use crate::root::{Place, Root};
use crate::staging::hidden_name;
use crate::status::{Identity, Kind, Status};
use crate::tree::{Over, look, permissions, rename_to_free};

const COPYING: &str = "copy it";
const RENAMING: &str = "rename it";

/// How much of a directory is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deep {
    /// All that is in it.
    All,
    /// Nothing of that: an empty directory.
    Empty,
}

/// Where a copy goes.
#[derive(Debug, Clone, Copy)]
pub struct To<'a> {
    /// The root of the new name.
    pub root: &'a Root,
    /// The new name.
    pub path: &'a RelPath,
    /// If something has it.
    pub over: Over,
}

impl Root {
    /// Copies a file, or a directory as `deep` says. The copy is a new file: it has the permissions of the old one as far as the
    /// umask leaves them, its extended attributes, and the time of now. A link at `from` is followed, those below are copied as links.
    ///
    /// # Errors
    /// [`Error::Exists`] with [`Over::Refuse`]; [`Error::NotRegular`] if there is a FIFO, socket or device. Nothing was done then.
    pub fn copy(&self, from: &RelPath, to: To<'_>, deep: Deep) -> Result<(), Error> {
        let place = to.root.place(to.path)?;
        if to.over == Over::Refuse && look(&place)?.is_some() {
            return Err(Error::Exists);
        }
        self.copy_to(from, &place, deep, to.over)
    }

    /// Gives a file or directory another name, in the place of whatever has that; on another file system by copying all of it and
    /// removing the old one.
    ///
    /// # Errors
    /// As [`Root::copy`]. [`Error::Denied`] also when the old one could be copied but not removed; then both are there.
    pub fn relocate(&self, from: &RelPath, to: To<'_>) -> Result<(), Error> {
        let (old, new) = (self.place(from)?, to.root.place(to.path)?);
        match replace(&old, &new, to.over) {
            Err(Error::Apart) => {}
            done => return done,
        }
        self.copy_to(from, &new, Deep::All, to.over)?;
        remove(&old)
    }

    /// Makes a directory and has it filled, which nobody sees under its name before it is. What fills it sees nothing else.
    ///
    /// # Errors
    /// [`Error::Exists`] if something has the name; and whatever `fill` says. Then nothing was done.
    pub fn make_filled<E: From<Error>>(
        &self,
        path: &RelPath,
        fill: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let new = self.place(path)?;
        if look(&new)?.is_some() {
            return Err(Error::Exists.into());
        }
        let staged = stage_dir(&new, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO)?;
        let inside = enter(staged.dir.as_fd(), &staged.name).map(Self::of).map_err(E::from);
        let filled = inside.and_then(|inside| fill(&inside));
        filled
            .and_then(|()| replace(&staged, &new, Over::Refuse).map_err(E::from))
            .inspect_err(|_| drop(remove_place(&staged)))
    }

    /// First a complete copy under a hidden name beside the new one.
    fn copy_to(&self, from: &RelPath, new: &Place, deep: Deep, over: Over) -> Result<(), Error> {
        let status = Status::of(self.resolve(from.as_bytes(), OFlag::O_PATH)?)?;
        let staged = if status.kind == Kind::Directory {
            stage_dir(new, permissions(status.mode) | Mode::S_IRWXU)?
        } else {
            let source = self.read(from)?.into_file();
            stage(new, |name| copy_file(&source, status.mode, new.dir.as_fd(), name))?
        };
        let filled = match status.kind {
            Kind::Directory => self.fill(from, &staged, deep),
            _ => Ok(()),
        };
        // What can't be removed stays, under a name that says what it is.
        filled.and_then(|()| replace(&staged, new, over)).inspect_err(|_| drop(remove_place(&staged)))
    }

    fn fill(&self, from: &RelPath, staged: &Place, deep: Deep) -> Result<(), Error> {
        let into = enter(staged.dir.as_fd(), &staged.name)?;
        // Who copies a directory into itself does not copy the copy.
        let itself = Status::of(&into)?.identity;
        self.copy_inside(from, into.as_fd(), deep, &itself, limits::DEPTH)
    }

    fn copy_inside(
        &self,
        from: &RelPath,
        into: BorrowedFd<'_>,
        deep: Deep,
        staged: &Identity,
        depth: usize,
    ) -> Result<(), Error> {
        let mut entries = self.entries(Some(from))?;
        let depth = depth.checked_sub(1).ok_or(Error::TooLong)?;
        if deep == Deep::All {
            self.copy_entries(&mut entries, from, into, staged, depth)?;
        }
        copy_all(entries.inside(), into)?;
        let (old, new) = (Status::of(entries.inside())?, Status::of(into)?);
        let mode = permissions(new.mode) & (permissions(old.mode) | !Mode::S_IRWXU);
        if mode == permissions(new.mode) {
            return Ok(());
        }
        // Last: it takes away a right that was needed to fill it.
        fchmod(into, mode).map_err(failed(COPYING))
    }

    fn copy_entries(
        &self,
        entries: &mut Entries,
        from: &RelPath,
        into: BorrowedFd<'_>,
        staged: &Identity,
        depth: usize,
    ) -> Result<(), Error> {
        while let Some(entry) = entries.next(self) {
            let entry = entry?;
            let (status, name) = (entry.status.ok_or(Error::Denied)?, &*entry.name);
            match entry.kind {
                Kind::File => {
                    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
                    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let source =
                        openat(entries.inside(), name, flags, Mode::empty()).map_err(failed(COPYING))?;
                    Status::of(&source)?.regular()?;
                    copy_file(&source.into(), status.mode, into, name)?;
                }
                Kind::Link => {
                    let said = readlinkat(entries.inside(), name).map_err(failed(COPYING))?;
                    symlinkat(&*said, into, name).map_err(failed(COPYING))?;
                }
                Kind::Directory if status.identity.is_same_file(staged) => {}
                Kind::Directory => {
                    let mode = permissions(status.mode) | Mode::S_IRWXU;
                    mkdirat(into, name, mode).map_err(failed(COPYING))?;
                    let path = from.join(name.as_bytes()).map_err(|_| Error::TooLong)?;
                    self.copy_inside(&path, enter(into, name)?.as_fd(), Deep::All, staged, depth)?;
                }
                other => return Err(Error::NotRegular(other)),
            }
        }
        Ok(())
    }
}

/// What was made beside a new name, under a hidden one.
fn stage(new: &Place, make: impl Fn(&OsStr) -> Result<(), Error>) -> Result<Place, Error> {
    let dir = new.dir.try_clone().map_err(failed_io(COPYING))?;
    Ok(Place { name: hidden_name(make)?.1, dir })
}

fn stage_dir(new: &Place, mode: Mode) -> Result<Place, Error> {
    stage(new, |name| mkdirat(&new.dir, name, mode).map_err(failed(COPYING)))
}

fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Error> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map_err(failed(COPYING))
}

/// A new file with the old one's content, permissions and attributes. If that fails, nothing has the name.
fn copy_file(source: &File, mode: u32, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, permissions(mode)).map_err(failed(COPYING))?;
    let mut file = File::from(file);
    let mut copied = || {
        // The kernel copies, where it can.
        io::copy(&mut &*source, &mut file).map_err(failed_io(COPYING))?;
        copy_all(source.as_fd(), file.as_fd())?;
        file.sync_all().map_err(failed_io(COPYING))
    };
    copied().inspect_err(|_| {
        let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
    })
}

/// Gives `old` the name of `new`. What has that name already goes when it is replaced, and comes back if that fails.
fn replace(old: &Place, new: &Place, over: Over) -> Result<(), Error> {
    let here = look(old)?.ok_or(Error::NotFound)?;
    let Some(there) = look(new)? else { return rename_to_free(old, new) };
    if over == Over::Refuse || here.identity.is_same_file(&there.identity) {
        return Err(Error::Exists);
    }
    if here.kind != Kind::Directory && there.kind != Kind::Directory {
        return renameat(&old.dir, &*old.name, &new.dir, &*new.name).map_err(failed(RENAMING));
    }
    // rename(2) replaces no directory but an empty one: the old one is put aside, and removed when all is done.
    let put_aside = |name: &OsStr| renameat(&new.dir, &*new.name, &new.dir, name).map_err(failed(RENAMING));
    let aside = stage(new, put_aside)?;
    if let Err(error) = rename_to_free(old, new) {
        rename_to_free(&aside, new)?;
        return Err(error);
    }
    remove(&aside)
}

/// All of it, or the first reason why not.
fn remove(place: &Place) -> Result<(), Error> {
    remove_place(place)?.into_iter().next().map_or(Ok(()), |left| Err(left.error))
}
