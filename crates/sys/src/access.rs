//! May this process, as whoever it is now, execute the file behind this descriptor?

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{AccessFlags, access, getresgid, getresuid};

/// Whether the *effective* user and groups have execute permission on the file. The kernel answers, so access control
/// lists count, and nothing may be executed on a file system that is mounted `noexec`. The descriptor may be an `O_PATH`
/// one.
///
/// # Errors
/// What the system says besides "no permission".
pub fn may_execute(file: impl AsFd) -> io::Result<bool> {
    let file = file.as_fd();
    match ask(file) {
        // Linux before 5.8, or a sandbox that does not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => verdict(ask_as_of_old(file)),
        answer => verdict(answer),
    }
}

fn verdict(answer: Result<(), Errno>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(Errno::EACCES) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// faccessat2(2). Not by way of the C library, which does not pass `AT_EMPTY_PATH` on to older kernels' emulation.
/// Without `AT_EACCESS` the *real* user would be asked about.
fn ask(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    // SAFETY: the path is an empty C string that lives for ever; the other arguments are numbers.
    let answer =
        unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), libc::X_OK, flags) };
    Errno::result(answer).map(drop)
}

/// access(2) asks about the real user and groups: the same as the effective ones, or there is no answer.
fn ask_as_of_old(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let (users, groups) = (getresuid()?, getresgid()?);
    if users.real != users.effective || groups.real != groups.effective {
        return Err(Errno::ENOSYS);
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    access(&path, AccessFlags::X_OK)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    use super::*;
    use crate::process::tests::in_child;

    #[test]
    fn the_effective_user_is_asked_about() {
        use nix::unistd::{Uid, setresuid};
        if !Uid::effective().is_root() {
            return println!("SKIPPED: the_effective_user_is_asked_about: needs root");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        set_permissions(file.path(), Permissions::from_mode(0o700)).unwrap();
        let file = open(file.path(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        in_child(|| {
            let (root, alice) = (Uid::from_raw(0), Uid::from_raw(20001));
            assert!(may_execute(&file).unwrap());
            setresuid(root, alice, root).unwrap();
            assert!(!may_execute(&file).unwrap());
            // access(2) would answer for root.
            assert_eq!(ask_as_of_old(file.as_fd()), Err(Errno::ENOSYS));
        });
    }

    #[test]
    fn both_ways_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        for (mode, may) in [(0o700, true), (0o711, true), (0o600, false), (0o644, false), (0o000, false)] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let file = open(&path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
            assert_eq!(may_execute(&file).unwrap(), may, "{mode:o}");
            assert_eq!(verdict(ask_as_of_old(file.as_fd())).unwrap(), may, "{mode:o}");
        }
    }
}
