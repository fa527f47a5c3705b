//! Each user's worker, as one thread reaches it: HTTP/1.1 over a pair of sockets of which the broker gives the other end to
//! the worker of the session's user.
//!
//! Invariant: a request goes to the worker of the session that asks, with that session's ticket, which the worker verifies
//! itself. Nobody decides anything by what it answers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use portreeve_model::wire::broker::{Answer, Question};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::line::{Line, LineError};
use super::shares::Sort;
use crate::limits;
use crate::sessions::Session;

/// Carries the ticket.
const TICKET: HeaderName = HeaderName::from_static(portreeve_model::wire::worker::TICKET);

/// The workers of one thread.
pub(super) struct Workers {
    line: Arc<Line>,
    late: Arc<Late>,
    idle: RefCell<HashMap<u32, Kept>>,
    connections: RefCell<JoinSet<()>>,
}

/// A connection that can be used again.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// When each user's worker was late last, for all threads: the connections that were made before are no good any more.
#[derive(Default)]
pub(super) struct Late(Mutex<HashMap<u32, Instant>>);

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
    /// It refused, or failed.
    #[error("your worker answered with status {0}")]
    Status(StatusCode),
    /// No text.
    #[error("your worker's page is no text")]
    NotText,
}

impl Workers {
    pub(super) fn new(line: Arc<Line>, late: Arc<Late>) -> Self {
        Self { line, late, idle: RefCell::default(), connections: RefCell::default() }
    }

    /// What the worker answers to a POST of this JSON text. Asked twice at most: the worker may just have left, or died.
    pub(super) async fn post(
        &self,
        session: &Session,
        path: &'static str,
        json: Vec<u8>,
    ) -> Result<String, WorkerError> {
        let json = Bytes::from(json);
        let mut ticket = HeaderValue::try_from(session.ticket().reveal()).map_err(|_| WorkerError::Over)?;
        ticket.set_sensitive(true);
        let request = || {
            let mut request = Request::post(path).body(Full::new(json.clone())).unwrap_or_default();
            let headers = request.headers_mut();
            headers.insert(header::HOST, HeaderValue::from_static("worker"));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(TICKET, ticket.clone());
            request
        };
        match self.in_time(session, request()).await {
            Err(WorkerError::BrokeOff(error)) => {
                tracing::warn!(uid = session.uid, %error, "a worker broke off; it is asked once more");
                self.in_time(session, request()).await
            }
            other => other,
        }
    }

    /// The answer, or that it is late. One who takes long is handed another connection, of which nothing else is wanted: the
    /// broker sees that nobody takes it, and starts another worker.
    async fn in_time(&self, session: &Session, request: Request<Full<Bytes>>) -> Result<String, WorkerError> {
        let mut exchange = pin!(self.exchange(session, request));
        if let Ok(answered) = timeout(limits::WORKER_KNOCK, &mut exchange).await {
            return answered;
        }
        let left = limits::WORKER_ANSWER.saturating_sub(limits::WORKER_KNOCK);
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
        request: Request<Full<Bytes>>,
    ) -> Result<String, WorkerError> {
        let is_good = |kept: &Kept| kept.sender.is_ready() && self.late.is_good(session.uid, kept.since);
        let kept = self.idle.borrow_mut().remove(&session.uid).filter(is_good);
        let Kept { mut sender, since } = match kept {
            Some(kept) => kept,
            None => Kept { since: Instant::now(), sender: self.connect(session).await? },
        };
        let answer = sender.send_request(request).await.map_err(broke_off)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, limits::WORKER_BYTES).collect().await.map_err(WorkerError::BrokeOff)?;
        if head.status != StatusCode::OK {
            return Err(WorkerError::Status(head.status));
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits::WORKERS {
            idle.retain(|_, kept| !kept.sender.is_closed());
        }
        if idle.len() < limits::WORKERS {
            idle.insert(session.uid, Kept { sender, since });
        }
        String::from_utf8(body.to_bytes().into()).map_err(|_| WorkerError::NotText)
    }

    async fn connect(&self, session: &Session) -> Result<SendRequest<Full<Bytes>>, WorkerError> {
        let unreachable = |error: std::io::Error| WorkerError::Unreachable(error.into());
        let (ours, theirs) = UnixStream::pair().map_err(unreachable)?;
        let question = Question::Worker { ticket: session.ticket() };
        match self.line.ask_for(session.uid, Sort::Worker, question, Some(theirs.into())).await {
            Ok(Answer::Done) => {}
            Err(LineError::TooMany) => return Err(WorkerError::TooMany),
            Ok(Answer::NoTicket) => return Err(WorkerError::Over),
            Ok(_) => return Err(WorkerError::Unreachable(LineError::OtherAnswer.into())),
            Err(error) => return Err(WorkerError::Unreachable(error.into())),
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

fn broke_off(error: hyper::Error) -> WorkerError {
    WorkerError::BrokeOff(error.into())
}
