//! Makes, changes, disables, removes and shares one's own forward files: what `portreeve forward` does. A user who
//! writes the same files with `echo` and `chmod` gets the same result.
//!
//! Invariant: a file is replaced whole (rename), so that a reader never sees half a target.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::PathBuf;

use nix::unistd::Uid;
use portreeve_model::{ForwardFile, ForwardName, ForwardTarget};

use crate::account::group_id;
use crate::forwards::Forwards;

/// Why a forward was not changed. Whatever it is, the forward is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// First to create a name owns it.
    #[error("the name {0} belongs to somebody else (uid {1}); choose another")]
    Taken(ForwardName, u32),
    /// One of our own, which is left as it is.
    #[error("you have a forward called {0} already; choose another name")]
    Exists(ForwardName),
    /// Nothing of that name.
    #[error("there is no forward called {0}; `portreeve forward list` shows yours")]
    NotFound(ForwardName),
    /// Not a plain file.
    #[error("{0} is no plain file; it was left alone")]
    NotPlain(PathBuf),
    /// The group does not exist.
    #[error("there is no group called {0}")]
    NoSuchGroup(String),
    /// The system refused.
    #[error("can't {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(doing: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> EditError {
    move |source| EditError::Io { doing, path, source }
}

impl Forwards {
    /// Points `name` at `target`. A forward that exists keeps its mode and group. Returns whether it is new.
    ///
    /// # Errors
    /// When the name is somebody else's or the file can't be written.
    pub fn add(&self, name: &ForwardName, target: &ForwardTarget) -> Result<bool, EditError> {
        let line = format!("{}\n", target.to_line());
        match self.own(name) {
            Ok(old) => self.replace(name, line.as_bytes(), &old).map(|()| false),
            Err(EditError::NotFound(_)) => self.create(name, line.as_bytes()).map(|()| true),
            Err(other) => Err(other),
        }
    }

    /// The same with a name that must be new.
    ///
    /// # Errors
    /// When there is a forward of that name, whoever owns it, or the file can't be written.
    pub fn add_new(&self, name: &ForwardName, target: &ForwardTarget) -> Result<(), EditError> {
        match self.own(name) {
            Ok(_) => Err(EditError::Exists(name.clone())),
            Err(EditError::NotFound(_)) => self.create(name, format!("{}\n", target.to_line()).as_bytes()),
            Err(other) => Err(other),
        }
    }

