//! The group rule's look: with which effective group do the processes run that hold these sockets? Socket diagnosis
//! does not tell groups, so the holders are searched in /proc. Before: `lookup` knows the owner and the inodes.
//! Invariant: what is remembered is where to look, or that there is nothing to find; a gid is read anew every time.

use crate::processes::{Budget, Process, Unread, each_of_uid};
use lru::LruCache;
use portreeve_model::{ListenerId, OwnerGroups, UnknownGroup};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many listeners and users are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not 0");
/// How many processes at most are remembered of a user, and looked at in a glance.
const FEW: usize = 4;
/// How long the holders found are looked at alone: the set changes when a process forks.
const HOLDERS_AGE: Duration = Duration::from_secs(2);
/// How long a fruitless look is not repeated, so that refused visitors can't keep the node busy.
const REFUSAL_AGE: Duration = Duration::from_secs(1);

/// The sockets to look for.
pub(crate) struct Sockets {
    /// The LISTEN socket that took the connection.
    pub(crate) listener: ListenerId,
    /// The inodes of it and of those that share its address. Empty if it has closed since.
    pub(crate) listening: Vec<u32>,
    /// The inode of the connection's own socket, once accepted.
    pub(crate) accepted: Option<u32>,
}

/// Finds holders, and remembers where they were.
pub(crate) struct Holders {
    remembered: Mutex<LruCache<Of, (Instant, Memory)>>,
    /// What the kernel shows for a gid without a name in this user namespace: no group at all.
    no_group: u32,
}

/// What the processes have in common that hold a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The first of them.
    pub(crate) pid: u32,
    /// The effective gid of all.
    pub(crate) gid: u32,
    /// The supplementary groups that all of them have; `None` if nobody asked, or they could not be read.
    pub(crate) groups: Option<Vec<u32>>,
}

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    /// Who holds this one.
    Listener(ListenerId),
    /// Which processes of this user's have held connections that were asked about alone: whose next one it may be. Each is
    /// another socket, and one that none of these holds is searched for. That one of them holds it is enough: whoever made
    /// it can have closed it since, or keep it where no look finds it (on its way in a socket of AF_UNIX).
    ConnectionsOf(u32),
}

#[derive(Clone)]
enum Memory {
    Held { uid: u32, pids: Vec<u32> },
    Refused { uid: u32, why: UnknownGroup },
}

impl Sockets {
    /// Of a connection that was asked about alone nothing is remembered, unless it is asked what whoever connects may do.
    fn of(&self, uid: u32, with_groups: bool) -> Option<Of> {
        match (self.listening.is_empty(), with_groups) {
            (false, _) => Some(Of::Listener(self.listener)),
            (true, true) => Some(Of::ConnectionsOf(uid)),
            (true, false) => None,
        }
    }
}

impl Holders {
    pub(crate) fn new(no_group: u32) -> Self {
        Self { remembered: Mutex::new(LruCache::new(REMEMBERED)), no_group }
    }

    /// The one effective gid of all processes of `uid` that hold any of the sockets.
    pub(crate) fn group(&self, uid: u32, sockets: &Sockets, now: Instant) -> OwnerGroups {
        match self.holder(uid, sockets, false, now) {
            Ok(holder) => OwnerGroups::Egid(holder.gid),
            Err(why) => OwnerGroups::Unknown(why),
        }
    }

