//! What the spawner starts for the broker. Each child has a channel; its end is the child's.
//!
//! Invariant: a child that nobody holds any more has its channel closed, and is ended by force if it does not leave.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use portreeve_model::wire::spawner::{AT_ONCE, Order, SpawnerNews, Start};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::channel::{Buffer, Channel, ChannelError};
use super::limits;
use super::random::random;

/// Orders children, and hears of them.
pub(super) struct Children {
    spawner: Channel,
    next: Cell<u64>,
    table: Rc<RefCell<HashMap<u64, Entry>>>,
}

struct Entry {
    /// Waits for `Started` or `Refused`.
    started: Option<oneshot::Sender<Result<(), String>>>,
    state: Rc<Cell<State>>,
    /// When it was let go.
    released: Option<Instant>,
    /// It was ordered to end.
    told: bool,
    /// It is a worker's PAM session.
    is_worker: bool,
    /// Its process, once it runs.
    pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    Ended { at: Instant, status: Option<i32> },
}

/// One that runs, or did.
pub(super) struct Child {
    id: u64,
    channel: Channel,
    state: Rc<Cell<State>>,
    table: Rc<RefCell<HashMap<u64, Entry>>>,
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The system refused a channel.
    #[error("no channel for a child could be made")]
    Pair(#[source] io::Error),
    /// The spawner did not take the order.
    #[error("the spawner can't be reached")]
    Spawner(#[source] ChannelError),
    /// The spawner said no.
    #[error("the spawner refused: {0}")]
    Refused(String),
    /// The spawner said nothing.
    #[error("the spawner did not answer")]
    Silent,
}

impl Children {
    pub(super) fn new(spawner: OwnedFd) -> io::Result<Self> {
        // Numbers of a broker that ran before under the same spawner do not come again.
        let first = random().map_err(io::Error::other)?;
        let first = u64::from_be_bytes([0, first[0], first[1], first[2], first[3], first[4], 0, 0]);
        Ok(Self { spawner: Channel::new(spawner)?, next: Cell::new(first), table: Rc::default() })
    }

    fn number(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// Starts a child, and returns when it runs.
    pub(super) async fn start(&self, start: Start) -> Result<Child, StartError> {
        let (channel, theirs) = Channel::pair().map_err(StartError::Pair)?;
        let id = self.number();
        let (started, is_started) = oneshot::channel();
        let state = Rc::new(Cell::new(State::Runs));
        let entry = Entry {
            started: Some(started),
            state: Rc::clone(&state),
            released: None,
            told: false,
            is_worker: matches!(start, Start::Worker { .. }),
            pid: None,
        };
        self.table.borrow_mut().insert(id, entry);
        // From here on dropping it cleans up, whatever happens, also when nobody waits for us any more.
        let child = Child { id, channel, state, table: Rc::clone(&self.table) };
        let order = Order { child: id, start };
        let ordered = timeout(limits::START, self.spawner.send_with(&order, theirs.as_fd())).await;
        drop(theirs);
        ordered.map_err(|_| StartError::Silent)?.map_err(StartError::Spawner)?;
        match timeout(limits::START, is_started).await {
            Ok(Ok(Ok(()))) => Ok(child),
            Ok(Ok(Err(why))) => Err(StartError::Refused(why)),
            Ok(Err(_)) | Err(_) => Err(StartError::Silent),
        }
    }

    /// Whether there is room for one that stays: the last places are for sign-ins and look-ups, which leave again.
    pub(super) fn has_room_for_lasting(&self) -> bool {
        self.table.borrow().len() + limits::PASSING_CHILDREN < AT_ONCE
    }

    /// The processes that hold workers' PAM sessions.
    pub(super) fn workers(&self) -> Vec<u32> {
        let table = self.table.borrow();
        table.values().filter(|entry| entry.is_worker).filter_map(|entry| entry.pid).collect()
    }

    /// Hears the spawner until it is gone, which is the broker's end.
    pub(super) async fn hear(&self) -> ChannelError {
        let mut buffer = Buffer::new();
        loop {
            match self.spawner.receive_plain(&mut buffer).await {
                Ok(news) => self.heard(news),
                Err(error) => return error,
            }
        }
    }

    fn heard(&self, news: SpawnerNews) {
        let mut table = self.table.borrow_mut();
        match news {
            SpawnerNews::Started { child, pid } => {
                tracing::debug!(child, pid, "a child runs");
                if let Some(entry) = table.get_mut(&child) {
                    entry.pid = Some(pid);
                    if let Some(waiting) = entry.started.take() {
                        let _ = waiting.send(Ok(()));
                    }
                }
            }
            SpawnerNews::Refused { child, why } => {
                tracing::warn!(child, why, "the spawner refused to start a child");
                if let Some(mut entry) = table.remove(&child) {
                    entry.state.set(State::Ended { at: Instant::now(), status: None });
                    if let Some(waiting) = entry.started.take() {
                        let _ = waiting.send(Err(why));
                    }
                }
            }
            SpawnerNews::Ended { child, status } => {
                tracing::debug!(child, ?status, "a child ended");
                if let Some(entry) = table.remove(&child) {
                    entry.state.set(State::Ended { at: Instant::now(), status });
                }
            }
        }
    }

    /// So many more children, none of which there is.
    #[cfg(test)]
    pub(super) fn pretend(&self, more: usize) {
        for _ in 0..more {
            let state = Rc::new(Cell::new(State::Runs));
            let entry =
                Entry { started: None, state, released: None, told: false, is_worker: false, pid: None };
            self.table.borrow_mut().insert(self.number(), entry);
        }
    }

    /// Ends those by force that were let go a while ago and have not left.
    pub(super) async fn end_the_lasting(&self, now: Instant) {
        let is_late = |entry: &&mut Entry| {
            !entry.told
                && entry.released.is_some_and(|at| now.saturating_duration_since(at) > limits::CHILD_ENDS)
        };
        let mut late = Vec::new();
        for (id, entry) in self.table.borrow_mut().iter_mut() {
            if let Some(entry) = Some(entry).filter(is_late) {
                entry.told = true;
                late.push(*id);
            }
        }
        for child in late {
            tracing::warn!(child, "a child does not leave, and is ended");
            let order = Order { child: self.number(), start: Start::End { child } };
            if let Err(error) = self.spawner.send(&order).await {
                tracing::error!(%error, "the spawner can't be told to end a child");
            }
        }
    }
}

impl Child {
    /// Its channel.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// When it ended, and how, if it did.
    pub(super) fn ended(&self) -> Option<(Instant, Option<i32>)> {
        match self.state.get() {
            State::Runs => None,
            State::Ended { at, status } => Some((at, status)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(entry) = self.table.borrow_mut().get_mut(&self.id) {
            entry.released = Some(Instant::now());
        }
    }
}
