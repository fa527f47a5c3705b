//! Calls that need to know nothing.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use capctl::caps::{Cap, CapState, ambient};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{Attempt, attempt, call, minus};

pub(super) const ALL: &[Attempt] = &[
    // Another view of the machine.
    attempt("mount", || mount(c"none", c"/tmp", c"tmpfs", 0)),
    attempt("mount-bind", || mount(c"/", c"/tmp", c"none", libc::MS_BIND)),
    attempt("remount", || mount(c"none", c"/", c"none", libc::MS_REMOUNT | libc::MS_BIND)),
    attempt("umount", || with_path(libc::SYS_umount2, c"/tmp", libc::MNT_DETACH as usize)),
    attempt("chroot", || with_path(libc::SYS_chroot, c"/", 0)),
    attempt("fsopen", || opened(with_path_for(libc::SYS_fsopen, c"tmpfs", 1))),
    attempt("open_tree", open_tree),
    attempt("unshare-user", || plain(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize])),
    attempt("unshare-net", || plain(libc::SYS_unshare, [libc::CLONE_NEWNET as usize])),
    attempt("unshare-mount", || plain(libc::SYS_unshare, [libc::CLONE_NEWNS as usize])),
    attempt("setns", setns),
    // Another process.
    attempt("fork", || child(libc::SIGCHLD)),
    attempt("clone-user", || child(libc::SIGCHLD | libc::CLONE_NEWUSER)),
    attempt("clone-net", || child(libc::SIGCHLD | libc::CLONE_NEWNET)),
    // Somebody else.
    attempt("setuid", || Ok(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?)),
    attempt("setgid", || Ok(setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?)),
    attempt("setgroups", || Ok(setgroups(&[Gid::from_raw(0)])?)),
    attempt("capset", capabilities),
    attempt("ambient", || {
        capabilities()?;
        ambient::raise(Cap::NET_RAW).map_err(from_capctl)
    }),
    attempt("securebits", || control(libc::PR_SET_SECUREBITS, 1)),
    attempt("no-new-privileges-off", || control(libc::PR_SET_NO_NEW_PRIVS, 0)),
    attempt("keep-capabilities", || {
        control(libc::PR_SET_KEEPCAPS, 1)?;
        capabilities()
    }),
    // A look at this process by its like.
    attempt("dumpable", || {
        control(libc::PR_SET_DUMPABLE, 1)?;
        control(libc::PR_SET_DUMPABLE, 0)
    }),
    attempt("personality", || plain(libc::SYS_personality, [libc::READ_IMPLIES_EXEC as usize])),
    // More than its share.
    attempt("descriptor-limit", || {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // It may go down, and not up again.
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard - 1), hard - 1)?;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
    }),
    attempt("core-limit", || Ok(setrlimit(Resource::RLIMIT_CORE, 1 << 30, 1 << 30)?)),
    attempt("priority", || plain(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, minus(5)])),
    attempt("real-time", || {
        let priority = libc::sched_param { sched_priority: 1 };
        // SAFETY: the kernel reads one `sched_param`.
        let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
        Ok(Errno::result(set).map(drop)?)
    }),
    attempt("io-priority", || plain(libc::SYS_ioprio_set, [1, 0, 1 << 13])),
    attempt("lock-memory", || plain(libc::SYS_mlockall, [libc::MCL_CURRENT as usize])),
    // Much code of the kernel's.
    attempt("io_uring", || {
        let parameters = [0u8; 120];
        // SAFETY: `io_uring_params` has 120 bytes, which the kernel reads and writes.
        opened(unsafe { call(libc::SYS_io_uring_setup, [1, (&raw const parameters).addr()]) })
    }),
    attempt("aio", || {
        let mut context = 0usize;
        // SAFETY: the kernel writes one word.
        unsafe { call(libc::SYS_io_setup, [1, (&raw mut context).addr()]) }?;
        plain(libc::SYS_io_destroy, [context])
    }),
    attempt("bpf", || {
        // BPF_MAP_CREATE: an array of one word.
        let map: [u32; 32] = std::array::from_fn(|place| [2, 4, 4, 1].get(place).copied().unwrap_or(0));
        // SAFETY: the kernel reads a `bpf_attr` of that many bytes.
        opened(unsafe { call(libc::SYS_bpf, [0, (&raw const map).addr(), size_of_val(&map)]) })
    }),
    attempt("perf", || {
        // PERF_TYPE_SOFTWARE, of the first version's size.
        let event: [u32; 32] = std::array::from_fn(|place| [1, 64].get(place).copied().unwrap_or(0));
        let at = (&raw const event).addr();
        // SAFETY: the kernel reads a `perf_event_attr` of 64 bytes.
        opened(unsafe { call(libc::SYS_perf_event_open, [at, 0, minus(1), minus(1), 0]) })
    }),
    attempt("userfaultfd", || opened(no_pointer(libc::SYS_userfaultfd, [1]))),
    attempt("fanotify", || opened(no_pointer(libc::SYS_fanotify_init, [0x200, 0]))),
    attempt("keyctl", || plain(libc::SYS_keyctl, [1, 0])),
    attempt("add_key", || {
        // SAFETY: two strings and one byte, which the kernel reads.
        unsafe {
            let (kind, name) = (c"user".as_ptr().addr(), c"attempt".as_ptr().addr());
            call(libc::SYS_add_key, [kind, name, name, 1, minus(2)])
        }
        .map(drop)
    }),
    attempt("shared-memory", || {
        let made = no_pointer(libc::SYS_shmget, [0, 4096, 0o600])?;
        plain(libc::SYS_shmctl, [made, libc::IPC_RMID as usize, 0])
    }),
    attempt("message-queue", || {
        let made = no_pointer(libc::SYS_msgget, [0, 0o600])?;
        plain(libc::SYS_msgctl, [made, libc::IPC_RMID as usize, 0])
    }),
    // Past the directories' permissions.
    attempt("file-by-handle", by_handle),
    attempt("set-user-id", || {
        let options =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o4700).open("/tmp/attempt");
        options.and_then(|_| std::fs::remove_file("/tmp/attempt"))
    }),
    attempt("mknod", || {
        let _ = std::fs::remove_file("/tmp/attempt");
        let (at, mode) = (c"/tmp/attempt".as_ptr().addr(), (libc::S_IFCHR | 0o600) as usize);
        // SAFETY: a string, which the kernel reads.
        unsafe { call(libc::SYS_mknodat, [minus(100), at, mode, 0x0103]) }?;
        std::fs::remove_file("/tmp/attempt")
    }),
    // The machine. Arguments that make no sense: whoever may is told so.
    attempt("module", || plain(libc::SYS_init_module, [0, 0, 0])),
    attempt("delete-module", || with_path(libc::SYS_delete_module, c"attempt", 0)),
    attempt("kexec", || plain(libc::SYS_kexec_load, [0, 0, 0, usize::MAX])),
    attempt("reboot", || plain(libc::SYS_reboot, [0, 0, 0, 0])),
    attempt("swap", || with_path(libc::SYS_swapon, c"/nonexistent", 0)),
    attempt("accounting", || with_path(libc::SYS_acct, c"/nonexistent", 0)),
    attempt("kernel-log", || {
        let mut text = [0u8; 64];
        let (at, length) = (text.as_mut_ptr().addr(), text.len());
        // SAFETY: the kernel writes at most so many bytes.
        unsafe { call(libc::SYS_syslog, [3, at, length]) }.map(drop)
    }),
    attempt("clock", || plain(libc::SYS_settimeofday, [0, 0])),
    attempt("host-name", || {
        let name = nix::unistd::gethostname()?;
        Ok(nix::unistd::sethostname(name)?)
    }),
    attempt("quota", || plain(libc::SYS_quotactl, [usize::MAX, 0, 0, 0])),
    #[cfg(target_arch = "x86_64")]
    attempt("ports", || plain(libc::SYS_iopl, [3])),
    #[cfg(target_arch = "x86_64")]
    attempt("segments", || plain(libc::SYS_modify_ldt, [0, 0, 0])),
];

