//! Tells whoever was refused, by an ICMP error, so that their program fails at once instead of waiting. Before: the
//! verdict. Nobody is told of a packet that was sent to many, nor more often than a limit: an error must not be a weapon.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use portreeve_model::firewall::Reply;
use portreeve_model::wire::firewall::Flow;
use portreeve_sys::RawIp;

use super::limits;

/// The longest error: 576 bytes in IPv4 (RFC 1812 section 4.3.2.3), and we send no longer one in IPv6.
const LONGEST: usize = 576;
const TIME_TO_LIVE: u8 = 64;

/// Sends errors.
pub(super) struct Refuser {
    raw: RawIp,
    second: Instant,
    sent: u32,
}

impl Refuser {
    /// Opens the sockets.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { raw: RawIp::open()?, second: Instant::now(), sent: 0 })
    }

    /// Tells whoever sent `packet`. What can't be told is not: they will wait, and find out.
    pub(super) fn tell(&mut self, reply: Reply, flow: &Flow, packet: &[u8]) {
        let Some(error) = error(reply, flow, packet) else { return };
        if self.second.elapsed().as_secs() >= 1 {
            (self.second, self.sent) = (Instant::now(), 0);
        }
        self.sent += 1;
        if self.sent > limits::ICMP_PER_SECOND {
            return;
        }
        if let Err(error) = self.raw.send(&error, flow.from.ip()) {
            tracing::debug!(%error, to = %flow.from, "a refusal could not be told");
        }
    }
}

/// The ICMP error, from the address that was connected to. None for one that must not be sent (RFC 1122 section
/// 3.2.2): to or about an address that stands for many.
pub(super) fn error(reply: Reply, flow: &Flow, packet: &[u8]) -> Option<Vec<u8>> {
    let stands_for_many = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unspecified(),
    };
    if stands_for_many(flow.from.ip()) || stands_for_many(flow.to.ip()) {
        return None;
    }
    let mut bytes = Vec::with_capacity(LONGEST);
    let quoted = |headers: usize| &packet[..packet.len().min(LONGEST - headers)];
    match (flow.to.ip(), flow.from.ip()) {
        (IpAddr::V4(here), IpAddr::V4(there)) => {
            let code = match reply {
                Reply::Prohibited => icmpv4::DestUnreachableHeader::FilterProhibited,
                Reply::PortUnreachable => icmpv4::DestUnreachableHeader::Port,
                Reply::Silence => return None,
            };
            PacketBuilder::ipv4(here.octets(), there.octets(), TIME_TO_LIVE)
                .icmpv4(Icmpv4Type::DestinationUnreachable(code))
                .write(&mut bytes, quoted(28))
                .ok()?;
        }
        (IpAddr::V6(here), IpAddr::V6(there)) => {
            let code = match reply {
                Reply::Prohibited => icmpv6::DestUnreachableCode::Prohibited,
                Reply::PortUnreachable => icmpv6::DestUnreachableCode::Port,
                Reply::Silence => return None,
            };
            PacketBuilder::ipv6(here.octets(), there.octets(), TIME_TO_LIVE)
                .icmpv6(Icmpv6Type::DestinationUnreachable(code))
                .write(&mut bytes, quoted(48))
                .ok()?;
        }
        _ => return None,
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use portreeve_model::wire::firewall::Transport;

    use super::super::packet::{flow, tests::made};
    use super::*;

    #[test]
    fn the_error_says_what_and_quotes_the_packet() {
        for (from, to, reply, at, kind, code) in [
            ("10.0.0.1:4000", "10.0.0.2:5000", Reply::Prohibited, 20, 3, 13),
            ("10.0.0.1:4000", "10.0.0.2:5000", Reply::PortUnreachable, 20, 3, 3),
            ("[fd77::1]:4000", "[fd77::2]:5000", Reply::Prohibited, 40, 1, 1),
            ("[fd77::1]:4000", "[fd77::2]:5000", Reply::PortUnreachable, 40, 1, 4),
        ] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let packet = made(transport, from, to);
                let flow = flow(&packet).unwrap();
                let told = error(reply, &flow, &packet).unwrap();
                assert_eq!((told[at], told[at + 1]), (kind, code), "{from} {reply:?}");
                let quoted = &told[at + 8..];
                assert!(packet.starts_with(quoted) && quoted.len() >= packet.len().min(500), "{from}");
                assert!(told.len() <= LONGEST);
                // From where it was sent to, to where it came from.
                let (source, destination) = if at == 20 { (12..16, 16..20) } else { (8..24, 24..40) };
                assert_eq!(told[source.clone()], packet[destination.clone()]);
                assert_eq!(told[destination], packet[source]);
            }
        }
    }

    #[test]
    fn many_are_never_told_and_silence_is_silence() {
        for (from, to) in [
            ("10.0.0.1:1", "224.0.0.1:2"),
            ("10.0.0.1:1", "255.255.255.255:2"),
            ("0.0.0.0:1", "10.0.0.2:2"),
            ("[fd77::1]:1", "[ff02::1]:2"),
            ("[::]:1", "[fd77::2]:2"),
        ] {
            let packet = made(Transport::Udp, from, to);
            assert_eq!(error(Reply::Prohibited, &flow(&packet).unwrap(), &packet), None, "{from} {to}");
        }
        let packet = made(Transport::Tcp, "10.0.0.1:1", "10.0.0.2:2");
        assert_eq!(error(Reply::Silence, &flow(&packet).unwrap(), &packet), None);
    }
}
