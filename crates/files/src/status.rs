//! What is known of a file without opening it, and how to tell that it changed.

use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};
use rustix::path::Arg;

use crate::error::{Error, failed};

const ALL: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// A link is a link; and to list who has a home directory must not mount them all.
const AS_LISTED: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

/// What kind of thing has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, also called named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A terminal, `/dev/null` and their like.
    CharacterDevice,
    /// A disk.
    BlockDevice,
    /// The file system does not say, or says something new.
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Link => "a link",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Unknown => "of an unknown kind",
        })
    }
}

/// What statx(2) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub kind: Kind,
    /// In bytes. Of a link: the length of what it says.
    pub size: u64,
    /// Permissions, setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// When its content last changed, as far as its owner lets that be known.
    pub modified: SystemTime,
    /// When it was made, where the file system keeps that.
    pub created: Option<SystemTime>,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// To tell later whether it is still the same.
    pub identity: Identity,
}

impl Status {
    /// Of what the descriptor means; it may be an `O_PATH` one.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Error> {
        statx(file, "", AtFlags::EMPTY_PATH, ALL)
            .map(|stat| Self::from(&stat))
            .map_err(|error| failed("look at it")(errno(error)))
    }

    /// Of what has the name in the directory; a link is a link.
    pub(crate) fn at(dir: impl AsFd, name: impl Arg) -> Result<Self, Errno> {
        statx(dir, name, AS_LISTED, ALL).map(|stat| Self::from(&stat)).map_err(errno)
    }

    /// The same of what is known to be a directory: without asking a server that may be away, if the system knows enough. Where
    /// something is mounted that hangs, its name and its neighbours can still be told.
    pub(crate) fn of_directory_at(dir: impl AsFd, name: impl Arg) -> Result<Self, Errno> {
        let how = AS_LISTED | AtFlags::STATX_DONT_SYNC;
        statx(dir, name, how, ALL).map(|stat| Self::from(&stat)).map_err(errno)
    }

    /// Proof that this is a regular file, or what it is instead.
    pub(crate) fn regular(self) -> Result<Self, Error> {
        match self.kind {
            Kind::File => Ok(self),
            Kind::Directory => Err(Error::IsADirectory),
            other => Err(Error::NotRegular(other)),
        }
    }
}

impl From<FileType> for Kind {
    fn from(told: FileType) -> Self {
        match told {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharacterDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => Self::Unknown,
        }
    }
}

impl From<&Statx> for Status {
    fn from(stat: &Statx) -> Self {
        let kind = FileType::from_raw_mode(stat.stx_mode.into()).into();
        let identity = Identity {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec.into()),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec.into()),
        };
        let is_known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            kind,
            size: stat.stx_size,
            mode: u32::from(stat.stx_mode) & 0o7777,
            modified: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec.into()),
            created: is_known.then(|| time(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec.into())),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            identity,
        }
    }
}

/// One library's number as the other's.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// A user can set any time, also one that overflows: that becomes 1970.
fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let part = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    time.and_then(|time| time.checked_add(part)).unwrap_or(UNIX_EPOCH)
}

/// Which file this is, and which content of it: device, inode, size, and to the nanosecond when its content and its
/// inode last changed. Equal means the same content, but for two changes within one tick of the file system's clock,
/// which is some milliseconds on many. Unequal may also be a change of mode, or a network file system that was mounted
/// anew or on another machine: it can say "changed" without need, which costs a question to the person, not a file.
///
/// Its text is one word of hexadecimal numbers and dots, and can stand in an `ETag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// From its text; `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('.');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let mut signed = || number().map(u64::cast_signed);
        let (device, inode, size) =
            (signed()?.cast_unsigned(), signed()?.cast_unsigned(), signed()?.cast_unsigned());
        let modified = (signed()?, signed()?);
        let changed = (signed()?, signed()?);
        words.next().is_none().then_some(Self { device, inode, size, modified, changed })
    }

    /// Device and inode: which file, whatever is in it.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// The file system that it is on.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Device and inode.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A directory of ten thousand files is listed with as many of these.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let Self { device, inode, size, modified, changed } = self;
        let numbers = [*device, *inode, *size]
            .into_iter()
            .chain([modified.0, modified.1, changed.0, changed.1].into_iter().map(i64::cast_unsigned));
        let (mut text, mut length) = ([b'.'; 7 * 17], 0);
        for number in numbers {
            let digits = (67 - (number | 1).leading_zeros()) / 4;
            for place in (0..digits).rev() {
                text[length] = DIGITS[(number >> (4 * place)) as usize & 0xf];
                length += 1;
            }
            // The dot is there.
            length += 1;
        }
        f.write_str(str::from_utf8(&text[..length - 1]).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_from_its_text() {
        let some = Identity {
            device: 0xfd01,
            inode: u64::MAX,
            size: 0,
            modified: (-5, 999_999_999),
            changed: (i64::MAX, 0),
        };
        assert_eq!(Identity::parse(&some.to_string()), Some(some));
        assert!(some.to_string().bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'.'));
        for text in ["", "1.2.3.4.5.6", "1.2.3.4.5.6.7.8", "1.2.3.4.5.6.", "1.2.3.4.5.6.x", "1 .2.3.4.5.6.7"]
        {
            assert_eq!(Identity::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn no_time_is_too_strange() {
        assert_eq!(time(-1, 500_000_000), UNIX_EPOCH - Duration::from_millis(500));
        assert_eq!(time(1, 5), UNIX_EPOCH + Duration::new(1, 5));
        for seconds in [i64::MIN, i64::MAX] {
            let _ = time(seconds, 999_999_999);
        }
    }
}
