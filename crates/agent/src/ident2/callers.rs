//! Who asks on this node, over SEQPACKET: a firewall, a web server's processes. Before: the socket. After: `answer`, or
//! `peers` for a question to another node.
//! Invariants: a caller that breaks the protocol, or does not read, is dropped, and costs nobody else anything; a caller's id
//! is never used again.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use portreeve_model::wire::ident2::{Malformed, Message, Op, Request, Response, parse};
use portreeve_sys::message::{self, ReceiveError};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Reply;
use super::limits;
use super::oddities::Oddity;
use super::relay::CallerId;
use super::service::Service;
use super::settings::Settings;
use crate::seqpacket;
use crate::shares::Shares;

/// Why a caller is dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// It has gone, or a message of its was none.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// It sent bytes that are no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It sent an answer.
    #[error("an answer where a question belongs")]
    Answer,
    /// It takes no answers.
    #[error("it does not read its answers")]
    Deaf,
    /// It can't be written to.
    #[error("it can't be written to")]
    Io(#[source] io::Error),
}

/// What systemd listens on for it, if it does (sd_listen_fds(3)): then who may connect is for the socket's unit to say.
pub(super) fn inherited() -> io::Result<Option<StdUnixListener>> {
    let mut sockets = sd_notify::listen_fds_with_names()?;
    let Some((number, _)) = sockets.next() else { return Ok(None) };
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    if sockets.next().is_some() {
        return Err(wrong("more than one socket was handed over"));
    }
    let socket = portreeve_sys::inherited(number)?;
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let is_it = address.family() == Some(AddressFamily::Unix)
        && getsockopt(&socket, sockopt::SockType)? == SockType::SeqPacket
        && getsockopt(&socket, sockopt::AcceptConn)?;
    if !is_it {
        return Err(wrong("the socket that was handed over must be one of ListenSequentialPacket=/PATH"));
    }
    let socket = StdUnixListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// Begins to listen where the settings say, for whom they say.
pub(super) fn listen_at(settings: &Settings) -> io::Result<StdUnixListener> {
    let mode = match (settings.config.socket_other, settings.group) {
        (true, _) => 0o666,
        (false, Some(_)) => 0o660,
        (false, None) => 0o600,
    };
    seqpacket::listen_at(&settings.config.socket, limits::BACKLOG, mode, settings.group)
}

/// Accepts callers for as long as the service runs.
pub(super) async fn serve(service: Arc<Service>, listening: UnixListener) -> Infallible {
    let (places, of_one) = (Arc::new(Semaphore::new(limits::CALLERS)), Shares::default());
    let (mut tasks, mut next) = (JoinSet::new(), 1);
    loop {
        while tasks.try_join_next().is_some() {}
        let (socket, uid) = seqpacket::accept(&listening, "the ident2 socket", limits::PAUSE).await;
        let one = of_one.take(uid, limits::CALLERS_OF_ONE);
        let (Some(one), Ok(place)) = (one, Arc::clone(&places).try_acquire_owned()) else {
            service.oddities.note(Oddity::Crowd, format_args!("uid {uid}"));
            continue;
        };
        let (service, caller) = (Arc::clone(&service), CallerId(next));
        next += 1;
        tasks.spawn(async move {
            let _kept = (place, one);
            let end = Caller { service, id: caller, socket }.serve().await;
            match end {
                End::Receive(ReceiveError::Closed) => {
                    tracing::debug!(caller = caller.0, uid, "a caller left")
                }
                end => tracing::warn!(caller = caller.0, uid, why = %end, "a caller was dropped"),
            }
        });
    }
}

struct Caller {
    service: Arc<Service>,
    id: CallerId,
    /// Of the type SEQPACKET, which tokio has no type for.
    socket: UnixStream,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.service.leave(self.id);
    }
}

