//! One queue of the packet filter (NFQUEUE): the kernel puts packets into it and holds each until it is told what to do
//! with it. Needs CAP_NET_ADMIN to open, and for each verdict. Before: a rule of iptables or nftables. After: the
//! firewall's judgement.
//! Invariant: nothing here accepts a packet by itself. A packet without a verdict is held, and dropped by the kernel when
//! the queue closes.
//!
//! The form is that of linux/netfilter/nfnetlink_queue.h: a netlink header, `nfgenmsg`, attributes. Numbers within
//! attributes are in network byte order.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{MsgFlags, setsockopt};

use crate::netfilter::{self, HEAD_BYTES, Message, SUBSYSTEM_QUEUE, attribute, messages};

/// What the kernel may hold for us between two reads, in bytes.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// Room for everything but the packet's bytes.
const HEADERS_BYTES: usize = 4096;

const MESSAGE_PACKET: u8 = 0;
const MESSAGE_VERDICT: u8 = 1;
const MESSAGE_CONFIG: u8 = 2;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const CONFIG_LENGTH: u16 = 3;
const CONFIG_MASK: u16 = 4;
const CONFIG_FLAGS: u16 = 5;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Packets come as they are, without segments cut and checksums made for us.
const FLAG_GSO: u32 = 1 << 2;
/// With a packet that leaves comes whose socket sent it.
const FLAG_UID_GID: u32 = 1 << 3;
const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const PACKET_INPUT_DEVICE: u16 = 5;
const PACKET_PAYLOAD: u16 = 10;
const PACKET_UID: u16 = 16;
/// `NF_INET_LOCAL_OUT`
const HOOK_OUT: u8 = 3;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// An open queue. Not blocking: wait for its descriptor to become readable.
pub struct Queue {
    socket: Socket,
    number: u16,
    buffer: Vec<u8>,
}

/// What the kernel is to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, past the rules of this table.
    Accept,
    /// It is gone, and nobody is told.
    Drop,
}

/// A packet that waits for its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'b> {
    /// By which the verdict names it.
    pub id: u32,
    /// The interface on which it came, by its number.
    pub interface: Option<u32>,
    /// It is about to leave this node, or to go from a program on it to another.
    pub leaves: bool,
    /// Of a packet that leaves: who made the socket that sent it. Not if it is the kernel's own.
    pub uid: Option<u32>,
    /// From the IP header on, as much of it as was asked for.
    pub bytes: &'b [u8],
}

