//! The state directory: private to its owner, used by one portal at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

use crate::arguments::StateDir;

impl StateDir {
    /// The directory that was asked for, or the user's own.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.dir {
            return std::path::absolute(dir).with_context(|| format!("{}: no such path", dir.display()));
        }
        // The XDG base directory specification: a relative value is to be ignored.
        let home = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        match (home("XDG_STATE_HOME"), home("HOME")) {
            (Some(state), _) => Ok(state.join("portreeve")),
            (None, Some(home)) => Ok(home.join(".local/state/portreeve")),
            (None, None) => {
                bail!(
                    "neither XDG_STATE_HOME nor HOME is an absolute path: name a directory with --state DIR"
                )
            }
        }
    }
}

/// Makes the directory, or checks that nobody else can change what is in it.
pub(crate) fn prepare(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
        format!("the state directory {} can't be made: name another with --state DIR", dir.display())
    })?;
    let meta = std::fs::metadata(dir).with_context(|| format!("{} can't be looked at", dir.display()))?;
    if meta.uid() != Uid::effective().as_raw() {
        bail!(
            "the state directory {} belongs to somebody else (uid {}): choose another with --state DIR",
            dir.display(),
            meta.uid()
        );
    }
    if meta.mode() & 0o022 != 0 {
        bail!(
            "the state directory {} can be changed by others: chmod go-w it, or choose another",
            dir.display()
        );
    }
    Ok(())
}

/// Makes the directory of forwards inside the state directory, if it is that one.
pub(crate) fn prepare_forwards(dir: &Path) -> anyhow::Result<()> {
    if !dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("the directory of forwards {} can't be made", dir.display()))?;
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    if !dir.is_dir() {
        bail!("{} is no directory: --forwards needs one", dir.display());
    }
    Ok(())
}

/// In the state directory: the directory of forwards that its portal was last started with.
const FORWARDS_NOTE: &str = "forwards-directory";

/// Leaves word of the directory, so that `portreeve forward` works on the same one.
pub(crate) fn note_forwards(state: &Path, forwards: &Path) -> anyhow::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let text = [forwards.as_os_str().as_bytes(), b"\n"].concat();
    Ok(portreeve_broker::private_file::write(&state.join(FORWARDS_NOTE), &text)?)
}

/// The directory of forwards that this state directory's portal was last started with, if there was one.
pub(crate) fn noted_forwards(state: &Path) -> Option<PathBuf> {
    let noted = std::fs::read_to_string(state.join(FORWARDS_NOTE)).ok()?;
    Some(noted.trim_end_matches('\n')).filter(|noted| !noted.is_empty()).map(PathBuf::from)
}

/// Holds the state directory for one portal until dropped.
#[derive(Debug)]
pub(crate) struct Lock(Flock<File>);

/// Takes the directory for this process.
///
/// # Errors
/// When another portal has it: where that one is.
pub(crate) fn lock(dir: &Path) -> anyhow::Result<Lock> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .with_context(|| format!("{} can't be opened", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Lock(lock)),
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut where_it_is = String::new();
            let _ = (&mut file).take(1024).read_to_string(&mut where_it_is);
            let where_it_is = where_it_is.trim();
            bail!(
                "a portal is already running on {}: {}",
                dir.display(),
                if where_it_is.is_empty() { "it is just starting" } else { where_it_is }
            )
        }
        Err((_, errno)) => {
            Err(io::Error::from(errno)).with_context(|| format!("{} can't be locked", path.display()))
        }
    }
}

impl Lock {
    /// Writes down where this portal is, for a second one to say.
    pub(crate) fn note(&mut self, url: &str) -> io::Result<()> {
        let text = format!("{url} (pid {})\n", std::process::id());
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_portal_is_told_where_the_first_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = lock(dir.path()).unwrap();
        first.note("https://localhost:8443/").unwrap();
        let refused = lock(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains("already running") && refused.contains("https://localhost:8443/"),
            "{refused}"
        );
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
        assert!(prepare(dir.path()).is_err());
        let fresh = dir.path().join("a/b");
        prepare(&fresh).unwrap();
        assert_eq!(std::fs::metadata(fresh).unwrap().mode() & 0o777, 0o700);
    }
}
