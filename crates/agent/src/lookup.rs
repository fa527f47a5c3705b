//! Who owns the server's end of one TCP connection. Before: the connection stands, nothing was sent on it. After: the
//! judgement. The rules, each learned by trying (see the tests):
//! - the connection's own record decides, found by all four of its addresses; a LISTEN socket that answers in its
//!   place is no evidence;
//! - the uid of the LISTEN socket and, once accepted, of the connection's own socket must agree;
//! - a record without an inode says nothing about the uid: the LISTEN socket's counts until somebody accepts.
//!
//! Invariant: no process is looked at to find the uid, and an `Owner` is made here only.

mod ends;
mod one_end;
mod takers;

pub use ends::{End, NoEnd};
pub(crate) use one_end::Held;
pub(crate) use takers::Takers;

use crate::holders::{Holders, Sockets};
use portreeve_model::{ListenerId, Owner, OwnerGroups, Tuple, UnknownGroup, Unowned};
use portreeve_sys::{SockDiag, SocketRecord, TcpState};
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Asks this node's kernel. Every call blocks: some 10 microseconds for the uid, milliseconds for the group's
/// first look. Meant to be one per thread; sharing one is safe, and calls then wait for each other.
pub struct Lookup {
    diag: Mutex<SockDiag>,
    holders: Holders,
    /// What the kernel shows for a uid without a name in this user namespace: it stands for everybody outside, so
    /// it is nobody's.
    nobody: u32,
}

/// An owner, and what the kernel says beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub owner: Owner,
    /// The control group in which the LISTEN socket was made. For show.
    pub cgroup: Option<u64>,
}

/// How far the server has got with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In the listener's queue.
    Waiting,
    /// Accepted, and held by a process.
    Accepted,
}

impl Lookup {
    /// Opens the netlink socket, so that a process that locks itself up later has it already.
    pub fn open() -> io::Result<Self> {
        let overflow = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
            // The kernel's own default.
            text.and_then(|text| text.trim().parse().ok()).unwrap_or(65_534)
        };
        Ok(Self {
            diag: Mutex::new(SockDiag::open()?),
            holders: Holders::new(overflow("overflowgid")),
            nobody: overflow("overflowuid"),
        })
    }

    /// Who owns the server's end of this connection. `accepted: false` holds for this moment only: ask `confirm`
    /// before the first byte of an answer is believed.
    pub fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        self.see(tuple).map(|seen| seen.owner)
    }

    /// The same, with what can be shown of it.
    pub fn see(&self, tuple: &Tuple) -> Result<Seen, Unowned> {
        let mut diag = self.diag();
        let (record, stage) = connection(&mut diag, tuple)?;
        let listener = diag.listener(tuple.server).map_err(failed)?.ok_or(Unowned::NoListener)?;
        let accepted = match stage {
            Stage::Accepted => Some(record),
            Stage::Waiting => {
                // A connection in the queue ends with its listener. The same one still there, after the listener
                // was seen: so that is its listener, not one that took over the port in between.
                let (again, stage) = connection(&mut diag, tuple)?;
                if again.cookie != record.cookie {
                    return Err(Unowned::NoSuchConnection);
                }
                (stage == Stage::Accepted).then_some(again)
            }
        };
        // Newer kernels tell the listener's uid of a waiting connection as well, older ones tell 0.
        let claimed = accepted.map_or(record.uid, |socket| socket.uid);
        if claimed != listener.uid && (accepted.is_some() || claimed != 0) {
            return Err(Unowned::OwnersDiffer { listener: listener.uid, accepted: claimed });
        }
        let owner = Owner {
            uid: self.somebody(listener.uid)?,
            groups: OwnerGroups::NotLooked,
            listener: ListenerId(listener.cookie),
            accepted: accepted.is_some(),
        };
        Ok(Seen { owner, cgroup: listener.cgroup })
    }

    /// Asks again about a connection whose owner was known before it was accepted, once somebody must have: it has to
    /// be the same owner. The listener may have closed since, but must not have gone to somebody else. The group is
    /// looked at again where it had been looked at.
    ///
    /// A server that answers and closes at once leaves nothing to ask about (`Closing`).
    pub fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        let owner = {
            let mut diag = self.diag();
            let (record, stage) = connection(&mut diag, tuple)?;
            if stage == Stage::Waiting {
                return Err(Unowned::NotAccepted);
            }
            let listener = diag.listener(tuple.server).map_err(failed)?;
            let listening_uid = listener.map_or(before.uid, |listener| listener.uid);
            if record.uid != before.uid || listening_uid != before.uid {
                return Err(Unowned::OwnersDiffer { listener: listening_uid, accepted: record.uid });
            }
            Owner {
                uid: self.somebody(record.uid)?,
                groups: OwnerGroups::NotLooked,
                listener: listener.map_or(before.listener, |listener| ListenerId(listener.cookie)),
                accepted: true,
            }
        };
        Ok(match before.groups {
            OwnerGroups::NotLooked => owner,
            OwnerGroups::Egid(_) | OwnerGroups::Unknown(_) => self.with_group(tuple, owner),
        })
    }

    /// The uid at the connecting end of a connection that was made on this node.
    pub fn connector(&self, tuple: &Tuple) -> Result<u32, Unowned> {
        let record = self.diag().exact(tuple.client, tuple.server).map_err(failed)?;
        let record = record.ok_or(Unowned::NoSuchConnection)?;
        // Without an inode nobody holds it any more, and the uid says nothing.
        if !record.is_between(tuple.client, tuple.server)
            || record.state == TcpState::Listen
            || record.inode == 0
        {
            return Err(Unowned::NoSuchConnection);
        }
        self.somebody(record.uid)
    }

    /// Whether the LISTEN socket that took this connection is still the one that listens there.
    pub fn listens_still(&self, tuple: &Tuple, listener: ListenerId) -> bool {
        matches!(self.diag().listener(tuple.server), Ok(Some(record)) if record.cookie == listener.0)
    }

    /// The same owner with the group of the processes that hold the listener and, once accepted, the connection.
    pub fn with_group(&self, tuple: &Tuple, owner: Owner) -> Owner {
        self.with_group_at(tuple, owner, Instant::now())
    }

    fn with_group_at(&self, tuple: &Tuple, owner: Owner, now: Instant) -> Owner {
        let groups = match self.sockets(tuple, &owner) {
            Ok(sockets) => self.holders.group(owner.uid, &sockets, now),
            Err(error) => {
                tracing::debug!(%error, "the connection was gone when its holders were to be looked at");
                OwnerGroups::Unknown(UnknownGroup::NoHolderSeen)
            }
        };
        Owner { groups, ..owner }
    }

    /// The inodes whose holders count for this connection.
    fn sockets(&self, tuple: &Tuple, owner: &Owner) -> Result<Sockets, Unowned> {
        let mut diag = self.diag();
        let (record, stage) = connection(&mut diag, tuple)?;
        if stage == Stage::Accepted && record.uid != owner.uid {
            return Err(Unowned::OwnersDiffer { listener: owner.uid, accepted: record.uid });
        }
        let listening = match diag.listener(tuple.server).map_err(failed)? {
            Some(listener) if listener.uid != owner.uid => {
                return Err(Unowned::OwnersDiffer { listener: listener.uid, accepted: owner.uid });
            }
            Some(listener) => {
                // With SO_REUSEPORT any of them may have taken the connection, so all of them count.
                let sharing = sharing(&mut diag, &listener)?;
                inodes(sharing.iter().filter(|other| other.uid == listener.uid))
            }
            // It may close after accept, not before: then the connection would have ended with it.
            None if stage == Stage::Accepted && owner.accepted => Vec::new(),
            None => return Err(Unowned::NoListener),
        };
        let accepted = (stage == Stage::Accepted).then_some(record.inode);
        Ok(Sockets { listener: owner.listener, listening, accepted })
    }

    fn somebody(&self, uid: u32) -> Result<u32, Unowned> {
        if self.is_nobody(uid) {
            return Err(Unowned::Lookup("the owner's uid is not known in this user namespace".to_owned()));
        }
        Ok(uid)
    }

    fn is_nobody(&self, uid: u32) -> bool {
        uid == self.nobody || uid == u32::MAX
    }

    fn diag(&self) -> MutexGuard<'_, SockDiag> {
        // A panic elsewhere leaves at worst an answer unread, and that is skipped by its sequence number.
        self.diag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connection(diag: &mut SockDiag, tuple: &Tuple) -> Result<(SocketRecord, Stage), Unowned> {
    let record = diag.exact(tuple.server, tuple.client).map_err(failed)?;
    let record = record.ok_or(Unowned::NoSuchConnection)?;
    Ok((record, stage(&record, tuple)?))
}

