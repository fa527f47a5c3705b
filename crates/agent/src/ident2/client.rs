//! Asks an ident2 service on this node, `portreeve-agent ident2` or an `ident2d`: for whoever has to know about nodes that
//! can't be asked in a better way.
//! Invariant: an answer reaches only the question that it belongs to. No answer in time, or none at all, is never an owner.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use portreeve_model::ident2_config::SOCKET;
use portreeve_model::wire::ident2::{
    Flags, Found, Malformed, Message, Op, Protocol, Request, Response, TcpStates, parse,
};
use portreeve_sys::message::{self, ReceiveError};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::limits;

/// Asks one service, many questions at once over one connection. Dropped, it ends the connection.
#[derive(Debug)]
pub struct Ident2 {
    way: Way,
    line: Mutex<Option<Line>>,
    /// The next question's id: never the same for two, so that a late answer is nobody's.
    next: AtomicU64,
}

/// Where the connection comes from.
#[derive(Debug)]
enum Way {
    /// It is made here when the first question is asked, and again after it has ended.
    Path(PathBuf),
    /// Somebody else makes it. Whoever asks while there is none waits for the next one.
    Given(Notify),
}

/// What somebody wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// `Op::Local` asks about this node's sockets, `Op::Remote` those of the node with the local address.
    pub op: Op,
    /// What is wanted beside the uid.
    pub flags: Flags,
    /// Of which protocol the socket is.
    pub protocol: Protocol,
    /// In which states a TCP socket counts; `TcpStates::ANY` with UDP.
    pub states: TcpStates,
    /// The socket's own end.
    pub local: SocketAddr,
    /// The other end; unspecified with port 0 for something that listens.
    pub remote: SocketAddr,
}

/// Whether an answer with this uid names anybody. Uid 0 is also what is said of a connection that nobody has accepted, or
/// that is closing; 65534 is whoever has no name, and the others stand for none.
#[must_use]
pub const fn is_somebody(uid: u32) -> bool {
    !matches!(uid, 0 | 65_534 | 65_535 | u32::MAX)
}

/// Why there is no answer. Each Display is a clause.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None came in time. That service does not answer each question: asking again is right.
    #[error("the ident2 service did not answer in time")]
    Late,
    /// More questions are open than are allowed.
    #[error("too many questions for the ident2 service are open")]
    Busy,
    /// The connection ended, each time that it was asked.
    #[error("the ident2 service ended the connection")]
    Ended,
    /// It can't be reached.
    #[error("the ident2 service can't be reached")]
    Io(#[from] io::Error),
}

/// A connection.
#[derive(Debug)]
struct Line {
    open: Arc<Open>,
    /// Reads it, if nobody else does.
    reader: Option<AbortHandle>,
}

#[derive(Debug)]
struct Open {
    /// Of the type SEQPACKET, which tokio has no type for.
    socket: UnixStream,
    waiting: Mutex<HashMap<u64, Asked>>,
    ended: AtomicBool,
}

/// Of which kind a question was, and where its answer goes.
type Asked = (Op, oneshot::Sender<Option<Found>>);

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// A connection that was given, while it is read.
struct Read<'o>(&'o Open);

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it sent what is no answer to the question")]
    Unasked,
}

/// A question that is open; closed when nobody waits for it any more.
struct Waiting<'o> {
    open: &'o Open,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        locked(&self.open.waiting).remove(&self.id);
    }
}

