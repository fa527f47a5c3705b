//! The rules themselves: which system call, and with which arguments. Before: `sandbox`, which compiles them.

use nix::libc;
use seccompiler::{
    BackendError, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompRule,
};

use super::Rules;

/// The highest number that these lists were made with: `file_setattr`, Linux 6.17. From 424 on all processors have the
/// same numbers.
pub(super) const LAST_KNOWN: i64 = 469;

/// Calls that the libc crate has no name for yet.
mod newer {
    pub(super) const OPEN_TREE_ATTR: i64 = 467;
}

/// Its own view of the machine stays as it is.
const MOUNTS_AND_NAMESPACES: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    newer::OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
];

/// Other processes' memory and descriptors.
const OTHER_PROCESSES: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Calls that are made in other ways than by a system call of their own (rings), or that bring programs or keys into the
/// kernel: much code that the kernel runs for nobody here.
const RINGS_AND_KERNEL_PROGRAMS: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
];

/// What belongs to whoever runs the machine.
const THE_MACHINE: &[i64] = &[
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    libc::SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Other programs, and other processes than this one. Threads are made with `clone`.
const PROGRAMS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// A connection of one's own. Accepting is not among them: listening sockets come from outside.
const CONNECTIONS: &[i64] = &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];

/// The only options that the portal sets on a socket. Others would begin a connection without connect(2) (TCP_FASTOPEN_CONNECT),
/// make one up (TCP_REPAIR), or spoil a listener for whoever gets it next (SO_ATTACH_FILTER).
const TCP_OPTIONS: [libc::c_int; 2] = [libc::TCP_NODELAY, libc::TCP_USER_TIMEOUT];

pub(super) fn denied_to_portal() -> Result<Rules, BackendError> {
    let mut rules = denied_to_both()?;
    rules.extend(CONNECTIONS.iter().map(|&number| (number, vec![])));
    // Other kinds than these two take an address with each message, which only sendto shows here.
    let kind_mask = 0xf;
    rules.insert(
        libc::SYS_socketpair,
        vec![
            all([int(0, Op::Ne, libc::AF_UNIX)?])?,
            all([int(1, Op::MaskedEq(kind_mask), libc::SOCK_DGRAM)?])?,
            all([int(1, Op::MaskedEq(kind_mask), libc::SOCK_RAW)?])?,
        ],
    );
    // A listener that is shut down is an unconnected socket again: with this flag, sending connects it.
    let fast_open = libc::MSG_FASTOPEN;
    let opens = |argument| all([int(argument, Op::MaskedEq(fast_open as u64), fast_open)?]);
    let addressed = all([SeccompCondition::new(4, Length::Qword, Op::Ne, 0)?])?;
    rules.insert(libc::SYS_sendto, vec![opens(3)?, addressed]);
    rules.insert(libc::SYS_sendmsg, vec![opens(2)?]);
    rules.insert(libc::SYS_sendmmsg, vec![opens(3)?]);
    let [no_delay, user_timeout] = TCP_OPTIONS;
    rules.insert(
        libc::SYS_setsockopt,
        vec![
            all([int(1, Op::Ne, libc::IPPROTO_TCP)?])?,
            all([int(2, Op::Ne, no_delay)?, int(2, Op::Ne, user_timeout)?])?,
        ],
    );
    // The end of what is sent, and nothing else: a listener that is shut down listens no more, for the next portal either.
    rules.insert(libc::SYS_shutdown, vec![all([int(1, Op::Ne, libc::SHUT_WR)?])?]);
    Ok(rules)
}

pub(super) fn denied_to_broker() -> Result<Rules, BackendError> {
    let mut rules = denied_to_both()?;
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        rules.insert(number, vec![all([int(0, Op::Ne, libc::AF_UNIX)?])?]);
    }
    Ok(rules)
}

/// What none of them ever does, the agent included.
pub(super) fn denied_to_all() -> impl Iterator<Item = i64> {
    [MOUNTS_AND_NAMESPACES, OTHER_PROCESSES, RINGS_AND_KERNEL_PROGRAMS, THE_MACHINE].concat().into_iter()
}

fn denied_to_both() -> Result<Rules, BackendError> {
    let mut rules: Rules =
        denied_to_all().chain(PROGRAMS.iter().copied()).map(|number| (number, vec![])).collect();
    // By number instead of by name: past the permissions of the directories above. The agent needs it.
    rules.insert(libc::SYS_open_by_handle_at, vec![]);
    // With it a process may open /proc/self/mem, by which code can be written that is read-only (proc(5)).
    let dumpable =
        all([int(0, Op::Eq, libc::PR_SET_DUMPABLE)?, SeccompCondition::new(1, Length::Qword, Op::Ne, 0)?])?;
    rules.insert(libc::SYS_prctl, vec![dumpable]);
    let thread = libc::CLONE_THREAD;
    rules.insert(libc::SYS_clone, vec![all([int(0, Op::MaskedEq(thread as u64), 0)?])?]);
    Ok(rules)
}

/// Everything that `broker/src/dialer` needs, and what the language's run time needs under it.
pub(super) fn allowed_to_dialer() -> Result<Rules, BackendError> {
    let plain = [
        libc::SYS_connect,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_close,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        libc::SYS_ppoll,
        // Memory.
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        // Time, where the processor's own clock can't be used.
        libc::SYS_clock_gettime,
        // A signal that stopped the process, and was followed by the one that lets it go on.
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigreturn,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: Rules = plain.into_iter().map(|number| (number, vec![])).collect();
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let tcp =
        |family| all([int(0, Op::Eq, family)?, int(1, Op::Eq, kind)?, int(2, Op::Eq, libc::IPPROTO_TCP)?]);
    rules.insert(libc::SYS_socket, vec![tcp(libc::AF_INET)?, tcp(libc::AF_INET6)?]);
    let option = |level, name| all([int(1, Op::Eq, level)?, int(2, Op::Eq, name)?]);
    rules.insert(libc::SYS_setsockopt, vec![option(libc::IPPROTO_TCP, libc::TCP_NODELAY)?]);
    rules.insert(libc::SYS_getsockopt, vec![option(libc::SOL_SOCKET, libc::SO_ERROR)?]);
    // Memory that is not code.
    let code = libc::PROT_EXEC;
    rules.insert(libc::SYS_mmap, vec![all([int(2, Op::MaskedEq(code as u64), 0)?])?]);
    // A build with debug assertions asks whether a descriptor that is closed was open.
    rules.insert(libc::SYS_fcntl, vec![all([int(1, Op::Eq, libc::F_GETFD)?])?]);
    // Last words.
    rules.insert(libc::SYS_write, vec![all([int(0, Op::Eq, libc::STDERR_FILENO)?])?]);
    Ok(rules)
}

fn all<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

/// About an argument that is a C `int`: the kernel ignores its upper half, and so must the filter.
fn int(argument: u8, is: Op, value: libc::c_int) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Length::Dword, is, value.cast_unsigned().into())
}
