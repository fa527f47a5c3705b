//! Sends the request to the application and takes its answer. Before: `authorize`. After: `rewrite`.
//!
//! Invariant: takes nothing but [`Owned`]. A request of which not one byte was sent may be tried on another
//! connection; one that was sent may not.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portreeve_model::{Owner, Refusal, Tuple};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::coop::{has_budget_remaining, poll_proceed};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;

use crate::authorize::{self, Audited, Owned};
use crate::connect::{New, Reached};
use crate::flows::{Basis, Flow, Over};
use crate::headers::expects_continue;
use portreeve_rewrite::Place;

use crate::interim::InterimSink;
use crate::limits;
use crate::link::{Key, Link};
use crate::portal::now;
use crate::request_body::{RequestBody, RequestBodyError};
use crate::resolve::{Grant, Tls, Withdrawn};
use crate::rewrite::links_of;
use crate::room::Room;
use crate::sessions::Session;
use crate::tls::client_config;

/// What an application answered, and the connection that it answered on.
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) link: Box<Link>,
    pub(crate) basis: Basis,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// Not one byte was sent: the request can be tried again.
    #[error("the connection was closed before the request was sent")]
    NotSent(Box<Request<RequestBody>>),
    /// TLS with the application failed, or its certificate is not the pinned one.
    #[error("no TLS connection with the application")]
    Tls(#[source] std::io::Error),
    /// The application closed the connection, or did not speak HTTP.
    #[error("the application broke off")]
    BrokeOff(#[source] hyper::Error),
    /// The browser's part of it failed.
    #[error("the request's body was cut off")]
    Body(#[source] hyper::Error),
    /// The browser sent nothing of its body for too long.
    #[error("the request's body stood still")]
    BodyStalled,
    /// No answer in time.
    #[error("the application did not answer within {0:?}")]
    TimedOut(Duration),
    /// The person signed out, or the session's time was over, before the answer came or the body was sent.
    #[error("the session ended")]
    SessionOver,
    /// The broker fell silent before the answer came.
    #[error("nobody can tell at the moment whether the session has ended")]
    SessionUnknown,
    /// The right was taken back before the answer came.
    #[error("the right to this application was withdrawn")]
    Withdrawn(#[source] Withdrawn),
    /// Who accepted the connection is not whom we asked.
    #[error("the connection was accepted by somebody else")]
    Refused(#[source] Refusal),
}

/// What a request needs beside itself.
pub(crate) struct Sending<'a> {
    pub(crate) room: &'a Rc<Room>,
    pub(crate) session: &'a Arc<Session>,
    /// Where interim answers go.
    pub(crate) interim: &'a InterimSink,
    /// When it was asked for: before it was judged.
    pub(crate) asked: Instant,
    /// How long to wait for the answer's head.
    pub(crate) patience: Duration,
    /// How long a session lasts without use, in seconds.
    pub(crate) idle: i64,
}

/// Sends the request over the connection that its visitor may use. `place` is where its answers appear.
pub(crate) async fn forward(
    sending: &Sending<'_>,
    owned: Owned,
    place: &Arc<Place>,
    mut request: Box<Request<RequestBody>>,
) -> Result<Answered, ForwardError> {
    let (owner, grant, why) = (owned.owner(), Rc::clone(owned.grant()), owned.why());
    let mut link: Box<Link> = match owned.into_reached() {
        Reached::Open(link) => link,
        Reached::New(new) => {
            let New { stream, tuple, key } = *new;
            let link = Box::pin(open(stream, tuple, key, owner)).await?;
            *link.audited.borrow_mut() = Some(Audited::new(sending.session, &grant, why));
            link
        }
    };
    attach_interim(sending, place, &mut request);
    // The body goes on while the answer comes, or is not read.
    if !request.body().is_none() {
        link.let_go(&sending.room.tasks);
    }
    let mut basis = Basis { session: Arc::clone(sending.session), grant, owner: link.owner.get() };
    let response = match in_time(sending, &basis, link.send(*request)).await? {
        Ok(response) => response,
        Err(mut failed) => {
            return Err(match failed.take_message() {
                Some(request) => ForwardError::NotSent(Box::new(request)),
                None => failure(failed.into_error()),
            });
        }
    };
    confirm(sending, &basis.grant, &link).await?;
    basis.owner = link.owner.get();
    Ok(Answered { response, link, basis })
}

/// Begins HTTP on a connection whose owner was proven.
async fn open(stream: TcpStream, tuple: Tuple, key: Key, owner: Owner) -> Result<Box<Link>, ForwardError> {
    match key.tls.clone() {
        None => begin_http(stream, tuple, key, owner).await,
        Some(tls) => {
            let secured = tokio::time::timeout(limits::UPSTREAM_TLS, begin_tls(&tls, stream)).await;
            let secured = secured.map_err(|_| ForwardError::Tls(std::io::ErrorKind::TimedOut.into()))?;
            begin_http(secured.map_err(ForwardError::Tls)?, tuple, key, owner).await
        }
    }
}

async fn begin_tls(
    tls: &Tls,
    stream: TcpStream,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = client_config(tls.pin).map_err(std::io::Error::other)?;
    let bare = tls.name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn begin_http<S>(stream: S, tuple: Tuple, key: Key, owner: Owner) -> Result<Box<Link>, ForwardError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::HEAD_BYTES)
        .max_header_size(limits::HEAD_BYTES)
        .max_headers(limits::HEAD_FIELDS)
        .handshake(TokioIo::new(InspectReader::new(stream, count_by_length)))
        .await
        .map_err(ForwardError::BrokeOff)?;
    Ok(Link::new(key, tuple, owner, sender, connection.with_upgrades()))
}

/// The runtime counts each read as one step of a task's turn, whatever comes of it. Here those of many bytes count more: an
/// application that sends faster than its bytes can be dealt with leaves their turn to others' requests.
fn count_by_length(read: &[u8]) {
    for _ in 0..read.len() / limits::TURN_READ {
        // With steps left it is ready, and nobody has to be woken.
        if has_budget_remaining()
            && let Poll::Ready(step) = poll_proceed(&mut Context::from_waker(Waker::noop()))
        {
            step.made_progress();
        }
    }
}

/// Passes 1xx answers on, and lets the body go when the application asks for it.
fn attach_interim(sending: &Sending<'_>, place: &Arc<Place>, request: &mut Request<RequestBody>) {
    let waits = expects_continue(request.headers()) && !request.body().is_none();
    let gate = waits.then(|| request.body_mut().hold(limits::EXPECT_CONTINUE));
    let (interim, place) = (sending.interim.clone(), Arc::clone(place));
    hyper::ext::on_informational(request, move |informational| match informational.status() {
        // The browser hears "100" as soon as the body is asked for.
        StatusCode::CONTINUE => {
            if let Some(gate) = &gate {
                gate.notify_one();
            }
        }
        StatusCode::SWITCHING_PROTOCOLS => {}
        status => interim.send(status, &links_of(informational.headers(), &place)),
    });
}

/// What becomes of the request, unless it takes too long, or what allowed it ends before: then it is broken off, and
/// with it a body that is still on its way.
async fn in_time<T>(
    sending: &Sending<'_>,
    basis: &Basis,
    sent: impl Future<Output = T>,
) -> Result<T, ForwardError> {
    let mut sent = pin!(sent);
    // Most answers come at once. One that does not is a flow.
    let at_once = limits::SESSION_SWEEP.min(sending.patience);
    if let Ok(outcome) = tokio::time::timeout(at_once, sent.as_mut()).await {
        return Ok(outcome);
    }
    let flow = Flow::enter(sending.room, basis.clone());
    tokio::select! {
        biased;
        outcome = tokio::time::timeout(sending.patience - at_once, sent) => {
            outcome.map_err(|_| ForwardError::TimedOut(sending.patience))
        }
        over = poll_fn(|cx| flow.poll_over(cx).map(Over::clone)) => Err(match over {
            Over::Session => ForwardError::SessionOver,
            Over::Unknown => ForwardError::SessionUnknown,
            Over::Right(withdrawn) => ForwardError::Withdrawn(withdrawn),
        }),
    }
}

/// What was allowed when the request went out must be allowed still when the answer comes.
async fn confirm(sending: &Sending<'_>, grant: &Rc<Grant>, link: &Link) -> Result<(), ForwardError> {
    let (room, session) = (sending.room, sending.session);
    let owner = link.owner.get();
    if !owner.accepted {
        let confirmed = authorize::judge_confirmed(room, session, grant, &link.tuple, &owner);
        link.owner.set(Box::pin(confirmed).await.map_err(ForwardError::Refused)?);
    }
    if !session.is_live(now(), sending.idle) {
        return Err(ForwardError::SessionOver);
    }
    if !room.portal.service.knows_who_is_over() {
        return Err(ForwardError::SessionUnknown);
    }
    if sending.asked.elapsed() >= limits::JUDGE_AGAIN {
        let owner = link.owner.get();
        let judged = authorize::judge_again(room, session, grant, &owner);
        Box::pin(judged).await.map_err(ForwardError::Withdrawn)?;
    }
    Ok(())
}

fn failure(error: hyper::Error) -> ForwardError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(one) = cause {
        match one.downcast_ref::<RequestBodyError>() {
            Some(RequestBodyError::Stalled(_)) => return ForwardError::BodyStalled,
            Some(RequestBodyError::SessionOver) => return ForwardError::SessionOver,
            Some(_) => return ForwardError::Body(error),
            None => cause = one.source(),
        }
    }
    ForwardError::BrokeOff(error)
}

/// The head for an application: HTTP/1.1, origin form, this `Host`.
pub(crate) fn set_line<B>(
    request: &mut Request<B>,
    path_and_query: &str,
    host: &HeaderValue,
) -> Result<(), http::uri::InvalidUri> {
    *request.uri_mut() = PathAndQuery::try_from(path_and_query)?.into();
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(header::HOST, host.clone());
    Ok(())
}
