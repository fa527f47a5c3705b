//! TCP connections from a port that only root may have (or CAP_NET_BIND_SERVICE): the other end takes that for a sign of who
//! connects. Before: `daemon::dial`, `firewall::peers`. After: the connection, on which nothing was sent.
//! Invariant: a connection comes from one of the ports that were named, or there is none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use tokio::net::{TcpSocket, TcpStream};

/// As rresvport(3) has them.
pub(crate) const PORTS: RangeInclusive<u16> = 600..=1023;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConnected {
    /// The other end can't be reached.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// None of the ports can be had.
    #[error("no privileged port is free")]
    Port(#[source] io::Error),
}

impl NotConnected {
    /// What the system says.
    pub(crate) fn reason(self) -> io::Error {
        match self {
            Self::Connect(error) | Self::Port(error) => error,
        }
    }
}

/// Connects from the first of these ports that can be had. Many connections may share one, as long as they lead to different
/// ends. Takes as long as the system lets it.
pub(crate) async fn connect(
    to: SocketAddr,
    from: impl Iterator<Item = u16>,
) -> Result<TcpStream, NotConnected> {
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for port in from {
        let (socket, any): (_, IpAddr) = match to {
            SocketAddr::V4(_) => (TcpSocket::new_v4(), Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (TcpSocket::new_v6(), Ipv6Addr::UNSPECIFIED.into()),
        };
        let socket = socket.map_err(NotConnected::Connect)?;
        socket.set_reuseaddr(true).map_err(NotConnected::Connect)?;
        match socket.bind(SocketAddr::new(any, port)) {
            Ok(()) => match socket.connect(to).await {
                // There is a connection from this port to there, or the last one is not quite over (TIME_WAIT).
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => refused = error,
                connected => return connected.map_err(NotConnected::Connect),
            },
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
            Err(error) => return Err(NotConnected::Port(error)),
        }
    }
    Err(NotConnected::Port(refused))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_passed_over() {
        let [there, taken, free] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [to, busy, next] = [&there, &taken, &free].map(|listener| listener.local_addr().unwrap());
        drop(free);
        // Not privileged, so that anybody can run this.
        let stream = connect(to, [busy.port(), next.port()].into_iter()).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().port(), next.port());
        let again = connect(to, [busy.port(), next.port()].into_iter()).await.unwrap_err();
        assert!(matches!(again, NotConnected::Port(_)), "{again}");
        drop(there);
        let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = connect(other, [next.port()].into_iter()).await.unwrap_err();
        assert!(matches!(refused, NotConnected::Connect(_)), "{refused}");
    }
}