    /// Removes the file if it is ours and leads to `target` still. Returns whether it did; a name that leads elsewhere by now,
    /// or is somebody else's, is left alone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove_leading_to(&self, name: &ForwardName, target: &ForwardTarget) -> Result<bool, EditError> {
        match self.own(name) {
            Ok(_) => {}
            Err(error @ EditError::Io { .. }) => return Err(error),
            Err(_) => return Ok(false),
        }
        let leads_there = self.leads_to(name, target);
        if leads_there {
            self.remove(name)?;
        }
        Ok(leads_there)
    }

    /// Whether this forward, whoever owns it, leads to `target`.
    #[must_use]
    pub fn leads_to(&self, name: &ForwardName, target: &ForwardTarget) -> bool {
        let leads_there =
            |file| matches!(file, ForwardFile::Target { target: found, .. } if found == *target);
        self.read(name).is_ok_and(|read| leads_there(read.file))
    }

    /// Empties the file: the name stays reserved, the address answers "disabled".
    ///
    /// # Errors
    /// When it is not ours or can't be written.
    pub fn disable(&self, name: &ForwardName) -> Result<(), EditError> {
        let old = self.own(name)?;
        self.replace(name, b"", &old)
    }

    /// Removes the file: the name is free for anybody.
    ///
    /// # Errors
    /// When it is not ours or can't be removed.
    pub fn remove(&self, name: &ForwardName) -> Result<(), EditError> {
        self.own(name)?;
        let path = self.path(name);
        std::fs::remove_file(&path).map_err(failed("remove", path))
    }

    /// Lets the members of `group` use the forward: the file gets that group, readable and executable for it, and
    /// writable for nobody but its owner.
    ///
    /// # Errors
    /// When there is no such group, or the owner is not a member of it.
    pub fn share(&self, name: &ForwardName, group: &str) -> Result<(), EditError> {
        self.own(name)?;
        let gid = group_id(group).ok_or_else(|| EditError::NoSuchGroup(group.to_owned()))?;
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path)
            .map_err(failed("open", path.clone()))?;
        fchown(&file, None, Some(gid)).map_err(failed("give the group to", path.clone()))?;
        file.set_permissions(Permissions::from_mode(0o750)).map_err(failed("change the mode of", path))
    }

    fn path(&self, name: &ForwardName) -> PathBuf {
        self.dir().join(name.as_str())
    }

    /// What is known of our own forward `name`.
    fn own(&self, name: &ForwardName) -> Result<std::fs::Metadata, EditError> {
        let path = self.path(name);
        let meta = match std::fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(EditError::NotFound(name.clone()));
            }
            Err(error) => return Err(failed("look at", path)(error)),
        };
        if !meta.is_file() {
            return Err(EditError::NotPlain(path));
        }
        if meta.uid() != Uid::effective().as_raw() {
            return Err(EditError::Taken(name.clone(), meta.uid()));
        }
        Ok(meta)
    }

    fn create(&self, name: &ForwardName, content: &[u8]) -> Result<(), EditError> {
        let (temporary, _) = self.temporary(name, content)?;
        let path = self.path(name);
        // A link fails when somebody created the name meanwhile; a rename would take it from them.
        let linked = std::fs::hard_link(&temporary, &path);
        let _ = std::fs::remove_file(&temporary);
        linked.map_err(failed("create", path))
    }

    fn replace(&self, name: &ForwardName, content: &[u8], old: &std::fs::Metadata) -> Result<(), EditError> {
        let (temporary, file) = self.temporary(name, content)?;
        let path = self.path(name);
        let kept = fchown(&file, None, Some(old.gid()))
            .and_then(|()| file.set_permissions(Permissions::from_mode(old.mode() & 0o7777)))
            .and_then(|()| std::fs::rename(&temporary, &path));
        if kept.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        kept.map_err(failed("replace", path))
    }

    /// A file beside the forward, under a name that no forward can have.
    fn temporary(&self, name: &ForwardName, content: &[u8]) -> Result<(PathBuf, File), EditError> {
        let path = self.dir().join(format!(".{name}.new-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path).and_then(|mut file| {
                file.write_all(content)?;
                // The umask took bits away; the owner must be able to execute, or the forward would not work.
                file.set_permissions(Permissions::from_mode(0o700))?;
                // A network file system may say only now that the disk is full.
                file.sync_all()?;
                Ok(file)
            });
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written.map(|file| (path.clone(), file)).map_err(failed("write", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> ForwardTarget {
        ForwardTarget::parse(text).unwrap()
    }

    #[test]
    fn add_change_disable_remove() {
        let dir = tempfile::tempdir().unwrap();
        let forwards = Forwards::in_dir(dir.path().to_owned());
        let name = ForwardName::parse("alice-tb").unwrap();
        assert!(forwards.add(&name, &target("http://localhost:8888/")).unwrap());
        std::fs::set_permissions(dir.path().join("alice-tb"), Permissions::from_mode(0o710)).unwrap();
        assert!(!forwards.add(&name, &target("http://localhost:9999/x/")).unwrap());
        let read = forwards.read(&name).unwrap();
        assert_eq!(read.stat.mode, 0o710, "the mode is kept");
        assert!(matches!(read.file, ForwardFile::Target { target: t, .. } if t.port.get() == 9999));
        forwards.disable(&name).unwrap();
        assert_eq!(forwards.read(&name).unwrap().file, ForwardFile::Disabled);
        assert_eq!(forwards.owned_by(Uid::effective().as_raw()).unwrap(), std::slice::from_ref(&name));
        forwards.remove(&name).unwrap();
        assert!(matches!(forwards.remove(&name), Err(EditError::NotFound(_))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn one_for_a_while_takes_no_place_and_goes_alone() {
        let dir = tempfile::tempdir().unwrap();
        let forwards = Forwards::in_dir(dir.path().to_owned());
        let name = ForwardName::parse("alice-tb").unwrap();
        let (here, there) = (target("http://c1:8888/"), target("http://c1:9999/"));
        forwards.add_new(&name, &here).unwrap();
        for other in [&here, &there] {
            assert!(matches!(forwards.add_new(&name, other), Err(EditError::Exists(_))));
        }
        assert!(!forwards.remove_leading_to(&name, &there).unwrap());
        forwards.disable(&name).unwrap();
        assert!(!forwards.remove_leading_to(&name, &here).unwrap(), "the name stays reserved");
        forwards.add(&name, &here).unwrap();
        assert!(forwards.remove_leading_to(&name, &here).unwrap());
        assert!(!forwards.remove_leading_to(&name, &here).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_place_of_a_forward_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let forwards = Forwards::in_dir(dir.path().to_owned());
        std::fs::write(dir.path().join("precious"), "keep").unwrap();
        std::os::unix::fs::symlink("precious", dir.path().join("app")).unwrap();
        let name = ForwardName::parse("app").unwrap();
        assert!(matches!(
            forwards.add(&name, &target("http://localhost:8888/")),
            Err(EditError::NotPlain(_))
        ));
        assert!(matches!(forwards.disable(&name), Err(EditError::NotPlain(_))));
        assert_eq!(std::fs::read_to_string(dir.path().join("precious")).unwrap(), "keep");
    }
}
