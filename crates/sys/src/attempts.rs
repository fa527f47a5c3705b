//! What somebody would try who has taken a confined process over: system calls that its sandbox must not let through. For
//! tests, in which a program makes them in that process's place; not built otherwise (feature `attempts`).
//!
//! | module | tries |
//! | --- | --- |
//! | `kernel` | calls that need to know nothing: mounts, namespaces, other ids, limits, rings, keys |
//! | `code` | to run code that was not in the program's file |
//! | `process` | to get at another process |
//! | `socket` | to lead a socket that is held to somewhere else |
//!
//! Invariant: each is made so that the kernel would grant it to somebody who may, or so that it would find fault with the
//! arguments, not with the caller. None changes anything that outlives this process.

mod code;
mod kernel;
mod process;
mod socket;

use std::io;

use nix::errno::Errno;
use nix::libc;

pub use self::process::{OnProcess, on_process, peer_process};
pub use self::socket::{
    accept, disconnect, namespace_of, new_pair, new_socket, set_int, set_upper_protocol, signal_on_input,
};

/// One that needs to know nothing.
pub struct Attempt {
    /// Its name.
    pub name: &'static str,
    made: fn() -> io::Result<()>,
}

impl Attempt {
    /// Makes it.
    ///
    /// # Errors
    /// What the kernel says; `Unsupported` for what is not written for this processor.
    pub fn make(&self) -> io::Result<()> {
        (self.made)()
    }
}

/// All of them that come back. What was gained is given back at once, or is of use for this process alone.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    kernel::ALL.iter().chain(code::ALL)
}

/// Those that may be this process's end.
pub fn fatal() -> impl Iterator<Item = &'static Attempt> {
    kernel::FATAL.iter()
}

const fn attempt(name: &'static str, made: fn() -> io::Result<()>) -> Attempt {
    Attempt { name, made }
}

/// A call. Pointers among the arguments must be good for what the call does with them, and so must its effects be for
/// whatever this process goes on with.
///
/// # Safety
/// As said.
unsafe fn call<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the caller's.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Ok(Errno::result(answer)?.cast_unsigned() as usize)
}

/// A number that is negative, as an argument.
const fn minus(number: isize) -> usize {
    (-number).cast_unsigned()
}