    /// The same, with the first process, and with what supplementary groups they share if that is wanted.
    pub(crate) fn holder(
        &self,
        uid: u32,
        sockets: &Sockets,
        with_groups: bool,
        now: Instant,
    ) -> Result<Holder, UnknownGroup> {
        let of = sockets.of(uid, with_groups);
        if let Some(found) = self.look_again(uid, sockets, with_groups, now, (usize::MAX, Budget::new())) {
            return found;
        }
        let mut look = Look::new(uid, sockets, with_groups);
        let walked = each_of_uid(uid, |process| look.visit(process));
        if let Err(error) = walked {
            tracing::warn!(%error, "/proc can't be read");
            look.hidden = true;
        }
        match look.verdict() {
            Ok(holder) => {
                if let Some(of) = of {
                    self.remember(of, now, Memory::Held { uid, pids: look.pids });
                }
                self.named(holder)
            }
            Err(why) => {
                // A connection that ended meanwhile says nothing about the next one to the same listener.
                let only_the_connection_is_missing = why == UnknownGroup::NoHolderSeen
                    && look.missing.iter().all(|m| Some(*m) == sockets.accepted);
                if let Some(of @ Of::Listener(_)) = of
                    && !only_the_connection_is_missing
                {
                    self.remember(of, now, Memory::Refused { uid, why });
                }
                Err(why)
            }
        }
    }

    /// The same if it takes no more than a look at a few processes, 20 microseconds each. `None`: it must be searched for.
    pub(crate) fn glance(
        &self,
        uid: u32,
        sockets: &Sockets,
        with_groups: bool,
        now: Instant,
    ) -> Option<Result<Holder, UnknownGroup>> {
        self.look_again(uid, sockets, with_groups, now, (FEW, Budget::small()))
    }

    /// Whether it is known who holds this listener.
    pub(crate) fn know(&self, uid: u32, listener: ListenerId, now: Instant) -> bool {
        matches!(self.recall(uid, Of::Listener(listener), now), Some(Memory::Held { .. }))
    }

    /// Looks where the holders were, if those were no more than `most`.
    fn look_again(
        &self,
        uid: u32,
        sockets: &Sockets,
        with_groups: bool,
        now: Instant,
        (most, budget): (usize, Budget),
    ) -> Option<Result<Holder, UnknownGroup>> {
        let pids = match self.recall(uid, sockets.of(uid, with_groups)?, now)? {
            Memory::Refused { why, .. } => return Some(Err(why)),
            Memory::Held { pids, .. } if pids.len() > most => return None,
            Memory::Held { pids, .. } => pids,
        };
        let mut look = Look::new(uid, sockets, with_groups);
        look.budget = budget;
        for pid in pids {
            // Once something is hidden there is no full answer.
            if look.visit(Process::open(pid, uid)).is_break() || look.hidden {
                break;
            }
        }
        // Anything but a full answer may only mean that a new process holds the connection.
        Some(self.named(look.verdict().ok()?))
    }

    fn named(&self, mut holder: Holder) -> Result<Holder, UnknownGroup> {
        let is_one = |gid: u32| gid != self.no_group && gid != u32::MAX;
        if let Some(groups) = &mut holder.groups {
            groups.retain(|gid| is_one(*gid));
        }
        if is_one(holder.gid) { Ok(holder) } else { Err(UnknownGroup::NotPermitted) }
    }

    fn recall(&self, uid: u32, of: Of, now: Instant) -> Option<Memory> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, memory) = remembered.get(&of)?;
        let (of, age) = match memory {
            Memory::Held { uid, .. } => (*uid, HOLDERS_AGE),
            Memory::Refused { uid, .. } => (*uid, REFUSAL_AGE),
        };
        (of == uid && now.saturating_duration_since(*since) < age).then(|| memory.clone())
    }

    fn remember(&self, of: Of, now: Instant, mut memory: Memory) {
        let mut since = now;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Of::ConnectionsOf(_), Memory::Held { pids, .. }) = (of, &mut memory) {
            // A user's other programs, as long as they would have been remembered without this one.
            if let Some((before, Memory::Held { pids: others, .. })) = remembered.get(&of)
                && now.saturating_duration_since(*before) < HOLDERS_AGE
            {
                since = *before;
                let others: Vec<u32> = others.iter().copied().filter(|pid| !pids.contains(pid)).collect();
                pids.extend(others);
            }
            pids.truncate(FEW);
        }
        remembered.put(of, (since, memory));
    }
}