/// A call under a second name or number.
pub(super) const FATAL: &[Attempt] = &[
    #[cfg(target_arch = "x86_64")]
    attempt("x32", || plain(libc::SYS_getpid | 0x4000_0000, [])),
    #[cfg(target_arch = "x86_64")]
    attempt("i386", || {
        let mut answer = 20usize; // getpid
        // SAFETY: the kernel looks at a call of i386's that has no argument and no effect; it may end the process.
        unsafe { std::arch::asm!("int 0x80", inlateout("rax") answer) };
        Ok(Errno::result(answer.cast_signed()).map(drop)?)
    }),
];

/// A call whose arguments are numbers, and whose effect this process lives with.
fn no_pointer<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> io::Result<usize> {
    // SAFETY: only calls of the lists above are made with it: of their arguments none is an address that the kernel writes to,
    // and none takes memory away.
    unsafe { call(number, arguments) }
}

fn plain<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> io::Result<()> {
    no_pointer(number, arguments).map(drop)
}

fn with_path_for(number: libc::c_long, path: &CStr, flags: usize) -> io::Result<usize> {
    // SAFETY: a string, which the kernel reads.
    unsafe { call(number, [path.as_ptr().addr(), flags]) }
}

fn with_path(number: libc::c_long, path: &CStr, flags: usize) -> io::Result<()> {
    with_path_for(number, path, flags).map(drop)
}

