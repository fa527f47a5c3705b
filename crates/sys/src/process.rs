//! Children of a process that has one thread: what they inherit is what is said here, and nothing else.
//! Invariant: a child never returns into its parent's code; it ends with the status that its own code gave.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, execve, getppid};

/// The number of the one descriptor that a child of [`fork_with`] has besides standard input, output and error.
pub const CHILDS_DESCRIPTOR: RawFd = 3;

/// The exit status of a child whose code panicked.
pub const PANICKED: u8 = 101;

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Another thread could hold a lock, which nobody would ever open in the child.
    #[error("this process has {0} threads, and may only fork with one")]
    Threads(usize),
    /// The system refused.
    #[error("can't fork")]
    Io(#[from] io::Error),
}

/// Forks. The child runs `child` with all of this process's descriptors and exits with its status. Signals are delivered
/// to it as to a fresh program.
///
/// # Errors
/// See [`ForkError`].
pub fn fork(child: impl FnOnce() -> u8) -> Result<Pid, ForkError> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => {}
        threads => return Err(ForkError::Threads(threads)),
    }
    // SAFETY: this process has one thread, this one, so that the child is whole: it may do whatever its parent could.
    match unsafe { nix::unistd::fork() }.map_err(io::Error::from)? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // Unwinding further would run the parent's code in the child.
            let status = catch_unwind(AssertUnwindSafe(|| match plain_signals() {
                Ok(()) => child(),
                Err(_) => PANICKED,
            }));
            // SAFETY: _exit(2) takes a number and does not return. What the parent meant to do at its exit is not run.
            unsafe { libc::_exit(status.unwrap_or(PANICKED).into()) }
        }
    }
}

/// As [`fork`], but in the child every descriptor is closed except standard input, output and error, and `kept`, which
/// becomes number 3. What `child` captures must own no descriptor: it would name a closed one.
///
/// # Errors
/// See [`ForkError`].
pub fn fork_with(kept: OwnedFd, child: impl FnOnce(OwnedFd) -> u8) -> Result<Pid, ForkError> {
    // The child's copy has the same number.
    let number = kept.as_raw_fd();
    let forked = fork(|| match keep_only(number) {
        Ok(kept) => child(kept),
        Err(_) => PANICKED,
    });
    drop(kept);
    forked
}

/// Closes all but 0, 1, 2 and `number`, which becomes 3.
fn keep_only(number: RawFd) -> io::Result<OwnedFd> {
    if number != CHILDS_DESCRIPTOR {
        // SAFETY: numbers only. Whatever was number 3 is closed: only a fresh child calls this, whose other values
        // are never used or dropped again.
        Errno::result(unsafe { libc::dup3(number, CHILDS_DESCRIPTOR, libc::O_CLOEXEC) })?;
    }
    close_from(CHILDS_DESCRIPTOR + 1)?;
    // SAFETY: open, as dup3(2) said or as the caller has it, and no value that is used again owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(CHILDS_DESCRIPTOR) })
}

/// Closes every descriptor from `first` on.
fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: numbers only; see `keep_only` for who owned what is closed.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    match Errno::result(closed) {
        Ok(_) => Ok(()),
        // Linux before 5.9, or a sandbox that does not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => close_listed(first),
        Err(other) => Err(other.into()),
    }
}

fn close_listed(first: RawFd) -> io::Result<()> {
    // The whole list first: reading it has a descriptor of its own, which is closed by then.
    let listed: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in listed.into_iter().filter(|number| *number >= first) {
        // SAFETY: as in `close_from`. That it is closed already is no error.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// No signal blocked, and SIGPIPE as programs expect it: Rust ignores it, which exec would hand on.
fn plain_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Has `signal` sent to this process when its parent ends, and fails if that has happened already. A change of uid and
/// the exec of a set-uid program undo it, so it comes after the former.
///
/// # Errors
/// `NotFound` when the parent is not `parent` (any more).
pub fn die_with(parent: Pid, signal: Signal) -> io::Result<()> {
    prctl::set_pdeathsig(signal)?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the parent process has ended"))
    }
}

/// Nothing to read from standard input, nowhere for standard output to go. Standard error stays: it is the log.
///
/// # Errors
/// When there is no `/dev/null`.
pub fn silence() -> io::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(())
}

