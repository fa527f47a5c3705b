//! Sockets on this node on which one message is one question (SEQPACKET). Who asks is known from the kernel.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};

/// Begins to listen there, not blocking. Everybody on the node may connect. That a read gives one message and a write
/// sends one is all the difference to the type's name.
///
/// # Errors
/// As the system says; something else than a socket stays, and is in the way.
pub(crate) fn listen_at(path: &Path, queue: i32) -> io::Result<UnixListener> {
    // What a run before this one left there.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listen(&socket, Backlog::new(queue)?)?;
    Ok(UnixListener::from(socket))
}
