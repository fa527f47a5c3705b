//! Jobs that are over, shown to a group: a copy of each in a directory that all may write to, `workspace.shared`.
//!
//! Invariants: who may read one the kernel decides, by its group; whose it is, too, by its owner. A copy appears whole or not at all,
//! and is never more than a reader can take. What somebody else put there may be anything: it is read as hostile.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::history::{ERRORS, History, Kept, OUTPUT, SCRIPT};
use crate::limits;
use crate::records::{self, Entry, EntryId, Outcome, Record};

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    dir: PathBuf,
}

/// One that is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// What was started.
    pub entry: Entry,
    /// How it ended.
    pub outcome: Outcome,
    /// Whose it is.
    pub uid: u32,
    /// Who may read it.
    pub gid: u32,
}

impl Shared {
    /// At this path.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// To read the copies with.
    #[must_use]
    pub fn history(&self) -> History {
        History::at(&self.dir)
    }

    /// Shows one of a history to a group. One that is shown already is shown to this group from now on. Blocks, as everything here.
    ///
    /// # Errors
    /// When it is not over, the disk is full, or the system refuses, such as a group that one is not in: then nobody sees it.
    pub fn show(&self, history: &History, id: &EntryId, gid: u32) -> io::Result<()> {
        let Kept { entry, outcome } = history.read(id)?;
        let outcome = outcome.ok_or_else(|| io::Error::other("it is not over yet"))?;
        self.hide(id)?;
        let whole = self.dir.join(id.as_str());
        // Of a name that nobody can have taken.
        let unfinished = self.dir.join(format!(".{}", EntryId::new(entry.submitted)?));
        DirBuilder::new().mode(0o700).create(&unfinished)?;
        let made = (|| {
            records::write(&unfinished, &entry)?;
            records::write(&unfinished, &outcome)?;
            records::write_file(&unfinished, SCRIPT, history.script(id)?.as_bytes())?;
            for name in [OUTPUT, ERRORS] {
                let (bytes, _) = history.tail(id, name, limits::SHARED_OUTPUT)?;
                records::write_file(&unfinished, name, &bytes)?;
            }
            for file in std::fs::read_dir(&unfinished)? {
                give(&file?.path(), gid, 0o640)?;
            }
            give(&unfinished, gid, 0o750)?;
            std::fs::rename(&unfinished, &whole)
        })();
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&unfinished);
        }
        made
    }

    /// Shows it to nobody any more.
    ///
    /// # Errors
    /// When the system refuses. That it is not shown is none; nor is what somebody else has put there under its name.
    pub fn hide(&self, id: &EntryId) -> io::Result<()> {
        let whole = self.dir.join(id.as_str());
        let not_there = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match std::fs::symlink_metadata(&whole) {
            Ok(meta) if meta.uid() != geteuid().as_raw() => return Ok(()),
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&whole),
            Ok(_) => std::fs::remove_file(&whole),
            Err(error) => Err(error),
        }
        .or_else(|error| if not_there(&error) { Ok(()) } else { Err(error) })
    }

    /// All that this process may read, the youngest first, one's own among them.
    ///
    /// # Errors
    /// When the directory can't be listed. That it is not there is none.
    pub fn list(&self) -> io::Result<Vec<Shown>> {
        let (mut found, mut of_owner) = (Vec::new(), BTreeMap::new());
        for id in self.history().ids()? {
            let directory = self.dir.join(id.as_str());
            let Ok(meta) = std::fs::symlink_metadata(&directory) else { continue };
            let of_owner = of_owner.entry(meta.uid()).or_insert(0);
            *of_owner += 1;
            let is_small = |file| {
                std::fs::symlink_metadata(directory.join(file))
                    .is_ok_and(|meta| meta.len() <= limits::SHARED_RECORD)
            };
            if *of_owner <= limits::SHARED_OF_ONE && is_small(Entry::FILE) && is_small(Outcome::FILE) {
                found.extend(self.find(&id));
            }
            if found.len() >= limits::SHARED {
                break;
            }
        }
        Ok(found)
    }

    /// One that is shown.
    ///
    /// # Errors
    /// When it is not there, may not be read, or is none.
    pub fn find(&self, id: &EntryId) -> io::Result<Shown> {
        let directory = std::fs::symlink_metadata(self.dir.join(id.as_str()))?;
        if !directory.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let Kept { entry, outcome } = self.history().read(id)?;
        let outcome = outcome.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not over"))?;
        Ok(Shown { entry, outcome, uid: directory.uid(), gid: directory.gid() })
    }
}

