//! A connection to an application that speaks HTTP already: whose it is, and what moves it.
//!
//! Invariant: it makes no step by itself. Whoever waits for something that comes over it moves it, within the task that
//! waits, so that a request leaves in the breath in which it came, and no other task is woken on the way there and back.
//! Where both directions go on at once, as with a request's body or a tunnel, it gets a task ([`Link::let_go`]).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use portreeve_model::{Owner, Tuple};
use tokio::task::coop::{poll_proceed, unconstrained};
use tokio_util::task::TaskTracker;

use crate::authorize::Audited;
use crate::mode::Mode;
use crate::request_body::RequestBody;
use crate::resolve::Tls;

/// What a connection may be used for again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) uid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

/// What moves a connection: it is polled, and over when it is ready.
type Moves = Pin<Box<dyn Future<Output = ()>>>;

/// The connection. It goes from hand to hand, by its address: it is large.
pub(crate) struct Link {
    pub(crate) key: Key,
    pub(crate) tuple: Tuple,
    pub(crate) owner: Cell<Owner>,
    /// The judgement of it that the audit log has.
    pub(crate) audited: RefCell<Option<Audited>>,
    /// What is known of how the application wants its paths, below which prefix.
    mode: RefCell<Option<(Rc<str>, Mode)>>,
    sender: SendRequest<RequestBody>,
    /// None: it is over, or a task of its own moves it.
    moves: Option<Moves>,
    /// What comes over it wakes a task.
    wakes: bool,
}

impl Link {
    /// `connection` is what the library wants to be polled for `sender` to be heard.
    pub(crate) fn new<F>(
        key: Key,
        tuple: Tuple,
        owner: Owner,
        sender: SendRequest<RequestBody>,
        connection: F,
    ) -> Box<Self>
    where
        F: Future<Output = hyper::Result<()>> + 'static,
    {
        // Its failure reaches whoever waits for the answer; an idle connection that the application closes is none.
        let moves = async { drop(connection.await) };
        Box::new(Self {
            key,
            tuple,
            owner: owner.into(),
            audited: RefCell::default(),
            mode: RefCell::default(),
            sender,
            moves: Some(Box::pin(moves)),
            wakes: false,
        })
    }

    /// How the application wants its paths below this prefix, if this connection knows.
    pub(crate) fn known_mode(&self, prefix: &str) -> Option<Mode> {
        self.mode.borrow().as_ref().filter(|(below, _)| **below == *prefix).map(|(_, mode)| *mode)
    }

    /// Notes how the application wants its paths below this prefix.
    pub(crate) fn note_mode(&self, prefix: &Rc<str>, mode: Mode) {
        if self.known_mode(prefix) != Some(mode) {
            *self.mode.borrow_mut() = Some((Rc::clone(prefix), mode));
        }
    }

    /// Whether it takes a request at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether it is over, as far as was seen when it was moved last.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sees whether the application has closed it.
    pub(crate) fn look(&mut self) {
        self.advance(&mut Context::from_waker(Waker::noop()));
    }

    /// Finishes what an answer has left to do, and wakes nobody from now on.
    pub(crate) fn rest(&mut self) {
        if self.wakes || !self.is_ready() {
            self.look();
        }
    }

    /// Waits until it takes a request.
    pub(crate) async fn ready(&mut self) -> hyper::Result<()> {
        poll_fn(|cx| self.poll_for(cx, &mut |link, cx| link.sender.poll_ready(cx))).await
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        // An answer that is there is taken, also by a task that has done all that it may for now: this is asked for without a
        // waker, so that nobody would ask again.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let mut head = |_: &mut Self, cx: &mut Context<'_>| answer.as_mut().poll(cx);
        let mut is_sent = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut is_sent, true) {
                return self.poll_for(cx, &mut head);
            }
            // No answer comes as fast as that.
            self.advance(cx);
            self.take(cx, &mut head)
        })
        .await
    }

    /// What comes next of an answer's body.
    pub(crate) fn poll_body(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // Much may come of one read, and nothing of it, so that nobody else would count it.
        let turn = ready!(poll_proceed(cx));
        let frame = ready!(self.poll_for(cx, &mut |_, cx| Pin::new(&mut *incoming).poll_frame(cx)));
        turn.made_progress();
        Poll::Ready(frame)
    }

    /// Has a task of its own move it from now on.
    pub(crate) fn let_go(&mut self, tasks: &TaskTracker) {
        if let Some(moves) = self.moves.take() {
            tasks.spawn_local(moves);
        }
    }

    /// What comes over this connection. As long as it can be had by moving it here, nobody is woken.
    fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        wanted: &mut impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Poll::Ready(found) = self.take(cx, wanted) {
            return Poll::Ready(found);
        }
        self.look();
        if let Poll::Ready(found) = self.take(cx, wanted) {
            return Poll::Ready(found);
        }
        self.advance(cx);
        self.take(cx, wanted)
    }

    /// What is there of it already. It comes when the connection is moved, and not before: whoever does that asks again.
    fn take<T>(
        &mut self,
        cx: &mut Context<'_>,
        wanted: &mut impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match self.moves {
            Some(_) => wanted(self, &mut Context::from_waker(Waker::noop())),
            None => wanted(self, cx),
        }
    }

    /// Does what can be done at once; what comes later wakes this task.
    fn advance(&mut self, cx: &mut Context<'_>) {
        if let Some(moves) = &mut self.moves {
            self.wakes = !cx.waker().will_wake(Waker::noop());
            if moves.as_mut().poll(cx).is_ready() {
                self.moves = None;
            }
        }
    }
}
