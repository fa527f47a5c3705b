//! Answers the other nodes' firewalls: whose program connects from here? Before: their `peers`. After: this node's kernel.
//! Invariant: only a node of the map is answered, only about connections from an address of this node to an address of
//! that node, and only from a port that nobody but root can have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};
use portreeve_model::AgentKey;
use portreeve_model::firewall::{Connector, ConnectorGroups};
use portreeve_model::firewall_config::PRIVILEGED;
use portreeve_model::wire::firewall::{Answer, Ask, Flow, Groups, NoConnector, PROTOCOL};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::looks::Looks;
use super::packet;
use super::{Shared, limits};
use crate::channel::tls::{peer_key, server_config_for};
use crate::channel::{FrameError, FrameReader, queue_frame, write_queue};
use crate::lookup::{End, Lookup, NoEnd};
use crate::own_addresses::OwnAddresses;
use crate::shares::Shares;

/// The port, and what answers.
pub(super) struct Desk {
    socket: TcpListener,
    lookup: Lookup,
    looks: Arc<Looks>,
    own: OwnAddresses,
    shared: Arc<Shared>,
    connections: Shares<AgentKey>,
    /// Connections that have shown no key yet, by where they come from: any user of a node can open some, and must not take
    /// other nodes' places.
    strangers: Shares<IpAddr>,
    /// Places for all of those together.
    unknown: Arc<Semaphore>,
    /// Places for all connections.
    all: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn listen(port: u16, shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            socket: listen_on_all(port)?,
            lookup: Lookup::open()?,
            looks: Arc::new(Looks::open()?),
            own: OwnAddresses::default(),
            shared: Arc::clone(shared),
            connections: Shares::default(),
            strangers: Shares::default(),
            unknown: Arc::new(Semaphore::new(limits::STRANGERS)),
            all: Arc::new(Semaphore::new(limits::CONNECTIONS)),
        })
    }

    /// Answers for as long as the firewall runs.
    pub(super) fn serve(self) -> io::Result<impl Future<Output = ()>> {
        let listening = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        let desk = Arc::new(self);
        Ok(async move {
            let mut callers = JoinSet::new();
            loop {
                while callers.try_join_next().is_some() {}
                let (stream, from) = match listening.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "another node's connection could not be accepted");
                        tokio::time::sleep(limits::PAUSE).await;
                        continue;
                    }
                };
                // An address that no node has is not worth a handshake, nor is a port that anybody can connect from: a user
                // of a node must not take its places. The key is the proof.
                let known = desk.shared.settings.load().nodes.at(from.ip()).is_some()
                    && PRIVILEGED.contains(&from.port());
                let one = desk.strangers.take(from.ip(), limits::STRANGERS_OF_ONE);
                let (Ok(place), Ok(unknown), Some(one), true) = (
                    Arc::clone(&desk.all).try_acquire_owned(),
                    Arc::clone(&desk.unknown).try_acquire_owned(),
                    one,
                    known,
                ) else {
                    tracing::debug!(%from, "turned away");
                    continue;
                };
                let desk = Arc::clone(&desk);
                callers.spawn(async move {
                    let _place = place;
                    let greeted = desk.greet(stream).await;
                    drop((unknown, one));
                    match greeted {
                        Ok((stream, key)) => {
                            let ended = desk.converse(stream, key).await;
                            tracing::debug!(%from, "{ended}");
                        }
                        Err(error) => tracing::warn!(%from, %error, "refused to answer"),
                    }
                });
            }
        })
    }

    async fn greet(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, AgentKey)> {
        stream.set_nodelay(true)?;
        let settings = self.shared.settings.load_full();
        let own = settings.own.clone();
        let is_known = move |key: &AgentKey| settings.nodes.of_key(key).is_some();
        let tls = server_config_for(PROTOCOL, &own, is_known).map_err(io::Error::other)?;
        let handshake = TlsAcceptor::from(Arc::new(tls)).accept(stream);
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let stream = timeout(limits::CONNECT, handshake).await.map_err(late)??;
        let key = peer_key(stream.get_ref().1.peer_certificates());
        Ok((stream, key.ok_or_else(|| io::Error::other("no key was shown"))?))
    }

    async fn converse(self: &Arc<Self>, stream: TlsStream<TcpStream>, key: AgentKey) -> FrameError {
        let Some(_one) = self.connections.take(key, limits::OF_ONE_NODE) else {
            return FrameError::Io(io::Error::other("too many connections of one node"));
        };
        let (read, mut write) = tokio::io::split(stream);
        let (queue, mut answers) = mpsc::channel(limits::ANSWERS);
        tokio::select! {
            written = write_queue(&mut write, &mut answers, limits::STALL) => {
                written.err().unwrap_or(FrameError::Ended)
            }
            ended = self.read(FrameReader::new(read), &queue, key) => ended,
        }
    }

    async fn read(
        self: &Arc<Self>,
        mut reader: FrameReader<tokio::io::ReadHalf<TlsStream<TcpStream>>>,
        queue: &mpsc::Sender<Vec<u8>>,
        key: AgentKey,
    ) -> FrameError {
        let mut looks = JoinSet::new();
        loop {
            while looks.try_join_next().is_some() {}
            let ask: Ask = match reader.next(2 * limits::IDLE, limits::FRAME).await {
                Ok(ask) => ask,
                Err(error) => return error,
            };
            self.shared.counts.answered.inc();
            let end = match self.may_ask(&ask.flow, key) {
                Ok(()) => {
                    self.shared.counts.lookups.inc();
                    self.lookup.comes_from(&ask.flow).map_err(NoConnector::from)
                }
                Err(why) => Err(NoConnector::Refused(why)),
            };
            let found = match end {
                Ok(end) => {
                    if let Some(groups) = self.known_groups(&end, ask.groups) {
                        Ok(Connector { uid: end.uid, groups })
                    } else if let Some(place) = self.looks.place() {
                        self.shared.counts.looks.inc();
                        let (desk, queue) = (Arc::clone(self), queue.clone());
                        looks.spawn(async move {
                            let looked = tokio::task::spawn_blocking(move || {
                                let _kept = place;
                                desk.looks.connector(&end)
                            });
                            let found = looked
                                .await
                                .map(|groups| Connector { uid: end.uid, groups })
                                .map_err(|_| NoConnector::Lookup("the look failed".to_owned()));
                            // The connection is ending, or an answer of bounded length was too long.
                            let _ = queue_frame(&queue, &Answer { id: ask.id, found }).await;
                        });
                        continue;
                    } else {
                        Err(NoConnector::Lookup("too many looks at processes at once".to_owned()))
                    }
                }
                Err(why) => Err(why),
            };
            if let Err(error) = queue_frame(queue, &Answer { id: ask.id, found }).await {
                return FrameError::Wire(error);
            }
        }
    }

    /// The groups as far as they are told without a search: others' searches must not keep the uid from whoever may do
    /// without.
    fn known_groups(&self, end: &End, wanted: Groups) -> Option<ConnectorGroups> {
        let seen = || self.looks.connector_at_a_glance(end);
        match wanted {
            Groups::No => Some(ConnectorGroups::NotLooked),
            Groups::AtAGlance => Some(seen().unwrap_or(ConnectorGroups::NotLooked)),
            Groups::Yes => seen(),
        }
    }

    /// Whether the node that has this key may ask about this flow.
    fn may_ask(&self, flow: &Flow, key: AgentKey) -> Result<(), String> {
        let settings = self.shared.settings.load();
        let Some(asker) = settings.nodes.of_key(&key) else {
            return Err("your key is not in the node map any more".to_owned());
        };
        let to = flow.to.ip();
        let may = match settings.nodes.at(to) {
            Some(node) => node.name == asker.name,
            // An address that many have is no node's: any may ask about a datagram to it.
            None => packet::goes_to_many(flow),
        };
        if !may {
            return Err(format!("{to} is not an address of {}", asker.name));
        }
        if !self.own.has(flow.from.ip()) || flow.from.ip().to_canonical().is_loopback() {
            return Err(format!("{} is no address of this node", flow.from.ip()));
        }
        Ok(())
    }
}

impl From<NoEnd> for NoConnector {
    fn from(why: NoEnd) -> Self {
        match why {
            NoEnd::NoSocket => Self::NoSuchSocket,
            NoEnd::Ambiguous => Self::Ambiguous,
            NoEnd::Nobody => Self::Lookup(why.to_string()),
            NoEnd::Lookup(error) => Self::Lookup(error.to_string()),
        }
    }
}

/// On every address of both families, or of IPv4 where there is no other.
fn listen_on_all(port: u16) -> io::Result<TcpListener> {
    let open = |address: SocketAddr| -> nix::Result<TcpListener> {
        let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        if address.is_ipv6() {
            setsockopt(&socket, Ipv6V6Only, &false)?;
        }
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(limits::BACKLOG)?)?;
        Ok(TcpListener::from(socket))
    };
    let (v6, v4) = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match open(SocketAddr::new(v6, port)) {
        Err(nix::errno::Errno::EAFNOSUPPORT) => Ok(open(SocketAddr::new(v4, port))?),
        opened => Ok(opened?),
    }
}

#[cfg(test)]
mod tests;
