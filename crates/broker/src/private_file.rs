//! Files of the state directory: readable by their owner alone, replaced whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Nothing kept here is larger, in bytes: more is neither read nor written, so that what was written can be read again.
pub(crate) const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Why a private file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{path}: can't {doing}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could have written or read it.
    #[error("{0}: must belong to you and be closed to everybody else (chmod 600); it was not used")]
    Exposed(PathBuf),
    /// Larger than anything this program writes.
    #[error("{0}: too large to be one of this program's files")]
    TooLarge(PathBuf),
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { path, doing, source }
}

/// The file's content, or `None` if there is no such file.
///
/// # Errors
/// When it can't be read, is not ours, or is open to others.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "open it")(error)),
    };
    let meta = file.metadata().map_err(io_error(path, "look at it"))?;
    if !meta.is_file() || meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(FileError::Exposed(path.to_owned()));
    }
    if meta.len() > MAX_FILE {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io_error(path, "read it"))?;
    Ok(Some(bytes))
}

/// Replaces the file by one with this content and mode 0600: a reader sees the old or the new, never a part.
///
/// # Errors
/// When the directory can't be written, for example because the disk is full, or this is more than is read again; the old
/// file is then untouched.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_whole(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(io_error(path, "write it"))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_others_are_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(read(&path).unwrap().is_none());
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(FileError::Exposed(_))));
    }

    #[test]
    fn what_is_written_is_never_too_large_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let most = vec![b'x'; usize::try_from(MAX_FILE).unwrap()];
        write(&path, &most).unwrap();
        let more = [&most[..], b"y"].concat();
        assert!(matches!(write(&path, &more), Err(FileError::TooLarge(_))));
        assert_eq!(read(&path).unwrap(), Some(most), "the old one stays");
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("real"), b"x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        assert!(read(&dir.path().join("link")).is_err());
    }
}
