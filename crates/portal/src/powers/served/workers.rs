//! Each user's worker, as one thread reaches it: HTTP/1.1 over a pair of sockets of which the broker gives the other end to
//! the worker of the session's user; in `up`, to the worker's thread.
//!
//! Invariant: a request goes to the worker of the session that asks, with that session's ticket, which the worker verifies
//! itself. Nobody decides anything by what it answers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_worker::Local;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::line::{Line, LineError};
use super::shares::Sort;
use crate::front_body::{FrontBody, FrontBodyError};
use crate::limits;
use crate::sessions::Session;

/// Who hands a worker the other end of a connection.
pub(in crate::powers) enum Way {
    /// The broker.
    Broker(Arc<Line>),
    /// Nobody else: it is a thread of this process.
    Local(Local),
}

/// The workers of one thread.
pub(crate) struct Workers {
    way: Way,
    late: Arc<Late>,
    /// The last one that was used, and when that was, comes last.
    idle: RefCell<HashMap<u32, Vec<(Kept, Instant)>>>,
    connections: RefCell<JoinSet<()>>,
}

/// A connection that can be used again.
pub(crate) struct Kept {
    sender: SendRequest<Sent>,
    since: Instant,
}

impl Kept {
    async fn exchange(mut self, request: Request<Sent>) -> Result<(Response<Incoming>, Self), WorkerError> {
        let answer = self.sender.send_request(request).await.map_err(broke_off)?;
        Ok((answer, self))
    }
}

/// What a worker is sent.
pub(crate) enum Sent {
    /// All at once.
    Whole(Option<Bytes>),
    /// As it comes from the browser.
    Stream(FrontBody, Rc<Progress>),
}

/// How far what a browser sends has come.
pub(crate) struct Progress {
    /// When something came last.
    since: Cell<Instant>,
    /// The worker has taken all that came.
    is_browsers_turn: Cell<bool>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = FrontBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FrontBodyError>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body, progress) => {
                let frame = Pin::new(body).poll_frame(cx);
                progress.is_browsers_turn.set(frame.is_pending());
                if frame.is_ready() {
                    progress.since.set(Instant::now());
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(body, _) => body.size_hint(),
        }
    }
}

/// When each user's worker was late last, for all threads: the connections that were made before are no good any more.
#[derive(Default)]
pub(in crate::powers) struct Late(Mutex<HashMap<u32, Instant>>);

impl Late {
    fn by_uid(&self) -> MutexGuard<'_, HashMap<u32, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, uid: u32) {
        let mut by_uid = self.by_uid();
        // What is forgotten costs its user one more page that comes late.
        if by_uid.len() >= limits::WORKERS {
            by_uid.clear();
        }
        by_uid.insert(uid, Instant::now());
    }

    fn is_good(&self, uid: u32, since: Instant) -> bool {
        self.by_uid().get(&uid).is_none_or(|late| since > *late)
    }
}

