//! An answer's body on its way to the browser: a page of ours, or what the application sends, as it comes.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Interval, interval};

use crate::flows::{Basis, Flow};
use crate::limits;
use crate::link::Link;
use crate::metrics::{Direction, Kind};
use crate::portal::now;
use crate::powers::Kept;
use crate::rewrite::{BodyError, Rewriting, Step, trailers_towards_browser};
use crate::room::Room;
use crate::sessions::{InFlight, OwnInFlight, Session};

/// Why an answer was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The application's connection failed.
    #[error("the application broke off")]
    Application(#[source] hyper::Error),
    /// What it sent is not what it said it is.
    #[error("the application's answer can't be rewritten")]
    Rewriting(#[source] BodyError),
    /// The session, or the right to this application, ended meanwhile.
    #[error("the session or the right to this application ended")]
    Ended,
}

/// A body.
pub(crate) enum Answer {
    /// A page of ours, or nothing.
    Whole(Option<Bytes>),
    /// An application's.
    Carried(Box<Carried>),
    /// A worker's.
    Worker(Box<FromWorker>),
}

/// What a body gives when it is asked.
type Polled = Poll<Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>>;

/// A body that the visitor's worker sends.
pub(crate) struct FromWorker {
    incoming: Incoming,
    room: Rc<Room>,
    session: Arc<Session>,
    kept: Option<Kept>,
    /// It may take long: is the session there still?
    look: Interval,
    _place: OwnInFlight,
}

impl FromWorker {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Polled {
        while self.look.poll_tick(cx).is_ready() {
            let idle = self.room.portal.settings.load().idle_seconds();
            if !self.session.is_live(now(), idle) || !self.room.portal.service.knows_who_is_over() {
                self.kept = None;
                return Poll::Ready(Some(Err(AnswerError::Ended.into())));
            }
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.kept = None;
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(|error| AnswerError::Application(error).into())))
    }
}

impl Drop for FromWorker {
    fn drop(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(kept) = self.kept.take()
        {
            self.room.powers.workers().keep(self.session.uid, kept);
        }
    }
}

/// A body that an application sends.
pub(crate) struct Carried {
    incoming: Incoming,
    /// What it goes through, if anything.
    rewriting: Option<Box<Rewriting>>,
    /// The connection it comes on, to be used again once the body is complete.
    link: Option<Box<Link>>,
    room: Rc<Room>,
    basis: Basis,
    /// From when the body first had to wait.
    flow: Option<Flow>,
    _place: InFlight,
}

impl Answer {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    /// The worker's body, which gives its connection back when it is complete, and ends with the session.
    pub(crate) fn of_worker(
        incoming: Incoming,
        kept: Kept,
        room: Rc<Room>,
        session: Arc<Session>,
        place: OwnInFlight,
    ) -> Self {
        let look = interval(limits::SESSION_SWEEP);
        Self::Worker(Box::new(FromWorker { incoming, room, session, kept: Some(kept), look, _place: place }))
    }

    /// The application's body, which gives its connection back to the pool when it is complete.
    pub(crate) fn carried(
        incoming: Incoming,
        rewriting: Option<Box<Rewriting>>,
        link: Option<Box<Link>>,
        room: Rc<Room>,
        basis: Basis,
        place: InFlight,
    ) -> Self {
        Self::Carried(Box::new(Carried { incoming, rewriting, link, room, basis, flow: None, _place: place }))
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Whole(Some(text.into()))
    }
}

impl Carried {
    /// What comes next, rewritten where it has to be.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let Self { incoming, rewriting, link, .. } = self;
        loop {
            if let Some(rewriting) = rewriting {
                match rewriting.step() {
                    Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Step::More) => {}
                    Ok(Step::End(Some(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Ok(Step::End(None)) => return Poll::Ready(None),
                    Err(error) => return Poll::Ready(Some(Err(AnswerError::Rewriting(error)))),
                }
            }
            let frame = match link {
                Some(link) => link.poll_body(incoming, cx),
                None => Pin::new(&mut *incoming).poll_frame(cx),
            };
            let frame = match frame {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame.transpose().map_err(AnswerError::Application),
            };
            match (rewriting.as_mut(), frame) {
                (_, Err(error)) => return Poll::Ready(Some(Err(error))),
                (None, Ok(frame)) => return Poll::Ready(frame.map(Ok)),
                (Some(rewriting), Ok(None)) => rewriting.end(None),
                (Some(rewriting), Ok(Some(frame))) => match frame.into_data() {
                    Ok(data) => rewriting.take(data),
                    Err(frame) => rewriting.end(frame.into_trailers().ok()),
                },
            }
        }
    }

    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.room.keep(link);
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // The library does not poll again for the end of a body whose length it knew. A body that was not taken to
        // its end closes the connection with the link, which tells the application that its reader left.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let carried = match &mut *self {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Worker(worker) => return worker.poll_body(cx),
            Self::Carried(carried) => carried,
        };
        if let Some(flow) = &carried.flow
            && flow.poll_over(cx).is_ready()
        {
            carried.link = None;
            return Poll::Ready(Some(Err(AnswerError::Ended.into())));
        }
        let frame = match carried.poll_body(cx) {
            Poll::Ready(Some(Err(error))) => {
                carried.link = None;
                return Poll::Ready(Some(Err(error.into())));
            }
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(frame)),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        };
        match frame {
            Poll::Ready(Some(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    trailers_towards_browser(trailers);
                }
                let length = frame.data_ref().map_or(0, Bytes::len);
                carried.room.tally.carried(Direction::ToBrowser, Kind::Body, length);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                carried.give_back();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if carried.flow.is_none() {
                    let flow = Flow::enter(&carried.room, carried.basis.clone());
                    // Registers the waker, so that the end of the session is noticed while waiting.
                    if flow.poll_over(cx).is_ready() {
                        return Poll::Ready(Some(Err(AnswerError::Ended.into())));
                    }
                    carried.flow = Some(flow);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Worker(worker) => worker.incoming.is_end_stream(),
            Self::Carried(carried) => match &carried.rewriting {
                Some(rewriting) => rewriting.is_over(),
                None => carried.incoming.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Worker(worker) => worker.incoming.size_hint(),
            Self::Carried(carried) if carried.rewriting.is_some() => SizeHint::default(),
            Self::Carried(carried) => carried.incoming.size_hint(),
        }
    }
}
