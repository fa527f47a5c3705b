//! Removes a directory with all that is in it. Invariant: links are removed, never followed; what is swapped in meanwhile is removed
//! as what it then is, or stays.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, failed};
use crate::limits;
use crate::listing::{Entries, enter};
use crate::rel_path::RelPath;
use crate::root::{Place, Root};

const DOING: &str = "remove it";

/// Something that could not be removed, and stays with all directories above it.
#[derive(Debug)]
pub struct Left {
    /// Below what was to be removed; empty for that itself.
    pub below: Vec<u8>,
    /// Why.
    pub error: Error,
}

impl Root {
    /// Removes what has the name: a directory with all that is in it, of a link the link. What can't be removed is told, and the rest
    /// is removed all the same; [`limits::LEFT`] are told of at most.
    ///
    /// # Errors
    /// [`Error::NotFound`] among others, when nothing at all was done.
    pub fn remove_tree(&self, path: &RelPath) -> Result<Vec<Left>, Error> {
        let place = self.place(path)?;
        remove_place(&place)
    }
}

struct Level {
    entries: Entries,
    name: OsString,
    /// The length of the path without this level's name.
    above: usize,
}

/// The same of a name in a directory.
pub(crate) fn remove_place(place: &Place) -> Result<Vec<Left>, Error> {
    match unlinkat(&place.dir, &*place.name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok(Vec::new()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(failed(DOING)(errno)),
    }
    let mut left = Vec::new();
    let mut path = Vec::new();
    let mut levels = vec![descend(place.dir.as_fd(), &place.name, &path)?];
    while let (depth, Some(level)) = (levels.len(), levels.last_mut()) {
        let Some(entry) = level.entries.next_name() else {
            let Some(done) = levels.pop() else { break };
            let above = levels.last().map_or(Ok(place.dir.as_fd()), |level| level.entries.inside())?;
            match unlinkat(above, &*done.name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // What stays in it was told already.
                Err(Errno::ENOTEMPTY | Errno::EEXIST) if !left.is_empty() => {}
                Err(errno) => tell(&mut left, &path, failed(DOING)(errno)),
            }
            path.truncate(done.above);
            continue;
        };
        let name = match entry {
            Ok(name) => name,
            Err(error) => {
                // Whatever was not seen stays, and so does the directory.
                tell(&mut left, &path, error);
                levels.pop().inspect(|done| path.truncate(done.above));
                continue;
            }
        };
        let below = [&path[..], if path.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
        match unlinkat(level.entries.inside()?, &*name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(errno) => {
                tell(&mut left, &below, failed(DOING)(errno));
                continue;
            }
        }
        if depth >= limits::DEPTH {
            tell(&mut left, &below, Error::TooLong);
            continue;
        }
        match descend(level.entries.inside()?, &name, &path) {
            Ok(level) => {
                path = below;
                levels.push(level);
            }
            Err(Error::NotFound) => {}
            Err(error) => tell(&mut left, &below, error),
        }
    }
    Ok(left)
}

fn descend(dir: impl AsFd, name: &OsStr, path: &[u8]) -> Result<Level, Error> {
    let inside = enter(dir, name).map_err(|error| match error {
        // And it may not be unlinked.
        Error::NotADirectory => Error::Denied,
        other => other,
    })?;
    Ok(Level { entries: Entries::of(inside)?, name: name.to_owned(), above: path.len() })
}

fn tell(left: &mut Vec<Left>, below: &[u8], error: Error) {
    if left.len() < limits::LEFT {
        left.push(Left { below: below.to_vec(), error });
    }
}
