//! Root's process on a cluster: it forks, and does nothing else. Before: systemd, which starts it. After: the broker, its
//! first child, whose orders (`wire::spawner`) it obeys, and whoever the orders start.
//!
//! | module | what |
//! | --- | --- |
//! | `serve` | the loop: orders in, news out, ended children |
//! | `children` | which there are, and until when |
//! | `start` | what is started for an order, and what is refused |
//! | `look_up` | a child: asks the user database |
//! | `forward` | a child: reads a forward file for a visitor |
//! | `program` | a child: becomes `portreeve-pam` |
//!
//! Invariants: one thread, no wait but the one in `serve`. Nothing is started for root, nor for a uid below
//! `Settings::first_uid`, whoever asks. Programs and directories come from the settings, never from an order. A child has
//! standard error, the one descriptor that came with its order, and no other.

mod children;
mod forward;
mod look_up;
mod program;
mod serve;
mod start;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use portreeve_sys::process::{ForkError, fork};

/// What root's process must know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// No user below this uid is served.
    pub first_uid: u32,
    /// The program `portreeve-pam`, absolute.
    pub pam: PathBuf,
    /// The directory of forward files, absolute.
    pub forwards: PathBuf,
    /// A look-up that took so long is killed: the user database or a network file system hangs. So is a program for a user
    /// whose name takes so long, in whole seconds.
    pub look_up_patience: Duration,
    /// A program that was asked to end, and did not within this time, is killed.
    pub end_patience: Duration,
}

impl Settings {
    /// How long a look-up may take.
    pub const LOOK_UP_PATIENCE: Duration = Duration::from_secs(10);
    /// How long a program may take to end.
    pub const END_PATIENCE: Duration = Duration::from_secs(10);
}

/// Why root's process can't go on.
#[derive(Debug, thiserror::Error)]
pub enum SpawnerError {
    /// The broker is gone. All its children were ended; whoever started this process starts it again.
    #[error("the broker has ended")]
    BrokerEnded,
    /// The system refused what every process may do.
    #[error("can't {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The broker could not be forked.
    #[error("the broker can't be started")]
    Fork(#[from] ForkError),
}

fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> SpawnerError {
    move |source| SpawnerError::System { doing, source: source.into() }
}

/// Forks the broker, which runs `broker` with its end of the channel and exits with that status, and obeys it until one of
/// the two ends. `broker` is given this process's id, to die with it. Every descriptor that this process has by now is
/// the broker's too.
///
/// # Errors
/// See [`SpawnerError`]. No error when a signal asked for the end.
pub fn run(settings: &Settings, broker: impl FnOnce(OwnedFd, Pid) -> u8) -> Result<(), SpawnerError> {
    let signals = serve::hold_signals()?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(system("make the broker's channel"))?;
    let parent = nix::unistd::getpid();
    let mut ours = Some(ours);
    let pid = fork(|| {
        // Else the broker would keep its own channel open.
        ours.take();
        broker(theirs, parent)
    })?;
    let ours = ours.ok_or(SpawnerError::BrokerEnded)?;
    serve::serve(settings, ours, &signals, Some(pid))
}

/// Obeys the orders of whoever holds the other end of `channel`, until it is closed or a signal asks for the end.
///
/// # Errors
/// See [`SpawnerError`].
pub fn serve(settings: &Settings, channel: OwnedFd) -> Result<(), SpawnerError> {
    serve::serve(settings, channel, &serve::hold_signals()?, None)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
