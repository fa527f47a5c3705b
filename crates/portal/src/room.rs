//! What one thread keeps for itself, so that no request waits for another thread's lock: its pool of connections, what
//! it remembers of tickets, places and forward files, its long-lived flows, its own look-up socket.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use lru::LruCache;
use portreeve_model::{ForwardName, LoginGroup};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::authenticate::Known;
use crate::flows::Flows;
use crate::limits;
use crate::pool::{Link, Pool};
use crate::portal::Portal;
use crate::powers::Powers;
use crate::resolve::ForwardEntry;
use crate::route::Place;

/// One thread's own.
pub(crate) struct Room {
    pub(crate) portal: Arc<Portal>,
    pub(crate) powers: Powers,
    pub(crate) pool: Pool,
    pub(crate) flows: Flows,
    pub(crate) tickets: RefCell<LruCache<Box<str>, Known>>,
    pub(crate) places: RefCell<LruCache<Box<str>, Rc<Place>>>,
    /// What forward files say, to each user of their own.
    pub(crate) forwards: RefCell<LruCache<(u32, ForwardName), ForwardEntry>>,
    pub(crate) tasks: TaskTracker,
    /// Login groups of other users, for a while.
    pub(crate) logins: RefCell<LruCache<u32, (Instant, Option<LoginGroup>)>>,
    /// The first flow or idle connection is there: `flows::sweep` has work.
    pub(crate) to_look_after: Notify,
    connections: Cell<u64>,
    last_stranger: Cell<Option<Instant>>,
    number: u64,
}

fn sized<K: std::hash::Hash + Eq, V>(most: usize) -> RefCell<LruCache<K, V>> {
    RefCell::new(LruCache::new(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)))
}

impl Room {
    pub(crate) fn open(portal: Arc<Portal>, number: u64) -> std::io::Result<Self> {
        Ok(Self {
            powers: Powers::open(&portal.service)?,
            portal,
            pool: Pool::default(),
            flows: Flows::default(),
            tickets: sized(limits::TICKETS),
            places: sized(limits::PLACES),
            forwards: sized(limits::PLACES),
            tasks: TaskTracker::new(),
            logins: sized(limits::LOGINS),
            to_look_after: Notify::new(),
            connections: Cell::new(0),
            last_stranger: Cell::new(None),
            number,
        })
    }

    /// Keeps a connection to an application for later.
    pub(crate) fn keep(&self, link: Link) {
        // A connection that is kept is a task that goes on.
        if self.portal.draining.is_cancelled() {
            return;
        }
        if self.pool.is_empty() {
            self.to_look_after.notify_one();
        }
        self.pool.put(link);
    }

    /// Closes the connections that are kept, because nothing will ask for them any more.
    pub(crate) fn stop_keeping(&self) {
        self.pool.clear();
    }

    /// Lets a stranger be written down, at most once in a while: nobody may fill the log from outside.
    pub(crate) fn note_stranger(&self, write: impl FnOnce()) {
        if self.last_stranger.get().is_none_or(|last| last.elapsed() >= limits::STRANGER_RECORDS) {
            self.last_stranger.set(Some(Instant::now()));
            write();
        }
    }

    /// A number for a new connection that no other connection of this process has.
    pub(crate) fn next_connection(&self) -> u64 {
        let count = self.connections.get() + 1;
        self.connections.set(count);
        count << 8 | self.number
    }
}
