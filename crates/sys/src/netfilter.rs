//! The form of messages to the kernel's netfilter (linux/netfilter/nfnetlink.h): a netlink header, four bytes of
//! `nfgenmsg`, attributes.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_packet_core::{NLA_TYPE_MASK, NetlinkBuffer, NlaBuffer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;

/// How long the kernel may take to answer a command. It answers while the command is being sent.
const PATIENCE: Duration = Duration::from_secs(1);

/// A netlink header and `nfgenmsg`, in bytes.
pub(crate) const HEAD_BYTES: usize = 20;
/// `NFNL_SUBSYS_CTNETLINK`: the table of connections.
pub(crate) const SUBSYSTEM_CONNECTIONS: u8 = 1;
/// `NFNL_SUBSYS_QUEUE`: packets in queues.
pub(crate) const SUBSYSTEM_QUEUE: u8 = 3;
/// `NLMSG_ERROR`, also for "all is well".
const ERROR: u16 = 2;
/// `NLMSG_DONE`, behind all that was asked for.
const DONE: u16 = 3;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;

/// A socket towards the kernel's netfilter, and nobody else.
pub(crate) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs().cast_signed(), 0))?;
    Ok(socket)
}

/// Sends a command and waits for the kernel's word on it. Whatever else comes in between is passed over.
pub(crate) fn command(socket: &Socket, message: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    socket.send(message, 0)?;
    loop {
        let read = recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?;
        let mut received = messages(buffer.get(..read).unwrap_or_default());
        if let Some(outcome) = received.next().and_then(|first| first.last_word()) {
            return outcome;
        }
    }
}

/// A message in the making.
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// `resource` is the queue's number, or 0.
    pub(crate) fn new(subsystem: u8, kind: u8, flags: u16, family: i32, resource: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        // The length, at the end.
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(u16::from_be_bytes([subsystem, kind]).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence and port number: the kernel knows whose socket it is.
        bytes.extend([0; 8]);
        // Family and version.
        bytes.extend([u8::try_from(family).unwrap_or_default(), 0]);
        bytes.extend(resource.to_be_bytes());
        Self(bytes)
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        append(&mut self.0, kind, value);
        self
    }

    /// Gives it a number, which the kernel's answer has as well.
    pub(crate) fn numbered(mut self, sequence: u32) -> Self {
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self
    }

    /// The bytes to send.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or_default();
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// Attributes within an attribute.
pub(crate) fn nested(kind: u16, attributes: &[(u16, &[u8])]) -> (u16, Vec<u8>) {
    let mut bytes = Vec::with_capacity(64);
    for (kind, value) in attributes {
        append(&mut bytes, *kind, value);
    }
    (kind | NESTED, bytes)
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this kind.
pub(crate) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let Ok(found) = NlaBuffer::new_checked(rest) {
        let length = usize::from(found.length());
        if found.kind() & NLA_TYPE_MASK == kind {
            return rest.get(4..length);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A message from the kernel.
pub(crate) struct Received<'b> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// The number of the request that it answers.
    pub(crate) sequence: u32,
    /// All of it, its header too.
    pub(crate) bytes: &'b [u8],
}

impl Received<'_> {
    /// The kernel's word on the request, if it is that: nothing of the answer comes after it.
    pub(crate) fn last_word(&self) -> Option<io::Result<()>> {
        if ![ERROR, DONE].contains(&self.kind) {
            return None;
        }
        let number = self.bytes.get(16..20).and_then(|number| number.try_into().ok()).map(i32::from_ne_bytes);
        Some(match number {
            Some(0) => Ok(()),
            // The end of what was asked for need not have one.
            None if self.kind == DONE => Ok(()),
            None => Err(io::ErrorKind::InvalidData.into()),
            Some(error) => Err(io::Error::from_raw_os_error(error.saturating_abs())),
        })
    }
}

/// The messages of one datagram. Ends at what has not the form of one.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let head = NetlinkBuffer::new_checked(rest).ok()?;
        let (kind, flags, sequence) = (head.message_type(), head.flags(), head.sequence_number());
        let length = head.length() as usize;
        let bytes = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received { kind, flags, sequence, bytes })
    })
}
