//! Looks at processes, for the group rule. To search for them takes milliseconds, on threads of their own, so that no other
//! packet waits for it; a glance at the few that were found a moment ago takes less than a thread's turn.
//! What is looked for are the listener's effective group, its owner's login group, and the connector's groups.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;
use nix::unistd::{Uid, User};
use portreeve_model::firewall::ConnectorGroups;
use portreeve_model::wire::firewall::Flow;
use portreeve_model::{LoginGroup, OwnerGroups};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits;
use crate::lookup::{End, Lookup};

const LOGIN_GROUPS: NonZeroUsize = NonZeroUsize::new(limits::LOGIN_GROUPS).expect("not 0");

/// Makes looks.
pub(super) struct Looks {
    lookup: Lookup,
    login_groups: Mutex<LruCache<u32, (Instant, Option<LoginGroup>)>>,
    places: Arc<Semaphore>,
}

impl Looks {
    pub(super) fn open() -> std::io::Result<Self> {
        Ok(Self {
            lookup: Lookup::open()?,
            login_groups: Mutex::new(LruCache::new(LOGIN_GROUPS)),
            places: Arc::new(Semaphore::new(limits::LOOKS)),
        })
    }

    /// A place for one look; `None` when too many wait.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Blocks for milliseconds.
    pub(super) fn listener(
        &self,
        flow: &Flow,
        interface: u32,
        ends: &[End],
    ) -> (OwnerGroups, Option<LoginGroup>) {
        let group = self.lookup.listeners_group(flow, interface, ends);
        (group, owner_of_group(group, ends).and_then(|uid| self.login_group(uid)))
    }

    /// The same if it is known where to look; takes less time than to have another thread do it.
    pub(super) fn listener_at_a_glance(
        &self,
        flow: &Flow,
        interface: u32,
        ends: &[End],
    ) -> Option<(OwnerGroups, Option<LoginGroup>)> {
        let group = self.lookup.listeners_group_at_a_glance(flow, interface, ends)?;
        let login = match owner_of_group(group, ends) {
            Some(uid) => self.known_login_group(uid)?,
            None => None,
        };
        Some((group, login))
    }

    /// Whether one who connects to these is likely to be let through by a group.
    pub(super) fn expects_groups(&self, ends: &[End]) -> bool {
        self.lookup.expects_groups(ends)
    }

    /// As [`Self::listener_at_a_glance`].
    pub(super) fn connector_at_a_glance(&self, end: &End) -> Option<ConnectorGroups> {
        self.lookup.connectors_groups_at_a_glance(end)
    }

    /// Blocks for milliseconds.
    pub(super) fn connector(&self, end: &End) -> ConnectorGroups {
        self.lookup.connectors_groups(end)
    }

    /// From the user database, which may be far away.
    fn login_group(&self, uid: u32) -> Option<LoginGroup> {
        if let Some(known) = self.known_login_group(uid) {
            return known;
        }
        let found = match User::from_uid(Uid::from_raw(uid)) {
            // Whether it is private is of no account here: whoever connects is somebody else.
            Ok(Some(user)) => Some(LoginGroup { gid: user.gid.as_raw(), private: false }),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, uid, "the user database can't be asked: no group opens this user's ports");
                return None;
            }
        };
        let mut known = self.login_groups.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(uid, (Instant::now(), found));
        found
    }

    fn known_login_group(&self, uid: u32) -> Option<Option<LoginGroup>> {
        let mut known = self.login_groups.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, group) = known.get(&uid)?;
        (since.elapsed() < limits::LOGIN_GROUP_FRESH).then_some(*group)
    }
}

/// Whose login group makes a difference, once a group was found.
fn owner_of_group(group: OwnerGroups, ends: &[End]) -> Option<u32> {
    let end = ends.first().filter(|_| matches!(group, OwnerGroups::Egid(_)))?;
    Some(end.uid)
}
