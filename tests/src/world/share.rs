//! Forward files as their owners would write them, in a directory for everybody.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::people::{Person, gid};
use super::portal::{Portal, PortalOptions};

/// Writes a forward file as its owner would.
///
/// # Panics
/// When the system refuses.
pub fn write_forward(dir: &Path, name: &str, text: &str, owner: &Person, group: u32, mode: u32) {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    chown(&path, Some(owner.uid), Some(group)).unwrap_or_else(|error| panic!("chown {name}: {error}"));
    set_mode(&path, mode);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("chmod {}: {error}", path.display()));
}

/// A directory for everybody's forwards, sticky like /tmp.
#[derive(Debug)]
pub struct SharedForwards(tempfile::TempDir);

impl Default for SharedForwards {
    fn default() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        set_mode(dir.path(), 0o1777);
        Self(dir)
    }
}

impl SharedForwards {
    /// A portal of this person that uses it.
    pub fn portal_of(&self, person: &Person, config: &str) -> Portal {
        Portal::start(PortalOptions {
            person: Some(person.clone()),
            forwards: Some(self.0.path().to_owned()),
            config: Some(config.to_owned()),
            ..PortalOptions::default()
        })
    }

    /// `owner`'s forward to `port` of this machine, with this group and mode.
    pub fn put(&self, name: &str, port: u16, owner: &Person, group: u32, mode: u32) {
        write_forward(self.0.path(), name, &format!("http://localhost:{port}/\n"), owner, group, mode);
    }

    /// `owner`'s forward to `port`, shared with the project's group.
    pub fn share(&self, name: &str, port: u16, owner: &Person) {
        self.put(name, port, owner, gid("proj").as_raw(), 0o750);
    }

    /// Takes it back: its owner alone may use it.
    pub fn take_back(&self, name: &str) {
        set_mode(&self.0.path().join(name), 0o700);
    }
}
