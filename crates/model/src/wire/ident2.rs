//! The messages of ident2, a lookup service of user-based firewalls (mit-llsc/UserBasedFirewall, `ident2d_api.h`): who owns
//! a socket? Between processes of one node over SEQPACKET, between nodes over UDP, one message in each packet. One byte
//! says which message it is, and a packed structure follows, its numbers in the machine's own byte order:
//!
//! | question | bytes | | answer | bytes |
//! | --- | --- | --- | --- | --- |
//! | operation: 1 here, 3 on another node | 1 | | operation: 2 or 4 | 1 |
//! | client's id | 8 | | client's id | 8 |
//! | question's id | 8 | | question's id | 8 |
//! | flags | 1 | | flags | 1 |
//! | IP version, 4 or 6 | 1 | | process id | 4 |
//! | protocol, 6 or 17 | 1 | | effective uid | 4 |
//! | states, one bit for each | 4 | | effective gid | 4 |
//! | local address, IPv4 in the first 4 bytes | 16 | | number of supplementary groups | 4 |
//! | remote address | 16 | | each of them | 4 |
//! | local port, remote port | 2, 2 | | | |
//!
//! Addresses are in network order, ports are not. Both ids come back with the answer.
//! Invariant: what was read is whole and has one meaning; an answer without an owner has no uid either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The length of a question in bytes.
pub const QUESTION: usize = 60;
/// The length of an answer without supplementary groups in bytes.
pub const ANSWER: usize = 34;
/// As many supplementary groups as an answer has at most. The system's header names 350 for answers between nodes; its
/// programs send as many as there are, and read messages of up to 9,216 bytes.
pub const MAX_GROUPS: usize = (9216 - ANSWER) / 4;
/// The longest message in bytes.
pub const MAX_MESSAGE: usize = ANSWER + 4 * MAX_GROUPS;

const HELLO: u8 = 0;
const LOCAL: u8 = 1;
const LOCAL_ANSWER: u8 = 2;
const REMOTE: u8 = 3;
const REMOTE_ANSWER: u8 = 4;

/// Any message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Somebody says hello. What they say is not kept.
    Hello,
    /// A question.
    Question(Request),
    /// An answer.
    Answer(Response),
}

/// Where the socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// On the node that is asked: operations 1 and 2.
    Local,
    /// On the node that has the local address: operations 3 and 4.
    Remote,
}

/// A question about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Where the socket is.
    pub op: Op,
    /// Whose question it is; 0 but between nodes.
    pub client_id: u64,
    /// Chosen by whoever asks.
    pub query_id: u64,
    /// What is wanted beside the uid.
    pub flags: Flags,
    /// Of which protocol the socket is.
    pub protocol: Protocol,
    /// In which states a TCP socket counts; none of UDP.
    pub states: TcpStates,
    /// The socket's own end. With `Op::Remote` its address says which node is meant.
    pub local: SocketAddr,
    /// The other end; unspecified with port 0: whichever. Of the same family as `local`.
    pub remote: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// As in the question.
    pub op: Op,
    /// As in the question; towards a client of the same node, that client's id.
    pub client_id: u64,
    /// As in the question.
    pub query_id: u64,
    /// The owner. `None`: there is no such socket, or nobody may say whose it is.
    pub found: Option<Found>,
}

/// Whose a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The owner's uid.
    pub uid: u32,
    /// The effective gid of the process that holds the socket.
    pub gid: Option<u32>,
    /// That process.
    pub pid: Option<u32>,
    /// Its supplementary groups, at most [`MAX_GROUPS`].
    pub groups: Option<Vec<u32>>,
}

/// What a question wants beside the uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// In answers: there is an owner.
    const FOUND: Self = Self(1);
    /// The effective gid.
    pub const GID: Self = Self(2);
    /// The process, which includes its gid.
    pub const PROCESS: Self = Self(4);
    /// Its supplementary groups.
    pub const GROUPS: Self = Self(8);
    /// All that even of root's sockets, of which otherwise nothing but the uid is told.
    pub const OF_ROOT: Self = Self(16);

    /// Whether all of these are set.
    #[must_use]
    pub const fn has(self, these: Self) -> bool {
        self.0 & these.0 == these.0
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, those: Self) -> Self {
        Self(self.0 | those.0)
    }

    /// Whether a process has to be looked at for it, if the socket is this uid's.
    #[must_use]
    pub const fn wants_process(self, uid: u32) -> bool {
        let any = self.0 & Self::GID.and(Self::PROCESS).and(Self::GROUPS).0 != 0;
        any && (uid != 0 || self.has(Self::OF_ROOT))
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP, number 6.
    Tcp,
    /// UDP, number 17.
    Udp,
}

