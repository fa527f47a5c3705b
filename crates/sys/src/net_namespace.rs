//! Which network namespace a socket belongs to.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// SO_NETNS_COOKIE of asm-generic/socket.h: since Linux 5.14, and not in the libc crate.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The kernel's number of the socket's network namespace, never used twice while the system runs (`SO_NETNS_COOKIE`). In a
/// namespace of one's own any address can be had: a socket whose number differs from our own sockets' is connected to
/// something else than its addresses say.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14; what the system says for something that is no socket.
pub fn namespace_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `length` live until after the call, and `length` is the true length of `cookie`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(answer)?;
    if length as usize != size_of::<u64>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a cookie of another length"));
    }
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_namespace_has_one_number() {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = namespace_cookie(&one).unwrap();
        assert_eq!(namespace_cookie(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap(), ours);
        namespace_cookie(tempfile::tempfile().unwrap()).unwrap_err();
        // A thread can leave by itself.
        let elsewhere = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            Some(namespace_cookie(UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap())
        });
        match elsewhere.join().unwrap() {
            Some(other) => assert_ne!(other, ours),
            None => println!("SKIPPED: a_namespace_has_one_number: needs root for another namespace"),
        }
    }
}
