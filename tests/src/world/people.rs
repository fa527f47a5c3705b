//! The users that tests play. Root can be anybody whom the user database knows; `tests/run` gives the database alice,
//! bob, carol and a few groups in a mount namespace of its own.

use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// A user, and the groups that their processes run with.
#[derive(Debug, Clone)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Why a test does not run here.
pub type Skip = String;

/// Says aloud that a test does not run here; `tests/run` counts these lines.
pub fn skip(test: &str, why: &str) {
    println!("SKIPPED: {test}: {why}");
}

/// Whether a program can be given file systems that nobody else sees.
///
/// # Errors
/// Why not.
pub fn may_mount() -> Result<(), Skip> {
    if std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
        return Err("left out by --fast".into());
    }
    Person::root()?;
    let namespace = super::process::system("unshare", &["--mount", "--propagation", "private", "true"]);
    match namespace {
        Some(output) if output.status.success() => Ok(()),
        _ => Err("no mount namespace can be had here".into()),
    }
}

impl Person {
    /// The user of this name, to be played by root.
    ///
    /// # Errors
    /// When this is not root, there is no such user, or they could not execute the programs under test.
    pub fn known(name: &str) -> Result<Self, Skip> {
        if !Uid::effective().is_root() {
            return Err("needs root".into());
        }
        if std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
            return Err("left out by --fast".into());
        }
        let user = User::from_name(name).ok().flatten().ok_or_else(|| {
            format!("needs the user {name}, whom tests/run makes in a mount namespace of its own")
        })?;
        let program = super::process::built("portreeve");
        if !everybody_can_reach(&program) {
            return Err(format!("{} can't be executed by other users", program.display()));
        }
        let mut groups = vec![user.gid.as_raw()];
        groups.extend(["proj", "everyone"].iter().filter_map(|group| {
            let group = Group::from_name(group).ok().flatten()?;
            group.mem.iter().any(|member| member == name).then_some(group.gid.as_raw())
        }));
        Ok(Self { name: name.into(), uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
    }

    /// Root, for a test that runs as root.
    ///
    /// # Errors
    /// When it does not.
    pub fn root() -> Result<Self, Skip> {
        if Uid::effective().is_root() {
            Ok(Self { name: "root".into(), uid: 0, gid: 0, groups: vec![0] })
        } else {
            Err("needs root".into())
        }
    }

    /// The same user under another effective group, as `sg GROUP` starts programs.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn under(mut self, group: &str) -> Self {
        let group = Group::from_name(group).ok().flatten().unwrap_or_else(|| panic!("no group {group}"));
        self.gid = group.gid.as_raw();
        self
    }

    /// Makes `path` theirs.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    }
}

/// These people, or `None` after saying why the test does not run.
pub fn people<const N: usize>(test: &str, names: [&str; N]) -> Option<[Person; N]> {
    let mut found = Vec::new();
    for name in names {
        match Person::known(name) {
            Ok(person) => found.push(person),
            Err(why) => {
                skip(test, &why);
                return None;
            }
        }
    }
    found.try_into().ok()
}

/// The gid of a group.
///
/// # Panics
/// When there is none of this name.
pub fn gid(group: &str) -> Gid {
    Group::from_name(group).ok().flatten().unwrap_or_else(|| panic!("no group {group}")).gid
}

fn everybody_can_reach(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors().all(|part| {
        part.as_os_str().is_empty()
            || std::fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0)
    })
}