impl Caller {
    async fn serve(self) -> End {
        let (queue, mut waiting) = mpsc::channel(limits::ANSWERS);
        self.service.enter(self.id, queue.clone());
        let write = async {
            while let Some(answer) = waiting.recv().await {
                let sent =
                    self.socket.async_io(Interest::WRITABLE, || message::send(&self.socket, &answer, &[]));
                match timeout(limits::STALL, sent).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Io(error),
                    Err(_) => return End::Deaf,
                }
            }
            End::Deaf
        };
        tokio::select! {
            end = self.read(queue) => match end {
                Ok(never) => match never {},
                Err(end) => end,
            },
            end = write => end,
        }
    }

    async fn read(&self, queue: mpsc::Sender<Vec<u8>>) -> Result<Infallible, End> {
        let (mut buffer, mut looks) = (vec![0; limits::MESSAGE], JoinSet::new());
        loop {
            while looks.try_join_next().is_some() {}
            let received = self.socket.async_io(Interest::READABLE, || {
                match message::receive(self.socket.as_fd(), &mut buffer, 0) {
                    Ok(message) => Ok(Ok(parse(message.bytes))),
                    // Told apart by its kind: it waits on.
                    Err(ReceiveError::Io(error)) => Err(error),
                    Err(other) => Ok(Err(other)),
                }
            });
            match received.await.map_err(ReceiveError::Io)??? {
                Message::Hello => tracing::debug!(caller = self.id.0, "a caller says hello"),
                Message::Question(request) => self.question(&request, &queue, &mut looks).await?,
                Message::Answer(_) => return Err(End::Answer),
            }
        }
    }

    /// Where a question goes.
    async fn question(
        &self,
        request: &Request,
        queue: &mpsc::Sender<Vec<u8>>,
        looks: &mut JoinSet<()>,
    ) -> Result<(), End> {
        let of = request.local.ip();
        match (request.op, &self.service.peers) {
            (Op::Remote, Some(peers)) if !self.service.answerer.is_own(of) && self.service.is_peer(of) => {
                let random = getrandom::u64().map_err(|error| End::Io(io::Error::other(error)))?;
                let number = self.service.relay().ask(self.id, request.query_id, of, random, Instant::now());
                let Some(number) = number else {
                    self.service.oddities.note(Oddity::Busy, format_args!("caller {}", self.id.0));
                    return Ok(());
                };
                if let Err(error) = peers.ask(&Request { client_id: number, ..*request }).await {
                    self.service.oddities.note(Oddity::Unsent, format_args!("to {of}: {error}"));
                }
                Ok(())
            }
            (Op::Remote, _) if !self.service.answerer.is_own(of) => {
                self.service.oddities.note(Oddity::Outside, of);
                let nothing = Response { client_id: self.id.0, ..request.answer(None) };
                answer(queue, &nothing).await
            }
            (Op::Local | Op::Remote, _) => match self.service.answerer.answer(request) {
                Reply::Now(found) => answer(queue, &request.answer(found)).await,
                Reply::Later(look) => {
                    let Some(place) = self.service.callers_looks.admit(self.id) else {
                        self.service.oddities.note(Oddity::Busy, format_args!("caller {}", self.id.0));
                        return Ok(());
                    };
                    let (service, id, queue) = (Arc::clone(&self.service), self.id, queue.clone());
                    let request = *request;
                    looks.spawn(async move {
                        match place.make(look).await {
                            // That the caller is gone is seen elsewhere.
                            Some(found) => drop(answer(&queue, &request.answer(found)).await),
                            None => service.oddities.note(Oddity::Busy, format_args!("caller {}", id.0)),
                        }
                    });
                    Ok(())
                }
            },
        }
    }
}

/// Waits until there is room: a caller that does not read is not read from.
async fn answer(queue: &mpsc::Sender<Vec<u8>>, response: &Response) -> Result<(), End> {
    queue.send(response.to_bytes()).await.map_err(|_| End::Deaf)
}
