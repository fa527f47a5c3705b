//! Who is at the other end of an `AF_UNIX` connection: the proof of identity on control sockets.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::io;
use std::os::fd::AsFd;

/// The effective uid of the process that connected, or of the one that made the listener or the pair, as the
/// kernel noted it then (`SO_PEERCRED`, unix(7)). A socket that is not a connected `AF_UNIX` socket is
/// `NotConnected`: the kernel answers uid -1 for it, which must not be taken for somebody.
pub fn peer_uid(socket: &impl AsFd) -> io::Result<u32> {
    let credentials = getsockopt(socket, PeerCredentials)?;
    // Pid 0 alone is no sign of that: a peer in a pid namespace that we can't see has it too.
    match credentials.uid() {
        u32::MAX => Err(io::Error::new(io::ErrorKind::NotConnected, "the socket has no peer")),
        uid => Ok(uid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn a_pair_is_our_own() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&one).unwrap(), nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn a_socket_without_a_peer_is_nobody() {
        let unconnected = UnixDatagram::unbound().unwrap();
        assert_eq!(peer_uid(&unconnected).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let not_unix = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer_uid(&not_unix).unwrap_err();
    }
}
