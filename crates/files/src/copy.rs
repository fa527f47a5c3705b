//! Copies and moves, in the place of whatever has the new name. Invariant: until the copy is complete the new name means what it
//! meant; links are copied as links; whatever fails, nothing of ours is left.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, readlinkat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use rustix::fs::{SeekFrom, seek};

use crate::attributes::copy_all;
use crate::error::{Error, failed, failed_io};
use crate::limits;
use crate::listing::{Entries, enter};
use crate::reading::OpenFile;
use crate::rel_path::RelPath;
use crate::remove::remove_place;
use crate::root::{Place, Root};
use crate::staging::hidden_name;
use crate::status::{Identity, Kind, Status};
use crate::tree::{Over, kept_by_directories, look, permissions, rename_to_free};

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
        Source::behind(self, from)?.copy_to(&place, deep, to.over)
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
        Source::at(&old)?.copy_to(&new, Deep::All, to.over)?;
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
        closed_while(&staged, fill)
            .and_then(|()| replace(&staged, &new, Over::Refuse).map_err(E::from))
            .inspect_err(|_| drop(remove_place(&staged)))
    }
}

/// What is copied: open, so that it stays the same whatever has its name meanwhile.
enum Source {
    File(OpenFile),
    Directory(Entries),
    Link(OsString),
}

impl Source {
    /// What the path leads to.
    fn behind(root: &Root, path: &RelPath) -> Result<Self, Error> {
        Ok(match root.status(path)?.kind {
            Kind::Directory => Self::Directory(root.entries(Some(path))?),
            _ => Self::File(root.read(path)?),
        })
    }

    /// What has the name: a link is a link.
    fn at(place: &Place) -> Result<Self, Error> {
        Ok(match look(place)?.ok_or(Error::NotFound)?.kind {
            Kind::Directory => Self::Directory(Entries::of(enter(&place.dir, &place.name)?)?),
            Kind::Link => Self::Link(readlinkat(&place.dir, &*place.name).map_err(failed(COPYING))?),
            _ => Self::File(OpenFile::at(&place.dir, &place.name)?),
        })
    }

    /// First a complete copy under a hidden name beside the new one.
    fn copy_to(self, new: &Place, deep: Deep, over: Over) -> Result<(), Error> {
        let staged = match &self {
            Self::File(file) => stage(new, |name| copy_file(file, new.dir.as_fd(), name))?,
            Self::Link(said) => {
                stage(new, |name| symlinkat(&**said, &new.dir, name).map_err(failed(COPYING)))?
            }
            Self::Directory(entries) => {
                stage_dir(new, permissions(Status::of(entries.inside()?)?.mode) | Mode::S_IRWXU)?
            }
        };
        let filled = match self {
            Self::Directory(entries) => fill(entries, &staged, deep),
            Self::File(_) | Self::Link(_) => Ok(()),
        };
        // What can't be removed stays, under a name that says what it is.
        filled.and_then(|()| replace(&staged, new, over)).inspect_err(|_| drop(remove_place(&staged)))
    }
}

fn fill(entries: Entries, staged: &Place, deep: Deep) -> Result<(), Error> {
    let into = enter(&staged.dir, &staged.name)?;
    // Who copies a directory into itself does not copy the copy.
    let itself = Status::of(&into)?.identity;
    copy_inside(entries, into.as_fd(), deep, &itself, limits::DEPTH)
}

fn copy_inside(
    mut entries: Entries,
    into: BorrowedFd<'_>,
    deep: Deep,
    staged: &Identity,
    depth: usize,
) -> Result<(), Error> {
    if deep == Deep::All {
        copy_entries(&mut entries, into, staged, depth - 1)?;
    }
    copy_all(entries.inside()?, into)?;
    let (old, new) = (Status::of(entries.inside()?)?, Status::of(into)?);
    let mode = permissions(new.mode) & (permissions(old.mode) | !Mode::S_IRWXU);
    if mode == permissions(new.mode) {
        return Ok(());
    }
    // Last: it takes away a right that was needed to fill it.
    fchmod(into, mode).map_err(failed(COPYING))
}

