//! Whose the two ends of a flow are that is only about to begin: a packet of it waits, and no socket need know of it yet.
//! For the firewall. Before: a packet's addresses. After: its judgement.
//! Invariant: a socket that nobody holds (TIME_WAIT, a connection in a listener's queue) names nobody: the kernel shows uid
//! 0 for it, which must never be taken for root.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use portreeve_model::firewall::ConnectorGroups;
use portreeve_model::wire::firewall::{Flow, Transport};
use portreeve_model::{ListenerId, Owner, OwnerGroups, UnknownGroup};
use portreeve_sys::{SockDiag, SocketRecord, TcpState, canonical};

use super::{Lookup, inodes, sharing};
use crate::holders::{Holder, Sockets};

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whose socket it is.
    pub uid: u32,
    /// By which /proc shows its holders.
    pub inode: u32,
    /// The socket itself, not used again while the machine is up.
    pub cookie: u64,
    /// A LISTEN socket, or one of UDP; else one of TCP that is connected or connects.
    pub listens: bool,
}

impl End {
    /// As an owner whose groups nobody has looked for.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            groups: OwnerGroups::NotLooked,
            listener: ListenerId(self.cookie),
            accepted: !self.listens,
        }
    }

    /// What is to be held of it by whoever connects.
    fn alone(&self) -> Sockets {
        Sockets { listener: ListenerId(self.cookie), listening: Vec::new(), accepted: Some(self.inode) }
    }
}

/// Why nobody is named.
#[derive(Debug, thiserror::Error)]
pub enum NoEnd {
    /// There is no socket that would take it, or none that sent it.
    #[error("there is no such socket")]
    NoSocket,
    /// Several users could have sent it.
    #[error("sockets of several users have that port")]
    Ambiguous,
    /// The uid has no name in this user namespace.
    #[error("the owner's uid is not known in this user namespace")]
    Nobody,
    /// The kernel can't be asked.
    #[error("the kernel can't be asked")]
    Lookup(#[from] io::Error),
}

/// Sockets of UDP on one port that are looked at. Nobody's program has more on one; of more, nobody is named.
pub(super) const MOST: usize = 64;

impl Lookup {
    /// Every end on this node to which a packet of the flow, come by this interface (0: whichever), may go. Of TCP that is
    /// the connection's own socket where there is one that somebody holds, **and** whoever listens: the first can give its
    /// place up at any moment. Of UDP it is every socket that takes such datagrams: among those that share a port by
    /// SO_REUSEADDR, the kernel picks by more than a look can know.
    ///
    /// # Errors
    /// When there is none, there are too many, or one's uid is nobody's.
    pub fn goes_to(&self, flow: &Flow, interface: u32) -> Result<Vec<End>, NoEnd> {
        let mut diag = self.diag();
        let found: Vec<SocketRecord> = match flow.transport {
            Transport::Udp => {
                let on_port = diag.udp_on(flow.to.port(), MOST)?.ok_or(NoEnd::Ambiguous)?;
                on_port.into_iter().filter(|record| record.inode != 0 && takes(record, flow)).collect()
            }
            Transport::Tcp => {
                let exact = diag.exact_by(flow.to, flow.from, interface)?;
                let held = exact.filter(|record| is_held(record, flow.to, flow.from));
                // In TIME_WAIT, in a listener's queue, or the listener itself: the kernel goes to the listener.
                held.into_iter().chain(diag.listener_by(flow.to, interface)?).collect()
            }
        };
        drop(diag);
        if found.is_empty() {
            return Err(NoEnd::NoSocket);
        }
        found.iter().map(|record| self.end(flow.transport, record)).collect()
    }

    /// The end on this node from which a packet of the flow comes. A socket of UDP says nothing about which datagrams
    /// it sent, so all that could have sent this one must be one user's.
    ///
    /// # Errors
    /// When there is none, several users' could be it, or its uid is nobody's.
    pub fn comes_from(&self, flow: &Flow) -> Result<End, NoEnd> {
        let mut diag = self.diag();
        let record = match flow.transport {
            Transport::Tcp => diag
                .exact(flow.from, flow.to)?
                .filter(|record| is_held(record, flow.from, flow.to))
                .ok_or(NoEnd::NoSocket)?,
            Transport::Udp => could_have_sent(&mut diag, canonical(flow.from))?,
        };
        drop(diag);
        self.end(flow.transport, &record)
    }

