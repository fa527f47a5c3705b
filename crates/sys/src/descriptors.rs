//! How many files and connections this process may have open.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, which every process may do for itself (setrlimit(2)), and returns what holds
/// then. Shells start programs with a soft limit of 1024 for the sake of `select`, which is not used here.
///
/// # Errors
/// When the kernel does not tell the limits.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Whoever confines this process may have forbidden the call.
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Ok(if raised { hard } else { soft })
}

/// Whether something failed because this process, or the machine, may open nothing more.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}
