//! Each user's worker, as one thread reaches it: HTTP/1.1 over a pair of sockets of which the broker gives the other end to
//! the worker of the session's user.
//!
//! Invariant: a request goes to the worker of the session that asks, with that session's ticket, which the worker verifies
//! itself. Nobody decides anything by what it answers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use portreeve_model::wire::broker::{Answer, Question};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::line::{Line, LineError};
use crate::limits;
use crate::sessions::Session;

/// Carries the ticket.
const TICKET: HeaderName = HeaderName::from_static(portreeve_model::wire::worker::TICKET);

/// The workers of one thread.
pub(super) struct Workers {
    line: Arc<Line>,
    idle: RefCell<HashMap<u32, SendRequest<Full<Bytes>>>>,
    connections: RefCell<JoinSet<()>>,
}

/// Why a worker gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The session is over.
    #[error("this session has ended")]
    Over,
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
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self { line, idle: RefCell::default(), connections: RefCell::default() }
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
        match timeout(limits::WORKER_ANSWER, self.exchange(session, request())).await {
            Ok(Err(WorkerError::BrokeOff(error))) => {
                tracing::warn!(uid = session.uid, %error, "a worker broke off; it is asked once more");
                let again = timeout(limits::WORKER_ANSWER, self.exchange(session, request())).await;
                again.unwrap_or(Err(WorkerError::Late))
            }
            Ok(other) => other,
            Err(_) => Err(WorkerError::Late),
        }
    }

    async fn exchange(
        &self,
        session: &Session,
        request: Request<Full<Bytes>>,
    ) -> Result<String, WorkerError> {
        let kept = self.idle.borrow_mut().remove(&session.uid).filter(SendRequest::is_ready);
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect(session).await?,
        };
        let answer = sender.send_request(request).await.map_err(broke_off)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, limits::WORKER_BYTES).collect().await.map_err(WorkerError::BrokeOff)?;
        if head.status != StatusCode::OK {
            return Err(WorkerError::Status(head.status));
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limits::WORKERS {
            idle.retain(|_, sender| !sender.is_closed());
        }
        if idle.len() < limits::WORKERS {
            idle.insert(session.uid, sender);
        }
        String::from_utf8(body.to_bytes().into()).map_err(|_| WorkerError::NotText)
    }

    async fn connect(&self, session: &Session) -> Result<SendRequest<Full<Bytes>>, WorkerError> {
        let unreachable = |error: std::io::Error| WorkerError::Unreachable(error.into());
        let (ours, theirs) = UnixStream::pair().map_err(unreachable)?;
        let question = Question::Worker { ticket: session.ticket() };
        match self.line.ask(question, Some(theirs.into())).await {
            Ok(Answer::Done) => {}
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