fn copy_entries(
    entries: &mut Entries,
    into: BorrowedFd<'_>,
    staged: &Identity,
    depth: usize,
) -> Result<(), Error> {
    while let Some(entry) = entries.next_itself() {
        let entry = entry?;
        let (status, name) = (entry.status.ok_or(Error::Denied)?, &*entry.name);
        match entry.kind {
            Kind::File => copy_file(&entries.read(name)?, into, name)?,
            Kind::Link => {
                let said = entries.link(name)?;
                symlinkat(OsStr::from_bytes(&said), into, name).map_err(failed(COPYING))?;
            }
            Kind::Directory if status.identity.is_same_file(staged) => {}
            // Said before it is made: what is deeper can't be removed, either.
            Kind::Directory if depth == 0 => return Err(Error::TooLong),
            Kind::Directory => {
                let mode = permissions(status.mode) | Mode::S_IRWXU;
                mkdirat(into, name, mode).map_err(failed(COPYING))?;
                copy_inside(entries.descend(name)?, enter(into, name)?.as_fd(), Deep::All, staged, depth)?;
            }
            other => return Err(Error::NotRegular(other)),
        }
    }
    Ok(())
}

/// Has a new directory filled: until that is done it is its owner's alone, and nobody looks at what will be private.
fn closed_while<E: From<Error>>(staged: &Place, fill: impl FnOnce(&Root) -> Result<(), E>) -> Result<(), E> {
    let dir = enter(&staged.dir, &staged.name)?;
    let set = |mode| fchmod(&dir, mode).map_err(failed(COPYING));
    // What is made in it gets its group, where that is so above.
    let (usual, inherits) = kept_by_directories(Status::of(&dir)?.mode);
    set(Mode::S_IRWXU | inherits)?;
    fill(&Root::of(dir.try_clone().map_err(failed_io(COPYING))?))?;
    Ok(set(usual | inherits)?)
}

/// What was made beside a new name, under a hidden one.
fn stage(new: &Place, make: impl Fn(&OsStr) -> Result<(), Error>) -> Result<Place, Error> {
    let dir = new.dir.try_clone().map_err(failed_io(COPYING))?;
    Ok(Place { name: hidden_name(make)?.1, dir })
}

fn stage_dir(new: &Place, mode: Mode) -> Result<Place, Error> {
    stage(new, |name| mkdirat(&new.dir, name, mode).map_err(failed(COPYING)))
}

/// A new file with the old one's content, permissions and attributes. If that fails, nothing has the name.
fn copy_file(source: &OpenFile, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let status = source.status();
    let file = openat(dir, name, flags, permissions(status.mode)).map_err(failed(COPYING))?;
    let file = File::from(file);
    let copied = || {
        copy_content(source.file(), &file, status.size).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed,
            _ => failed_io(COPYING)(error),
        })?;
        if Status::of(source.file())?.size < status.size {
            return Err(Error::Changed);
        }
        copy_all(source.file().as_fd(), file.as_fd())?;
        file.sync_all().map_err(failed_io(COPYING))
    };
    copied().inspect_err(|_| {
        let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
    })
}

/// The first `size` bytes. Where there are none but zeros that take no room, the copy has no more; what is added meanwhile is not
/// waited for.
fn copy_content(mut source: &File, mut file: &File, size: u64) -> io::Result<()> {
    let mut done = 0;
    while done < size {
        let begin = match seek(source, SeekFrom::Data(done)) {
            Ok(begin) => begin.clamp(done, size),
            // To its end.
            Err(rustix::io::Errno::NXIO) => size,
            // The file system knows nothing of holes.
            Err(_) => done,
        };
        let end = seek(source, SeekFrom::Hole(begin)).map_or(size, |end| end.clamp(begin, size));
        io::Seek::seek(&mut source, io::SeekFrom::Start(begin))?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(begin))?;
        // The kernel copies, where it can.
        let copied = io::copy(&mut source.take(end - begin), &mut file)?;
        if copied < end - begin {
            // It is shorter by now.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        done = end;
    }
    file.set_len(size)
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
    // rename(2) replaces no directory but an empty one. The two change their names, and the old one is removed when all is done.
    let put_aside = |from: &Place| {
        stage(new, |name| renameat(&from.dir, &*from.name, &new.dir, name).map_err(failed(RENAMING)))
    };
    match renameat2(&old.dir, &*old.name, &new.dir, &*new.name, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => return remove(&put_aside(old)?),
        // NFS and other file systems do not know the flag.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(failed(RENAMING)(errno)),
    }
    let aside = put_aside(new)?;
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

#[cfg(test)]
mod tests;
