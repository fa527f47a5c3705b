//! A request's body on its way to the application: as it comes, no faster than it is taken, and not for ever.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::front_body::{FrontBody, FrontBodyError};
use crate::headers::trailers_towards_application;
use crate::metrics::{Direction, Kind};
use crate::portal::now;
use crate::room::Room;
use crate::sessions::Session;

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The browser's connection failed.
    #[error("the browser's connection failed")]
    Browser(#[source] FrontBodyError),
    /// The browser sent nothing for too long.
    #[error("the browser sent nothing for {0:?}")]
    Stalled(Duration),
    /// The session ended meanwhile.
    #[error("the session ended")]
    SessionOver,
}

/// The body, if there is one.
pub(crate) struct RequestBody(Option<Box<Carried>>);

struct Carried {
    incoming: FrontBody,
    room: Rc<Room>,
    session: Arc<Session>,
    stall_after: Duration,
    /// How long a session lasts without use, in seconds.
    idle: i64,
    stall: Option<Pin<Box<Sleep>>>,
    gate: Option<Gate>,
}

/// Holds a body back until the application asks for it (`Expect: 100-continue`) or has had its time to.
struct Gate {
    opened: Arc<Notify>,
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
    patience: Duration,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "RequestBody(...)" } else { "RequestBody(none)" })
    }
}

impl RequestBody {
    /// No body.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(
        incoming: FrontBody,
        room: Rc<Room>,
        session: Arc<Session>,
        stall_after: Duration,
        idle: i64,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Box::new(Carried { incoming, room, session, stall_after, idle, stall: None, gate: None })))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Holds the body back until the returned handle is notified, or `patience` is over.
    pub(crate) fn hold(&mut self, patience: Duration) -> Arc<Notify> {
        let opened = Arc::new(Notify::new());
        if let Some(carried) = &mut self.0 {
            carried.gate = Some(Gate { opened: Arc::clone(&opened), waiting: None, patience });
        }
        opened
    }
}

impl Gate {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = self.waiting.get_or_insert_with(|| {
            let (opened, patience) = (Arc::clone(&self.opened), self.patience);
            Box::pin(async move {
                let _ = tokio::time::timeout(patience, opened.notified()).await;
            })
        });
        waiting.as_mut().poll(cx)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(carried) = &mut self.0 else { return Poll::Ready(None) };
        if let Some(gate) = &mut carried.gate {
            if gate.poll_open(cx).is_pending() {
                return Poll::Pending;
            }
            carried.gate = None;
        }
        let now = now();
        if !carried.session.is_live(now, carried.idle) {
            return Poll::Ready(Some(Err(RequestBodyError::SessionOver)));
        }
        match Pin::new(&mut carried.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                carried.stall = None;
                carried.session.touch(now);
                if let Some(Ok(frame)) = &frame {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    carried.room.tally.carried(Direction::ToApplication, Kind::Body, length);
                }
                let checked = |mut frame: Frame<Bytes>| {
                    if let Some(trailers) = frame.trailers_mut() {
                        trailers_towards_application(trailers);
                    }
                    frame
                };
                Poll::Ready(frame.map(|frame| frame.map(checked).map_err(RequestBodyError::Browser)))
            }
            Poll::Pending => {
                let after = carried.stall_after;
                let stall = carried
                    .stall
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + after)));
                match stall.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(RequestBodyError::Stalled(after)))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|carried| carried.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |carried| carried.incoming.size_hint())
    }
}