/// Why a worker gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The session is over.
    #[error("this session has ended")]
    Over,
    /// Too much is asked of it at once.
    #[error("you ask for too many pages at once")]
    TooMany,
    /// It can't be reached.
    #[error("your worker can't be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// It broke off.
    #[error("your worker broke off")]
    BrokeOff(#[source] Box<dyn Error + Send + Sync>),
    /// It does not answer.
    #[error("your worker does not answer")]
    Late,
    /// The browser does not send it the rest.
    #[error("the body did not come in time")]
    BodyLate,
    /// It does not know this session, or is not told what it must be told.
    #[error("your worker answered with status {0}")]
    Status(StatusCode),
    /// The question can't be put.
    #[error("your worker can't be asked that")]
    Question(#[source] Box<dyn Error + Send + Sync>),
}

impl Workers {
    pub(in crate::powers) fn new(way: Way, late: Arc<Late>) -> Self {
        Self { way, late, idle: RefCell::default(), connections: RefCell::default() }
    }

    /// What the worker answers. `request` has the ticket already. Asked twice at most: the worker may just have left, or died. What
    /// changes something is asked for again only if nothing of it was sent.
    pub(crate) async fn ask(
        self: &Rc<Self>,
        session: &Session,
        request: impl Fn() -> Request<Sent>,
        repeatable: bool,
        patience: Duration,
    ) -> Result<(Response<Incoming>, Kept), WorkerError> {
        match self.in_time(session, request(), patience).await {
            Err(WorkerError::BrokeOff(error)) if repeatable || was_not_sent(&*error) => {
                tracing::warn!(uid = session.uid, %error, "a worker broke off; it is asked once more");
                self.in_time(session, request(), patience).await
            }
            other => other,
        }
    }

    /// What the worker answers to a body that takes its time. Asked once. Late is whose turn it is: the browser, or the worker that
    /// neither takes anything of it nor answers for as long as `patience`.
    pub(crate) async fn send(
        &self,
        session: &Session,
        request: Request<()>,
        body: FrontBody,
        patience: Duration,
    ) -> Result<(Response<Incoming>, Kept), WorkerError> {
        let progress =
            Rc::new(Progress { since: Cell::new(Instant::now()), is_browsers_turn: Cell::new(false) });
        let request = request.map(|()| Sent::Stream(body, Rc::clone(&progress)));
        // What was sent can't be sent again: so not on one that its worker may be about to end.
        let kept = self.take(session.uid).filter(|(_, used)| used.elapsed() < limits::WORKER_FRESH);
        let first = match kept {
            Some((kept, _)) => kept,
            None => self.connected_in_time(session).await?,
        };
        progress.since.set(Instant::now());
        let mut exchange = pin!(async {
            let mut kept = first;
            match kept.sender.try_send_request(request).await {
                Ok(answer) => Ok((answer, kept)),
                Err(mut failed) => match failed.take_message() {
                    // It had just ended, and nothing went out.
                    Some(request) => self.connected_in_time(session).await?.exchange(request).await,
                    None => Err(broke_off(failed.into_error())),
                },
            }
        });
        loop {
            let late = progress.since.get() + patience;
            match timeout_at(late, &mut exchange).await {
                Ok(answered) => return answered,
                Err(_) if progress.since.get() + patience > late => {}
                Err(_) if progress.is_browsers_turn.get() => return Err(WorkerError::BodyLate),
                Err(_) => return Err(WorkerError::Late),
            }
        }
    }

    /// The ticket, as the worker wants it.
    pub(crate) fn ticket(session: &Session) -> Result<HeaderValue, WorkerError> {
        let mut ticket = HeaderValue::try_from(session.ticket().reveal()).map_err(|_| WorkerError::Over)?;
        ticket.set_sensitive(true);
        Ok(ticket)
    }

    /// Keeps a connection whose answer was taken to its end.
    pub(crate) fn keep(&self, uid: u32, kept: Kept) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits::WORKERS {
            idle.retain(|_, all| all.iter().any(|(kept, _)| !kept.sender.is_closed()));
        }
        if idle.len() < limits::WORKERS || idle.contains_key(&uid) {
            let all = idle.entry(uid).or_default();
            all.retain(|(kept, _)| !kept.sender.is_closed());
            if all.len() < limits::WORKER_KEPT {
                all.push((kept, Instant::now()));
            }
        }
    }

    /// One that was kept, the last one that was used, and when that was: the others may rest.
    fn take(&self, uid: u32) -> Option<(Kept, Instant)> {
        let mut idle = self.idle.borrow_mut();
        let all = idle.get_mut(&uid)?;
        while let Some((kept, used)) = all.pop() {
            if kept.sender.is_ready() && self.late.is_good(uid, kept.since) {
                return Some((kept, used));
            }
        }
        idle.remove(&uid);
        None
    }

    async fn connected(&self, session: &Session) -> Result<Kept, WorkerError> {
        let since = Instant::now();
        Ok(Kept { sender: self.connect(session).await?, since })
    }

    async fn connected_in_time(&self, session: &Session) -> Result<Kept, WorkerError> {
        timeout(limits::WORKER_ANSWER, self.connected(session)).await.map_err(|_| WorkerError::Late)?
    }

    /// The answer, or that it is late. One who takes long is handed another connection, of which nothing else is wanted: the
    /// broker sees that nobody takes it, and starts another worker.
    async fn in_time(
        &self,
        session: &Session,
        request: Request<Sent>,
        patience: Duration,
    ) -> Result<(Response<Incoming>, Kept), WorkerError> {
        let mut exchange = pin!(self.exchange(session, request));
        if let Ok(answered) = timeout(limits::WORKER_KNOCK, &mut exchange).await {
            return answered;
        }
        let left = patience.saturating_sub(limits::WORKER_KNOCK);
        let knock = async {
            // Closed at once; what becomes of it is the broker's business.
            drop(self.connect(session).await);
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            answered = timeout(left, exchange) => answered.unwrap_or_else(|_| {
                self.late.note(session.uid);
                Err(WorkerError::Late)
            }),
            never = knock => match never {},
        }
    }

    async fn exchange(
        &self,
        session: &Session,
        request: Request<Sent>,
    ) -> Result<(Response<Incoming>, Kept), WorkerError> {
        let kept = match self.take(session.uid) {
            Some((kept, _)) => kept,
            None => self.connected(session).await?,
        };
        kept.exchange(request).await
    }

    async fn connect(&self, session: &Session) -> Result<SendRequest<Sent>, WorkerError> {
        let unreachable = |error: std::io::Error| WorkerError::Unreachable(error.into());
        let (ours, theirs) = UnixStream::pair().map_err(unreachable)?;
        match &self.way {
            Way::Local(worker) => {
                worker.take(theirs).map_err(|gone| WorkerError::Unreachable(gone.into()))?
            }
            Way::Broker(line) => {
                let question = Question::Worker { ticket: session.ticket() };
                match line.ask_for(session.uid, Sort::Worker, question, Some(theirs.into())).await {
                    Ok(Answer::Done) => {}
                    Err(LineError::TooMany) => return Err(WorkerError::TooMany),
                    Ok(Answer::NoTicket) => return Err(WorkerError::Over),
                    Ok(_) => return Err(WorkerError::Unreachable(LineError::OtherAnswer.into())),
                    Err(error) => return Err(WorkerError::Unreachable(error.into())),
                }
            }
        }
        ours.set_nonblocking(true).map_err(unreachable)?;
        let io = tokio::net::UnixStream::from_std(ours).map_err(unreachable)?;
        let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(broke_off)?;
        let mut connections = self.connections.borrow_mut();
        while connections.try_join_next().is_some() {}
        connections.spawn_local(async move {
            // What it says is said to whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// Nothing of the request went out.
fn was_not_sent(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}

fn broke_off(error: hyper::Error) -> WorkerError {
    WorkerError::BrokeOff(error.into())
}
