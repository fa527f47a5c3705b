//! What a socket that another process handed over really is.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::net_namespace::namespace_cookie;
use crate::socket_record::TcpState;

/// Takes over a TCP connection to exactly `peer`, made in the network namespace of this cookie ([`namespace_cookie`]), as
/// one that does not block. To be called only when nobody else has a copy: whoever has one can connect it elsewhere
/// afterwards.
///
/// # Errors
/// `InvalidData` for a socket of another kind, in another state, to somewhere else, or from another namespace, in which
/// any address can be had; what the system says for something that is no socket.
pub fn take_connection(socket: OwnedFd, peer: SocketAddr, namespace: u64) -> io::Result<TcpStream> {
    let refuse = |what: &'static str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if getsockopt(&socket, sockopt::SockType)? != SockType::Stream {
        return refuse("not a stream");
    }
    if protocol(&socket)? != libc::IPPROTO_TCP {
        return refuse("not TCP");
    }
    if state(&socket)? != TcpState::Established {
        return refuse("not an established connection");
    }
    if namespace_cookie(&socket)? != namespace {
        return refuse("from another network namespace");
    }
    let flags = OFlag::from_bits_truncate(fcntl(&socket, FcntlArg::F_GETFL)?);
    fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let stream = TcpStream::from(socket);
    if stream.peer_addr()? != peer {
        return refuse("connected to somewhere else");
    }
    Ok(stream)
}

fn protocol(socket: &impl AsFd) -> io::Result<libc::c_int> {
    let mut protocol: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `protocol` and `length` live until after the call, and `length` is the true length of `protocol`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PROTOCOL,
            (&raw mut protocol).cast(),
            &raw mut length,
        )
    };
    Errno::result(answer)?;
    Ok(protocol)
}

fn state(socket: &impl AsFd) -> io::Result<TcpState> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` and `length` live until after the call, and `length` is the true length of `info`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(answer)?;
    // SAFETY: plain numbers, for which every bit pattern is valid; it was zeroed, however much the kernel wrote.
    Ok(unsafe { info.assume_init() }.tcpi_state.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_a_connection_to_there_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (peer, ours) = (listener.local_addr().unwrap(), namespace_cookie(&listener).unwrap());
        let connect = || OwnedFd::from(TcpStream::connect(peer).unwrap());
        let taken = take_connection(connect(), peer, ours).unwrap();
        let flags = OFlag::from_bits_truncate(fcntl(&taken, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));

        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let closed = {
            let stream = TcpStream::connect(peer).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            OwnedFd::from(stream)
        };
        for (socket, peer, namespace) in [
            (connect(), elsewhere, ours),
            (connect(), peer, ours + 1),
            (closed, peer, ours),
            (OwnedFd::from(listener.try_clone().unwrap()), peer, ours),
            (OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()), peer, ours),
            (OwnedFd::from(UnixStream::pair().unwrap().0), peer, ours),
            (OwnedFd::from(tempfile::tempfile().unwrap()), peer, ours),
        ] {
            take_connection(socket, peer, namespace).unwrap_err();
        }
    }
}
