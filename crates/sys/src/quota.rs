//! How much of a file system one user may use, and does (quotactl(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// What dqb_bhardlimit and dqb_bsoftlimit count in (`QIF_DQBLKSIZE` of linux/quota.h), in bytes.
const BLOCK: u64 = 1024;

/// A user's part of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What the user's files take.
    pub used: u64,
    /// What they may take at most, at once or in the long run, whichever is less; `None`: there is no limit.
    pub limit: Option<u64>,
}

/// The quota of a user on the file system that has this file, which may be an `O_PATH` one. `None`: the file system, or the kernel,
/// counts no users, or only its administrator is told.
///
/// # Errors
/// What else the system says.
pub fn user_quota(file: impl AsFd, uid: u32) -> io::Result<Option<Quota>> {
    let command = libc::QCMD(libc::Q_GETQUOTA, libc::USRQUOTA);
    // SAFETY: all of its fields are numbers, for which zero is one.
    let mut said: libc::dqblk = unsafe { std::mem::zeroed() };
    // SAFETY: quotactl_fd(2) writes one `dqblk`, and `said` is one that lives until after the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_fd().as_raw_fd(),
            command,
            uid,
            (&raw mut said).cast::<libc::c_void>(),
        )
    };
    match Errno::result(answer) {
        Ok(_) => Ok(Some(quota(said.dqb_curspace, said.dqb_bsoftlimit, said.dqb_bhardlimit))),
        Err(
            Errno::ENOSYS
            | Errno::ESRCH
            | Errno::EOPNOTSUPP
            | Errno::ENOTTY
            | Errno::EINVAL
            | Errno::EPERM
            | Errno::ENOTBLK
            | Errno::ENODEV
            | Errno::EBADF,
        ) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn quota(used: u64, soft: u64, hard: u64) -> Quota {
    let limits = [soft, hard].into_iter().filter(|limit| *limit > 0);
    Quota { used, limit: limits.min().map(|blocks| blocks.saturating_mul(BLOCK)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lesser_limit_counts_and_none_is_none() {
        assert_eq!(quota(5, 0, 0), Quota { used: 5, limit: None });
        assert_eq!(quota(5, 0, 2).limit, Some(2048));
        assert_eq!(quota(5, 1, 2).limit, Some(1024));
        assert_eq!(quota(5, u64::MAX, 0).limit, Some(u64::MAX));
    }

    #[test]
    fn a_file_system_without_quotas_says_nothing() {
        let file = std::fs::File::open("/proc/self").unwrap();
        assert_eq!(user_quota(&file, 0).unwrap(), None);
    }
}
