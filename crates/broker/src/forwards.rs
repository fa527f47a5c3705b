//! Reads a forward file for the person this process runs as. On a cluster `spawner` does it for others, by the same
//! steps.
//!
//! Invariant: what is judged and what is read is one file. It is opened once with `O_PATH | O_NOFOLLOW` as a single
//! name below the directory; the checks and the content go through that descriptor, so nothing can be swapped between.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use portreeve_model::forward_file::{self, MAX_FORWARD_FILE};
use portreeve_model::{ForwardFile, ForwardFileError, ForwardName, ForwardStat};
use portreeve_sys::may_execute;

/// The directory that forward files live in.
#[derive(Debug, Clone)]
pub struct Forwards {
    dir: PathBuf,
}

/// A forward file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRead {
    /// Owner, group and mode: what the judgement needs.
    pub stat: ForwardStat,
    /// Where it points, or that it is disabled.
    pub file: ForwardFile,
}

/// Why a forward file gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such name.
    #[error("there is no forward of this name")]
    NotFound,
    /// The asking person lacks execute permission on the file: nobody shared it with them.
    #[error("the forward's file does not give you execute permission")]
    NotExecutable,
    /// A symbolic link, directory, fifo, device, or a file with several names.
    #[error("the forward's file is {0}, and only a plain file with one name is used")]
    NotPlain(Cow<'static, str>),
    /// May be executed but not read by the asking person.
    #[error("the forward's file may be used but not read by you; its owner can allow reading (chmod g+r)")]
    Unreadable,
    /// Its content is no target.
    #[error("the forward's file can't be understood")]
    Invalid(#[from] ForwardFileError),
    /// The same, found by the process that read it.
    #[error("the forward's file can't be understood: {0}")]
    NotUnderstood(String),
    /// Root could not read it either: its file system keeps root out.
    #[error("the forward's file can't be read, not even as its owner")]
    UnreadableByAnybody,
    /// The directory or file could not be looked at.
    #[error("the forward's file can't be looked at")]
    Io(#[source] io::Error),
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT => Self::NotFound,
            Errno::ELOOP => Self::NotPlain("a symbolic link".into()),
            other => Self::Io(other.into()),
        }
    }
}

impl Forwards {
    /// Forward files in this directory.
    #[must_use]
    pub fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the forward called `name`, if the person this process runs as may use it. Blocks on the file system.
    ///
    /// # Errors
    /// Every reason not to forward, by name.
    pub fn read(&self, name: &ForwardName) -> Result<ForwardRead, ReadError> {
        let opened = Opened::below(&self.dir, name)?;
        opened.check_executable()?;
        let file = forward_file::parse(&opened.content()?)?;
        Ok(ForwardRead { stat: opened.stat, file })
    }

    /// The names of all forward files that belong to `uid`, sorted; what is no valid name is passed over.
    ///
    /// # Errors
    /// When the directory can't be listed.
    pub fn owned_by(&self, uid: u32) -> io::Result<Vec<ForwardName>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(|text| ForwardName::parse(text).ok()) else {
                continue;
            };
            if Opened::below(&self.dir, &name).is_ok_and(|opened| opened.stat.uid == uid) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// A forward file itself, opened without any permission on it.
pub(crate) struct Opened {
    file: OwnedFd,
    /// What its inode says.
    pub(crate) stat: ForwardStat,
}

impl Opened {
    /// Opens the plain file of this name.
    pub(crate) fn below(dir: &Path, name: &ForwardName) -> Result<Self, ReadError> {
        let dir = open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| ReadError::Io(errno.into()))?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&dir, name.as_str(), flags, Mode::empty())?;
        let stat = fstat(&file)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let refused = match kind {
            SFlag::S_IFREG if stat.st_nlink == 1 => None,
            SFlag::S_IFREG => Some("a file with several names (hard links)"),
            SFlag::S_IFLNK => Some("a symbolic link"),
            SFlag::S_IFDIR => Some("a directory"),
            SFlag::S_IFIFO => Some("a fifo"),
            _ => Some("a device or socket"),
        };
        match refused {
            Some(kind) => Err(ReadError::NotPlain(kind.into())),
            None => Ok(Self {
                file,
                stat: ForwardStat { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 },
            }),
        }
    }

    /// Whether whoever this process is now has execute permission.
    pub(crate) fn check_executable(&self) -> Result<(), ReadError> {
        match may_execute(&self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReadError::NotExecutable),
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    /// What it holds, read as whoever this process is now.
    pub(crate) fn content(&self) -> Result<Vec<u8>, ReadError> {
        // Non-blocking: whoever owns the file could hold a lease on it, and make everybody wait who opens it.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let readable = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
            Ok(readable) => readable,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ReadError::Unreadable);
            }
            Err(error) => return Err(ReadError::Io(error)),
        };
        let mut bytes = Vec::new();
        // One byte more than allowed, so that the parser sees that it is too much.
        readable.take(MAX_FORWARD_FILE as u64 + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn forwards() -> (tempfile::TempDir, Forwards) {
        let dir = tempfile::tempdir().unwrap();
        let forwards = Forwards::in_dir(dir.path().to_owned());
        (dir, forwards)
    }

    fn put(forwards: &Forwards, name: &str, mode: u32, text: &str) -> ForwardName {
        let path = forwards.dir().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        ForwardName::parse(name).unwrap()
    }

    #[test]
    fn execute_permission_decides() {
        let (_dir, forwards) = forwards();
        for (mode, allowed) in [(0o700, true), (0o755, true), (0o644, false), (0o600, false)] {
            let name = put(&forwards, "app", mode, "http://localhost:8888/\n");
            assert_eq!(forwards.read(&name).is_ok(), allowed, "{mode:o}");
        }
    }

    #[test]
    fn only_a_plain_file_with_one_name_is_used() {
        let (_dir, forwards) = forwards();
        let real = put(&forwards, "real", 0o700, "http://localhost:8888/\n");
        symlink("real", forwards.dir().join("link")).unwrap();
        std::fs::create_dir(forwards.dir().join("dir")).unwrap();
        nix::unistd::mkfifo(&forwards.dir().join("fifo"), Mode::S_IRWXU).unwrap();
        for name in ["link", "dir", "fifo"] {
            let refused = forwards.read(&ForwardName::parse(name).unwrap());
            assert!(matches!(refused, Err(ReadError::NotPlain(_))), "{name}: {refused:?}");
        }
        assert!(forwards.read(&real).is_ok());
        std::fs::hard_link(forwards.dir().join("real"), forwards.dir().join("second")).unwrap();
        assert!(matches!(forwards.read(&real), Err(ReadError::NotPlain(_))));
    }

    #[test]
    fn an_empty_file_is_disabled_and_a_huge_or_odd_one_is_refused() {
        let (_dir, forwards) = forwards();
        let name = put(&forwards, "app", 0o700, "");
        assert_eq!(forwards.read(&name).unwrap().file, ForwardFile::Disabled);
        for text in ["x".repeat(MAX_FORWARD_FILE + 1).as_str(), "ftp://localhost/\n", "http://a b/\n"] {
            let name = put(&forwards, "app", 0o700, text);
            assert!(matches!(forwards.read(&name), Err(ReadError::Invalid(_))));
        }
        assert!(matches!(
            forwards.read(&ForwardName::parse("nobody-made-it").unwrap()),
            Err(ReadError::NotFound)
        ));
    }
}
