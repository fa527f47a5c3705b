//! What all requests share. One thread has it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use portreeve_broker::{Forwards, Verifier};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::jobs::{Hangs, Jobs, Workplace};
use crate::limits;
use crate::ticket::Ended;
use crate::workspace::{OwnForward, here::Machine};

/// How the forwards of a uid are listed. Blocks.
pub(crate) type List = fn(&Forwards, u32) -> Result<Vec<OwnForward>, String>;

pub(crate) struct Desk {
    pub(crate) uid: u32,
    pub(crate) clock: fn() -> i64,
    /// What tickets are verified with, once it was told.
    pub(crate) keys: RefCell<Option<Verifier>>,
    /// Whose tickets are none any more.
    pub(crate) ended: RefCell<Ended>,
    pub(crate) forwards: Forwards,
    pub(crate) jobs: Rc<Jobs>,
    /// `portreeve up`: the machine that is looked at.
    pub(crate) machine: Option<Machine>,
    list: List,
    lists: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
}

impl Desk {
    pub(crate) fn new(place: Workplace, machine: Option<Machine>, clock: fn() -> i64, list: List) -> Self {
        Self {
            uid: place.person.uid,
            clock,
            keys: RefCell::default(),
            ended: RefCell::default(),
            forwards: place.forwards.clone(),
            jobs: Jobs::new(place, clock),
            machine,
            list,
            lists: Arc::new(Semaphore::new(limits::FORWARDS_LISTS)),
            transfers: Arc::new(Semaphore::new(limits::TRANSFERS)),
        }
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
        let transfers = Arc::clone(&self.transfers);
        let acted = async move {
            let place = transfers.acquire_owned().await.ok()?;
            let act = move || {
                let _place = place;
                act()
            };
            tokio::task::spawn_blocking(act).await.ok()
        };
        timeout(limits::TRANSFER, acted).await.ok().flatten().ok_or(Hangs)
    }
}
