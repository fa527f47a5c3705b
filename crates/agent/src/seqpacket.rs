//! Sockets on this node on which one message is one question (SEQPACKET). Who asks is known from the kernel.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::Gid;
use tokio::net::UnixStream;

/// Begins to listen there, not blocking, for whoever the mode and the group let connect. That a read gives one message and
/// a write sends one is all the difference to the type's name.
///
/// # Errors
/// As the system says; something else than a socket stays, and is in the way.
pub(crate) fn listen_at(path: &Path, queue: i32, mode: u32, group: Option<Gid>) -> io::Result<UnixListener> {
    // What a run before this one left there.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Nobody can connect before it listens.
    // The agent's unit lets it give no file away, so only who names a group asks for that.
    if let Some(group) = group {
        chown(path, None, Some(group.as_raw()))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    listen(&socket, Backlog::new(queue)?)?;
    Ok(UnixListener::from(socket))
}

/// The next caller, and who that is. A failure, such as too many open files, is told as `what`'s and waited out.
pub(crate) async fn accept(
    listening: &tokio::net::UnixListener,
    what: &str,
    pause: Duration,
) -> (UnixStream, u32) {
    loop {
        match listening.accept().await {
            Ok((caller, _)) => {
                if let Ok(uid) = portreeve_sys::peer_uid(&caller) {
                    return (caller, uid);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "{what} failed to accept");
                tokio::time::sleep(pause).await;
            }
        }
    }
}
