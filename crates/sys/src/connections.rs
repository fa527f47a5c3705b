//! Takes single flows out of the kernel's table of connections (conntrack), so that their next packet counts as new
//! again. Needs CAP_NET_ADMIN.
//! Invariant: an answer is read only for the request that it belongs to, and to its end; a table that changed under the
//! kernel's hands while it was read is an error, not a part of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_UDP};
use nix::sys::socket::MsgFlags;

use crate::netfilter::{self, HEAD_BYTES, Message, SUBSYSTEM_CONNECTIONS, attribute, messages, nested};

/// The kernel never makes a larger datagram for a dump.
const DUMP_BYTES: usize = 64 * 1024;

const MESSAGE_NEW: u8 = 0;
const MESSAGE_GET: u8 = 1;
const MESSAGE_DELETE: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
/// `CTA_FILTER`: what of the tuples in a request counts (Linux 5.8). Older kernels pass it over, and tell of everything.
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// The protocol's number does.
const COUNTS_PROTOCOL: u32 = 1 << 3;
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
pub struct Connections {
    /// Opened anew after any error, so that the rest of an answer can't be taken for the next one's.
    socket: Option<Socket>,
    sequence: u32,
}

impl Connections {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// As the system says.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Some(netfilter::open()?), sequence: 0 })
    }

    /// The flows of UDP that the kernel knows: where the first datagram of each came from, and where it went to.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN.
    pub fn udp_flows(&mut self) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
        let mut flows = Vec::new();
        let mut buffer = vec![0; DUMP_BYTES];
        for family in [AF_INET, AF_INET6] {
            self.ask(all_of_udp(family), &mut buffer, &mut |datagram, sequence| {
                each_udp_flow(datagram, sequence, &mut flows)
            })?;
        }
        Ok(flows)
    }

    /// Forgets the UDP flow whose first datagram went from `from` to `to`. False: there is none.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN; addresses of two families.
    pub fn forget_udp(&mut self, from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
        let Some(request) = forget_udp(from, to) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the two ends are of different families",
            ));
        };
        let read = &mut |datagram: &[u8], sequence| each_udp_flow(datagram, sequence, &mut Vec::new());
        match self.ask(request, &mut [0; 1024], read) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a request, and has each datagram `read` until it says what the kernel's last word was.
    fn ask(
        &mut self,
        request: Message,
        buffer: &mut [u8],
        read: &mut dyn FnMut(&[u8], u32) -> io::Result<LastWord>,
    ) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => netfilter::open()?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        socket.send(&request.numbered(self.sequence).finish(), 0)?;
        loop {
            let length = nix::sys::socket::recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?;
            if let Some(word) = read(buffer.get(..length).unwrap_or_default(), self.sequence)? {
                // Nothing more can come.
                self.socket = Some(socket);
                return word;
            }
        }
    }
}

/// What the kernel says at the end of an answer; `None`: the answer goes on.
type LastWord = Option<io::Result<()>>;

