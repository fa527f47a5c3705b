//! The control channel: what the broker says, message by message.
//!
//! Invariants: a message is whole, understood, and brings a descriptor exactly if it is a connection; anything else ends
//! the channel, and with it the worker, but for a descriptor for which this process has no room. What is left to be read after [`Control::leave`] is all there will ever be: whoever
//! says more is told that nobody is there.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockopt, sockopt};
use portreeve_broker::Verifier;
use portreeve_broker::verifier::NotAKey;
use portreeve_model::WireError;
use portreeve_model::config::WorkspaceConfig;
use portreeve_model::wire::worker::ToWorker;
use portreeve_model::wire::{MAX_FRAME, decode};
use portreeve_sys::message::{self, Message, ReceiveError};
use tokio::net::UnixStream;
use tokio_seqpacket::UnixSeqpacket;

use crate::ticket::Ended;

/// The worker's end.
pub(crate) struct Control {
    channel: UnixSeqpacket,
    buffer: Box<[u8]>,
}

/// What was said.
pub(crate) enum Heard {
    Site {
        forwards: PathBuf,
        workspace: Box<WorkspaceConfig>,
    },
    Keys(Box<Verifier>),
    Ended(Ended),
    Connection(UnixStream),
    /// A connection that could not be taken.
    Lost,
}

/// Why nothing more is heard.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The broker has closed it: nobody needs this worker any more.
    #[error("the control channel has ended")]
    Closed,
    /// A message that can't be received whole.
    #[error("a message of the broker's can't be received")]
    Receive(#[source] ReceiveError),
    /// A message that can't be understood.
    #[error("a message of the broker's can't be understood")]
    Frame(#[from] WireError),
    /// A key that is none.
    #[error(transparent)]
    Key(#[from] NotAKey),
    /// A descriptor where none belongs, none where one does, or one of another kind.
    #[error("a message of the broker's has not the descriptor that belongs to it")]
    Descriptor,
    /// The site was not told first, or told twice.
    #[error("the broker does not begin with what is so for everybody")]
    Order,
    /// The system refused.
    #[error("the control channel can't be used")]
    Io(#[from] io::Error),
}

impl Control {
    pub(crate) fn new(channel: OwnedFd) -> io::Result<Self> {
        Ok(Self { channel: UnixSeqpacket::try_from(channel)?, buffer: vec![0; MAX_FRAME].into() })
    }

    /// Waits for the next message. Nothing is lost when nobody waits any more.
    pub(crate) async fn next(&mut self) -> Result<Heard, ControlError> {
        loop {
            if let Some(heard) = self.waiting()? {
                return Ok(heard);
            }
            let mut ready = self.channel.as_async_fd().readable().await?;
            ready.clear_ready();
            drop(ready);
            // It may have come in between.
            if let Some(heard) = self.waiting()? {
                return Ok(heard);
            }
        }
    }

    /// The next message, if one waits.
    pub(crate) fn waiting(&mut self) -> Result<Option<Heard>, ControlError> {
        match message::receive(&self.channel, &mut self.buffer, 1) {
            Ok(message) => understood(message).map(Some),
            // Nothing more can be opened here: the portal sees that connection closed, and the others go on.
            Err(ReceiveError::NoRoom) => Ok(Some(Heard::Lost)),
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(ReceiveError::Closed) => Err(ControlError::Closed),
            Err(error) => Err(ControlError::Receive(error)),
        }
    }

    /// From now on the broker can't send anything; what it has sent before can be read still, and then `Closed`.
    pub(crate) fn leave(&self) -> io::Result<()> {
        self.channel.shutdown(Shutdown::Read)
    }
}

fn understood(message: Message<'_>) -> Result<Heard, ControlError> {
    let Message { bytes, mut descriptors } = message;
    match (decode(bytes)?, descriptors.pop()) {
        (ToWorker::Site { forwards, workspace }, None) => {
            Ok(Heard::Site { forwards, workspace: workspace.into() })
        }
        (ToWorker::Keys(keys), None) => Ok(Heard::Keys(Verifier::of_keys(&keys)?.into())),
        (ToWorker::Ended { sessions, until }, None) => {
            Ok(Heard::Ended(Ended { sessions: sessions.into_iter().collect(), until }))
        }
        (ToWorker::Connection, Some(descriptor)) => connection(descriptor).map(Heard::Connection),
        (ToWorker::Site { .. } | ToWorker::Keys(_) | ToWorker::Ended { .. }, Some(_))
        | (ToWorker::Connection, None) => Err(ControlError::Descriptor),
    }
}

/// One end of a pair of streams of this machine.
fn connection(descriptor: OwnedFd) -> Result<UnixStream, ControlError> {
    let is_stream = getsockopt(&descriptor, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
    if !is_stream || getpeername::<UnixAddr>(descriptor.as_raw_fd()).is_err() {
        return Err(ControlError::Descriptor);
    }
    let stream = std::os::unix::net::UnixStream::from(descriptor);
    stream.set_nonblocking(true)?;
    Ok(UnixStream::from_std(stream)?)
}
