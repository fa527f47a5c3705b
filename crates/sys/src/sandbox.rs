//! What a process may ask of the kernel at all (seccomp(2)), once it has opened what it needs. One constructor for each
//! process that is kept in; the rules stand in `sandbox/lists.rs`.
//! Invariants: a sandbox can't be left, and children and threads are born in it. Calls by another instruction set end the
//! process. A system call that is younger than these rules does not exist in it (`ENOSYS`).
//!
//! The filter sees numbers and pointers, not what the pointers point to: an address inside `sendmsg`'s argument is not
//! seen. That is why the portal must not have a datagram socket either.

mod lists;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, sock_filter};

/// The rules for a process, ready for the kernel.
#[derive(Debug, Clone)]
pub struct Sandbox {
    program: BpfProgram,
}

/// Why a process is not in its sandbox. It must not go on.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The rules can't be expressed for this processor.
    #[error("the rules of the sandbox can't be compiled")]
    Rules(#[from] BackendError),
    /// The kernel has no seccomp, or another filter forbids it.
    #[error("the kernel does not take the sandbox")]
    Refused(#[source] io::Error),
    /// A thread of this process keeps out of it: it has a filter of its own.
    #[error("thread {0} of this process can't be taken into the sandbox")]
    Thread(i64),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Sandbox {
    /// For the process that faces the network: it can't make a connection of its own, nor run another program, nor get at
    /// another process's memory or descriptors. What it may not do fails with `EPERM`.
    ///
    /// Sockets to listen on must be open by then; `sd_notify` and the journal's own protocol don't work in it.
    ///
    /// # Errors
    /// `Rules` on a processor that seccompiler does not know.
    pub fn portal() -> Result<Self, SandboxError> {
        Self::denying(lists::denied_to_portal()?)
    }

    /// For the process that holds the keys: sockets of this machine only, no other program, no other process's memory.
    /// What it may not do fails with `EPERM`.
    ///
    /// # Errors
    /// `Rules` on a processor that seccompiler does not know.
    pub fn broker() -> Result<Self, SandboxError> {
        Self::denying(lists::denied_to_broker()?)
    }

    /// For the process that connects as a user: TCP connections, messages, and an end. Anything else kills it.
    ///
    /// # Errors
    /// `Rules` on a processor that seccompiler does not know.
    pub fn dialer() -> Result<Self, SandboxError> {
        Ok(Self {
            program: compile(lists::allowed_to_dialer()?, SeccompAction::KillProcess, SeccompAction::Allow)?,
        })
    }

    fn denying(rules: Rules) -> Result<Self, SandboxError> {
        Ok(Self { program: denying(rules)? })
    }

    /// Takes this process with all its threads into the sandbox, for good. Denied calls are logged where the kernel's
    /// audit log is on.
    ///
    /// # Errors
    /// See [`SandboxError`]; then nothing has changed but that no exec grants new privileges any more.
    pub fn enter(&self) -> Result<(), SandboxError> {
        self.install(libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_LOG)
    }

    fn install(&self, flags: libc::c_ulong) -> Result<(), SandboxError> {
        // seccompiler's own call does not know the flag that has denied calls logged.
        prctl::set_no_new_privs().map_err(|errno| SandboxError::Refused(errno.into()))?;
        let program = libc::sock_fprog {
            len: u16::try_from(self.program.len()).unwrap_or(u16::MAX),
            filter: self.program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
        };
        // SAFETY: `program` has the address and the length of instructions that the kernel only reads. Both types
        // of instruction are the kernel's `struct sock_filter`.
        let answer = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        match Errno::result(answer) {
            Ok(0) => Ok(()),
            Ok(thread) => Err(SandboxError::Thread(thread)),
            Err(errno) => Err(SandboxError::Refused(errno.into())),
        }
    }
}

/// The numbers of system calls that no process of ours makes once it serves, whatever its sandbox: for one that has a filter
/// of its own. Mounts and namespaces, other processes' memory, rings, programs and keys in the kernel, and what belongs to
/// whoever runs the machine.
pub fn denied_to_all() -> impl Iterator<Item = i64> {
    lists::denied_to_all()
}

/// These calls fail with `EPERM`, whichever of their names they are called by, and those that are younger than our lists with
/// `ENOSYS`: for a process that has a list of its own.
///
/// # Errors
/// `Rules` on a processor that seccompiler does not know.
pub fn denying(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, SandboxError> {
    let errno = |errno: Errno| SeccompAction::Errno((errno as i32).cast_unsigned());
    let mut program = unknown_calls(errno(Errno::ENOSYS).into());
    program.extend(compile(rules, SeccompAction::Allow, errno(Errno::EPERM))?);
    Ok(program)
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let processor = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, on_match, processor)?.try_into()?)
}

/// Before the list of what is denied: what the list does not know. The numbers of x86-64's x32 calls, each a second name of
/// an ordinary one, are far above the last one too.
///
/// `clone3` has its flags behind a pointer. The C library falls back to `clone`, whose flags can be seen.
fn unknown_calls(nonexistent: u32) -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let [first_unknown, clone3] = [lists::LAST_KNOWN + 1, libc::SYS_clone3]
        .map(|number| u32::try_from(number).expect("a system call's number is small and positive"));
    // `nr` is the first field of seccomp_data.
    [(LOAD, 0, 0, 0), (AT_LEAST, 1, 0, first_unknown), (EQUALS, 0, 1, clone3), (RETURN, 0, 0, nonexistent)]
        .map(|(code, jt, jf, k)| sock_filter { code, jt, jf, k })
        .to_vec()
}

const _: () = assert!(size_of::<libc::sock_filter>() == size_of::<sock_filter>());
