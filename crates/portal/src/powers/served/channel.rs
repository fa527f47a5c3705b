//! One SEQPACKET channel to another process of ours: a message is one frame, and may bring one descriptor.
//!
//! Invariants: a frame that is too long, that can't be understood, or that brings what was not asked for ends the channel;
//! no descriptor stays open that nobody took.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use portreeve_model::WireError;
use portreeve_model::wire::{decode, encode_bare};
use portreeve_sys::message::{self, ReceiveError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A channel.
pub(super) struct Channel {
    /// Of SEQPACKET, which tokio has no type for. What it is registered for, and closed as, is the same.
    socket: UnixStream,
}

/// Why a channel can't be used (any more).
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    /// A message could not be had: the other end is closed, or did what it may not do.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// It has no form that is known.
    #[error(transparent)]
    Frame(#[from] WireError),
    /// It brought no descriptor where one belongs, or one where none does.
    #[error("a message with a descriptor where none belongs, or without one")]
    Descriptor,
    /// It answers no question.
    #[error("an answer to no question")]
    NoQuestion,
    /// The system failed.
    #[error("the channel failed")]
    Io(#[from] io::Error),
}

impl Channel {
    /// Takes a socket over, which must not block.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: UnixStream::from_std(StdUnixStream::from(socket))? })
    }

    /// Takes a connection over that was accepted.
    pub(super) fn over(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Our end, and one to hand over.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Waits until there is room, and sends.
    pub(super) async fn send<M: Serialize>(
        &self,
        message: &M,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        let frame = zeroize::Zeroizing::new(encode_bare(message)?);
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, || message::send(&self.socket, &frame, descriptor.as_slice()));
        Ok(sent.await?)
    }

    /// The next message, and what it brought.
    pub(super) async fn receive<M: DeserializeOwned>(
        &self,
        buffer: &mut [u8],
    ) -> Result<(M, Option<OwnedFd>), ChannelError> {
        let received = self.socket.async_io(Interest::READABLE, || {
            match message::receive(self.socket.as_fd(), buffer, 1) {
                Ok(mut message) => Ok(Ok((decode(message.bytes), message.descriptors.pop()))),
                // Told apart by its kind: it waits on.
                Err(ReceiveError::Io(error)) => Err(error),
                Err(other) => Ok(Err(other)),
            }
        });
        let (message, descriptor) = received.await??;
        Ok((message?, descriptor))
    }

    /// The next message, which brings nothing.
    pub(super) async fn receive_plain<M: DeserializeOwned>(
        &self,
        buffer: &mut [u8],
    ) -> Result<M, ChannelError> {
        match self.receive(buffer).await? {
            (message, None) => Ok(message),
            (_, Some(_)) => Err(ChannelError::Descriptor),
        }
    }
}
