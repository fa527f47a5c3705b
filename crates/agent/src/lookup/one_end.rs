//! Whose is a socket, by its own end: what listens at an address, what is connected from there? For questions that do not
//! come from a connection's other end. Before: `ident2::answer`. After: the kernel, and `holders`.
//! Invariant: sockets of two users at the same address are nobody's.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Instant;

use portreeve_model::wire::ident2::TcpStates;
use portreeve_model::{ListenerId, UnknownGroup, Unowned};
use portreeve_sys::{SocketRecord, TcpState, canonical};

use super::ends::could_have_sent;
use super::{Lookup, failed, inodes, sharing};
use crate::holders::{Holder, Sockets};

/// Connections at one address whose holders are looked for; of more only the uid is told.
const MAX_CONNECTIONS: usize = 256;

/// Sockets that have one owner.
pub(crate) struct Held {
    /// The owner.
    pub(crate) uid: u32,
    /// What the owner's processes are to hold; `None`: too many to look for.
    sockets: Option<Sockets>,
}

impl Lookup {
    /// What takes TCP connections to this address.
    pub(crate) fn listening_at(&self, local: SocketAddr) -> Result<Held, Unowned> {
        let mut diag = self.diag();
        let listener = diag.listener(local).map_err(failed)?.ok_or(Unowned::NoListener)?;
        let sharing = sharing(&mut diag, &listener)?;
        self.of_one(&sharing)
    }

    /// The TCP socket of this connection at this end, if a process holds it, in one of these states.
    pub(crate) fn connection(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        states: TcpStates,
    ) -> Result<Held, Unowned> {
        let record = self.diag().exact(local, remote).map_err(failed)?.ok_or(Unowned::NoSuchConnection)?;
        if !record.is_between(local, remote) || !is_held(&record, states) {
            return Err(Unowned::NoSuchConnection);
        }
        self.of_one(&[record])
    }

    /// The TCP sockets of connections of this end with anybody, as far as processes hold them, in one of these states.
    /// Goes through all connections of the node.
    pub(crate) fn connections_at(&self, local: SocketAddr, states: TcpStates) -> Result<Held, Unowned> {
        let local = canonical(local);
        let (mut found, mut many): (Vec<SocketRecord>, bool) = (Vec::new(), false);
        let walked = self.diag().connections_on(local.port(), &mut |record| {
            if record.local != local || !is_held(&record, states) {
                return ControlFlow::Continue(());
            }
            let differs = found.first().is_some_and(|first| first.uid != record.uid);
            if found.len() < MAX_CONNECTIONS || differs {
                found.push(record);
            } else {
                many = true;
            }
            if differs { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        walked.map_err(failed)?;
        let held = self.of_one(&found)?;
        Ok(if many { Held { sockets: None, ..held } } else { held })
    }

    /// The UDP socket that takes datagrams from `remote` to `local`, and sends them the other way round: only if no other
    /// user's has that port, since nobody knows which of them sent one.
    pub(crate) fn datagrams(&self, local: SocketAddr, remote: SocketAddr) -> Result<Held, Unowned> {
        let found = self.diag().udp(local, remote).map_err(failed)?;
        let record = found.filter(|record| record.inode != 0).ok_or(Unowned::NoSuchConnection)?;
        let sender = could_have_sent(&mut self.diag(), canonical(local));
        match sender {
            Ok(sender) if sender.uid == record.uid => self.of_one(&[record]),
            Ok(sender) => Err(Unowned::OwnersDiffer { listener: record.uid, accepted: sender.uid }),
            Err(_) => Err(Unowned::NoSuchConnection),
        }
    }

    /// What the processes that hold these sockets have in common. Blocks for milliseconds.
    pub(crate) fn holder(&self, held: &Held, with_groups: bool) -> Result<Holder, UnknownGroup> {
        match &held.sockets {
            Some(sockets) => self.holders.holder(held.uid, sockets, with_groups, Instant::now()),
            None => Err(UnknownGroup::NotPermitted),
        }
    }

    /// LISTEN sockets that share an address, or connections.
    fn of_one(&self, records: &[SocketRecord]) -> Result<Held, Unowned> {
        let first = records.first().ok_or(Unowned::NoSuchConnection)?;
        if let Some(other) = records.iter().find(|other| other.uid != first.uid) {
            return Err(Unowned::OwnersDiffer { listener: first.uid, accepted: other.uid });
        }
        let all = inodes(records.iter());
        let (listening, accepted) = match (first.state, &all[..]) {
            (TcpState::Listen, _) => (all, None),
            (_, &[one]) => (Vec::new(), Some(one)),
            _ => (all, None),
        };
        let sockets = Sockets { listener: ListenerId(first.cookie), listening, accepted };
        Ok(Held { uid: self.somebody(first.uid)?, sockets: Some(sockets) })
    }
}

/// Without an inode nobody holds it, and the uid says nothing.
fn is_held(record: &SocketRecord, states: TcpStates) -> bool {
    record.state != TcpState::Listen && record.inode != 0 && states.allow(record.state.into())
}
