//! What this machine calls itself.

use std::io;

/// The host name as the kernel has it (`hostname`), which only root can set.
///
/// # Errors
/// When it can't be read or is not UTF-8.
pub fn host_name() -> io::Result<String> {
    nix::unistd::gethostname()?.into_string().map_err(|_| io::ErrorKind::InvalidData.into())
}