impl Ident2 {
    /// For the service that listens at this path, such as [`SOCKET`]. Belongs to one tokio runtime.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::by(Way::Path(path.into()))
    }

    /// For a process that may connect to nothing: over connections that it is given, by [`Ident2::serve`].
    #[must_use]
    pub fn given() -> Self {
        Self::by(Way::Given(Notify::new()))
    }

    fn by(way: Way) -> Self {
        Self { way, line: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// Asks over this connection (SEQPACKET) in the place of any other, until it ends, and says how it did. Questions may
    /// come from other threads and runtimes than the one that this runs on.
    ///
    /// # Errors
    /// When the socket can't be used at all.
    pub async fn serve(&self, socket: OwnedFd) -> io::Result<String> {
        let socket = StdUnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let open = Arc::new(Open::over(UnixStream::from_std(socket)?));
        let reading = Read(&open);
        *locked(&self.line) = Some(Line { open: Arc::clone(&open), reader: None });
        if let Way::Given(news) = &self.way {
            news.notify_waiters();
        }
        let end = open.read().await;
        drop(reading);
        Ok(end.to_string())
    }

    /// Asks, and waits for at most `patience`. `Ok(None)`: the service knows no owner, be it that there is no such socket,
    /// that nobody may say whose it is, or that the address is of no node that it may ask.
    ///
    /// # Errors
    /// See [`AskError`]. None of them says anything about the socket.
    pub async fn ask(&self, question: Question, patience: Duration) -> Result<Option<Found>, AskError> {
        timeout(patience, self.ask_until_answered(question)).await.unwrap_or(Err(AskError::Late))
    }

    async fn ask_until_answered(&self, question: Question) -> Result<Option<Found>, AskError> {
        for _ in 0..limits::TRIES {
            let open = self.line().await?;
            match open.ask(question, self.next.fetch_add(1, Relaxed)).await {
                // Another question may have ended it: that system's service drops whoever asks about a node that can't be
                // reached.
                Err(AskError::Ended) => sleep(limits::AGAIN).await,
                done => return done,
            }
        }
        Err(AskError::Ended)
    }

    /// The connection, a new one if there is none.
    async fn line(&self) -> io::Result<Arc<Open>> {
        match &self.way {
            Way::Path(path) => self.line_to(path).await,
            Way::Given(news) => loop {
                let mut given = pin!(news.notified());
                // From here on none is missed.
                given.as_mut().enable();
                if let Some(open) = live(&locked(&self.line)) {
                    return Ok(open);
                }
                given.await;
            },
        }
    }

    async fn line_to(&self, path: &Path) -> io::Result<Arc<Open>> {
        loop {
            {
                let mut line = locked(&self.line);
                if let Some(open) = live(&line) {
                    return Ok(open);
                }
                match message::connect(path) {
                    Ok(socket) => {
                        let new = Line::over(UnixStream::from_std(socket.into())?);
                        let open = Arc::clone(&new.open);
                        *line = Some(new);
                        return Ok(open);
                    }
                    // Others wait to be accepted.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            sleep(limits::AGAIN).await;
        }
    }
}

/// The connection, if it has not ended.
fn live(line: &Option<Line>) -> Option<Arc<Open>> {
    line.as_ref().map(|line| &line.open).filter(|open| !open.ended.load(Relaxed)).map(Arc::clone)
}

impl Line {
    fn over(socket: UnixStream) -> Self {
        let open = Arc::new(Open::over(socket));
        let reading = Arc::clone(&open);
        let reader = tokio::spawn(async move {
            let end = reading.read().await;
            tracing::debug!(%end, "the connection to the ident2 service ended");
            reading.end();
        });
        Self { open, reader: Some(reader.abort_handle()) }
    }
}

impl Open {
    fn over(socket: UnixStream) -> Self {
        Self { socket, waiting: Mutex::default(), ended: AtomicBool::new(false) }
    }

    async fn ask(&self, question: Question, id: u64) -> Result<Option<Found>, AskError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = locked(&self.waiting);
            // Looked at with the lock held, so that `end` misses nobody.
            if self.ended.load(Relaxed) {
                return Err(AskError::Ended);
            }
            if waiting.len() >= limits::OPEN {
                return Err(AskError::Busy);
            }
            waiting.insert(id, (question.op, answer));
        }
        let _waiting = Waiting { open: self, id };
        let packet = question.with_id(id).to_bytes();
        let sent =
            self.socket.async_io(Interest::WRITABLE, || message::send(&self.socket, &packet, &[])).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "the ident2 service takes no question");
            self.end();
            return Err(AskError::Ended);
        }
        answered.await.map_err(|_| AskError::Ended)
    }

    async fn read(&self) -> End {
        let mut buffer = vec![0; limits::MESSAGE];
        loop {
            let received = self.socket.async_io(Interest::READABLE, || {
                match message::receive(self.socket.as_fd(), &mut buffer, 0) {
                    Ok(message) => Ok(Ok(parse(message.bytes))),
                    Err(ReceiveError::Io(error)) => Err(error),
                    Err(other) => Ok(Err(other)),
                }
            });
            match received.await {
                Ok(Ok(Ok(Message::Answer(response)))) => {
                    if !self.hand(response) {
                        return End::Unasked;
                    }
                }
                Ok(Ok(Ok(Message::Hello | Message::Question(_)))) => return End::Unasked,
                Ok(Ok(Err(malformed))) => return malformed.into(),
                Ok(Err(error)) => return error.into(),
                Err(error) => return ReceiveError::Io(error).into(),
            }
        }
    }

    /// False if it answers another kind of question than was asked. That nobody waits any more is no fault.
    fn hand(&self, response: Response) -> bool {
        let mut waiting = locked(&self.waiting);
        match waiting.remove(&response.query_id) {
            Some((op, _)) if op != response.op => false,
            Some((_, answer)) => {
                // Whoever asked may have gone just now.
                let _ = answer.send(response.found);
                true
            }
            None => true,
        }
    }

    fn end(&self) {
        let mut waiting = locked(&self.waiting);
        self.ended.store(true, Relaxed);
        // Whoever waits hears that nothing comes any more.
        waiting.clear();
    }
}

impl Question {
    fn with_id(self, query_id: u64) -> Request {
        let Self { op, flags, protocol, states, local, remote } = self;
        Request { op, client_id: 0, query_id, flags, protocol, states, local, remote }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
