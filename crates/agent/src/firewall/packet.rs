//! What a packet says of itself: its two ends. Before: the queue. After: `gate`.
//! Invariant: nothing is believed but addresses and ports, and these only as a question to put to the kernels of both
//! nodes.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use portreeve_model::wire::firewall::{Flow, Transport};

/// The two ends of an IP packet of TCP or UDP; `None` for anything else.
pub(super) fn flow(bytes: &[u8]) -> Option<Flow> {
    let packet = LaxSlicedPacket::from_ip(bytes).ok()?;
    let (from, to) = match packet.net? {
        LaxNetSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
        LaxNetSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => return None,
    };
    let (transport, from_port, to_port) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (Transport::Tcp, tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (Transport::Udp, udp.source_port(), udp.destination_port()),
        _ => return None,
    };
    Some(Flow { transport, from: SocketAddr::new(from, from_port), to: SocketAddr::new(to, to_port) })
}

/// Whether it is a datagram to an address that is no node's, by which every node gets it that wants to.
pub(super) fn goes_to_many(flow: &Flow) -> bool {
    let to_many = match flow.to.ip().to_canonical() {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    flow.transport == Transport::Udp && to_many
}

#[cfg(test)]
pub(super) mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// A packet as it would arrive.
    pub(in crate::firewall) fn made(transport: Transport, from: &str, to: &str) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let ip = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
            _ => panic!("two families"),
        };
        let mut bytes = Vec::new();
        match transport {
            Transport::Tcp => {
                ip.tcp(from.port(), to.port(), 1, 1000).syn().write(&mut bytes, &[]).unwrap();
            }
            Transport::Udp => ip.udp(from.port(), to.port()).write(&mut bytes, &[7; 1000]).unwrap(),
        }
        bytes
    }

    #[test]
    fn both_ends_are_read() {
        for (transport, from, to) in [
            (Transport::Tcp, "10.0.0.1:4000", "10.0.0.2:5000"),
            (Transport::Udp, "10.0.0.1:1", "224.0.0.251:5353"),
            (Transport::Tcp, "[fd77::1]:4000", "[fd77::2]:5000"),
            (Transport::Udp, "[fe80::1]:4000", "[ff02::fb]:5353"),
        ] {
            let whole = made(transport, from, to);
            let expected = Flow { transport, from: from.parse().unwrap(), to: to.parse().unwrap() };
            assert_eq!(flow(&whole), Some(expected), "{from} {to}");
            // The queue hands over a part of a long one.
            let part = &whole[..whole.len().min(548)];
            assert_eq!(flow(part), Some(expected), "{from} {to}");
        }
    }

    #[test]
    fn many_are_reached_by_datagrams_alone() {
        for (to, many) in [
            ("239.77.0.1:9", true),
            ("255.255.255.255:9", true),
            ("[ff15::77]:9", true),
            ("[::ffff:239.77.0.1]:9", true),
            ("10.0.0.255:9", false),
            ("10.0.0.2:9", false),
            ("[fd77::2]:9", false),
        ] {
            let to: SocketAddr = to.parse().unwrap();
            let over = |transport| goes_to_many(&Flow { transport, from: to, to });
            assert_eq!((over(Transport::Udp), over(Transport::Tcp)), (many, false), "{to}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_echo_request(1, 2)
            .write(&mut bytes, &[])
            .unwrap();
        assert_eq!(flow(&bytes), None);
        for bytes in
            [made(Transport::Tcp, "10.0.0.1:1", "10.0.0.2:2"), made(Transport::Udp, "[::1]:1", "[::2]:2")]
        {
            for end in 0..28 {
                assert_eq!(flow(&bytes[..end]), None, "{end}");
            }
        }
    }
}
