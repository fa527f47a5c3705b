//! The person's jobs: what can be started, what is going on, and what was. Everything that pages and programs see of jobs comes
//! from here.
//!
//! | file | what it does |
//! | --- | --- |
//! | `systems` | where jobs run, and what Slurm said last |
//! | `start` | starts one |
//! | `list` | all of them as they are now |
//! | `change` | ends one, gives it more time, shares it |
//! | `shared` | what groups are shown of jobs that are over |
//! | `by_hand` | what was started without the workspace |
//!
//! Invariant: files are looked at on threads of their own, and Slurm is asked by commands that end: whatever hangs, the worker
//! answers.

mod by_hand;
mod change;
mod list;
mod shared;
mod start;
mod systems;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use portreeve_broker::Forwards;
use portreeve_jobs::{Catalog, EntryId, History, Kept, Person};
use portreeve_model::config::WorkspaceConfig;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub(crate) use by_hand::ByHand;
pub(crate) use change::Change;
pub(crate) use list::{Known, Listed};
pub(crate) use shared::ShownToMe;
pub(crate) use start::{Form, NotStarted, Wanted};
pub(crate) use systems::{System, Systems};

use crate::limits;

/// What a workplace is told when it begins.
#[derive(Debug, Clone)]
pub(crate) struct Workplace {
    pub(crate) person: Person,
    /// `~/.local/state/portreeve`, or that of `portreeve up`.
    pub(crate) state: PathBuf,
    /// `~/.config/portreeve/apps`.
    pub(crate) own_apps: Option<PathBuf>,
    pub(crate) site: WorkspaceConfig,
    /// What this machine is called where jobs run on it; `None`: none do.
    pub(crate) here: Option<String>,
    /// `portreeve up`: everything may run here, and there need be no Slurm.
    pub(crate) is_up: bool,
    pub(crate) forwards: Forwards,
}

/// The person's jobs.
pub(crate) struct Jobs {
    pub(crate) place: Workplace,
    pub(crate) history: History,
    pub(crate) systems: Systems,
    clock: fn() -> i64,
    /// What was read of the history.
    known: RefCell<BTreeMap<EntryId, Kept>>,
    /// The last list, and when it was made.
    listed: RefCell<Option<Rc<Listed>>>,
    /// Counts what was changed here: a list that was begun before is out of date.
    generation: Cell<u64>,
    /// Whether somebody makes a list now.
    listing: Rc<tokio::sync::Mutex<()>>,
    /// Counts what has changed, for whoever watches.
    version: watch::Sender<u64>,
    pub(crate) watchers: Cell<usize>,
    threads: Arc<Semaphore>,
}

/// Files did not answer, or too much is asked of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file system does not answer")]
pub(crate) struct Hangs;

impl Jobs {
    pub(crate) fn new(place: Workplace, clock: fn() -> i64) -> Rc<Self> {
        let history = History::below(&place.state);
        let systems = Systems::new(&place);
        Rc::new(Self {
            place,
            history,
            systems,
            clock,
            known: RefCell::default(),
            listed: RefCell::default(),
            generation: Cell::new(0),
            listing: Rc::default(),
            version: watch::Sender::new(0),
            watchers: Cell::new(0),
            threads: Arc::new(Semaphore::new(limits::FILE_LOOKS)),
        })
    }

    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Something changed: whoever watches is told.
    pub(crate) fn changed(&self) {
        self.generation.set(self.generation.get() + 1);
        self.version.send_modify(|version| *version += 1);
    }

    /// Told when something changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Looks at files on a thread of its own.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hangs> {
        let threads = Arc::clone(&self.threads);
        let looked = async move {
            let place = threads.acquire_owned().await.ok()?;
            let look = move || {
                // Kept until it ends, also when nobody waits for it any more.
                let _place = place;
                look()
            };
            tokio::task::spawn_blocking(look).await.ok()
        };
        timeout(limits::FILES, looked).await.ok().flatten().ok_or(Hangs)
    }

    /// The applications, as their files are now.
    pub(crate) async fn catalog(&self) -> Result<Catalog, Hangs> {
        let (site, own) = (self.place.site.apps.clone(), self.place.own_apps.clone());
        self.aside(move || Catalog::read(Some(&site), own.as_deref())).await
    }
}
