//! The other nodes, by UDP: their questions are answered, their answers handed on. Before: the network. After: `answer`, or
//! the caller that asked.
//! Invariant: what does not come from a peer's address and the nodes' port is not looked at. Neither can be had by a user of
//! a peer; both can by whoever puts any packet on the network, and this protocol has nothing against that.

use std::convert::Infallible;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use nix::cmsg_space;
use nix::libc::in6_pktinfo;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6, bind,
    recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use portreeve_model::wire::ident2::{Message, Op, Request, Response, parse};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::answer::Reply;
use super::limits;
use super::oddities::Oddity;
use super::service::Service;

/// The socket that all nodes are asked and answered from.
pub(super) struct Peers {
    socket: UdpSocket,
    port: u16,
}

/// A datagram.
struct Datagram<'b> {
    from: SocketAddr,
    /// To which of this node's addresses.
    to: Option<Ipv6Addr>,
    /// `None`: it was longer than any message.
    bytes: Option<&'b [u8]>,
}

/// Opens the socket, for both IP versions.
pub(super) fn open(port: u16) -> io::Result<StdUdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    // Beyond what others may have, if we are root still.
    if setsockopt(&socket, sockopt::RcvBufForce, &limits::RECEIVED).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &limits::RECEIVED)?;
    }
    let everywhere = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(everywhere))?;
    Ok(socket.into())
}

impl Peers {
    pub(super) fn new(socket: StdUdpSocket, port: u16) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(socket)?, port })
    }

    /// Asks another node.
    pub(super) async fn ask(&self, request: &Request) -> io::Result<()> {
        let to = SocketAddr::new(request.local.ip(), self.port);
        self.send(&request.to_bytes(), to, None).await
    }

    async fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Datagram<'b>> {
        let mut control = cmsg_space!(in6_pktinfo);
        let (from, to, length) = self
            .socket
            .async_io(Interest::READABLE, || {
                let mut parts = [IoSliceMut::new(buffer)];
                let flags = MsgFlags::MSG_DONTWAIT;
                let got =
                    recvmsg::<SockaddrIn6>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
                let to = got.cmsgs()?.find_map(|message| match message {
                    ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
                    _ => None,
                });
                let from = got.address.ok_or(io::ErrorKind::InvalidData)?;
                Ok((
                    SocketAddrV6::from(from),
                    to,
                    (!got.flags.contains(MsgFlags::MSG_TRUNC)).then_some(got.bytes),
                ))
            })
            .await?;
        let bytes = length.and_then(|length| buffer.get(..length));
        Ok(Datagram { from: portreeve_sys::canonical(from.into()), to, bytes })
    }

    /// From this address of ours, so that who asked there recognizes it.
    async fn send(&self, bytes: &[u8], to: SocketAddr, from: Option<Ipv6Addr>) -> io::Result<()> {
        let to = match to {
            SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
            SocketAddr::V6(v6) => v6,
        };
        let (to, parts) = (SockaddrIn6::from(to), [IoSlice::new(bytes)]);
        let info = from.map(|from| in6_pktinfo {
            ipi6_addr: nix::libc::in6_addr { s6_addr: from.octets() },
            ipi6_ifindex: 0,
        });
        let control = info.as_ref().map(ControlMessage::Ipv6PacketInfo);
        let sent = self.socket.async_io(Interest::WRITABLE, || {
            let flags = MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg(self.socket.as_raw_fd(), &parts, control.as_slice(), flags, Some(&to))?)
        });
        sent.await.map(|_| ())
    }
}

/// Answers and hands on for as long as the service runs.
pub(super) async fn serve(service: Arc<Service>, peers: Arc<Peers>) -> Infallible {
    let (mut buffer, mut looks) = (vec![0; limits::MESSAGE], JoinSet::new());
    loop {
        while looks.try_join_next().is_some() {}
        let datagram = match peers.receive(&mut buffer).await {
            Ok(datagram) => datagram,
            Err(error) => {
                tracing::warn!(%error, "nothing could be received from other nodes");
                tokio::time::sleep(limits::PAUSE).await;
                continue;
            }
        };
        let from = datagram.from;
        if from.port() != peers.port {
            service.oddities.note(Oddity::Port, from);
            continue;
        }
        if !service.is_peer(from.ip()) {
            service.oddities.note(Oddity::Stranger, from);
            continue;
        }
        match datagram.bytes.map(parse) {
            Some(Ok(Message::Hello)) => tracing::debug!(%from, "another node says hello"),
            Some(Ok(Message::Question(request @ Request { op: Op::Remote, .. }))) => {
                question(&service, &peers, &mut looks, &request, from, datagram.to).await;
            }
            Some(Ok(Message::Answer(response @ Response { op: Op::Remote, .. }))) => {
                answer(&service, response, from.ip());
                // Before the next one, so that a burst does not fill the caller's queue.
                tokio::task::yield_now().await;
            }
            Some(Ok(_)) => {
                service.oddities.note(Oddity::Malformed, format_args!("from {from}: not for a node"))
            }
            Some(Err(why)) => service.oddities.note(Oddity::Malformed, format_args!("from {from}: {why}")),
            None => service.oddities.note(Oddity::Malformed, format_args!("from {from}: too long")),
        }
    }
}

/// Answers another node's question.
async fn question(
    service: &Arc<Service>,
    peers: &Arc<Peers>,
    looks: &mut JoinSet<()>,
    request: &Request,
    from: SocketAddr,
    to: Option<Ipv6Addr>,
) {
    if !service.answerer.is_own(request.local.ip()) {
        service.oddities.note(Oddity::Elsewhere, format_args!("from {from} about {}", request.local));
    }
    let found = match service.answerer.answer(request) {
        Reply::Now(found) => found,
        Reply::Later(look) => {
            let Some(place) = service.peers_looks.admit(from.ip()) else {
                return service.oddities.note(Oddity::Busy, from);
            };
            let (service, peers, request) = (Arc::clone(service), Arc::clone(peers), *request);
            looks.spawn(async move {
                match place.make(look).await {
                    Some(found) => reply(&service, &peers, &request.answer(found), from, to).await,
                    None => service.oddities.note(Oddity::Busy, from),
                }
            });
            return;
        }
    };
    reply(service, peers, &request.answer(found), from, to).await;
}

async fn reply(
    service: &Service,
    peers: &Peers,
    response: &Response,
    from: SocketAddr,
    to: Option<Ipv6Addr>,
) {
    if let Err(error) = peers.send(&response.to_bytes(), from, to).await {
        service.oddities.note(Oddity::Unsent, format_args!("to {from}: {error}"));
    }
}

/// Hands another node's answer to the caller that waits for it.
fn answer(service: &Service, response: Response, from: IpAddr) {
    let (number, query_id) = (response.client_id, response.query_id);
    let Some(caller) = service.relay().answered(from, number, query_id, Instant::now()) else {
        return service.oddities.note(Oddity::Unasked, from);
    };
    service.hand(caller, &Response { client_id: caller.0, ..response });
}
