//! What systemd listens on for the portal, which may not do so itself (sd_listen_fds(3)). Each is known by its
//! `FileDescriptorName=`.
//! Invariant: a socket without a known name, of another kind, or missing, is an error: a portal that listens on less than was
//! meant is not started.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use portreeve_portal::MetricsSocket;

/// The sockets.
pub(crate) struct Sockets {
    /// For browsers: `https`.
    pub(crate) https: Vec<TcpListener>,
    /// For the broker: `broker`.
    pub(crate) broker: UnixListener,
    /// For the nodes' agents: `agents`.
    pub(crate) agents: Vec<TcpListener>,
    /// For whoever watches over the portal: `metrics`.
    pub(crate) metrics: Vec<MetricsSocket>,
}

impl Sockets {
    /// Takes them over.
    pub(crate) fn inherit() -> anyhow::Result<Self> {
        let (mut https, mut broker, mut agents, mut metrics) = (vec![], vec![], vec![], vec![]);
        for (number, name) in sd_notify::listen_fds_with_names().context("no sockets were handed over")? {
            let socket = portreeve_sys::inherited(number)?;
            ensure!(
                getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false),
                "the socket {name} does not listen"
            );
            match name.as_str() {
                "https" => https.push(tcp(socket, &name)?),
                "agents" => agents.push(tcp(socket, &name)?),
                "broker" => {
                    ensure!(
                        getsockopt(&socket, sockopt::SockType)? == SockType::SeqPacket
                            && family(&socket)? == AddressFamily::Unix,
                        "the socket broker must be one of ListenSequentialPacket=/PATH"
                    );
                    broker.push(UnixListener::from(socket));
                }
                "metrics" if family(&socket)? == AddressFamily::Unix => {
                    metrics.push(MetricsSocket::Unix(UnixListener::from(socket)));
                }
                "metrics" => metrics.push(MetricsSocket::Tcp(tcp(socket, &name)?)),
                _ => bail!(
                    "a socket is called {name:?}: FileDescriptorName= must be https, broker, agents or metrics"
                ),
            }
        }
        ensure!(
            !https.is_empty() && !broker.is_empty(),
            "started without its sockets https and broker: systemd hands them over (portreeve-portal.socket, \
             portreeve-broker-line.socket)"
        );
        let broker = broker.pop().filter(|_| broker.is_empty());
        let broker = broker.context("there is one socket called broker, not several")?;
        Ok(Self { https, broker, agents, metrics })
    }
}

fn tcp(socket: OwnedFd, name: &str) -> anyhow::Result<TcpListener> {
    let is_tcp = getsockopt(&socket, sockopt::SockType)? == SockType::Stream
        && matches!(family(&socket)?, AddressFamily::Inet | AddressFamily::Inet6);
    ensure!(is_tcp, "the socket {name} is not one of ListenStream=[ADDRESS:]PORT");
    Ok(TcpListener::from(socket))
}

fn family(socket: &OwnedFd) -> anyhow::Result<AddressFamily> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    address.family().context("a socket of no known family")
}