    /// Who would take a connection to this address from anywhere.
    ///
    /// # Errors
    /// When nobody would, or its uid is nobody's.
    pub fn listens_at(&self, transport: Transport, at: SocketAddr) -> Result<End, NoEnd> {
        let anywhere = match canonical(at) {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let found = match transport {
            Transport::Tcp => self.diag().listener(at)?,
            Transport::Udp => self.diag().udp(at, SocketAddr::new(anywhere, 0))?,
        };
        self.end(transport, &found.ok_or(NoEnd::NoSocket)?)
    }

    /// The effective group with which all holders of the ends run that [`goes_to`](Self::goes_to) found. Looks at
    /// processes.
    pub fn listeners_group(&self, flow: &Flow, interface: u32, ends: &[End]) -> OwnerGroups {
        match self.to_be_held(flow, interface, ends) {
            Ok((uid, sockets)) => self.holders.group(uid, &sockets, Instant::now()),
            Err(why) => OwnerGroups::Unknown(why),
        }
    }

    /// The same, if it was found a moment ago which few processes hold them.
    pub fn listeners_group_at_a_glance(
        &self,
        flow: &Flow,
        interface: u32,
        ends: &[End],
    ) -> Option<OwnerGroups> {
        let (uid, sockets) = self.to_be_held(flow, interface, ends).ok()?;
        let holder = self.holders.glance(uid, &sockets, false, Instant::now())?;
        Some(holder.map_or_else(OwnerGroups::Unknown, |holder| OwnerGroups::Egid(holder.gid)))
    }

    /// The ends' owner, and all that must be held by processes with one group: of TCP also what shares the listener's address.
    fn to_be_held(&self, flow: &Flow, interface: u32, ends: &[End]) -> Result<(u32, Sockets), UnknownGroup> {
        let (uid, mut sockets) = of_one(ends)?;
        if flow.transport == Transport::Tcp
            && let Some(listener) = ends.iter().find(|end| end.listens)
        {
            let mut diag = self.diag();
            sockets.listening = match diag.listener_by(flow.to, interface) {
                Ok(Some(record)) if record.cookie == listener.cookie => match sharing(&mut diag, &record) {
                    Ok(sharing) => inodes(sharing.iter().filter(|other| other.uid == uid)),
                    Err(_) => return Err(UnknownGroup::NoHolderSeen),
                },
                _ => return Err(UnknownGroup::NoHolderSeen),
            };
        }
        Ok((uid, sockets))
    }

    /// Whether a group of these ends was found a moment ago, so that one who connects is likely to come by it as well.
    pub fn expects_groups(&self, ends: &[End]) -> bool {
        of_one(ends).is_ok_and(|(uid, sockets)| self.holders.know(uid, sockets.listener, Instant::now()))
    }

    /// The groups of an end that [`comes_from`](Self::comes_from) found. Looks at processes. A set-group-id program has a
    /// group of somebody else's choice, so that it names none.
    pub fn connectors_groups(&self, end: &End) -> ConnectorGroups {
        groups_of(self.holders.holder(end.uid, &end.alone(), true, Instant::now()))
    }

    /// The same, if one of the few processes of this user's holds it that were found a moment ago to hold others.
    pub fn connectors_groups_at_a_glance(&self, end: &End) -> Option<ConnectorGroups> {
        self.holders.glance(end.uid, &end.alone(), true, Instant::now()).map(groups_of)
    }

    fn end(&self, transport: Transport, record: &SocketRecord) -> Result<End, NoEnd> {
        if self.is_nobody(record.uid) {
            return Err(NoEnd::Nobody);
        }
        let listens = transport == Transport::Udp || record.state == TcpState::Listen;
        Ok(End { uid: record.uid, inode: record.inode, cookie: record.cookie, listens })
    }
}

/// The ends' owner, and what is to be held of all; unless they are of several users.
fn of_one(ends: &[End]) -> Result<(u32, Sockets), UnknownGroup> {
    let first = ends.first().ok_or(UnknownGroup::NoHolderSeen)?;
    if ends.iter().any(|other| other.uid != first.uid) {
        return Err(UnknownGroup::Disagree);
    }
    let listening = ends.iter().filter(|end| end.listens).map(|end| end.inode).collect();
    let accepted = ends.iter().find(|end| !end.listens).map(|end| end.inode);
    Ok((first.uid, Sockets { listener: ListenerId(first.cookie), listening, accepted }))
}

fn groups_of(holder: Result<Holder, UnknownGroup>) -> ConnectorGroups {
    match holder {
        Ok(Holder { gid, groups: Some(mut gids), .. }) => {
            gids.push(gid);
            ConnectorGroups::Gids(gids)
        }
        Ok(Holder { groups: None, .. }) => ConnectorGroups::Unknown(UnknownGroup::NotPermitted),
        Err(why) => ConnectorGroups::Unknown(why),
    }
}

/// Whether this is the socket of exactly these two ends, and a process has it: only then is the uid anybody's.
fn is_held(record: &SocketRecord, local: SocketAddr, remote: SocketAddr) -> bool {
    let of_a_process = match record.state {
        TcpState::Established
        | TcpState::SynSent
        | TcpState::CloseWait
        | TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::Closing
        | TcpState::LastAck => record.inode != 0,
        // SYN_RECV is the listener's until the handshake is over; a state we don't know is no evidence.
        TcpState::SynRecv | TcpState::TimeWait | TcpState::Close | TcpState::Listen | TcpState::Other(_) => {
            false
        }
    };
    of_a_process && record.is_between(local, remote)
}

/// Whether a socket of UDP takes such datagrams, if they come by the interface that it may be bound to.
pub(super) fn takes(record: &SocketRecord, flow: &Flow) -> bool {
    let (from, to) = (canonical(flow.from), canonical(flow.to));
    let local = record.local.ip();
    let is_mine = local == to.ip() || (local.is_unspecified() && is_of_family(record, to));
    is_mine && (record.remote.port() == 0 || record.remote == from)
}

/// Whether a socket that is bound to no address of a family has to do with this one's: a dual-stack one with both.
fn is_of_family(record: &SocketRecord, address: SocketAddr) -> bool {
    match record.local {
        SocketAddr::V4(_) => address.is_ipv4(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.is_ipv6() || record.v6only != Some(true),
        SocketAddr::V6(_) => address.is_ipv6(),
    }
}

/// A socket that can have sent a datagram from there, if all such sockets are one user's. Whatever address one is bound to,
/// it can name another of the node's as the source (IP_PKTINFO), and with SO_REUSEADDR several users' can have one port.
pub(super) fn could_have_sent(diag: &mut SockDiag, from: SocketAddr) -> Result<SocketRecord, NoEnd> {
    let on_port = diag.udp_on(from.port(), MOST)?.ok_or(NoEnd::Ambiguous)?;
    let mut could = on_port.iter().filter(|record| record.inode != 0 && is_of_family(record, from));
    let first = *could.next().ok_or(NoEnd::NoSocket)?;
    if could.any(|other| other.uid != first.uid) {
        return Err(NoEnd::Ambiguous);
    }
    // But it must be there: one that is bound elsewhere is no proof that nobody else was here.
    let is_there =
        |record: &SocketRecord| record.local.ip().is_unspecified() || record.local.ip() == from.ip();
    on_port
        .iter()
        .copied()
        .find(|record| is_of_family(record, from) && is_there(record))
        .ok_or(NoEnd::NoSocket)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
    };

    use super::*;

    fn flow(transport: Transport, from: SocketAddr, to: SocketAddr) -> Flow {
        Flow { transport, from, to }
    }

    fn me() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    #[test]
    fn both_ends_of_a_connection_and_a_listener_alone() {
        let lookup = Lookup::open().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let there = flow(Transport::Tcp, client.local_addr().unwrap(), at);
            // Nobody has accepted it: the packet is for the listener.
            let [waiting] = lookup.goes_to(&there, 0).unwrap()[..] else { panic!("{address}") };
            assert_eq!((waiting.uid, waiting.listens), (me(), true), "{address}");
            let from = lookup.comes_from(&there).unwrap();
            assert_eq!((from.uid, from.listens), (me(), false), "{address}");
            let (accepted, _) = listener.accept().unwrap();
            // The connection's own socket, and whoever listens: it may close before the packet is there.
            let [taken, listening] = lookup.goes_to(&there, 0).unwrap()[..] else { panic!("{address}") };
            assert_eq!((taken.uid, taken.listens, listening), (me(), false, waiting), "{address}");
            assert_ne!(taken.cookie, waiting.cookie);
            // A stranger's packet goes to the listener, and comes from nobody here.
            let stranger = SocketAddr::new(at.ip(), 9);
            let new = flow(Transport::Tcp, stranger, at);
            assert_eq!(lookup.goes_to(&new, 0).unwrap(), [waiting]);
            assert!(matches!(lookup.comes_from(&new), Err(NoEnd::NoSocket)));
            assert_eq!(lookup.listens_at(Transport::Tcp, at).unwrap(), waiting);
            drop((accepted, listener));
            assert!(matches!(lookup.goes_to(&new, 0), Err(NoEnd::NoSocket)), "{address}");
        }
    }

