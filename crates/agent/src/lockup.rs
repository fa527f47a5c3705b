//! Gives up what an agent's process does not need, before it hears anything from outside.
//!
//! What it needs:
//! - nothing at all to say which uid owns a connection: socket diagnosis answers everybody;
//! - `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` for the group rule, which looks at other users' processes in /proc. The
//!   second one also names jobs by their control group, and reads a key file that is root's;
//! - `CAP_NET_BIND_SERVICE` to connect from a privileged port: for the weaker way without a key, and for a firewall that
//!   asks other nodes;
//! - the firewall alone `CAP_NET_ADMIN`, to take packets from the kernel's queue, and `CAP_NET_RAW`, to refuse them;
//! - no uid in particular: a system user with these capabilities is best.
//!
//! With the first two capabilities one could do much more than look. So the process forbids itself what it never does:
//! starting programs, tracing or writing to processes, opening files for writing, changing any file, mounts, modules,
//! namespaces, keys, io_uring. A list of what is forbidden, not of what is allowed: name look-ups run code of the site's
//! choice (nsswitch.conf(5)). What has a second name on this processor (x32), or is younger than our lists, does not exist for it.
//! The unit file's sandbox stands around it.
//!
//! Landlock is no help here: it would forbid the look at other processes' descriptors, whatever the capabilities.

use std::collections::BTreeMap;

use caps::{CapSet, Capability, CapsHashSet};
use nix::libc;
use nix::sys::prctl;
use portreeve_sys::sandbox::{SandboxError, denied_to_all, denying};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// What the group rule needs.
const LOOK: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Keeps what the group rule needs and `more`, and locks up as far as this machine can. What fails is told, and is no
/// reason to answer nobody. Holds for this thread and those that it starts from now on.
pub(crate) fn lock_up(more: &[Capability]) {
    // Memory holds the key.
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    let needed: CapsHashSet = LOOK.iter().chain(more).copied().collect();
    match keep_only(&needed) {
        Ok(kept) if LOOK.iter().all(|capability| kept.contains(capability)) => {}
        Ok(_) => tracing::warn!(
            "without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH other users' processes can't be looked at: only who owns the \
             process is let in, no group"
        ),
        Err(error) => tracing::warn!(%error, "capabilities could not be given up"),
    }
    if let Err(error) = prctl::set_no_new_privs() {
        tracing::warn!(%error, "no_new_privs could not be set");
    }
    match filter() {
        Ok(program) => {
            if let Err(error) = seccompiler::apply_filter(&program) {
                tracing::warn!(%error, "the system call filter could not be set");
            }
        }
        Err(error) => tracing::warn!(%error, "there is no system call filter for this machine"),
    }
}

/// Gives up all other capabilities, and returns those that are left.
fn keep_only(needed: &CapsHashSet) -> Result<CapsHashSet, caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(needed).copied().collect();
    // Ambient capabilities go with the inheritable ones.
    caps::clear(None, CapSet::Inheritable)?;
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(needed) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(kept)
}

/// What the agent never does.
fn filter() -> Result<BpfProgram, SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        denied_to_all().chain(NEVER.iter().copied()).map(|call| (call, Vec::new())).collect();
    // Opening is for reading only.
    rules.insert(libc::SYS_openat, to_write(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, to_write(1)?);
    #[cfg(target_arch = "x86_64")]
    rules.extend(NEVER_ON_X86_64.iter().map(|&call| (call, Vec::new())));
    denying(rules)
}

/// Rules for an open call whose flags are this argument: one for each way to write.
fn to_write(argument: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let write = [
        (libc::O_ACCMODE, libc::O_WRONLY),
        (libc::O_ACCMODE, libc::O_RDWR),
        (libc::O_CREAT, libc::O_CREAT),
        (libc::O_TRUNC, libc::O_TRUNC),
    ];
    let rule = |(mask, value): (libc::c_int, libc::c_int)| {
        let (mask, value) = (u64::from(mask.unsigned_abs()), u64::from(value.unsigned_abs()));
        let operation = SeccompCmpOp::MaskedEq(mask);
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)?])
    };
    write.into_iter().map(rule).collect()
}

/// Calls that the libc crate has no name for yet. From 424 on all processors have the same numbers.
mod newer {
    pub(super) const FCHMODAT2: i64 = 452;
    pub(super) const SETXATTRAT: i64 = 463;
    pub(super) const REMOVEXATTRAT: i64 = 466;
    pub(super) const FILE_SETATTR: i64 = 469;
}

/// Beside what is denied to all ([`denied_to_all`]). Not here are `open_by_handle_at`, by which the agent finds a control
/// group, and forks, which the site's name look-ups may make.
const NEVER: &[i64] = &[
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Files. openat2 hides its flags behind a pointer.
    libc::SYS_openat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_truncate,
    libc::SYS_fchmodat,
    newer::FCHMODAT2,
    libc::SYS_fchmod,
    libc::SYS_fchownat,
    libc::SYS_fchown,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    newer::SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    newer::REMOVEXATTRAT,
    newer::FILE_SETATTR,
    libc::SYS_utimensat,
    // Other identities.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
];

/// Older forms of the same, which newer machines do not have.
#[cfg(target_arch = "x86_64")]
const NEVER_ON_X86_64: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions, Permissions};
    use std::io::ErrorKind::PermissionDenied;
    use std::os::unix::fs::PermissionsExt;

    /// What the rules do not name is allowed, so that no other number may lead to what they name.
    #[test]
    fn a_call_by_another_number_is_refused_before_the_list() {
        let program = filter().unwrap();
        let [load, at_least, ..] = &program[..] else { panic!("{program:?}") };
        // The number is the first word that the kernel shows; x32's begin at this one.
        assert_eq!((load.code, load.k, at_least.code), (0x20, 0, 0x35));
        assert!(at_least.k < 0x4000_0000, "{:#x}", at_least.k);
        let refused = &program[2 + usize::from(at_least.jt)];
        let errno = u32::try_from(libc::ENOSYS).unwrap();
        assert_eq!((refused.code, refused.k), (0x06, libc::SECCOMP_RET_ERRNO | errno));
    }

    #[test]
    fn what_is_forbidden_fails_and_what_is_needed_works() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        // A filter holds for one thread, and this one ends here.
        let locked = std::thread::spawn(move || {
            prctl::set_no_new_privs().unwrap();
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            for error in [
                OpenOptions::new().write(true).open(&path).unwrap_err(),
                OpenOptions::new().read(true).write(true).open(&path).unwrap_err(),
                OpenOptions::new().append(true).open(&path).unwrap_err(),
                File::create(dir.path().join("new")).unwrap_err(),
                std::fs::remove_file(&path).unwrap_err(),
                std::fs::rename(&path, dir.path().join("other")).unwrap_err(),
                std::fs::create_dir(dir.path().join("dir")).unwrap_err(),
                std::fs::remove_dir(&kept).unwrap_err(),
                std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap_err(),
                File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap_err(),
                std::process::Command::new("/bin/true").spawn().unwrap_err(),
            ] {
                assert_eq!(error.kind(), PermissionDenied);
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
            std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            crate::Lookup::open().unwrap();
            std::thread::spawn(|| {}).join().unwrap();
            dir
        });
        drop(locked.join().unwrap());
    }
}
