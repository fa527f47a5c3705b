//! The life of `portreeve-worker`: what the broker says, the connections that it hands over, and when to leave.
//!
//! Invariants: with the control channel everything ends at once. A connection that was handed over is served, or its other
//! end sees it closed; none waits where nobody looks. Nothing is done before the first request but to read what was said.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portreeve_broker::Forwards;
use portreeve_jobs::Person;
use portreeve_jobs::catalog::OWN;
use portreeve_model::config::WorkspaceConfig;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};

use crate::control::{Control, Heard};
use crate::desk::{Desk, List};
use crate::jobs::Workplace;
use crate::ticket::Keys;
use crate::workspace::own_forwards;
use crate::{connection, limits};

pub use crate::control::ControlError;

/// What a worker is to do. Fields may be changed after [`Settings::of`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose it is: nobody else's ticket is good.
    pub person: Person,
    /// Without a connection for so long, it leaves.
    pub idle: Duration,
    /// The clock: unix seconds.
    pub clock: fn() -> i64,
    /// How the forwards of a uid are listed. Blocks.
    pub(crate) list: List,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn of(person: Person) -> Self {
        Self { person, idle: limits::IDLE, clock: unix_seconds, list: own_forwards }
    }
}

pub(crate) fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
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
    let tasks = LocalSet::new();
    let ended = tasks.block_on(&runtime, serve(control, settings));
    leave(runtime, tasks);
    match ended {
        Ok(()) | Err(ControlError::Closed) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends all that runs. What was given up is removed, on other threads; what hangs in a file system is not waited for.
pub(crate) fn leave(runtime: Runtime, tasks: LocalSet) {
    let inside = runtime.enter();
    drop(tasks);
    drop(inside);
    runtime.shutdown_timeout(limits::LEAVE);
}

/// As [`run`], inside a `LocalSet`.
pub(crate) async fn serve(control: OwnedFd, settings: &Settings) -> Result<(), ControlError> {
    let mut control = Control::new(control)?;
    let Heard::Site { forwards, workspace } = control.next().await? else { return Err(ControlError::Order) };
    let place = workplace(settings, Forwards::in_dir(forwards), *workspace);
    let mut open = Connections {
        desk: Rc::new(Desk::new(place, None, settings.clock, settings.list)),
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
            () = sleep_until(quiet_since + settings.idle), if open.tasks.is_empty() => {
                if !open.desk.is_expected() {
                    break;
                }
                quiet_since = Instant::now();
            }
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

/// Where this person's jobs are.
fn workplace(settings: &Settings, forwards: Forwards, site: WorkspaceConfig) -> Workplace {
    let home = settings.person.home.clone();
    let own_apps = site.own_apps.then(|| home.join(OWN));
    let here = site.on_portal_node.then(|| "portal".to_owned());
    Workplace {
        state: home.join(".local/state/portreeve"),
        own_apps,
        here,
        is_up: false,
        forwards,
        person: settings.person.clone(),
        site,
    }
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
            Heard::Keys(keys) => drop(self.desk.keys.replace(Some(Keys::of(*keys)))),
            Heard::Ended(ended) => drop(self.desk.ended.replace(ended)),
            Heard::Connection(stream) => self.begin(stream),
            Heard::Lost => tracing::warn!("a connection could not be taken: too much is open"),
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
