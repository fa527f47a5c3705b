//! Tries to run code that was not in the program's file. Each that succeeds has run it.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::libc;

use super::{Attempt, attempt, call, minus};

pub(super) const ALL: &[Attempt] = &[
    attempt("code-writable", || {
        let page = Page::map(READ | WRITE | EXEC, None)?;
        page.write();
        page.run()
    }),
    attempt("code-mprotect", || {
        let page = Page::map(READ | WRITE, None)?;
        page.write();
        page.protect(libc::SYS_mprotect)?;
        page.run()
    }),
    attempt("code-pkey", || {
        let page = Page::map(READ | WRITE, None)?;
        page.write();
        page.protect(libc::SYS_pkey_mprotect)?;
        page.run()
    }),
    attempt("code-memfd", || of_file(&memory_file()?)),
    attempt("code-tmp", || of_file(&in_directory("/tmp")?)),
    attempt("code-var-tmp", || of_file(&in_directory("/var/tmp")?)),
    attempt("code-shm", || of_file(&in_directory("/dev/shm")?)),
    attempt("code-keys", || of_file(&in_directory("/run/portreeve/keys")?)),
    attempt("code-own-memory", own_memory),
    attempt("code-own-memory-dumpable", || {
        // Who may open /proc/self is decided by that flag (proc(5)).
        // SAFETY: numbers only.
        unsafe { call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1]) }?;
        own_memory()
    }),
    attempt("program-memfd", || {
        let file = memory_file()?;
        file.write_all_at(&std::fs::read("/proc/self/exe")?, 0)?;
        by_descriptor(&file)
    }),
    attempt("program-own", || by_path(c"/proc/self/exe")),
    attempt("program-linker", || by_path(c"/lib64/ld-linux-x86-64.so.2")),
    attempt("program-shell", || by_path(c"/bin/sh")),
];

const READ: libc::c_int = libc::PROT_READ;
const WRITE: libc::c_int = libc::PROT_WRITE;
const EXEC: libc::c_int = libc::PROT_EXEC;
const SIZE: usize = 4096;

/// mov eax, 42; ret
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[0xb8, 42, 0, 0, 0, 0xc3];
#[cfg(not(target_arch = "x86_64"))]
const CODE: &[u8] = &[];

/// A page of memory.
struct Page {
    at: *mut libc::c_void,
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped below, and nobody has a reference into it.
        unsafe { libc::munmap(self.at, SIZE) };
    }
}

impl Page {
    /// The first of a file, for this process alone, or an empty one.
    fn map(allowed: libc::c_int, file: Option<&File>) -> io::Result<Self> {
        let (flags, number) = match file {
            Some(file) => (libc::MAP_PRIVATE, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: memory that is not in use: the kernel picks the place.
        let at = unsafe { libc::mmap(null_mut(), SIZE, allowed, flags, number, 0) };
        if at == libc::MAP_FAILED { Err(Errno::last().into()) } else { Ok(Self { at }) }
    }

    /// To be called where it was mapped writable.
    fn write(&self) {
        // SAFETY: a page that is ours and writable.
        unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), self.at.cast(), CODE.len()) };
    }

    fn protect(&self, by: libc::c_long) -> io::Result<()> {
        // SAFETY: a page of our own, into which nobody has a reference.
        unsafe { call(by, [self.at.addr(), SIZE, (READ | EXEC) as usize, minus(1)]) }.map(drop)
    }

    /// To be called where it was mapped executable, with the code at its beginning.
    fn run(&self) -> io::Result<()> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: an executable page that begins with code for this processor, which returns a number and keeps to the C
        // calling convention.
        let code: extern "C" fn() -> libc::c_int = unsafe { std::mem::transmute(self.at) };
        match code() {
            42 => Ok(()),
            other => Err(io::Error::other(format!("the code returned {other}"))),
        }
    }
}

fn memory_file() -> io::Result<File> {
    // SAFETY: a string, which the kernel reads.
    let made = unsafe { libc::memfd_create(c"attempt".as_ptr(), libc::MFD_CLOEXEC) };
    let made = Errno::result(made)?;
    // SAFETY: just made, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(made) }.into())
}

/// A file without a name.
fn in_directory(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(0o700).custom_flags(libc::O_TMPFILE).open(path)
}

fn of_file(file: &File) -> io::Result<()> {
    let mut page = vec![0; SIZE];
    page[..CODE.len()].copy_from_slice(CODE);
    file.write_all_at(&page, 0)?;
    Page::map(READ | EXEC, Some(file))?.run()
}

/// By the file that is this process's memory, which the kernel lets write what is read-only (proc(5)).
fn own_memory() -> io::Result<()> {
    let page = Page::map(READ | EXEC, Some(&File::open("/proc/self/exe")?))?;
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(CODE, page.at.addr() as u64)?;
    page.run()
}

/// Runs a program, in a child if there can be one.
fn by_path(path: &CStr) -> io::Result<()> {
    in_child(|| nix::unistd::execve(path, &[path, c"--nothing"], &[c"A=b"]).map(drop))
}

fn by_descriptor(file: impl AsFd) -> io::Result<()> {
    in_child(|| nix::unistd::fexecve(&file, &[c"attempt", c"--nothing"], &[c"A=b"]).map(drop))
}

/// Where there can be no child, a program that runs takes this one's place, and nobody answers any more.
fn in_child(run: impl Fn() -> nix::Result<()>) -> io::Result<()> {
    const NOT_RUN: i32 = 200;
    // SAFETY: this process has one thread, and the child only runs a program, or ends with the reason.
    match unsafe { nix::unistd::fork() } {
        Err(_) => Ok(run()?),
        Ok(nix::unistd::ForkResult::Child) => {
            let reason = run().err().map_or(0, |errno| errno as i32);
            // SAFETY: a number; it does not return.
            unsafe { libc::_exit(NOT_RUN + reason) }
        }
        Ok(nix::unistd::ForkResult::Parent { child }) => match nix::sys::wait::waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, status) if status >= NOT_RUN => {
                Err(io::Error::from_raw_os_error(status - NOT_RUN))
            }
            _ => Ok(()),
        },
    }
}
