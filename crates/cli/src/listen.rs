//! Binds the portal's sockets, and finds the names it goes by.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use portreeve_portal::MetricsSocket;

use crate::arguments::MetricsAt;

/// Bound sockets, and the host name to print.
pub(crate) struct Bound {
    pub(crate) sockets: Vec<TcpListener>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// As it stands in an address: brackets around IPv6.
    pub(crate) host: String,
    /// All host names that are the portal's own.
    pub(crate) names: Vec<String>,
}

/// Ports tried before giving up, when any will do and each must be free on two addresses.
const TRIES: usize = 16;

/// Binds `address`. Listening on one of the two loopback addresses takes the other one too: browsers try both for
/// `localhost`, and whoever had the other one would be sent our sign-in codes.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Bound> {
    let sockets = if is_localhost(address.ip()) {
        bind_both(address)
    } else {
        TcpListener::bind(address).map(|one| vec![one])
    }
    .map_err(|error| explained(error, address))?;
    let addresses = sockets.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let machine = portreeve_sys::host_name().context("this machine has no name")?.to_ascii_lowercase();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
    let host = match address.ip() {
        ip if is_localhost(ip) => "localhost".to_owned(),
        ip if ip.is_unspecified() => {
            let all = portreeve_sys::local_addresses().unwrap_or_default();
            names.extend(all.into_iter().filter(portreeve_sys::leads_somewhere).map(in_address));
            machine.clone()
        }
        ip => in_address(ip),
    };
    let short = machine.split('.').next().unwrap_or_default().to_owned();
    names.extend([host.clone(), machine, short]);
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    Ok(Bound { sockets, addresses, host, names })
}

/// Binds the socket for metrics. One at a path is for its owner alone.
pub(crate) fn metrics(at: &MetricsAt) -> anyhow::Result<MetricsSocket> {
    let path = match at {
        MetricsAt::Address(address) => {
            let socket = TcpListener::bind(address).map_err(|error| explained(error, *address))?;
            return Ok(MetricsSocket::Tcp(socket));
        }
        MetricsAt::Path(path) => path,
    };
    let shown = path.display();
    if fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()) {
        match UnixStream::connect(path) {
            // Left over from a portal that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).with_context(|| format!("{shown} can't be replaced"))?;
            }
            _ => bail!("somebody listens at {shown} already; choose another path for --metrics"),
        }
    }
    // Never anybody else's, not even for a moment. No other thread makes files yet.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    Ok(MetricsSocket::Unix(bound.with_context(|| format!("{shown} can't be made"))?))
}

fn is_localhost(ip: IpAddr) -> bool {
    ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}

fn in_address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn bind_both(address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    let other: IpAddr =
        if address.is_ipv4() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let first = TcpListener::bind(address)?;
        let port = first.local_addr()?.port();
        match TcpListener::bind((other, port)) {
            Ok(second) => return Ok(vec![first, second]),
            // A machine without IPv6 has nobody else there either.
            Err(error) if matches!(error.raw_os_error(), Some(code) if code == nix::libc::EADDRNOTAVAIL || code == nix::libc::EAFNOSUPPORT) =>
            {
                return Ok(vec![first]);
            }
            Err(error) if address.port() == 0 => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn explained(error: io::Error, address: SocketAddr) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; choose another port, or --listen 127.0.0.1:0"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need root; choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => "choose another with --listen ADDR",
    };
    anyhow::Error::from(error).context(format!("can't listen on {address}: {remedy}"))
}
