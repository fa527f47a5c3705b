//! Takes single flows out of the kernel's table of connections (conntrack), so that their next packet counts as new
//! again. Needs CAP_NET_ADMIN.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_UDP};
use nix::sys::socket::MsgFlags;

use crate::netfilter::{
    self, HEAD_BYTES, Message, SUBSYSTEM_CONNECTIONS, attribute, messages, nested, outcome,
};

/// The kernel never makes a larger datagram for a dump.
const DUMP_BYTES: usize = 64 * 1024;

const MESSAGE_NEW: u8 = 0;
const MESSAGE_GET: u8 = 1;
const MESSAGE_DELETE: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// The table of connections of this network namespace.
pub struct Connections(Socket);

impl Connections {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// As the system says.
    pub fn open() -> io::Result<Self> {
        Ok(Self(netfilter::open()?))
    }

    /// The flows of UDP that the kernel knows: where the first datagram of each came from, and where it went to.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN.
    pub fn udp_flows(&self) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
        let mut flows = Vec::new();
        let mut buffer = vec![0; DUMP_BYTES];
        for family in [AF_INET, AF_INET6] {
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            self.0.send(&Message::new(SUBSYSTEM_CONNECTIONS, MESSAGE_GET, flags, family, 0).finish(), 0)?;
            loop {
                let read = nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
                if each_udp_flow(buffer.get(..read).unwrap_or_default(), &mut flows)? {
                    break;
                }
            }
        }
        Ok(flows)
    }

    /// Forgets the UDP flow whose first datagram went from `from` to `to`. False: there is none.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN; addresses of two families.
    pub fn forget_udp(&self, from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
        let Some(message) = forget_udp(from, to) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the two ends are of different families",
            ));
        };
        match netfilter::command(&self.0, &message, &mut [0; 1024]) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The flows in one datagram of a dump; true when it is the last. Public for the fuzz targets.
#[doc(hidden)]
pub fn each_udp_flow(datagram: &[u8], flows: &mut Vec<(SocketAddr, SocketAddr)>) -> io::Result<bool> {
    /// `NLMSG_DONE`
    const DONE: u16 = 3;
    for (kind, message) in messages(datagram) {
        if let Some(outcome) = outcome(message) {
            return outcome.map(|()| true);
        }
        if kind == DONE {
            return Ok(true);
        }
        if kind == u16::from_be_bytes([SUBSYSTEM_CONNECTIONS, MESSAGE_NEW])
            && let Some(attributes) = message.get(HEAD_BYTES..)
        {
            flows.extend(udp_flow(attributes));
        }
    }
    Ok(false)
}

/// The original direction's two ends; `None` for anything but UDP.
fn udp_flow(attributes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let tuple = attribute(attributes, TUPLE_ORIGINAL)?;
    let (addresses, protocol) = (attribute(tuple, TUPLE_ADDRESSES)?, attribute(tuple, TUPLE_PROTOCOL)?);
    if attribute(protocol, PROTOCOL_NUMBER)?.first() != Some(&u8::try_from(IPPROTO_UDP).ok()?) {
        return None;
    }
    let port = |kind| Some(u16::from_be_bytes(attribute(protocol, kind)?.get(..2)?.try_into().ok()?));
    let ip = |v4, v6| -> Option<IpAddr> {
        if let Some(v4) = attribute(addresses, v4) {
            return Some(IpAddr::from(<[u8; 4]>::try_from(v4).ok()?));
        }
        Some(IpAddr::from(<[u8; 16]>::try_from(attribute(addresses, v6)?).ok()?))
    };
    Some((
        SocketAddr::new(ip(V4_SOURCE, V6_SOURCE)?, port(PROTOCOL_SOURCE_PORT)?),
        SocketAddr::new(ip(V4_DESTINATION, V6_DESTINATION)?, port(PROTOCOL_DESTINATION_PORT)?),
    ))
}

fn forget_udp(from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    let (family, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (AF_INET, nested(TUPLE_ADDRESSES, &[(V4_SOURCE, &from.octets()), (V4_DESTINATION, &to.octets())]))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => (
            AF_INET6,
            nested(TUPLE_ADDRESSES, &[(V6_SOURCE, &from.octets()), (V6_DESTINATION, &to.octets())]),
        ),
        _ => return None,
    };
    let protocol = nested(
        TUPLE_PROTOCOL,
        &[
            (PROTOCOL_NUMBER, &[u8::try_from(IPPROTO_UDP).ok()?]),
            (PROTOCOL_SOURCE_PORT, &from.port().to_be_bytes()),
            (PROTOCOL_DESTINATION_PORT, &to.port().to_be_bytes()),
        ],
    );
    let (kind, tuple) = nested(TUPLE_ORIGINAL, &[(addresses.0, &addresses.1), (protocol.0, &protocol.1)]);
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let message = Message::new(SUBSYSTEM_CONNECTIONS, MESSAGE_DELETE, flags, family, 0);
    Some(message.attribute(kind, &tuple).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_as_it_is_written() {
        for (from, to) in [("10.0.0.1:258", "10.0.0.2:772"), ("[fd77::1]:1", "[fd77::2]:65535")] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let mut message = forget_udp(from, to).unwrap();
            let mut flows = Vec::new();
            assert!(!each_udp_flow(&message, &mut flows).unwrap());
            assert_eq!(flows, [], "a command is no flow");
            // The kernel's own messages have the same form.
            let kind = u16::from_be_bytes([SUBSYSTEM_CONNECTIONS, MESSAGE_NEW]);
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            assert!(!each_udp_flow(&message, &mut flows).unwrap());
            assert_eq!(flows, [(from, to)]);
            for end in 0..message.len() {
                let mut none = Vec::new();
                let _ = each_udp_flow(&message[..end], &mut none);
                assert_eq!(none, [], "{end}");
            }
        }
    }

    #[test]
    fn the_two_ends_are_of_one_family() {
        let end = |text: &str| text.parse().unwrap();
        assert!(forget_udp(end("10.0.0.1:1"), end("[::1]:2")).is_none());
        let message = forget_udp(end("10.0.0.1:258"), end("10.0.0.2:772")).unwrap();
        assert_eq!(
            message.len(),
            usize::try_from(u32::from_ne_bytes(message[..4].try_into().unwrap())).unwrap()
        );
        for part in [&[10, 0, 0, 1][..], &[10, 0, 0, 2], &[1, 2], &[3, 4]] {
            assert!(message.windows(part.len()).any(|window| window == part), "{part:?}");
        }
    }
}
