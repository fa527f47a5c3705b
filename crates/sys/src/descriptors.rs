//! Descriptors: how many this process may have open, and those it was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Raises the soft limit to the hard one, which every process may do for itself (setrlimit(2)), and returns what holds
/// then. Shells start programs with a soft limit of 1024 for the sake of `select`, which is not used here.
///
/// # Errors
/// When the kernel does not tell the limits.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    BEFORE.get_or_init(|| soft);
    // Whoever confines this process may have forbidden the call.
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Ok(if raised { hard } else { soft })
}

/// The soft limit that this process was started with.
static BEFORE: OnceLock<rlim_t> = OnceLock::new();

/// What the command starts gets the soft limit that this process was started with: it may use `select`, and Slurm gives a job the
/// limits of whoever submits it.
pub fn with_descriptor_limit_as_before(command: &mut Command) {
    let Some(before) = BEFORE.get().copied() else { return };
    let lower = move || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, before.min(hard), hard)?)
    };
    // SAFETY: between fork and exec nothing is called but getrlimit(2) and setrlimit(2), which take no lock; nothing is allocated.
    unsafe { command.pre_exec(lower) };
}

/// Whether something failed because this process, or the machine, may open nothing more.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// The descriptor of this number (3 to 63), which this program was started with: each is given once. From now on it is
/// close-on-exec. To be called before anything else is opened, which could have got the number of one that is missing.
///
/// # Errors
/// `NotFound` when it is not open or was given already; `InvalidInput` for another number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    if !(3..64).contains(&number) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such descriptor is inherited"));
    }
    // SAFETY: numbers only; the flag of a descriptor that is not open is not set.
    let marked = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no descriptor {number} was inherited"));
    Errno::result(marked).map_err(|_| missing())?;
    if GIVEN.fetch_or(1 << number, Ordering::SeqCst) & (1 << number) != 0 {
        return Err(missing());
    }
    // SAFETY: it is open, nobody got it from here before, and whoever started this program meant it for it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// From now on every descriptor from `first` on ends with the next exec, whoever opened it: a library may have forgotten to say so.
///
/// # Errors
/// When the kernel can't do that and does not tell which there are.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: numbers only. Nothing is closed here; a flag is set.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return Ok(());
    }
    // Linux before 5.11.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some(number) = number.filter(|number| *number >= first) {
            // SAFETY: numbers only; the flag of a descriptor that is not open is not set.
            let _ = unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::in_child;

    #[test]
    fn what_a_library_left_open_ends_with_the_next_exec() {
        in_child(|| {
            let (reader, _writer) = nix::unistd::pipe().unwrap();
            let flags = |number| {
                // SAFETY: a number only.
                unsafe { libc::fcntl(number, libc::F_GETFD) }
            };
            for number in [39, 40] {
                // SAFETY: nothing has that number in this child.
                assert!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&reader), number) } == number);
            }
            close_on_exec_from(40).unwrap();
            assert_eq!((flags(39), flags(40)), (0, libc::FD_CLOEXEC));
        });
    }

    #[test]
    fn what_is_started_has_the_limit_from_before() {
        in_child(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
            raise_descriptor_limit().unwrap();
            raise_descriptor_limit().unwrap();
            let limit = |command: &mut Command| command.args(["-c", "ulimit -n"]).output().unwrap().stdout;
            assert_eq!(limit(&mut Command::new("sh")), format!("{hard}\n").into_bytes());
            let mut command = Command::new("sh");
            with_descriptor_limit_as_before(&mut command);
            assert_eq!(limit(&mut command), b"100\n");
        });
    }

    #[test]
    fn what_was_inherited_is_given_once() {
        in_child(|| {
            let (reader, _writer) = nix::unistd::pipe().unwrap();
            let number = 40;
            // SAFETY: nothing has that number in this child.
            assert!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&reader), number) } == number);
            drop(inherited(number).unwrap());
            assert_eq!(inherited(number).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(inherited(41).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(inherited(2).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(inherited(64).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        });
    }
}