/// The flows in one datagram of the answer to the request of this number. Public for the fuzz targets.
///
/// # Errors
/// When the answer can't be used, and may go on.
#[doc(hidden)]
pub fn each_udp_flow(
    datagram: &[u8],
    sequence: u32,
    flows: &mut Vec<(SocketAddr, SocketAddr)>,
) -> io::Result<LastWord> {
    for message in messages(datagram).filter(|message| message.sequence == sequence) {
        if message.flags & NLM_F_DUMP_INTR != 0 {
            return Err(io::Error::other("the table changed while it was read"));
        }
        if let Some(word) = message.last_word() {
            return Ok(Some(word));
        }
        if message.kind == u16::from_be_bytes([SUBSYSTEM_CONNECTIONS, MESSAGE_NEW])
            && let Some(attributes) = message.bytes.get(HEAD_BYTES..)
        {
            flows.extend(udp_flow(attributes));
        }
    }
    Ok(None)
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

/// Of TCP a node may have very many.
fn all_of_udp(family: i32) -> Message {
    let udp = [u8::try_from(IPPROTO_UDP).unwrap_or(u8::MAX)];
    let (protocol, number) = nested(TUPLE_PROTOCOL, &[(PROTOCOL_NUMBER, &udp)]);
    let (kind, tuple) = nested(TUPLE_ORIGINAL, &[(protocol, &number)]);
    let (filter, flags) = nested(
        FILTER,
        &[(FILTER_ORIGINAL, &COUNTS_PROTOCOL.to_ne_bytes()), (FILTER_REPLY, &0u32.to_ne_bytes())],
    );
    Message::new(SUBSYSTEM_CONNECTIONS, MESSAGE_GET, NLM_F_REQUEST | NLM_F_DUMP, family, 0)
        .attribute(kind, &tuple)
        .attribute(filter, &flags)
}

fn forget_udp(from: SocketAddr, to: SocketAddr) -> Option<Message> {
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
    Some(message.attribute(kind, &tuple))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn two_ends(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
        (from.parse().unwrap(), to.parse().unwrap())
    }

    /// The kernel's own messages about a flow have the form of a command.
    fn of_the_kernel(kind: [u8; 2], sequence: u32) -> Vec<u8> {
        let (from, to) = two_ends("10.0.0.1:258", "10.0.0.2:772");
        let mut message = forget_udp(from, to).unwrap().numbered(sequence).finish();
        message[4..6].copy_from_slice(&u16::from_be_bytes(kind).to_ne_bytes());
        message
    }

    /// An end with this error number, as both kinds of them have it.
    fn end(kind: u8, sequence: u32, errno: i32) -> Vec<u8> {
        let mut message = of_the_kernel([kind, 0], sequence);
        message[4..6].copy_from_slice(&u16::from(kind).to_ne_bytes());
        message[16..20].copy_from_slice(&(-errno).to_ne_bytes());
        message
    }

    #[test]
    fn a_flow_is_read_as_it_is_written() {
        for (from, to) in [("10.0.0.1:258", "10.0.0.2:772"), ("[fd77::1]:1", "[fd77::2]:65535")] {
            let (from, to) = two_ends(from, to);
            let mut message = forget_udp(from, to).unwrap().numbered(7).finish();
            let mut flows = Vec::new();
            assert!(each_udp_flow(&message, 7, &mut flows).unwrap().is_none());
            assert_eq!(flows, [], "a command is no flow");
            // The kernel's own messages have the same form.
            let kind = u16::from_be_bytes([SUBSYSTEM_CONNECTIONS, MESSAGE_NEW]);
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            assert!(each_udp_flow(&message, 7, &mut flows).unwrap().is_none());
            assert_eq!(flows, [(from, to)]);
            for end in 0..message.len() {
                let mut none = Vec::new();
                let _ = each_udp_flow(&message[..end], 7, &mut none);
                assert_eq!(none, [], "{end}");
            }
        }
    }

    #[test]
    fn the_rest_of_an_earlier_answer_is_passed_over() {
        let new = [SUBSYSTEM_CONNECTIONS, MESSAGE_NEW];
        for (kind, errno) in [(2, 0), (2, 1), (3, 0), (3, 1)] {
            let mut flows = Vec::new();
            let old = [of_the_kernel(new, 6), end(kind, 6, errno)].concat();
            assert!(each_udp_flow(&old, 7, &mut flows).unwrap().is_none());
            assert_eq!(flows, []);
            // And behind it comes what was asked for.
            let whole = [old, of_the_kernel(new, 7), end(kind, 7, errno)].concat();
            let word = each_udp_flow(&whole, 7, &mut flows).unwrap().unwrap();
            assert_eq!(word.err().and_then(|error| error.raw_os_error()), (errno != 0).then_some(errno));
            assert_eq!(flows.len(), 1);
        }
    }

    #[test]
    fn a_table_that_changed_while_it_was_read_is_an_error() {
        let mut message = of_the_kernel([SUBSYSTEM_CONNECTIONS, MESSAGE_NEW], 7);
        message[6..8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        let mut flows = Vec::new();
        assert!(each_udp_flow(&message, 7, &mut flows).is_err());
        assert!(each_udp_flow(&message, 8, &mut flows).unwrap().is_none(), "another answer's");
        assert_eq!(flows, []);
    }

    #[test]
    fn an_answer_that_was_not_read_to_its_end_is_not_there_for_the_next_request() {
        let mut connections = Connections::open().unwrap();
        let request = |flags| Message::new(SUBSYSTEM_CONNECTIONS, MESSAGE_GET, flags, AF_INET, 0);
        // Whatever the kernel says, and without its right it says that.
        let is_kept = |connections: &Connections| connections.socket.is_some();
        let given_up = connections.ask(request(NLM_F_REQUEST | NLM_F_DUMP), &mut [0; 1024], &mut |_, _| {
            Err(io::ErrorKind::Other.into())
        });
        assert!(given_up.is_err() && !is_kept(&connections));
        let (from, to) = two_ends("192.0.2.1:258", "192.0.2.2:772");
        let asked = connections.forget_udp(from, to);
        assert!(is_kept(&connections), "the kernel has said all: {asked:?}");
        assert!(
            asked.is_err_and(|error| error.raw_os_error() == Some(1))
                || !connections.forget_udp(from, to).unwrap()
        );
    }

    /// With a connection of TCP and a flow of UDP in the table.
    #[test]
    fn the_kernel_tells_of_udp_alone() {
        let skipped = |why: &str| println!("SKIPPED: the_kernel_tells_of_udp_alone: {why}");
        // Another thread's network namespace is its own, and ends with it.
        let told = || -> Option<[usize; 2]> {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            let script = "ip link set lo up && iptables -A INPUT -m conntrack --ctstate NEW";
            Command::new("sh").args(["-c", script]).status().ok()?.success().then_some(())?;
            let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").ok()?, UdpSocket::bind("127.0.0.1:0").ok()?);
            let _open = TcpStream::connect(tcp.local_addr().ok()?).ok()?;
            UdpSocket::bind("127.0.0.1:0").ok()?.send_to(b"x", udp.local_addr().ok()?).ok()?;
            let everything =
                Message::new(SUBSYSTEM_CONNECTIONS, MESSAGE_GET, NLM_F_REQUEST | NLM_F_DUMP, AF_INET, 0);
            let new = u16::from_be_bytes([SUBSYSTEM_CONNECTIONS, MESSAGE_NEW]);
            Some([everything, all_of_udp(AF_INET)].map(|request| {
                let (mut connections, mut count) = (Connections::open().unwrap(), 0);
                let read = &mut |datagram: &[u8], sequence| {
                    count += messages(datagram).filter(|message| message.kind == new).count();
                    each_udp_flow(datagram, sequence, &mut Vec::new())
                };
                connections.ask(request, &mut vec![0; DUMP_BYTES], read).unwrap();
                count
            }))
        };
        match std::thread::spawn(told).join().unwrap() {
            Some(counts) => assert_eq!(counts, [2, 1]),
            None => skipped("needs root, ip, iptables and conntrack"),
        }
    }

    #[test]
    fn the_two_ends_are_of_one_family() {
        let (from, to) = two_ends("10.0.0.1:1", "[::1]:2");
        assert!(forget_udp(from, to).is_none());
        let (from, to) = two_ends("10.0.0.1:258", "10.0.0.2:772");
        let message = forget_udp(from, to).unwrap().finish();
        assert_eq!(
            message.len(),
            usize::try_from(u32::from_ne_bytes(message[..4].try_into().unwrap())).unwrap()
        );
        for part in [&[10, 0, 0, 1][..], &[10, 0, 0, 2], &[1, 2], &[3, 4]] {
            assert!(message.windows(part.len()).any(|window| window == part), "{part:?}");
        }
    }
}
