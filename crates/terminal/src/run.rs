//! The life of a terminal: it listens, starts its program, shows it, and ends after it.
//!
//! Invariants: the port is open before the program runs. When this ends, so has the program, and every browser that was
//! there was told how, or has had the time for it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::desk::Desk;
use crate::ended::Ended;
use crate::program::{self, Program, ProgramError};
use crate::room::Room;
use crate::settings::{Settings, random};
use crate::size::Size;
use crate::{connection, limits};

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The address can't be listened on.
    #[error("{address} can't be listened on")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server can't begin.
    #[error("the terminal's server can't begin")]
    Runtime(#[source] io::Error),
    /// The system has no random numbers.
    #[error("there are no random numbers")]
    Random(#[source] getrandom::Error),
    /// The program can't run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// A terminal that listens; its program is yet to begin.
#[derive(Debug)]
pub struct Terminal {
    settings: Settings,
    listener: StdListener,
    address: SocketAddr,
    stop: Stop,
}

/// Ends a terminal from elsewhere, as SIGTERM does.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Hangs up on the program; a second time, the server ends at once after it.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// Listens, runs the program, and returns how it ended. Blocks. SIGTERM, SIGHUP and SIGINT are taken: the program's
/// terminal is hung up, and 10 seconds later it is killed.
///
/// # Errors
/// When the address can't be listened on, or the program can't be started.
pub fn run(settings: Settings) -> Result<ExitStatus, TerminalError> {
    Terminal::bind(settings)?.run()
}

impl Terminal {
    /// Listens. Whoever connects waits for [`Terminal::run`].
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn bind(settings: Settings) -> Result<Self, TerminalError> {
        let failed = |source| TerminalError::Listen { address: settings.listen, source };
        let listener = StdListener::bind(settings.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { settings, listener, address, stop: Stop(Arc::default()) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs the program and returns how it ended, as [`run`] does.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn run(self) -> Result<ExitStatus, TerminalError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TerminalError::Runtime)?;
        let ended = LocalSet::new().block_on(&runtime, self.serve());
        // A file system that hangs does not hold up the end.
        runtime.shutdown_timeout(limits::GOODBYE);
        ended
    }

    async fn serve(self) -> Result<ExitStatus, TerminalError> {
        let listener = TcpListener::from_std(self.listener).map_err(TerminalError::Runtime)?;
        let run = random::<16>().map_err(TerminalError::Random)?;
        let mut told = Told::new(self.stop).map_err(TerminalError::Runtime)?;
        let (typed, to_type) = mpsc::channel(limits::INPUT);
        let (sizes, size) = watch::channel(Size::FIRST);
        let room = Rc::new(Room::new(run, self.settings.title.clone(), typed, sizes));
        let (mut program, output, input) = program::start(&self.settings)?;
        let desk = Rc::new(Desk::new(self.settings, self.address.port(), Rc::clone(&room), program.id()));

        let mut ends = JoinSet::new();
        ends.spawn_local(program::read(output, Rc::clone(&room)));
        let mut writes = JoinSet::new();
        writes.spawn_local(program::write(input, to_type, size));
        let shown = async {
            let (ended, asked_to) = lived(&mut program, &mut told).await?;
            let _ = timeout(limits::DRAIN, ends.join_next()).await;
            room.end(Ended::from(ended));
            tokio::select! {
                () = lingered(&desk, asked_to) => {}
                () = told.said() => {}
            }
            room.close();
            let _ = timeout(limits::GOODBYE, room.empty()).await;
            Ok(ended)
        };
        let ended = tokio::select! {
            ended = shown => ended,
            never = accept(&listener, &desk) => match never {},
        };
        desk.clear();
        ended
    }
}

/// Waits for the program's end, which may be asked for. Says whether it was.
async fn lived(program: &mut Program, told: &mut Told) -> Result<(ExitStatus, bool), ProgramError> {
    tokio::select! {
        ended = program.ended() => return Ok((ended?, false)),
        () = told.said() => {}
    }
    tracing::info!("the terminal is to end; its program is hung up on");
    Ok((program.hang_up().await?, true))
}

/// For browsers that have yet to show the program's end, and then for those that may fetch what it wrote, unless the
/// whole is to end.
async fn lingered(desk: &Desk, asked_to: bool) {
    let _ = timeout(desk.settings.linger, desk.room.seen()).await;
    if !asked_to {
        let _ = timeout(desk.settings.fetch, desk.room.left()).await;
    }
}

async fn accept(listener: &TcpListener, desk: &Rc<Desk>) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if desk.busy() < limits::CONNECTIONS => {
                desk.beside(connection::serve(stream, Rc::clone(desk)));
            }
            Ok((_, from)) => tracing::warn!(%from, "too many connections: one more is closed"),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who says that it is time to end.
struct Told {
    signals: [Signal; 3],
    stop: Stop,
}

impl Told {
    fn new(stop: Stop) -> io::Result<Self> {
        let signals = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        ];
        Ok(Self { signals, stop })
    }

    async fn said(&mut self) {
        let [terminate, hang_up, interrupt] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
            () = self.stop.0.notified() => {}
        }
    }
}
