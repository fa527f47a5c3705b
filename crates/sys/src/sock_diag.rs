//! Asks the kernel about single TCP and UDP sockets over `NETLINK_SOCK_DIAG` (sock_diag(7)). After: the owner lookup, which
//! judges the records. Needs no privilege; sees the caller's network namespace only.
//! Invariant: an answer is handed on only if the kernel sent it, to this very request.

use crate::socket_record::{SocketRecord, TcpState, canonical};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SockDiagMessage};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long one question may take. The kernel answers while the question is being sent; this is for the day it doesn't.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel never makes a larger datagram for a dump.
const ANSWER_BYTES: usize = 32 * 1024;
/// The most sockets that `listening` returns: a bound on memory, far above what one person runs.
const MAX_LISTENING: usize = 4096;
/// "Whatever the cookie": `INET_DIAG_NOCOOKIE`.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// One netlink socket, kept open between questions; opened anew after any error, so that an answer that came too
/// late can't be taken for the next one's.
pub struct SockDiag {
    socket: Option<Socket>,
    sequence: u32,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// Opens the netlink socket, so that a process that locks itself up later has it already.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Some(open_socket()?), sequence: 0, buffer: Vec::with_capacity(ANSWER_BYTES) })
    }

    /// What the kernel finds for this pair of addresses; `local` is the end of the socket that is asked about.
    /// Where no connection has these addresses the kernel may answer with a **LISTEN** socket that would take one:
    /// compare `state`, `local` and `remote` before believing it. `None`: neither exists.
    pub fn exact(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketRecord>> {
        self.one(IPPROTO_TCP, local, remote, 0)
    }

    /// The same for a packet that came by this interface: then sockets that are bound to it are found as well.
    pub fn exact_by(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
    ) -> io::Result<Option<SocketRecord>> {
        self.one(IPPROTO_TCP, local, remote, interface)
    }

    /// The UDP socket that a datagram from `remote` to `local` goes to now, be it connected or not; of several with the
    /// same claim, the one that the kernel picks. With an unspecified `remote` and its port 0, the one that takes
    /// datagrams from anywhere.
    pub fn udp(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketRecord>> {
        self.one(IPPROTO_UDP, local, remote, 0)
    }

    /// Every UDP socket on this port, of whatever address and owner, IPv4's first. One of them may be bound to another
    /// address or connected to somebody. `None`: there are more than `most`.
    pub fn udp_on(&mut self, port: u16, most: usize) -> io::Result<Option<Vec<SocketRecord>>> {
        let (mut found, mut more) = (Vec::new(), false);
        self.dump(IPPROTO_UDP, port, &StateFlags::all(), &ExtensionFlags::empty(), &mut |record| {
            if record.local.port() == port {
                more = found.len() == most;
                found.push(record);
            }
            if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((!more).then_some(found))
    }

    /// Calls `each` for every UDP socket, of whatever port, address and owner, IPv4's first.
    pub fn all_udp(&mut self, each: &mut dyn FnMut(SocketRecord)) -> io::Result<()> {
        self.dump(IPPROTO_UDP, 0, &StateFlags::all(), &ExtensionFlags::empty(), &mut |record| {
            each(record);
            ControlFlow::Continue(())
        })
    }

    fn one(
        &mut self,
        protocol: u8,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
    ) -> io::Result<Option<SocketRecord>> {
        let (local, remote) = (canonical(local), canonical(remote));
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the two ends are of different families",
            ));
        }
        // Of UDP the kernel takes the two ends as a datagram to the socket has them: from where, to where.
        let (source, destination) = if protocol == IPPROTO_UDP { (remote, local) } else { (local, remote) };
        let mut id = socket_id(local.is_ipv4());
        (id.source_address, id.source_port) = (source.ip(), source.port());
        (id.destination_address, id.destination_port) = (destination.ip(), destination.port());
        id.interface_id = match local {
            // Link-local addresses repeat on every interface; without one the kernel finds nothing.
            SocketAddr::V6(v6) if v6.scope_id() != 0 => v6.scope_id(),
            _ => interface,
        };
        let mut answer = None;
        let request = request(protocol, local.is_ipv4(), id, StateFlags::all());
        let asked = self.ask(request, NLM_F_REQUEST, &mut |record| {
            answer = Some(record);
            ControlFlow::Break(())
        });
        match asked {
            Ok(()) => Ok(answer),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The LISTEN socket that would take a connection to exactly this address, be it bound to the address itself,
    /// to the wildcard address, or (for IPv4) to a dual-stack `[::]`. Of several that share the port by
    /// `SO_REUSEPORT`, which all have one uid, any.
    pub fn listener(&mut self, local: SocketAddr) -> io::Result<Option<SocketRecord>> {
        self.listener_by(local, 0)
    }

    /// The same for a connection that comes by this interface: then sockets that are bound to it are found as well.
    pub fn listener_by(&mut self, local: SocketAddr, interface: u32) -> io::Result<Option<SocketRecord>> {
        let nobody = match canonical(local) {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let found = self.one(IPPROTO_TCP, local, nobody, interface)?;
        Ok(found.filter(|record| record.state == TcpState::Listen && takes(record, canonical(local))))
    }

    /// Every LISTEN socket of this uid, IPv4's first; at most 4,096, the rest is left out.
    pub fn listening(&mut self, uid: u32) -> io::Result<Vec<SocketRecord>> {
        self.dump_listening(0, |record| record.uid == uid)
    }

    /// Every LISTEN socket on this port, of whatever address and owner, IPv4's first; at most 4,096.
    pub fn listening_on(&mut self, port: u16) -> io::Result<Vec<SocketRecord>> {
        self.dump_listening(port, |record| record.local.port() == port)
    }

    fn dump_listening(
        &mut self,
        port: u16,
        wanted: impl Fn(&SocketRecord) -> bool,
    ) -> io::Result<Vec<SocketRecord>> {
        let mut found = Vec::new();
        self.dump(IPPROTO_TCP, port, &StateFlags::LISTEN, &ExtensionFlags::empty(), &mut |record| {
            if found.len() == MAX_LISTENING {
                return ControlFlow::Break(());
            }
            if record.state == TcpState::Listen && wanted(&record) {
                found.push(record);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Calls `each` for every TCP socket on this port that is neither a LISTEN socket nor a request that waits for its last
    /// ACK, of whatever address and owner, IPv4's first, until it breaks.
    pub fn connections_on(
        &mut self,
        port: u16,
        each: &mut dyn FnMut(SocketRecord) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let states = StateFlags::all() - (StateFlags::LISTEN | StateFlags::SYN_RECV);
        self.dump(IPPROTO_TCP, port, &states, &ExtensionFlags::empty(), &mut |record| {
            if record.local.port() == port { each(record) } else { ControlFlow::Continue(()) }
        })
    }

    /// How long ago data came last on a connection to this port of this uid's; `None`: there is no such connection.
    pub fn silent_for(&mut self, port: u16, uid: u32) -> io::Result<Option<Duration>> {
        let mut least: Option<Duration> = None;
        let states =
            StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT | StateFlags::FIN_WAIT1 | StateFlags::FIN_WAIT2;
        self.dump(IPPROTO_TCP, port, &states, &ExtensionFlags::INFO, &mut |record| {
            if record.local.port() == port && record.uid == uid {
                least = least.into_iter().chain(record.silent_for).min();
            }
            ControlFlow::Continue(())
        })?;
        Ok(least)
    }

    /// Every socket in one of these states whose own port this is, 0 for any; IPv4's first.
    fn dump(
        &mut self,
        protocol: u8,
        port: u16,
        states: &StateFlags,
        extensions: &ExtensionFlags,
        each: &mut dyn FnMut(SocketRecord) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for is_ipv4 in [true, false] {
            let mut id = socket_id(is_ipv4);
            id.source_port = port;
            let mut request = request(protocol, is_ipv4, id, states.clone());
            request.extensions = extensions.clone();
            self.ask(request, NLM_F_REQUEST | NLM_F_DUMP, each)?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        request: InetRequest,
        flags: u16,
        each: &mut dyn FnMut(SocketRecord) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open_socket()?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        send(&socket, request, flags, self.sequence)?;
        let outcome = receive(&socket, self.sequence, flags, &mut self.buffer, each);
        // Kept only where nothing more can come: the whole answer was read, or the kernel said no.
        if matches!(&outcome, Ok(Finished::Whole) | Err(Failure::Refused(_))) {
            self.socket = Some(socket);
        }
        match outcome {
            Ok(Finished::Whole | Finished::Abandoned) => Ok(()),
            Err(Failure::Refused(error) | Failure::Broken(error)) => Err(error),
        }
    }
}

enum Finished {
    Whole,
    Abandoned,
}

enum Failure {
    /// The kernel answered with an error number.
    Refused(io::Error),
    /// No answer that could be understood.
    Broken(io::Error),
}

fn takes(listener: &SocketRecord, local: SocketAddr) -> bool {
    let address_fits = match listener.local.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => local.is_ipv6() || listener.v6only == Some(false),
        IpAddr::V4(ip) if ip.is_unspecified() => local.is_ipv4(),
        ip => ip == local.ip(),
    };
    address_fits && listener.local.port() == local.port()
}

fn open_socket() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    // A connected netlink socket takes datagrams from its peer only, which is the kernel (port 0).
    socket.connect(&NetlinkAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs().cast_signed(), 0))?;
    Ok(socket)
}

fn socket_id(is_ipv4: bool) -> SocketId {
    let unspecified = if is_ipv4 { SocketId::new_v4() } else { SocketId::new_v6() };
    SocketId { cookie: ANY_COOKIE, ..unspecified }
}

fn request(protocol: u8, is_ipv4: bool, socket_id: SocketId, states: StateFlags) -> InetRequest {
    let family = if is_ipv4 { AF_INET } else { AF_INET6 };
    InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id }
}

fn send(socket: &Socket, request: InetRequest, flags: u16, sequence: u32) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let sent = socket.send(&bytes, 0)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn receive(
    socket: &Socket,
    sequence: u32,
    flags: u16,
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(SocketRecord) -> ControlFlow<()>,
) -> Result<Finished, Failure> {
    let started = Instant::now();
    let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
    loop {
        if started.elapsed() > PATIENCE {
            return Err(Failure::Broken(io::ErrorKind::TimedOut.into()));
        }
        buffer.clear();
        buffer.reserve(ANSWER_BYTES);
        let sender = match socket.recv_from(buffer, 0) {
            Ok((_, sender)) => sender,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::Broken(io::ErrorKind::TimedOut.into()));
            }
            Err(error) => return Err(Failure::Broken(error)),
        };
        if sender.port_number() != 0 {
            // Another process can't normally send here; if one does, it is not the kernel.
            continue;
        }
        match read_datagram(buffer, sequence, is_dump, each)? {
            Some(finished) => return Ok(finished),
            None => continue,
        }
    }
}

/// One datagram of an answer, for the fuzz targets: its records, and whether the answer ends with it.
#[doc(hidden)]
pub fn read_one(datagram: &[u8], sequence: u32, is_dump: bool) -> io::Result<(Vec<SocketRecord>, bool)> {
    let mut records = Vec::new();
    let read = read_datagram(datagram, sequence, is_dump, &mut |record| {
        records.push(record);
        ControlFlow::Continue(())
    });
    match read {
        Ok(finished) => Ok((records, finished.is_some())),
        Err(Failure::Refused(error) | Failure::Broken(error)) => Err(error),
    }
}

/// Goes through one datagram; `None` when the answer goes on, or was for an earlier question.
fn read_datagram(
    datagram: &[u8],
    sequence: u32,
    is_dump: bool,
    each: &mut dyn FnMut(SocketRecord) -> ControlFlow<()>,
) -> Result<Option<Finished>, Failure> {
    let broken = |what: &str| Failure::Broken(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    let mut rest = datagram;
    while !rest.is_empty() {
        let length =
            NetlinkBuffer::new_checked(rest).map_err(|error| broken(&error.to_string()))?.length() as usize;
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
            .map_err(|error| broken(&error.to_string()))?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        if message.header.flags & NLM_F_DUMP_INTR != 0 {
            return Err(broken("the sockets changed while they were listed"));
        }
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                let record =
                    SocketRecord::from_response(&response).ok_or_else(|| broken("unknown family"))?;
                let flow = each(record);
                match (is_dump, flow) {
                    (false, _) => return Ok(Some(Finished::Whole)),
                    (true, ControlFlow::Break(())) => return Ok(Some(Finished::Abandoned)),
                    (true, ControlFlow::Continue(())) => {}
                }
            }
            NetlinkPayload::Error(error) => {
                return Err(Failure::Refused(io::Error::from_raw_os_error(
                    error.raw_code().saturating_abs(),
                )));
            }
            NetlinkPayload::Done(done) if done.code == 0 => return Ok(Some(Finished::Whole)),
            NetlinkPayload::Done(done) => {
                return Err(Failure::Refused(io::Error::from_raw_os_error(done.code.saturating_abs())));
            }
            NetlinkPayload::Noop => {}
            _ => return Err(broken("an answer of another kind")),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
