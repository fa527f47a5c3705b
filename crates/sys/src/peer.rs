//! Who is at the other end of an `AF_UNIX` connection: the proof of identity on control sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

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

/// The process that connected, whatever becomes of its number.
#[derive(Debug)]
pub enum PeerProcess {
    /// A descriptor of it (pidfd_open(2)).
    Known(OwnedFd),
    /// It is gone.
    Gone,
    /// The kernel can't tell (Linux before 6.5).
    Untold,
}

impl PeerProcess {
    /// Of whoever connected this `AF_UNIX` socket (`SO_PEERPIDFD`, unix(7)).
    pub fn of(socket: &impl AsFd) -> Self {
        let mut number: RawFd = -1;
        let mut length: libc::socklen_t = 4;
        // SAFETY: the kernel writes one descriptor, for which there is room, and its length.
        let got = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERPIDFD,
                (&raw mut number).cast(),
                &raw mut length,
            )
        };
        match Errno::result(got) {
            // SAFETY: it was made for us just now, and is close-on-exec.
            Ok(_) if number >= 0 => Self::Known(unsafe { OwnedFd::from_raw_fd(number) }),
            Err(Errno::ENOPROTOOPT) => Self::Untold,
            _ => Self::Gone,
        }
    }

    /// Whether it has ended, so that its number may be another's. False where that can't be told.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Gone => true,
            Self::Untold => false,
            // Readable at its end (pidfd_open(2)).
            Self::Known(process) => {
                let mut asked = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
                poll(&mut asked, PollTimeout::ZERO) != Ok(0)
            }
        }
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
    fn a_process_that_connected_and_ended_is_not_taken_for_another() {
        use std::os::unix::net::UnixListener;
        let path = std::env::temp_dir().join(format!("portreeve-peer-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let _own = UnixStream::connect(&path).unwrap();
        let own = PeerProcess::of(&listener.accept().unwrap().0);
        if matches!(own, PeerProcess::Untold) {
            return println!("SKIPPED: this kernel has no SO_PEERPIDFD");
        }
        assert!(!own.has_ended());
        let script = format!("import socket; socket.socket(socket.AF_UNIX).connect({path:?})");
        let mut other = std::process::Command::new("python3").args(["-c", &script]).spawn().unwrap();
        let (socket, _) = listener.accept().unwrap();
        let process = PeerProcess::of(&socket);
        other.wait().unwrap();
        assert!(process.has_ended() && PeerProcess::of(&socket).has_ended());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_socket_without_a_peer_is_nobody() {
        let unconnected = UnixDatagram::unbound().unwrap();
        assert_eq!(peer_uid(&unconnected).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let not_unix = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer_uid(&not_unix).unwrap_err();
    }
}