impl Queue {
    /// Takes the queue of this number, of at most `length` packets that wait, and `bytes` of each.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN; `EBUSY` if another process has the queue.
    pub fn open(number: u16, length: u32, bytes: u16) -> io::Result<Self> {
        let socket = netfilter::open()?;
        // A larger buffer is for bursts; less of it loses packets, which is seen in the counts.
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
        let mut queue = Self { socket, number, buffer: vec![0; HEADERS_BYTES + usize::from(bytes)] };
        // Command, padding, and a family that the kernel has ignored since 3.8.
        queue.command(CONFIG_COMMAND, &[COMMAND_BIND, 0, 0, 0])?;
        let [a, b, c, d] = u32::from(bytes).to_be_bytes();
        queue.command(CONFIG_PARAMETERS, &[a, b, c, d, COPY_PACKET])?;
        queue.command(CONFIG_LENGTH, &length.to_be_bytes())?;
        let flags = (FLAG_GSO | FLAG_UID_GID).to_be_bytes();
        let flags = queue
            .message(MESSAGE_CONFIG, NLM_F_REQUEST | NLM_F_ACK)
            .attribute(CONFIG_FLAGS, &flags)
            .attribute(CONFIG_MASK, &flags);
        queue.tell(flags)?;
        queue.socket.set_non_blocking(true)?;
        Ok(queue)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Reads what the kernel has sent: one packet, mostly. False: nothing is there.
    ///
    /// # Errors
    /// `ENOBUFS` when the kernel had more than the buffer holds: those packets are lost, and the queue goes on.
    pub fn receive(&mut self, each: &mut dyn FnMut(Packet<'_>)) -> io::Result<bool> {
        let Self { socket, buffer, number } = self;
        let read = match nix::sys::socket::recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(read) => read,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        each_packet(buffer.get(..read).unwrap_or_default(), *number, each);
        Ok(true)
    }

    /// Says what becomes of a packet. A packet that is no longer there is no error.
    ///
    /// # Errors
    /// As sending fails.
    pub fn decide(&self, id: u32, verdict: Verdict) -> io::Result<()> {
        let verdict = match verdict {
            Verdict::Accept => NF_ACCEPT,
            Verdict::Drop => NF_DROP,
        };
        let [a, b, c, d] = verdict.to_be_bytes();
        let [e, f, g, h] = id.to_be_bytes();
        let message =
            self.message(MESSAGE_VERDICT, NLM_F_REQUEST).attribute(VERDICT_HEADER, &[a, b, c, d, e, f, g, h]);
        self.socket.send(&message.finish(), 0)?;
        Ok(())
    }

    fn message(&self, kind: u8, flags: u16) -> Message {
        Message::new(SUBSYSTEM_QUEUE, kind, flags, nix::libc::AF_UNSPEC, self.number)
    }

    fn command(&mut self, kind: u16, value: &[u8]) -> io::Result<()> {
        let message = self.message(MESSAGE_CONFIG, NLM_F_REQUEST | NLM_F_ACK).attribute(kind, value);
        self.tell(message)
    }

    /// Packets that come in between are left without a verdict: the kernel holds them, and whoever sent them tries again.
    fn tell(&mut self, message: Message) -> io::Result<()> {
        netfilter::command(&self.socket, &message.finish(), &mut self.buffer)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The packets of one datagram from the kernel. What is not of the expected form is passed over: the packet, if it was
/// one, is held and gets no verdict.
#[doc(hidden)]
pub fn each_packet(datagram: &[u8], number: u16, each: &mut dyn FnMut(Packet<'_>)) {
    let wanted = u16::from_be_bytes([SUBSYSTEM_QUEUE, MESSAGE_PACKET]);
    for message in messages(datagram) {
        if message.kind == wanted
            && let Some(body) = message.bytes.get(HEAD_BYTES - 4..)
            && body.get(2..4) == Some(number.to_be_bytes().as_slice())
            && let Some(packet) = packet(body.get(4..).unwrap_or_default())
        {
            each(packet);
        }
    }
}

fn packet(attributes: &[u8]) -> Option<Packet<'_>> {
    let number = |kind| -> Option<u32> {
        attribute(attributes, kind)?.get(..4)?.try_into().ok().map(u32::from_be_bytes)
    };
    Some(Packet {
        id: number(PACKET_HEADER)?,
        interface: number(PACKET_INPUT_DEVICE),
        leaves: attribute(attributes, PACKET_HEADER)?.get(6) == Some(&HOOK_OUT),
        uid: number(PACKET_UID),
        bytes: attribute(attributes, PACKET_PAYLOAD)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet's message as the kernel makes it, by the layout.
    fn message(number: u16, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut header = id.to_be_bytes().to_vec();
        header.extend([0x08, 0x00, if payload == b"out" { HOOK_OUT } else { 1 }]);
        Message::new(SUBSYSTEM_QUEUE, MESSAGE_PACKET, 0, nix::libc::AF_INET, number)
            .attribute(PACKET_HEADER, &header)
            .attribute(PACKET_INPUT_DEVICE, &7u32.to_be_bytes())
            .attribute(PACKET_PAYLOAD, payload)
            .finish()
    }

    fn read(datagram: &[u8], number: u16) -> Vec<(u32, Option<u32>, Vec<u8>)> {
        let mut found = Vec::new();
        each_packet(datagram, number, &mut |p| found.push((p.id, p.interface, p.bytes.to_vec())));
        found
    }

    #[test]
    fn packets_of_this_queue_are_read() {
        let mut datagram = message(3, 9, b"abcde");
        datagram.extend(message(3, 10, b""));
        datagram.extend(message(4, 11, b"another queue's"));
        let expected = vec![(9, Some(7), b"abcde".to_vec()), (10, Some(7), Vec::new())];
        assert_eq!(read(&datagram, 3), expected);
    }

    #[test]
    fn what_leaves_has_a_sender() {
        let whole = message(0, 1, b"out");
        let with_uid = Message::new(SUBSYSTEM_QUEUE, MESSAGE_PACKET, 0, nix::libc::AF_INET, 0)
            .attribute(PACKET_HEADER, &[0, 0, 0, 9, 8, 0, HOOK_OUT])
            .attribute(PACKET_UID, &1000u32.to_be_bytes())
            .attribute(PACKET_PAYLOAD, b"x")
            .finish();
        let mut found = Vec::new();
        for datagram in [&whole, &with_uid, &message(0, 1, b"in")] {
            each_packet(datagram, 0, &mut |packet| found.push((packet.leaves, packet.uid)));
        }
        assert_eq!(found, [(true, None), (true, Some(1000)), (false, None)]);
    }

    #[test]
    fn what_is_cut_or_garbled_is_no_packet() {
        let whole = message(0, 1, b"payload");
        for end in 0..whole.len() - 1 {
            assert_eq!(read(&whole[..end], 0), Vec::new(), "{end}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut garbled = whole.clone();
                garbled[at] = value;
                // At most one, and no panic.
                assert!(read(&garbled, 0).len() <= 1);
            }
        }
    }
}
