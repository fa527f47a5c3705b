//! One connection under way. Invariant: its socket is connected once, to the address of its question.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, getsockopt, setsockopt,
    socket, sockopt,
};
use portreeve_model::wire::dialer::Dial;

/// A socket that connects.
pub(super) struct Attempt {
    /// Of the question.
    pub(super) id: u32,
    socket: OwnedFd,
    /// When the portal's patience is at its end.
    pub(super) until: Instant,
}

impl Attempt {
    /// Begins.
    pub(super) fn begin(dial: &Dial, now: Instant) -> Result<Self, Errno> {
        let family = match dial.to {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
        // Small messages of interactive applications must not wait for each other.
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(dial.to)) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
            Err(other) => return Err(other),
        }
        let until = now + Duration::from_millis(dial.patience.into());
        Ok(Self { id: dial.id, socket, until })
    }

    /// What became of it, once the kernel has told that something did.
    pub(super) fn finish(self) -> Result<OwnedFd, Errno> {
        match getsockopt(&self.socket, sockopt::SocketError)? {
            0 => Ok(self.socket),
            errno => Err(Errno::from_raw(errno)),
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