/// States of TCP sockets, one bit for each number of `linux/tcp_states.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpStates(pub u32);

impl TcpStates {
    /// Any state.
    pub const ANY: Self = Self(0);
    /// A connection that its maker waits for.
    pub const SYN_SENT: Self = Self(1 << 2);
    /// A socket that takes connections.
    pub const LISTEN: Self = Self(1 << 10);
    /// All states but LISTEN and SYN_RECV: what a firewall asks with when a packet in the middle of a connection is the
    /// first that it sees of it.
    pub const CONNECTED: Self = Self(0b1011_1111_0110);

    /// Whether a socket in the state of this number counts.
    #[must_use]
    pub const fn allow(self, number: u8) -> bool {
        self.0 == 0 || (number < 32 && self.0 & (1 << number) != 0)
    }
}

/// Bytes that are no message. Each Display is a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No byte at all.
    #[error("the message is empty")]
    Empty,
    /// Of another length than such a message has.
    #[error("the message has {0} bytes, which does not fit its kind")]
    Length(usize),
    /// An operation that there is not.
    #[error("there is no operation {0}")]
    Operation(u8),
    /// Neither 4 nor 6.
    #[error("there is no IP version {0}")]
    Version(u8),
    /// Neither TCP nor UDP.
    #[error("protocol {0} is neither TCP nor UDP")]
    Protocol(u8),
}

/// Reads one packet.
///
/// # Errors
/// See [`Malformed`].
pub fn parse(packet: &[u8]) -> Result<Message, Malformed> {
    let (&operation, body) = packet.split_first().ok_or(Malformed::Empty)?;
    let (op, is_answer) = match operation {
        HELLO => return Ok(Message::Hello),
        LOCAL => (Op::Local, false),
        LOCAL_ANSWER => (Op::Local, true),
        REMOTE => (Op::Remote, false),
        REMOTE_ANSWER => (Op::Remote, true),
        other => return Err(Malformed::Operation(other)),
    };
    let mut fields = Fields { whole: packet.len(), rest: body };
    if is_answer {
        fields.answer(op).map(Message::Answer)
    } else {
        fields.question(op).map(Message::Question)
    }
}

/// What is left to read of a message.
struct Fields<'p> {
    whole: usize,
    rest: &'p [u8],
}

impl Fields<'_> {
    fn question(&mut self, op: Op) -> Result<Request, Malformed> {
        let (client_id, query_id) = (self.u64()?, self.u64()?);
        let ([flags], [version], [protocol]) = (self.bytes()?, self.bytes()?, self.bytes()?);
        let states = TcpStates(self.u32()?);
        let (local, remote): ([u8; 16], [u8; 16]) = (self.bytes()?, self.bytes()?);
        let (local_port, remote_port) = (self.u16()?, self.u16()?);
        self.end()?;
        let address = |bytes: [u8; 16]| -> Result<IpAddr, Malformed> {
            let [a, b, c, d, ..] = bytes;
            match version {
                4 => Ok(Ipv4Addr::new(a, b, c, d).into()),
                6 => Ok(Ipv6Addr::from(bytes).into()),
                other => Err(Malformed::Version(other)),
            }
        };
        let protocol = match protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            other => return Err(Malformed::Protocol(other)),
        };
        Ok(Request {
            op,
            client_id,
            query_id,
            flags: Flags(flags),
            protocol,
            states,
            local: SocketAddr::new(address(local)?, local_port),
            remote: SocketAddr::new(address(remote)?, remote_port),
        })
    }

    fn answer(&mut self, op: Op) -> Result<Response, Malformed> {
        let (client_id, query_id) = (self.u64()?, self.u64()?);
        let [flags] = self.bytes()?;
        let flags = Flags(flags);
        let (pid, uid, gid, count) = (self.u32()?.cast_signed(), self.u32()?, self.u32()?, self.u32()?);
        // Nothing is allocated by the sender's word: as many as there are.
        if self.rest.len() > 4 * MAX_GROUPS {
            return Err(Malformed::Length(self.whole));
        }
        let mut groups = Vec::with_capacity(self.rest.len() / 4);
        while !self.rest.is_empty() {
            groups.push(self.u32()?);
        }
        if usize::try_from(count) != Ok(groups.len()) {
            return Err(Malformed::Length(self.whole));
        }
        let has_process = flags.has(Flags::PROCESS);
        let found = flags.has(Flags::FOUND).then(|| Found {
            uid,
            gid: (has_process || flags.has(Flags::GID)).then_some(gid),
            pid: u32::try_from(pid).ok().filter(|_| has_process),
            groups: flags.has(Flags::GROUPS).then_some(groups),
        });
        Ok(Response { op, client_id, query_id, found })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Length(self.whole))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.bytes().map(u64::from_ne_bytes)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Length(self.whole)) }
    }
}

