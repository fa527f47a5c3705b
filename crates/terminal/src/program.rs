//! The program on its pseudoterminal. After: `room`, which gets what it writes.
//!
//! Invariants: its output is read whether anybody looks or not. Typed bytes reach it whole and in order; as long as it
//! takes none, they wait here, at most `limits::INPUT` pieces. No program outlives this process's interest in it.

use std::io;
use std::process::ExitStatus;
use std::rc::Rc;

use bytes::Bytes;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pty_process::{OwnedReadPty, OwnedWritePty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::limits;
use crate::room::Room;
use crate::settings::{Settings, TOKEN_VARIABLE};
use crate::size::Size;

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// None was named.
    #[error("no program was named")]
    None,
    /// There is no pseudoterminal.
    #[error("there is no pseudoterminal for it")]
    Pty(#[source] pty_process::Error),
    /// It could not be started.
    #[error("{program} can't be started")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: pty_process::Error,
    },
    /// Its end can't be waited for.
    #[error("the program's end can't be waited for")]
    Wait(#[source] io::Error),
}

/// One that runs.
pub(crate) struct Program {
    child: Child,
    group: Option<Pid>,
}

/// Starts it, on a terminal of [`Size::FIRST`].
pub(crate) fn start(settings: &Settings) -> Result<(Program, OwnedReadPty, OwnedWritePty), ProgramError> {
    let (name, arguments) = settings.program.split_first().ok_or(ProgramError::None)?;
    let (pty, pts) = pty_process::open().map_err(ProgramError::Pty)?;
    pty.resize(pty_size(Size::FIRST)).map_err(ProgramError::Pty)?;
    let mut command = pty_process::Command::new(name)
        .args(arguments)
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor")
        // Of the terminal that this process has, if any.
        .env_remove("LINES")
        .env_remove("COLUMNS")
        // What it prints may be seen by others.
        .env_remove(TOKEN_VARIABLE)
        .envs(settings.environment.iter().map(|(key, value)| (key, value)))
        .kill_on_drop(true);
    if let Some(directory) = &settings.directory {
        command = command.current_dir(directory);
    }
    let child = command
        .spawn(pts)
        .map_err(|source| ProgramError::Start { program: name.to_string_lossy().into_owned(), source })?;
    // It leads a session, and with it a group of its own number.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (output, input) = pty.into_split();
    Ok((Program { child, group }, output, input))
}

fn pty_size(size: Size) -> pty_process::Size {
    pty_process::Size::new(size.rows, size.cols)
}

impl Program {
    /// Its process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its end.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus, ProgramError> {
        self.child.wait().await.map_err(ProgramError::Wait)
    }

    /// Tells it that its terminal has gone. If that does not end it, it is ended.
    pub(crate) async fn hang_up(&mut self) -> Result<ExitStatus, ProgramError> {
        // One that is stopped could not hear it.
        self.signal(Signal::SIGHUP);
        self.signal(Signal::SIGCONT);
        if let Ok(ended) = timeout(limits::HANG_UP, self.ended()).await {
            return ended;
        }
        self.signal(Signal::SIGKILL);
        self.ended().await
    }

    fn signal(&self, signal: Signal) {
        // Without an id it has been waited for: the number may be somebody else's.
        let group = self.group.filter(|_| self.child.id().is_some());
        if let Some(Err(error)) = group.map(|group| killpg(group, signal)) {
            tracing::debug!(%error, %signal, "the program was not signalled");
        }
    }
}

/// Reads what it writes, until nobody has the terminal open any more.
pub(crate) async fn read(mut output: OwnedReadPty, room: Rc<Room>) {
    let mut buffer = vec![0; limits::READ];
    loop {
        match output.read(&mut buffer).await {
            // Linux says EIO when the last program has closed it.
            Ok(0) | Err(_) => return,
            Ok(count) => room.append(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Writes what was typed, and sets the terminal's size; a program that reads nothing is told its size none the less.
pub(crate) async fn write(
    mut input: OwnedWritePty,
    mut typed: mpsc::Receiver<Bytes>,
    mut sizes: watch::Receiver<Size>,
) {
    let mut piece = Bytes::new();
    loop {
        tokio::select! {
            changed = sizes.changed() => {
                if changed.is_err() {
                    return;
                }
                let size = *sizes.borrow_and_update();
                if let Err(error) = input.resize(pty_size(size)) {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the size was not set");
                }
            }
            next = typed.recv(), if piece.is_empty() => match next {
                Some(next) => piece = next,
                None => return,
            },
            written = input.write(&piece), if !piece.is_empty() => match written {
                Ok(count) => drop(piece.split_to(count.min(piece.len()))),
                // Nobody has the terminal open any more.
                Err(_) => return,
            },
        }
    }
}
