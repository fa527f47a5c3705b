//! Tries to get at another process by its number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::{call, minus};

/// A way to get at a process.
pub type OnProcess = (&'static str, fn(usize) -> io::Result<()>);

/// All that there are here. What reads or writes memory does so at an address that is none: whoever may is told so.
pub fn on_process() -> &'static [OnProcess] {
    ALL
}

const CONTINUE: usize = libc::SIGCONT as usize;

const ALL: &[OnProcess] = &[
    ("kill", |pid| plain(libc::SYS_kill, [pid, CONTINUE])),
    ("tgkill", |pid| plain(libc::SYS_tgkill, [pid, pid, CONTINUE])),
    ("queue-signal", |pid| {
        let mut told = [0i32; 32];
        // si_signo, si_errno, and SI_QUEUE.
        (told[0], told[2]) = (libc::SIGCONT, -1);
        // SAFETY: a `siginfo_t` has 128 bytes, which the kernel reads.
        unsafe { call(libc::SYS_rt_sigqueueinfo, [pid, CONTINUE, (&raw const told).addr()]) }.map(drop)
    }),
    ("signal-by-descriptor", |pid| {
        let process = open(pid)?;
        plain(libc::SYS_pidfd_send_signal, [number(&process), CONTINUE, 0, 0])
    }),
    ("take-descriptor", |pid| {
        let process = open(pid)?;
        plain(libc::SYS_pidfd_getfd, [number(&process), 0, 0])
    }),
    ("trace", |pid| plain(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid, 0, 0])),
    ("read-memory", |pid| {
        let mut byte = 0u8;
        let (ours, theirs) = ([(&raw mut byte).addr(), 1], [1usize, 1]);
        let (ours, theirs) = ((&raw const ours).addr(), (&raw const theirs).addr());
        // SAFETY: one `iovec` each; the kernel writes one byte.
        unsafe { call(libc::SYS_process_vm_readv, [pid, ours, 1, theirs, 1, 0]) }.map(drop)
    }),
    ("write-memory", |pid| {
        let byte = 0u8;
        let (ours, theirs) = ([(&raw const byte).addr(), 1], [1usize, 1]);
        let (ours, theirs) = ((&raw const ours).addr(), (&raw const theirs).addr());
        // SAFETY: one `iovec` each; the kernel reads one byte.
        unsafe { call(libc::SYS_process_vm_writev, [pid, ours, 1, theirs, 1, 0]) }.map(drop)
    }),
    ("compare", |pid| {
        let own = std::process::id() as usize;
        plain(libc::SYS_kcmp, [own, pid, 1, 0, 0])
    }),
    ("move-memory", |pid| plain(libc::SYS_move_pages, [pid, 0, 0, 0, 0, 0])),
    ("limit", |pid| {
        let limit = [libc::RLIM_INFINITY; 2];
        let what = libc::RLIMIT_CPU as usize;
        // SAFETY: the kernel reads one `rlimit64`.
        unsafe { call(libc::SYS_prlimit64, [pid, what, (&raw const limit).addr(), 0]) }.map(drop)
    }),
    ("nice", |pid| plain(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, pid, 0])),
    ("processors", |pid| {
        let all = [usize::MAX; 16];
        // SAFETY: the kernel reads a mask of that many bytes.
        unsafe { call(libc::SYS_sched_setaffinity, [pid, size_of_val(&all), (&raw const all).addr()]) }
            .map(drop)
    }),
    ("enter-namespaces", |pid| {
        let process = open(pid)?;
        plain(libc::SYS_setns, [number(&process), libc::CLONE_NEWNET as usize])
    }),
];

fn plain<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> io::Result<()> {
    // SAFETY: numbers only, or null where an address could be.
    unsafe { call(number, arguments) }.map(drop)
}

fn number(descriptor: &OwnedFd) -> usize {
    descriptor.as_raw_fd() as usize
}

fn open(pid: usize) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let made = unsafe { call(libc::SYS_pidfd_open, [pid, 0]) }?;
    let made = libc::c_int::try_from(made).map_err(io::Error::other)?;
    // SAFETY: just made, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Signals and opens the process at a socket's other end by the descriptor of it that the kernel gives (`SO_PEERPIDFD`,
/// Linux 6.5).
///
/// # Errors
/// What the kernel says to the signal.
pub fn peer_process(socket: impl AsFd) -> io::Result<()> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut made = -1 as libc::c_int;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: one number of that length is written.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut made).cast(),
            &raw mut length,
        )
    };
    Errno::result(answer)?;
    // SAFETY: just made, for us alone.
    let process = unsafe { OwnedFd::from_raw_fd(made) };
    plain(libc::SYS_pidfd_send_signal, [number(&process), CONTINUE, 0, 0])?;
    plain(libc::SYS_process_madvise, [number(&process), 0, 0, minus(1), 0])
}