impl Request {
    /// The packet. IPv4 only if both ends are; else an IPv4 address is written as its IPv4-mapped one.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let is_ipv4 = self.local.is_ipv4() && self.remote.is_ipv4();
        let address = |ip: IpAddr| -> [u8; 16] {
            match ip {
                IpAddr::V6(v6) => v6.octets(),
                IpAddr::V4(v4) if is_ipv4 => {
                    let [a, b, c, d] = v4.octets();
                    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                }
                IpAddr::V4(v4) if v4.is_unspecified() => Ipv6Addr::UNSPECIFIED.octets(),
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            }
        };
        let protocol = match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        let mut packet = Vec::with_capacity(QUESTION);
        packet.push(match self.op {
            Op::Local => LOCAL,
            Op::Remote => REMOTE,
        });
        packet.extend(self.client_id.to_ne_bytes());
        packet.extend(self.query_id.to_ne_bytes());
        packet.extend([self.flags.0, if is_ipv4 { 4 } else { 6 }, protocol]);
        packet.extend(self.states.0.to_ne_bytes());
        packet.extend(address(self.local.ip()));
        packet.extend(address(self.remote.ip()));
        packet.extend(self.local.port().to_ne_bytes());
        packet.extend(self.remote.port().to_ne_bytes());
        packet
    }

    /// The answer to it.
    #[must_use]
    pub fn answer(&self, found: Option<Found>) -> Response {
        Response { op: self.op, client_id: self.client_id, query_id: self.query_id, found }
    }
}

impl Response {
    /// The packet. More groups than [`MAX_GROUPS`] are as good as none that are known: which of them were left out
    /// nobody could tell.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let found = self.found.as_ref();
        let groups = found.and_then(|found| found.groups.as_ref());
        let groups = groups.filter(|groups| groups.len() <= MAX_GROUPS);
        let (gid, pid) = (found.and_then(|found| found.gid), found.and_then(|found| found.pid));
        let flags = [
            (found.is_some(), Flags::FOUND),
            (gid.is_some(), Flags::GID),
            (pid.is_some(), Flags::PROCESS),
            (groups.is_some(), Flags::GROUPS),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, flag)| all | flag.0);
        let groups = groups.map_or(&[][..], Vec::as_slice);
        let mut packet = Vec::with_capacity(ANSWER + 4 * groups.len());
        packet.push(match self.op {
            Op::Local => LOCAL_ANSWER,
            Op::Remote => REMOTE_ANSWER,
        });
        packet.extend(self.client_id.to_ne_bytes());
        packet.extend(self.query_id.to_ne_bytes());
        packet.push(flags);
        let count = u32::try_from(groups.len()).unwrap_or_default();
        for number in [pid.unwrap_or(0), found.map_or(0, |found| found.uid), gid.unwrap_or(0), count] {
            packet.extend(number.to_ne_bytes());
        }
        packet.extend(groups.iter().flat_map(|group| group.to_ne_bytes()));
        packet
    }
}

#[cfg(test)]
mod tests;