/// The group first: with the mode first, the group before would read it.
fn give(path: &Path, gid: u32, mode: u32) -> io::Result<()> {
    chown(path, None, Some(gid))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::{entry, outcome};

    #[test]
    fn one_that_is_over_is_shown_and_hidden() {
        let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (history, shared) = (History::below(state.path()), Shared::at(dir.path()));
        let (entry, gid) = (entry(1000), nix::unistd::getgid().as_raw());
        let directory = history.create(&entry, "#!/bin/sh\n").unwrap();
        std::fs::write(directory.join(OUTPUT), "said").unwrap();
        assert!(shared.show(&history, &entry.id, gid).is_err(), "it goes on");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        history.finish(&entry.id, &outcome()).unwrap();
        for _ in 0..2 {
            shared.show(&history, &entry.id, gid).unwrap();
        }
        let shown = shared.list().unwrap();
        assert_eq!(shown.len(), 1);
        assert_eq!((&shown[0].entry, shown[0].gid), (&entry, gid));
        assert_eq!(shared.history().tail(&entry.id, OUTPUT, 99).unwrap().0, b"said");
        let mode = |path: PathBuf| path.metadata().unwrap().mode() & 0o7777;
        let copy = dir.path().join(entry.id.as_str());
        assert_eq!((mode(copy.clone()), mode(copy.join(SCRIPT))), (0o750, 0o640));
        shared.hide(&entry.id).unwrap();
        shared.hide(&entry.id).unwrap();
        assert_eq!(shared.list().unwrap(), []);
    }

    #[test]
    fn what_lies_beside_it_keeps_nobody_from_hiding_it() {
        let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (history, shared) = (History::below(state.path()), Shared::at(dir.path()));
        let (entry, gid) = (entry(1000), nix::unistd::getgid().as_raw());
        history.create(&entry, "").unwrap();
        history.finish(&entry.id, &outcome()).unwrap();
        // As somebody would who saw it before.
        std::fs::write(dir.path().join(format!(".{}", entry.id)), "").unwrap();
        shared.show(&history, &entry.id, gid).unwrap();
        shared.hide(&entry.id).unwrap();
        assert_eq!(shared.list().unwrap(), []);
    }

    #[test]
    fn what_is_put_there_by_others_is_not_believed() {
        let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (history, shared) = (History::below(state.path()), Shared::at(dir.path()));
        let entry = entry(1000);
        let own = history.create(&entry, "").unwrap();
        history.finish(&entry.id, &outcome()).unwrap();
        // A link to what the reader alone may read.
        std::os::unix::fs::symlink(own, dir.path().join(entry.id.as_str())).unwrap();
        assert_eq!(shared.list().unwrap(), []);
        assert!(shared.find(&entry.id).is_err());
        shared.show(&history, &entry.id, nix::unistd::getgid().as_raw()).unwrap();
        let record = dir.path().join(entry.id.as_str()).join("entry.json");
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(&record, text + &" ".repeat(100_000)).unwrap();
        assert_eq!(
            (shared.list().unwrap().len(), shared.find(&entry.id).is_ok()),
            (0, true),
            "a large one costs nobody"
        );
        assert!(!dir.path().join(entry.id.as_str()).is_symlink() && shared.find(&entry.id).is_ok());
    }
}
