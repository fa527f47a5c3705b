//! One TCP socket as the kernel's socket diagnosis describes it (sock_diag(7)). Made by `sock_diag` only.
//! Invariant: addresses are in canonical form, so that comparing two of them with `==` compares what they mean.

use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};
use netlink_packet_sock_diag::{AF_INET, AF_INET6};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

/// Of `linux/inet_diag.h`; the library does not know it.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// The address family of a socket. A dual-stack IPv6 socket carries IPv4 connections too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

/// States of `tcp_states.h`. The kernel shows a request that still waits for its last ACK as `SynRecv`, and an
/// orphan that waits for the peer's FIN as `FinWait2` with neither uid nor inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are RFC 9293's")]
pub enum TcpState {
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// A number that this code does not know.
    Other(u8),
}

impl From<u8> for TcpState {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Other(other),
        }
    }
}

impl From<TcpState> for u8 {
    fn from(state: TcpState) -> Self {
        match state {
            TcpState::Established => 1,
            TcpState::SynSent => 2,
            TcpState::SynRecv => 3,
            TcpState::FinWait1 => 4,
            TcpState::FinWait2 => 5,
            TcpState::TimeWait => 6,
            TcpState::Close => 7,
            TcpState::CloseWait => 8,
            TcpState::LastAck => 9,
            TcpState::Listen => 10,
            TcpState::Closing => 11,
            TcpState::Other(other) => other,
        }
    }
}

/// What the kernel says of one TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketRecord {
    /// The socket's state.
    pub state: TcpState,
    /// The socket's own family, whatever family its addresses are shown in.
    pub family: Family,
    /// Its local end, canonical.
    pub local: SocketAddr,
    /// Its remote end, canonical; unspecified with port 0 for a LISTEN socket.
    pub remote: SocketAddr,
    /// The owner: of a LISTEN socket whoever called socket(2), of an accepted one whoever called accept(2). Not
    /// evidence when `inode` is 0: then it depends on the kernel's version.
    pub uid: u32,
    /// The inode in sockfs; 0 for a connection nobody has accepted, for an orphan, and in TIME_WAIT.
    pub inode: u32,
    /// The kernel's cookie of this very socket, not used again while the machine is up.
    pub cookie: u64,
    /// `IPV6_V6ONLY`, which the kernel tells of IPv6 LISTEN sockets only.
    pub v6only: Option<bool>,
    /// The control group (v2) in which the socket was made, by its id; from Linux 5.9 on. For show.
    pub cgroup: Option<u64>,
    /// How long ago data came last, to the millisecond; said only where it was asked for. For show.
    pub silent_for: Option<Duration>,
}

/// How long ago data came (`struct tcp_info`, tcp(7)), of which older kernels have less and younger ones more.
fn last_data(info: &[u8]) -> Option<Duration> {
    let at = std::mem::offset_of!(nix::libc::tcp_info, tcpi_last_data_recv);
    let milliseconds = info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)?;
    Some(Duration::from_millis(milliseconds.into()))
}

impl SocketRecord {
    /// Whether it is the socket of exactly these two ends, in whatever form they are given. The kernel may answer with a
    /// LISTEN socket in its place.
    #[must_use]
    pub fn is_between(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        (self.local, self.remote) == (canonical(local), canonical(remote))
    }

    pub(crate) fn from_response(response: &InetResponse) -> Option<Self> {
        let header = &response.header;
        let id = &header.socket_id;
        let family = match header.family {
            AF_INET => Family::V4,
            AF_INET6 => Family::V6,
            _ => return None,
        };
        let end = |ip: IpAddr, port: u16| match ip {
            IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
            IpAddr::V6(ip) => canonical(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, id.interface_id))),
        };
        Some(Self {
            state: header.state.into(),
            family,
            local: end(id.source_address, id.source_port),
            remote: end(id.destination_address, id.destination_port),
            uid: header.uid,
            inode: header.inode,
            // Two native u32, the lower half first (`sock_diag_save_cookie`).
            cookie: {
                let [a, b, c, d, e, f, g, h] = id.cookie;
                u64::from(u32::from_ne_bytes([a, b, c, d]))
                    | u64::from(u32::from_ne_bytes([e, f, g, h])) << 32
            },
            v6only: response.nlas.iter().find_map(|attribute| match attribute {
                Nla::SkV6Only(only) => Some(*only),
                _ => None,
            }),
            cgroup: response.nlas.iter().find_map(|attribute| match attribute {
                Nla::Other(other) if other.kind() == INET_DIAG_CGROUP_ID => cgroup_id(other),
                _ => None,
            }),
            silent_for: response.nlas.iter().find_map(|attribute| match attribute {
                Nla::TcpInfo(info) => last_data(info),
                _ => None,
            }),
        })
    }
}

fn cgroup_id(attribute: &DefaultNla) -> Option<u64> {
    let mut id = [0; 8];
    (attribute.value_len() == id.len()).then(|| {
        attribute.emit_value(&mut id);
        u64::from_ne_bytes(id)
    })
}

/// The one form of an address: IPv4-mapped IPv6 becomes IPv4, the flow label is dropped, and a scope is kept only
/// where it is part of the address (link-local).
pub fn canonical(address: SocketAddr) -> SocketAddr {
    let SocketAddr::V6(v6) = address else { return address };
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, v6.port())),
        None => {
            let scope = if v6.ip().is_unicast_link_local() { v6.scope_id() } else { 0 };
            SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_addresses_compare_by_meaning() {
        for (one, other, same) in [
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.2:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:81", false),
            ("[2001:db8::1%3]:80", "[2001:db8::1]:80", true),
            ("[fe80::1%3]:80", "[fe80::1%4]:80", false),
            // The deprecated IPv4-compatible form is an IPv6 address of its own.
            ("[::127.0.0.1]:80", "127.0.0.1:80", false),
            ("[::]:80", "0.0.0.0:80", false),
        ] {
            let parse = |text: &str| canonical(text.parse().unwrap());
            assert_eq!(parse(one) == parse(other), same, "{one} {other}");
        }
    }

    #[test]
    fn an_unknown_state_is_kept_as_a_number() {
        assert_eq!(TcpState::from(10), TcpState::Listen);
        for number in 0..=255 {
            assert_eq!(u8::from(TcpState::from(number)), number);
        }
        for number in [0, 12, 13, 255] {
            assert_eq!(TcpState::from(number), TcpState::Other(number));
        }
    }
}
