//! What all requests share. One thread has it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portreeve_broker::Forwards;
use portreeve_dav::Dav;
use portreeve_files::Roots;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::jobs::{Hangs, Jobs, Workplace};
use crate::limits;
use crate::routes::{Snapshot, Uploads};
use crate::ticket::{Ended, Keys};
use crate::workspace::{OwnForward, here::Machine};

/// How the forwards of a uid are listed. Blocks.
pub(crate) type List = fn(&Forwards, u32) -> Result<Vec<OwnForward>, String>;

pub(crate) struct Desk {
    pub(crate) uid: u32,
    pub(crate) clock: fn() -> i64,
    /// What tickets are verified with, once it was told.
    pub(crate) keys: RefCell<Option<Keys>>,
    /// Whose tickets are none any more.
    pub(crate) ended: RefCell<Ended>,
    pub(crate) forwards: Forwards,
    pub(crate) jobs: Rc<Jobs>,
    /// `portreeve up`: the machine that is looked at.
    pub(crate) machine: Option<Machine>,
    /// Files, by WebDAV.
    pub(crate) dav: Arc<Dav>,
    /// Directories as they were looked at last.
    pub(crate) snapshots: RefCell<Vec<Arc<Snapshot>>>,
    /// Files that come in parts.
    pub(crate) uploads: Uploads,
    list: List,
    lists: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

impl Desk {
    pub(crate) fn new(place: Workplace, machine: Option<Machine>, clock: fn() -> i64, list: List) -> Self {
        Self {
            uid: place.person.uid,
            clock,
            keys: RefCell::default(),
            ended: RefCell::default(),
            forwards: place.forwards.clone(),
            dav: Arc::new(Dav::new(Roots::new(place.site.roots.clone()))),
            jobs: Jobs::new(place, clock),
            machine,
            snapshots: RefCell::default(),
            uploads: Uploads::default(),
            list,
            lists: Arc::new(Semaphore::new(limits::FORWARDS_LISTS)),
            transfers: Arc::new(Semaphore::new(limits::TRANSFERS)),
            changes: Arc::new(Semaphore::new(limits::CHANGES)),
        }
    }

    /// Whether somebody counts on what this process alone knows: a lock, or a file of which a part is there.
    pub(crate) fn is_expected(&self) -> bool {
        self.dav.has_locks() || self.uploads.is_expected()
    }

    /// The person's forwards, or a clause saying why they can't be listed: a file system that hangs holds no page up.
    pub(crate) async fn own_forwards(&self) -> Result<Vec<OwnForward>, String> {
        let hangs = || Err(format!("{} does not answer", self.forwards.dir().display()));
        let Ok(place) = Arc::clone(&self.lists).try_acquire_owned() else { return hangs() };
        let (list, forwards, uid) = (self.list, self.forwards.clone(), self.uid);
        let listing = tokio::task::spawn_blocking(move || {
            // Kept until it ends, also when nobody waits for it any more.
            let _place = place;
            list(&forwards, uid)
        });
        match timeout(limits::FORWARDS_LIST, listing).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(_)) => Err("the list broke off".to_owned()),
            Err(_) => hangs(),
        }
    }

    /// Reads or writes a piece of a file, on a thread of its own. What hangs holds up other transfers, and no page.
    pub(crate) async fn transfer<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hangs> {
        act_aside(&self.transfers, limits::TRANSFER, act).await
    }

    /// Looks at files, on a thread of its own: what hangs is said before the portal gives up this process.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hangs> {
        act_aside(&self.transfers, limits::LOOK, act).await
    }

    /// Changes much at once, on a thread of its own.
    pub(crate) async fn at_length<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hangs> {
        act_aside(&self.changes, limits::CHANGE, act).await
    }
}

async fn act_aside<T: Send + 'static>(
    places: &Arc<Semaphore>,
    patience: Duration,
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Hangs> {
    let places = Arc::clone(places);
    let acted = async move {
        let place = places.acquire_owned().await.ok()?;
        let act = move || {
            // Kept until it ends, also when nobody waits for it any more.
            let _place = place;
            act()
        };
        tokio::task::spawn_blocking(act).await.ok()
    };
    timeout(patience, acted).await.ok().flatten().ok_or(Hangs)
}
