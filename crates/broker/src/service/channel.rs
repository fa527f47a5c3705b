//! One SEQPACKET channel: a message is one frame, and may bring one descriptor.
//!
//! Invariants: a longer frame, a cut one and a second descriptor are errors, after which the channel is not used any more;
//! no descriptor stays open that was not asked for. A buffer that held a secret is overwritten.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use portreeve_model::WireError;
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use serde::{Serialize, de::DeserializeOwned};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};
use zeroize::{Zeroize, Zeroizing};

/// Room for the control message of one descriptor, and for a second one that shows that there are too many.
const CONTROL: usize = 64;

/// A channel.
pub(super) struct Channel {
    socket: UnixSeqpacket,
}

/// Where frames are received.
pub(super) struct Buffer(Zeroizing<Vec<u8>>);

/// Why a channel can't be used (any more).
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// The other end is closed.
    #[error("the other end is closed")]
    Closed,
    /// A frame that can't be sent or understood.
    #[error(transparent)]
    Frame(#[from] WireError),
    /// More than one descriptor came, or a cut list of them.
    #[error("a frame came with more than one descriptor")]
    Descriptors,
    /// The system refused.
    #[error("the channel failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
                Self::Closed
            }
            _ => Self::Io(error),
        }
    }
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self(Zeroizing::new(vec![0; MAX_FRAME]))
    }
}

impl Channel {
    /// A socket of ours.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { socket: UnixSeqpacket::try_from(socket)? })
    }

    /// A connection that was made or accepted.
    pub(super) fn connected(socket: UnixSeqpacket) -> Self {
        Self { socket }
    }

    /// Our end, and one for a child, which blocks.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self::new(ours)?, theirs))
    }

    pub(super) async fn send<M: Serialize>(&self, message: &M) -> Result<(), ChannelError> {
        let frame = Zeroizing::new(encode_bare(message)?);
        self.socket.send(&frame).await?;
        Ok(())
    }

    pub(super) async fn send_with<M: Serialize>(
        &self,
        message: &M,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), ChannelError> {
        let frame = encode_bare(message)?;
        let mut control = [0; CONTROL];
        let mut control = AncillaryMessageWriter::new(&mut control);
        control.add_fds([descriptor]).map_err(io::Error::from)?;
        self.socket.send_with_ancillary(&frame, &mut control).await?;
        Ok(())
    }

    /// The next message, and what it brought.
    pub(super) async fn receive<M: DeserializeOwned>(
        &self,
        buffer: &mut Buffer,
    ) -> Result<(M, Option<OwnedFd>), ChannelError> {
        let mut control = [0; CONTROL];
        let (info, control) = self.socket.recv_with_ancillary(&mut buffer.0, &mut control).await?;
        let mut descriptors = Vec::new();
        for message in control.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(found) = message {
                descriptors.extend(found);
            }
        }
        let length = info.bytes_read();
        if length == 0 {
            return Err(ChannelError::Closed);
        }
        if info.ancillary_truncated() || descriptors.len() > 1 {
            return Err(ChannelError::Descriptors);
        }
        if info.truncated() {
            return Err(WireError::TooLong { length: MAX_FRAME + 1 }.into());
        }
        let frame = &mut buffer.0[..length];
        let message = decode(frame);
        frame.zeroize();
        Ok((message?, descriptors.pop()))
    }

    /// The next message, which brings nothing.
    pub(super) async fn receive_plain<M: DeserializeOwned>(
        &self,
        buffer: &mut Buffer,
    ) -> Result<M, ChannelError> {
        match self.receive(buffer).await? {
            (message, None) => Ok(message),
            (_, Some(_)) => Err(ChannelError::Descriptors),
        }
    }

    /// Whether the other end has not taken all that was sent. Nobody knows counts as no.
    pub(super) fn is_unread(&self) -> bool {
        portreeve_sys::message::is_unread(&self.socket).unwrap_or(false)
    }

    /// How many bytes may wait unread at the other end.
    pub(super) fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        Ok(setsockopt(&self.socket, sockopt::SndBuf, &bytes)?)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
