//! A file that is being written: in the directory where it is to be, but not yet under its name.
//! Before: `root` gave the directory. After: `put` decides whether it gets the name.
//! Invariant: until it is complete nobody but its owner can open it, and when it is dropped nothing of it is left.

use std::cell::{Cell, OnceCell};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fstat, stat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use rustix::fs::fgetxattr;

use crate::error::{Error, failed};
use crate::limits;
use crate::root::{Place, by_descriptor};

/// How the name of a file begins that is still being written, where the file system has no files without a name. One
/// that is older than any upload was left by a process that was killed.
pub const PUT_PREFIX: &str = ".portreeve-put-";

const NO_LINKS: &str = "this file system can't create a file without the danger of replacing one";

const NO_PROC: &str = "/proc is not there to give a file its name by";

/// Nobody else may open what is not complete, nor what will be private.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

#[derive(Debug)]
pub(crate) struct Staged {
    file: File,
    /// Where its content goes.
    place: Place,
    /// The hidden name, as long as it has one.
    hidden: Option<OsString>,
}

/// Whether it has a name from the beginning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staging {
    /// `O_TMPFILE`: even a process that is killed leaves nothing behind.
    Nameless,
    /// For file systems that can't: NFS, many parallel ones.
    Hidden,
}

impl Staging {
    /// The better one first.
    pub(crate) const ALL: &[Self] = &[Self::Nameless, Self::Hidden];
}

impl Staged {
    /// An empty file for `place`, in the first of these ways that works; or why the last one does not.
    pub(crate) fn begin(place: Place, ways: &[Staging]) -> Result<Self, Error> {
        let mut refused = Error::Unsupported("there is no way to write a file");
        for way in ways {
            let created = match way {
                Staging::Nameless => create_nameless(&place, PRIVATE).map(|file| (file, None)),
                Staging::Hidden => create_hidden(&place, PRIVATE).map(|(file, name)| (file, Some(name))),
            };
            match created {
                Ok((file, hidden)) => return Ok(Self { file, place, hidden }),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The permissions of a file that is created here today: the umask decides, or the directory's default access
    /// control list in its place. To ask for the umask is to set it, for all threads, and a list takes more than it to
    /// compute: so an empty file is created, looked at and removed.
    pub(crate) fn usual_mode(&self) -> Result<Mode, Error> {
        const ANY: Mode = Mode::from_bits_truncate(0o666);
        // Where the file system has such lists and this directory has none, the umask alone decides, and `/proc` knows it.
        let list = fgetxattr(&self.place.dir, "system.posix_acl_default", &mut [0_u8; 0][..]);
        if list == Err(rustix::io::Errno::NODATA)
            && let Some(umask) = umask()
        {
            return Ok(ANY & !umask);
        }
        let (file, name) = create_hidden(&self.place, ANY)?;
        let stat = fstat(&file);
        remove(&self.place, &name);
        stat.map(|stat| Mode::from_bits_truncate(stat.st_mode & 0o777)).map_err(failed("look at it"))
    }

    /// Gives the file its name, in the place of whatever has it. From then on it is there.
    pub(crate) fn replace(&mut self) -> Result<(), Error> {
        let hidden = match self.hidden.take() {
            Some(name) => name,
            // No system call gives a nameless file a name that is taken.
            None => hidden_name(|name| self.link_nameless(name).map_err(failed("create a file")))?.1,
        };
        let Place { dir, name } = &self.place;
        let renamed = renameat(dir, &*hidden, dir, &**name);
        if renamed.is_err() {
            remove(&self.place, &hidden);
        }
        renamed.map_err(failed("put it in place"))
    }

    /// Gives the file its name if nothing has it.
    pub(crate) fn create(&mut self) -> Result<(), Error> {
        let Place { dir, name } = &self.place;
        let created = match &self.hidden {
            None => self.link_nameless(name),
            Some(hidden) => match renameat2(dir, &**hidden, dir, &**name, RenameFlags::RENAME_NOREPLACE) {
                // NFS and other file systems do not know the flag, but a link never replaces.
                Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                    // The second name goes at once: when it does, the file counts as changed.
                    linkat(dir, &**hidden, dir, &**name, AtFlags::empty())
                        .inspect(|()| remove(&self.place, hidden))
                }
                answer => answer,
            },
        };
        if created.is_ok() {
            self.hidden = None;
        }
        created.map_err(|errno| match errno {
            Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK => Error::Unsupported(NO_LINKS),
            other => failed("put it in place")(other),
        })
    }

    /// linkat(2) takes a descriptor without a name by way of `/proc`; directly, before Linux 6.10, from privileged
    /// processes alone.
    fn link_nameless(&self, name: &OsStr) -> nix::Result<()> {
        linkat(AT_FDCWD, &by_descriptor(&self.file), &self.place.dir, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.hidden {
            remove(&self.place, name);
        }
    }
}

// To the kernel a thread can have a umask and mounts of its own.
thread_local! {
    static HAS_PROC: Cell<bool> = const { Cell::new(false) };
    static UMASK: OnceCell<Option<Mode>> = const { OnceCell::new() };
}

/// This thread's, which nothing here changes.
fn umask() -> Option<Mode> {
    let read = || {
        let status = fs::read_to_string("/proc/thread-self/status").ok()?;
        let text = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        Some(Mode::from_bits_truncate(u32::from_str_radix(text.trim(), 8).ok()?))
    };
    UMASK.with(|umask| *umask.get_or_init(read))
}

/// A new file without a name.
fn create_nameless(place: &Place, mode: Mode) -> Result<File, Error> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = File::from(openat(&place.dir, ".", flags, mode).map_err(failed("create a file"))?);
    // Looked at once: it does not go away.
    if HAS_PROC.get() {
        return Ok(file);
    }
    let itself = fstat(&file).map_err(failed("look at it"))?;
    // Without `/proc` it could be written but never get a name.
    match stat(&by_descriptor(&file)) {
        Ok(found) if (found.st_dev, found.st_ino) == (itself.st_dev, itself.st_ino) => {
            HAS_PROC.set(true);
            Ok(file)
        }
        _ => Err(Error::Unsupported(NO_PROC)),
    }
}

/// A new file under a hidden name.
fn create_hidden(place: &Place, mode: Mode) -> Result<(File, OsString), Error> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let (file, name) =
        hidden_name(|name| openat(&place.dir, name, flags, mode).map_err(failed("create a file")))?;
    Ok((file.into(), name))
}

/// Does it with a random name, or with another one if that is taken.
pub(crate) fn hidden_name<T>(make: impl Fn(&OsStr) -> Result<T, Error>) -> Result<(T, OsString), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let random = getrandom::u64().map_err(|error| Error::Io {
            doing: "draw a name",
            source: io::Error::other(error.to_string()),
        })?;
        let name = OsString::from(format!("{PUT_PREFIX}{random:016x}"));
        match make(&name) {
            Ok(made) => return Ok((made, name)),
            Err(Error::Exists) if tries < limits::HIDDEN_NAMES => {}
            Err(error) => return Err(error),
        }
    }
}

/// What can't be removed stays, under a name that says what it is: there is nobody to tell.
fn remove(place: &Place, name: &OsStr) {
    let _ = unlinkat(&place.dir, name, UnlinkatFlags::NoRemoveDir);
}
