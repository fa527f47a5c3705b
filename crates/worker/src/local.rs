//! The worker of `portreeve up`: a thread in the portal's own process, reached like any other, by connections that are handed
//! over. Nothing of it is done by the threads that serve the browser.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;

use portreeve_broker::{Forwards, Verifier};
use portreeve_jobs::Person;
use portreeve_jobs::catalog::OWN;
use portreeve_model::config::WorkspaceConfig;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use crate::desk::Desk;
use crate::jobs::Workplace;
use crate::process::{leave, unix_seconds};
use crate::ticket::Keys;
use crate::workspace::here::{Look, Machine};
use crate::workspace::own_forwards;
use crate::{connection, limits};

/// What it is to know.
pub struct Settings {
    /// Whose it is.
    pub person: Person,
    /// The portal's state directory.
    pub state: PathBuf,
    /// What this machine is called.
    pub machine: String,
    /// What listens on it.
    pub look: Look,
    /// The directory of forwards.
    pub forwards: PathBuf,
    /// What can be started.
    pub site: WorkspaceConfig,
    /// What tickets are verified with.
    pub keys: Verifier,
}

/// It runs, until this is dropped.
#[derive(Debug, Clone)]
pub struct Local(mpsc::UnboundedSender<UnixStream>);

/// It is gone.
#[derive(Debug, thiserror::Error)]
#[error("the worker's thread has ended")]
pub struct Gone;

impl Local {
    /// Starts it.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let (sender, connections) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::BLOCKING_THREADS)
            .thread_keep_alive(limits::BLOCKING_IDLE)
            .build()?;
        std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, serve(settings, connections));
            leave(runtime, tasks);
        })?;
        Ok(Self(sender))
    }

    /// Hands a connection of the portal's over.
    ///
    /// # Errors
    /// When it is gone.
    pub fn take(&self, connection: UnixStream) -> Result<(), Gone> {
        self.0.send(connection).map_err(|_| Gone)
    }
}

async fn serve(settings: Settings, mut connections: mpsc::UnboundedReceiver<UnixStream>) {
    let home = settings.person.home.clone();
    let place = Workplace {
        own_apps: settings.site.own_apps.then(|| home.join(OWN)),
        state: settings.state,
        here: Some(settings.machine.clone()),
        is_up: true,
        forwards: Forwards::in_dir(settings.forwards),
        person: settings.person,
        site: settings.site,
    };
    let machine = Machine { name: settings.machine, look: settings.look };
    let desk = Rc::new(Desk::new(place, Some(machine), unix_seconds, own_forwards));
    desk.keys.replace(Some(Keys::of(settings.keys)));
    let mut tasks = JoinSet::new();
    while let Some(connection) = connections.recv().await {
        while tasks.try_join_next().is_some() {}
        let stream =
            connection.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(connection));
        match stream {
            // One too many is closed, which says it.
            Ok(stream) if tasks.len() < limits::CONNECTIONS => {
                tasks.spawn_local(connection::serve(stream, Rc::clone(&desk), true));
            }
            Ok(_) => tracing::warn!(most = limits::CONNECTIONS, "one connection too many"),
            Err(error) => tracing::warn!(%error, "a connection can't be used"),
        }
    }
}