fn stage(record: &SocketRecord, tuple: &Tuple) -> Result<Stage, Unowned> {
    if record.state == TcpState::Listen {
        return Err(Unowned::ListenerOnly);
    }
    if !record.is_between(tuple.server, tuple.client) {
        return Err(Unowned::NoSuchConnection);
    }
    match (record.state, record.inode) {
        (TcpState::Established | TcpState::SynRecv, 0) => Ok(Stage::Waiting),
        // Without an inode these are orphans: whoever held them has closed them.
        (
            TcpState::CloseWait
            | TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::Closing
            | TcpState::LastAck,
            0,
        ) => Err(Unowned::Closing),
        (
            TcpState::Established
            | TcpState::SynRecv
            | TcpState::CloseWait
            | TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::Closing
            | TcpState::LastAck,
            _,
        ) => Ok(Stage::Accepted),
        (TcpState::TimeWait | TcpState::Close, _) => Err(Unowned::Closing),
        // A socket that connects was not taken by any listener; a state we don't know is no evidence.
        (TcpState::SynSent | TcpState::Other(_) | TcpState::Listen, _) => Err(Unowned::NoSuchConnection),
    }
}

/// All LISTEN sockets at this one's address, itself among them.
fn sharing(diag: &mut SockDiag, listener: &SocketRecord) -> Result<Vec<SocketRecord>, Unowned> {
    let mut all = diag.listening_on(listener.local.port()).map_err(failed)?;
    all.retain(|other| (other.local, other.family) == (listener.local, listener.family));
    all.push(*listener);
    Ok(all)
}

fn inodes<'r>(records: impl Iterator<Item = &'r SocketRecord>) -> Vec<u32> {
    let mut inodes: Vec<u32> = records.map(|record| record.inode).collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

fn failed(error: io::Error) -> Unowned {
    Unowned::Lookup(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
