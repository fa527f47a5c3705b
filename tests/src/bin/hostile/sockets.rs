//! New sockets, and those that it holds.

use std::io::{Error, IoSlice, Result};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    Backlog, MsgFlags, MultiHeaders, Shutdown, SockaddrStorage, UnixAddr, bind, connect, listen, sendmmsg,
    sendmsg, sendto, shutdown,
};
use portreeve_sys::attempts::{self, disconnect, namespace_of, new_pair, new_socket, set_int};
use portreeve_tests::hostile::Lead;

use crate::Held;
use crate::files::late;

/// For whatever must happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn make(family: i32, kind: i32, pair: bool) -> Result<()> {
    if pair { new_pair(family, kind).map(drop) } else { new_socket(family, kind).map(drop) }
}

pub(crate) fn connect_unix(kind: i32, path: &str) -> Result<()> {
    let socket = new_socket(libc::AF_UNIX, kind)?;
    Ok(connect(socket.as_raw_fd(), &unix(path)?)?)
}

fn unix(path: &str) -> Result<UnixAddr> {
    Ok(match path.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(path)?,
    })
}

pub(crate) fn send_unix(path: &str) -> Result<()> {
    let (one, _other) = UnixDatagram::pair()?;
    sendto(one.as_raw_fd(), b"READY=1", &unix(path)?, MsgFlags::empty())?;
    Ok(())
}

pub(crate) fn tcp(to: SocketAddr, listen: bool) -> Result<()> {
    if listen { TcpListener::bind(to).map(drop) } else { TcpStream::connect_timeout(&to, PATIENCE).map(drop) }
}

pub(crate) fn enter_namespace(socket: &OwnedFd) -> Result<()> {
    Ok(setns(namespace_of(socket)?, CloneFlags::CLONE_NEWNET)?)
}

/// Something under way counts as gained.
fn begun<T>(done: nix::Result<T>) -> Result<()> {
    match done {
        Ok(_) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn lead(socket: &OwnedFd, how: Lead, to: SocketAddr) -> Result<()> {
    // A socket of both families takes addresses of one.
    let own: Option<SockaddrStorage> = nix::sys::socket::getsockname(socket.as_raw_fd()).ok();
    let is_v6 = own.is_some_and(|own| own.as_sockaddr_in6().is_some());
    let to = match to {
        SocketAddr::V4(v4) if is_v6 => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        other => other,
    };
    let (number, address) = (socket.as_raw_fd(), SockaddrStorage::from(to));
    let quiet = MsgFlags::MSG_NOSIGNAL;
    let fast = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN) | quiet;
    let parts = [IoSlice::new(b"x")];
    let messages = [parts];
    let many = |flags| {
        let mut headers = MultiHeaders::preallocate(1, None);
        begun(sendmmsg(number, &mut headers, &messages, [Some(address)], [], flags).map(drop))
    };
    let option = |option, value| set_int(socket, libc::IPPROTO_TCP, option, value);
    match how {
        Lead::Connect => begun(connect(number, &address)),
        Lead::Reconnect => {
            disconnect(socket)?;
            begun(connect(number, &address))
        }
        Lead::FastOpen => begun(sendto(number, b"x", &address, fast)),
        Lead::FastOpenMessage => begun(sendmsg(number, &parts, &[], fast, Some(&address))),
        Lead::FastOpenMessages => many(fast),
        Lead::FastOpenOption => {
            option(libc::TCP_FASTOPEN_CONNECT, 1)?;
            begun(connect(number, &address))?;
            begun(nix::unistd::write(socket, b"x"))
        }
        Lead::FastOpenListen => option(libc::TCP_FASTOPEN, 16),
        Lead::Addressed => begun(sendto(number, b"x", &address, quiet)),
        Lead::AddressedMessage => begun(sendmsg(number, &parts, &[], quiet, Some(&address))),
        Lead::Repair => option(libc::TCP_REPAIR, 1),
        Lead::Upper => attempts::set_upper_protocol(socket),
        Lead::Listen => begun(listen(socket, Backlog::MAXCONN)),
        Lead::Bind => begun(bind(number, &address)),
        Lead::Filter => set_int(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1),
        Lead::ShutDown => begun(shutdown(number, Shutdown::Both)),
    }
}

/// Waits until something comes, or ends.
pub(crate) fn wait(descriptor: impl AsFd, patience: Duration) -> Result<()> {
    let patience = PollTimeout::try_from(patience).map_err(Error::other)?;
    match poll(&mut [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)], patience) {
        Ok(0) => Err(late()),
        Ok(_) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Held {
    pub(crate) fn accept(&mut self, listener: &str, into: String) -> Result<()> {
        let listener = self.socket(listener)?;
        wait(listener, PATIENCE)?;
        let accepted = attempts::accept(listener)?;
        self.by_name.insert(into, accepted);
        Ok(())
    }

    pub(crate) fn pair(&mut self, kind: i32, names: [String; 2]) -> Result<()> {
        let (one, other) = new_pair(libc::AF_UNIX, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)?;
        let [first, second] = names;
        self.by_name.extend([(first, one), (second, other)]);
        Ok(())
    }
}