/// One look at some processes.
struct Look {
    uid: u32,
    wanted: Vec<u32>,
    /// Those of `wanted` that nobody was seen to hold yet.
    missing: Vec<u32>,
    pids: Vec<u32>,
    gid: Option<u32>,
    groups: Groups,
    disagree: bool,
    hidden: bool,
    budget: Budget,
}

/// Supplementary groups that all holders have, so far.
enum Groups {
    NotWanted,
    /// Of no holder yet.
    Wanted,
    Shared(Vec<u32>),
    Unread,
}

impl Look {
    fn new(uid: u32, sockets: &Sockets, with_groups: bool) -> Self {
        let wanted: Vec<u32> = sockets.listening.iter().copied().chain(sockets.accepted).collect();
        Self {
            uid,
            missing: wanted.clone(),
            wanted,
            pids: Vec::new(),
            gid: None,
            groups: if with_groups { Groups::Wanted } else { Groups::NotWanted },
            disagree: false,
            hidden: false,
            budget: Budget::new(),
        }
    }

    fn visit(&mut self, process: Result<Process, Unread>) -> ControlFlow<()> {
        match process.and_then(|process| self.examine(&process)) {
            Ok(()) | Err(Unread::Gone) => {}
            Err(Unread::Hidden) => self.hidden = true,
        }
        if self.disagree { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn examine(&mut self, process: &Process) -> Result<(), Unread> {
        let (wanted, mut held) = (&self.wanted, Vec::new());
        process.each_socket(&mut self.budget, |inode| {
            if wanted.contains(&inode) && !held.contains(&inode) {
                held.push(inode);
            }
            if held.len() < wanted.len() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if held.is_empty() {
            return Ok(());
        }
        let wants_groups = matches!(self.groups, Groups::Wanted | Groups::Shared(_));
        let status = process.status(wants_groups)?;
        let credentials = status.credentials()?;
        // A set-user-id program carries the group of whoever started it, who is not the owner.
        let is_the_owners = credentials.real_uid == self.uid && credentials.effective_uid == self.uid;
        let gid = *self.gid.get_or_insert(credentials.effective_gid);
        self.disagree |= !is_the_owners || gid != credentials.effective_gid;
        // Who asks for all groups wants to know what the process may do: a set-group-id program's group is not its user's.
        self.disagree |=
            !matches!(self.groups, Groups::NotWanted) && credentials.real_gid != credentials.effective_gid;
        self.missing.retain(|inode| !held.contains(inode));
        self.pids.push(process.pid);
        match &mut self.groups {
            Groups::NotWanted | Groups::Unread => {}
            Groups::Wanted => {
                self.groups = status.supplementary_groups().map_or(Groups::Unread, Groups::Shared);
            }
            Groups::Shared(shared) => match status.supplementary_groups() {
                Ok(groups) => shared.retain(|gid| groups.contains(gid)),
                Err(_) => self.groups = Groups::Unread,
            },
        }
        Ok(())
    }

    /// A holder only if every socket was seen held, by processes that agree, and none was kept from us: an unseen
    /// process could be one that disagrees.
    fn verdict(&self) -> Result<Holder, UnknownGroup> {
        if self.disagree {
            return Err(UnknownGroup::Disagree);
        }
        if self.hidden {
            return Err(UnknownGroup::NotPermitted);
        }
        let groups = match &self.groups {
            Groups::Shared(shared) => Some(shared.clone()),
            Groups::NotWanted | Groups::Wanted | Groups::Unread => None,
        };
        match (self.gid, self.pids.first()) {
            (Some(gid), Some(&pid)) if self.missing.is_empty() => Ok(Holder { pid, gid, groups }),
            _ => Err(UnknownGroup::NoHolderSeen),
        }
    }
}

#[cfg(test)]
mod tests;