    #[test]
    fn what_nobody_holds_is_nobodys_and_never_roots() {
        let lookup = Lookup::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(at).unwrap();
        let there = flow(Transport::Tcp, client.local_addr().unwrap(), at);
        // The server closes first, and its end is in TIME_WAIT once the client has closed too.
        drop(listener.accept().unwrap());
        drop(client);
        let back = flow(Transport::Tcp, there.to, there.from);
        assert!(matches!(lookup.comes_from(&back), Err(NoEnd::NoSocket)));
        assert!(matches!(lookup.comes_from(&there), Err(NoEnd::NoSocket)));
        // A new SYN of the same two ends is for the listener.
        assert!(lookup.goes_to(&there, 0).unwrap().iter().all(|end| end.listens));
    }

    #[test]
    fn datagrams_have_two_ends_too() {
        let lookup = Lookup::open().unwrap();
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
        let from = one.local_addr().unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, other.local_addr().unwrap().port()));
        let there = flow(Transport::Udp, from, to);
        let [end] = lookup.goes_to(&there, 0).unwrap()[..] else { panic!() };
        assert_eq!(end.uid, me());
        assert_eq!(lookup.comes_from(&there).unwrap().uid, me());
        assert_eq!(lookup.listens_at(Transport::Udp, to).unwrap(), end);
        let shared = flow(Transport::Udp, from, SocketAddr::from(([224, 0, 0, 251], to.port())));
        assert_eq!(lookup.goes_to(&shared, 0).unwrap().len(), 1);
        // Connected to somebody else, it takes nothing of ours.
        other.connect("127.0.0.1:9").unwrap();
        assert!(matches!(lookup.goes_to(&there, 0), Err(NoEnd::NoSocket)));
        drop(other);
        assert!(matches!(lookup.goes_to(&shared, 0), Err(NoEnd::NoSocket)));
        // An address of another socket on that port is no sender's.
        let elsewhere = flow(Transport::Udp, SocketAddr::from(([127, 0, 0, 2], from.port())), to);
        assert!(matches!(lookup.comes_from(&elsewhere), Err(NoEnd::NoSocket)));
    }

    /// Of more sockets than are looked at, one that was not seen could be another user's.
    #[test]
    fn of_too_many_sockets_on_a_port_nobody_is_named() {
        let lookup = Lookup::open().unwrap();
        let on = |port| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
            setsockopt(&socket, sockopt::ReusePort, &true).unwrap();
            let at = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
            bind(socket.as_raw_fd(), &at).unwrap();
            UdpSocket::from(socket)
        };
        let first = on(0);
        let here = first.local_addr().unwrap();
        let mut sockets: Vec<UdpSocket> = (1..MOST).map(|_| on(here.port())).collect();
        let stranger = SocketAddr::from(([127, 0, 0, 1], 9));
        let (arrives, leaves) = (flow(Transport::Udp, stranger, here), flow(Transport::Udp, here, stranger));
        assert_eq!(lookup.goes_to(&arrives, 0).unwrap().len(), MOST);
        assert_eq!(lookup.comes_from(&leaves).unwrap().uid, me());
        sockets.push(on(here.port()));
        assert!(matches!(lookup.goes_to(&arrives, 0), Err(NoEnd::Ambiguous)));
        assert!(matches!(lookup.comes_from(&leaves), Err(NoEnd::Ambiguous)));
    }

    #[test]
    fn groups_of_both_ends() {
        let lookup = Lookup::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(at).unwrap();
        let there = flow(Transport::Tcp, client.local_addr().unwrap(), at);
        let (to, from) = (lookup.goes_to(&there, 0).unwrap(), lookup.comes_from(&there).unwrap());
        let egid = nix::unistd::getegid().as_raw();
        // Where a process of ours is hidden from us, it could be one that disagrees.
        let hidden = UnknownGroup::NotPermitted;
        let group = lookup.listeners_group(&there, 0, &to);
        assert!([OwnerGroups::Egid(egid), OwnerGroups::Unknown(hidden)].contains(&group), "{group:?}");
        match lookup.connectors_groups(&from) {
            ConnectorGroups::Gids(gids) => assert!(gids.contains(&egid), "{gids:?}"),
            other => assert_eq!(other, ConnectorGroups::Unknown(hidden)),
        }
        drop(client);
        let ConnectorGroups::Unknown(why) = lookup.connectors_groups(&from) else { panic!() };
        assert!([UnknownGroup::NoHolderSeen, hidden].contains(&why), "{why:?}");
    }
}
