//! Sends packets whose IP header the caller has made (raw(7)). Needs CAP_NET_RAW to open.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

/// One socket for each family.
pub struct RawIp {
    v4: OwnedFd,
    /// Not where IPv6 is switched off.
    v6: Option<OwnedFd>,
}

impl RawIp {
    /// Opens the sockets.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let open = |family| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(family, SockType::Raw, flags, SockProtocol::Raw)
        };
        Ok(Self { v4: open(AddressFamily::Inet)?, v6: open(AddressFamily::Inet6).ok() })
    }

    /// Sends one whole packet, IP header and all. It never waits: a packet that can't be sent now is an error.
    ///
    /// # Errors
    /// As sendto(2); `EAFNOSUPPORT` for IPv6 where there is none.
    pub fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let socket = match to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => self.v6.as_ref().ok_or(nix::errno::Errno::EAFNOSUPPORT)?,
        };
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())?;
        Ok(())
    }
}