/// A descriptor that was made, and is closed.
fn opened(number: io::Result<usize>) -> io::Result<()> {
    let number = libc::c_int::try_from(number?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, for us alone.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(())
}

fn control(option: libc::c_int, value: usize) -> io::Result<()> {
    plain(libc::SYS_prctl, [option as usize, value])
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: strings, which the kernel reads.
    let done =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    Ok(Errno::result(done).map(drop)?)
}

fn open_tree() -> io::Result<()> {
    // OPEN_TREE_CLONE
    let (at, flags) = (c"/".as_ptr().addr(), 1);
    // SAFETY: a string, which the kernel reads.
    opened(unsafe { call(libc::SYS_open_tree, [minus(100), at, flags]) })
}

fn setns() -> io::Result<()> {
    let namespace = File::open("/proc/self/ns/net")?;
    plain(libc::SYS_setns, [namespace.as_raw_fd() as usize, 0])
}

/// A child that ends at once.
fn child(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: without CLONE_VM the child has memory of its own. It does nothing but to end.
    let pid = unsafe { call(libc::SYS_clone, [flags as usize, 0, 0, 0, 0]) }?;
    if pid == 0 {
        // SAFETY: a number; it does not return.
        unsafe { libc::_exit(0) }
    }
    let pid = nix::unistd::Pid::from_raw(libc::pid_t::try_from(pid).map_err(io::Error::other)?);
    nix::sys::wait::waitpid(pid, None)?;
    Ok(())
}

fn from_capctl(error: capctl::Error) -> io::Error {
    io::Error::from_raw_os_error(error.code())
}

fn capabilities() -> io::Result<()> {
    let mut state = CapState::get_current().map_err(from_capctl)?;
    for cap in [Cap::NET_RAW, Cap::DAC_READ_SEARCH, Cap::SYS_ADMIN] {
        state.permitted.add(cap);
        state.effective.add(cap);
        state.inheritable.add(cap);
    }
    state.set_current().map_err(from_capctl)
}

/// The root directory, by its number in the file system.
fn by_handle() -> io::Result<()> {
    #[repr(C, align(8))]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        handle: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount = 0 as libc::c_int;
    let (path, at) = (c"/".as_ptr().addr(), (&raw mut handle).addr());
    // SAFETY: a string; a handle with room for as many bytes as it says; a number that is written.
    unsafe { call(libc::SYS_name_to_handle_at, [minus(100), path, at, (&raw mut mount).addr(), 0]) }?;
    let root = File::open("/")?;
    // SAFETY: the handle that was just made, which the kernel reads.
    opened(unsafe { call(libc::SYS_open_by_handle_at, [root.as_raw_fd() as usize, at, 0]) })
}
