//! The life of `portreeve-worker`: what the broker says, the connections that it hands over, and when to leave.
//!
//! Invariants: with the control channel everything ends at once. A connection that was handed over is served, or its other
//! end sees it closed; none waits where nobody looks. Nothing is done before the first request but to read what was said.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portreeve_broker::{Forwards, Verifier};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::control::{Control, Heard};
use crate::ticket::Ended;
use crate::workspace::{OwnForward, own_forwards};
use crate::{connection, limits};

pub use crate::control::ControlError;

/// What a worker is to do. Fields may be changed after [`Settings::of`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose it is: nobody else's ticket is good.
    pub uid: u32,
    /// Without a connection for so long, it leaves.
    pub idle: Duration,
    /// The clock: unix seconds.
    pub clock: fn() -> i64,
    /// How the forwards of a uid are listed. Blocks.
    pub(crate) list: fn(&Forwards, u32) -> Result<Vec<OwnForward>, String>,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn of(uid: u32) -> Self {
        Self { uid, idle: limits::IDLE, clock: unix_seconds, list: own_forwards }
    }
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// What all requests share. One thread has it.
pub(crate) struct Desk {
    pub(crate) uid: u32,
    pub(crate) clock: fn() -> i64,
    /// What tickets are verified with, once it was told.
    pub(crate) keys: RefCell<Option<Verifier>>,
    /// Whose tickets are none any more.
    pub(crate) ended: RefCell<Ended>,
    pub(crate) forwards: Forwards,
    list: fn(&Forwards, u32) -> Result<Vec<OwnForward>, String>,
    lists: Arc<Semaphore>,
}

impl Desk {
    fn new(settings: &Settings, forwards: Forwards) -> Self {
        Self {
            uid: settings.uid,
            clock: settings.clock,
            keys: RefCell::default(),
            ended: RefCell::default(),
            forwards,
            list: settings.list,
            lists: Arc::new(Semaphore::new(limits::FORWARDS_LISTS)),
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
}

/// Serves until the control channel ends or nobody needs this process any more. Blocks.
///
/// # Errors
/// When the broker says something unexpected, or the system refuses. That the channel ended is none.
pub fn run(control: OwnedFd, settings: &Settings) -> Result<(), ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(limits::BLOCKING_THREADS)
        .thread_keep_alive(limits::BLOCKING_IDLE)
        .build()?;
    // Everything that runs belongs to this set, and ends with it.
    let ended = LocalSet::new().block_on(&runtime, serve(control, settings));
    // What hangs in a file system is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) | Err(ControlError::Closed) => Ok(()),
        Err(error) => Err(error),
    }
}

/// As [`run`], inside a `LocalSet`.
pub(crate) async fn serve(control: OwnedFd, settings: &Settings) -> Result<(), ControlError> {
    let mut control = Control::new(control)?;
    let Heard::Site { forwards } = control.next().await? else { return Err(ControlError::Order) };
    let mut open = Connections {
        desk: Rc::new(Desk::new(settings, Forwards::in_dir(forwards))),
        tasks: JoinSet::new(),
        lasting: true,
    };
    let mut quiet_since = Instant::now();
    loop {
        tokio::select! {
            heard = control.next() => open.take(heard?)?,
            Some(ended) = open.tasks.join_next() => {
                note(ended);
                quiet_since = Instant::now();
            }
            () = sleep_until(quiet_since + settings.idle), if open.tasks.is_empty() => break,
        }
    }
    // From here on the broker's message fails, and it starts another worker for what it wanted to hand over. What it
    // handed over before that is answered still.
    control.leave()?;
    open.lasting = false;
    loop {
        match control.waiting() {
            Ok(Some(heard)) => open.take(heard)?,
            Ok(None) | Err(ControlError::Closed) => break,
            Err(error) => return Err(error),
        }
    }
    while let Some(ended) = open.tasks.join_next().await {
        note(ended);
    }
    tracing::debug!("nobody needs this worker any more");
    Ok(())
}

/// The connections that are served.
struct Connections {
    desk: Rc<Desk>,
    tasks: JoinSet<()>,
    /// Whether they may stay after their first answer.
    lasting: bool,
}

impl Connections {
    fn take(&mut self, heard: Heard) -> Result<(), ControlError> {
        match heard {
            Heard::Site { .. } => return Err(ControlError::Order),
            Heard::Keys(keys) => drop(self.desk.keys.replace(Some(*keys))),
            Heard::Ended(ended) => drop(self.desk.ended.replace(ended)),
            Heard::Connection(stream) => self.begin(stream),
        }
        Ok(())
    }

    fn begin(&mut self, stream: UnixStream) {
        if self.tasks.len() >= limits::CONNECTIONS {
            // Closed, which says it.
            return tracing::warn!(most = limits::CONNECTIONS, "one connection too many");
        }
        self.tasks.spawn_local(connection::serve(stream, Rc::clone(&self.desk), self.lasting));
    }
}

/// A connection ended: by itself, or because what was done on it panicked, which costs that connection alone.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection was not served to its end");
    }
}