/// Becomes another program, which finds `kept` under the number that it has now. Returns only if that failed.
#[must_use]
pub fn exec(program: &CStr, arguments: &[&CStr], environment: &[&CStr], kept: OwnedFd) -> io::Error {
    if let Err(error) = fcntl(&kept, FcntlArg::F_SETFD(FdFlag::empty())) {
        return error.into();
    }
    // From here on it is the new program's.
    let _ = kept.into_raw_fd();
    match execve(program, arguments, environment) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;

    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;

    /// Forks although the test program has several threads, and says how the child ended. For tests that are [`alone`].
    pub(crate) fn fork_here(child: impl FnOnce()) -> WaitStatus {
        // SAFETY: the other thread of a test that is alone waits for this one, and holds no lock meanwhile.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
            ForkResult::Child => {
                // No test waits for ever.
                nix::unistd::alarm::set(10);
                let status = catch_unwind(AssertUnwindSafe(child));
                // SAFETY: a number; does not return.
                unsafe { libc::_exit(if status.is_ok() { 0 } else { 101 }) }
            }
        }
    }

    /// Runs the calling test in a program of its own: a fork among other tests would hold copies of their descriptors.
    pub(crate) fn alone(test: impl FnOnce()) {
        const ALONE: &str = "PORTREEVE_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return test();
        }
        let thread = std::thread::current();
        let name = thread.name().expect("a test's thread has its name");
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        let output = program.args(["--exact", name, "--nocapture"]).env(ALONE, "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `child` in a process of its own, which must not panic.
    pub(crate) fn in_child(child: impl FnOnce()) {
        alone(|| {
            let ended = fork_here(child);
            assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
        });
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // The test program's main thread is one more.
        assert!(matches!(fork(|| 0), Err(ForkError::Threads(2..))));
    }

    #[test]
    fn a_child_has_its_descriptor_and_ends_by_itself() {
        in_child(|| {
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let _others: Vec<OwnedFd> = (0..20).map(|_| reader.try_clone().unwrap()).collect();
            let child = fork_with(writer, |kept| {
                let listed: Vec<String> = std::fs::read_dir("/proc/self/fd")
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                // Number 4 reads the list.
                if listed != ["0", "1", "2", "3", "4"] || kept.as_raw_fd() != 3 {
                    return 1;
                }
                nix::unistd::write(&kept, b"x").map_or(2, |_| 7)
            })
            .unwrap();
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 7));
            let mut bytes = [0; 4];
            assert_eq!(nix::unistd::read(reader.as_fd(), &mut bytes).unwrap(), 1);
            // Nobody holds the writer any more.
            assert_eq!(nix::unistd::read(reader.as_fd(), &mut bytes).unwrap(), 0);
            let child = fork(|| panic!("on purpose")).unwrap();
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, PANICKED.into()));
        });
    }

    #[test]
    fn the_old_way_closes_as_much() {
        in_child(|| {
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let child = fork(|| {
                close_listed(3).unwrap();
                u8::from(std::fs::read_dir("/proc/self/fd").unwrap().count() != 4)
            })
            .unwrap();
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            drop((reader, writer));
        });
    }

    #[test]
    fn a_child_sees_signals_and_its_parents_end() {
        in_child(|| {
            let mut blocked = SigSet::empty();
            blocked.add(Signal::SIGTERM);
            blocked.thread_block().unwrap();
            let child = fork(|| {
                nix::sys::signal::raise(Signal::SIGTERM).unwrap();
                0
            })
            .unwrap();
            let ended = waitpid(child, None).unwrap();
            assert_eq!(ended, WaitStatus::Signaled(child, Signal::SIGTERM, false));
            die_with(Pid::from_raw(1 << 21), Signal::SIGKILL).unwrap_err();
            die_with(getppid(), Signal::SIGKILL).unwrap();
        });
    }
}
