//! Changes what is known of a file and is not its content: permissions and time.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use rustix::fs::getxattr_query;

use crate::error::{Error, failed};
use crate::rel_path::RelPath;
use crate::root::{Root, by_descriptor};
use crate::status::{Kind, Status};
use crate::tree::{kept_by_directories, permissions};

impl Root {
    /// Sets the permissions; of a link, those of what it leads to. Of `0o777`: setuid and its like are not for a browser to give, and
    /// are taken away from files. A directory keeps them, as with chmod(1): its group, and whose files are whose, hang on them.
    ///
    /// # Errors
    /// [`Error::Denied`] for other people's files; [`Error::NotRegular`] for what is neither file nor directory.
    pub fn set_mode(&self, path: &RelPath, mode: u32) -> Result<Status, Error> {
        let file = self.resolve(path.as_bytes(), OFlag::O_PATH)?;
        let status = Status::of(&file)?;
        file_or_directory(&status)?;
        let kept = match status.kind {
            Kind::Directory => kept_by_directories(status.mode).1,
            _ => Mode::empty(),
        };
        fchmodat(AT_FDCWD, &by_descriptor(&file), permissions(mode) | kept, FchmodatFlags::FollowSymlink)
            .map_err(failed("set its permissions"))?;
        Status::of(&file)
    }

    /// Whether an access list (acl(5)) says more than the permissions do, or less; of a link, of what it leads to. `false` where the
    /// file system has none, or would not say.
    #[must_use]
    pub fn has_access_list(&self, path: &RelPath) -> bool {
        let Ok(file) = self.resolve(path.as_bytes(), OFlag::O_PATH) else { return false };
        // One that says the same as the permissions is kept as these alone.
        getxattr_query(by_descriptor(&file), "system.posix_acl_access").is_ok()
    }

    /// Sets when the content last changed.
    ///
    /// # Errors
    /// As [`Root::set_mode`].
    pub fn set_modified(&self, path: &RelPath, modified: SystemTime) -> Result<(), Error> {
        let file = self.resolve(path.as_bytes(), OFlag::O_PATH)?;
        file_or_directory(&Status::of(&file)?)?;
        let time = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => TimeSpec::from_duration(since),
            Err(_) => TimeSpec::new(0, 0),
        };
        utimensat(
            AT_FDCWD,
            &by_descriptor(&file),
            &TimeSpec::UTIME_OMIT,
            &time,
            UtimensatFlags::FollowSymlink,
        )
        .map_err(failed("set its time"))
    }
}

fn file_or_directory(status: &Status) -> Result<(), Error> {
    match status.kind {
        Kind::File | Kind::Directory => Ok(()),
        other => Err(Error::NotRegular(other)),
    }
}
