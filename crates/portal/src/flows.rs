//! What lives long: requests that wait for their answer, answers that take their time, and tunnels. Each is ended when
//! its session ends, or when nobody can tell any more whether it did, and judged again every few seconds, so that what was
//! allowed an hour ago is not allowed still.
//!
//! Invariant: a flow is here from when it first has to wait until it is dropped.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use portreeve_model::Owner;
use slab::Slab;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authorize;
use crate::limits;
use crate::metrics::{Direction, Kind};
use crate::portal::now;
use crate::resolve::{Grant, Withdrawn};
use crate::room::Room;
use crate::sessions::Session;

/// On whose behalf, by which right, towards whom: all that a new judgement needs.
#[derive(Clone)]
pub(crate) struct Basis {
    pub(crate) session: Arc<Session>,
    pub(crate) grant: Rc<Grant>,
    pub(crate) owner: Owner,
}

/// Why a flow must end.
#[derive(Debug, Clone)]
pub(crate) enum Over {
    /// The person signed out, or the session's time is over.
    Session,
    /// The broker has been silent for so long that nobody knows whether the session has ended.
    Unknown,
    /// The right was taken back.
    Right(Withdrawn),
}

struct State {
    over: OnceCell<Over>,
    waker: RefCell<Option<Waker>>,
    basis: Basis,
}

/// All flows of one thread.
#[derive(Default)]
pub(crate) struct Flows {
    all: RefCell<Slab<Rc<State>>>,
}

/// One flow, as the one that carries it holds it.
pub(crate) struct Flow {
    room: Rc<Room>,
    key: usize,
    state: Rc<State>,
}

impl Flow {
    pub(crate) fn enter(room: &Rc<Room>, basis: Basis) -> Self {
        let state = Rc::new(State { over: OnceCell::new(), waker: RefCell::default(), basis });
        let mut all = room.flows.all.borrow_mut();
        let key = all.insert(Rc::clone(&state));
        if all.len() == 1 {
            room.to_look_after.notify_one();
        }
        drop(all);
        Self { room: Rc::clone(room), key, state }
    }

    /// Ready when the flow must end, with the reason.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<&Over> {
        if let Some(over) = self.state.over.get() {
            return Poll::Ready(over);
        }
        let mut waker = self.state.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Notes that the person is there: bytes came from the browser.
    pub(crate) fn touch(&self) {
        self.state.basis.session.touch(now());
    }

    /// Counts a tunnel, until dropped.
    pub(crate) fn tunnel(&self) -> OpenTunnel {
        self.room.tally.tunnel_begun();
        OpenTunnel(Rc::clone(&self.room))
    }

    /// Notes what a tunnel carried.
    pub(crate) fn carried(&self, direction: Direction, bytes: usize) {
        self.room.tally.carried(direction, Kind::Tunnel, bytes);
    }
}

/// A tunnel that is counted as open.
pub(crate) struct OpenTunnel(Rc<Room>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tally.tunnel_ended();
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.room.flows.all.borrow_mut().try_remove(self.key);
    }
}

/// Ends the flows of one thread with their sessions, and closes idle connections, for as long as the thread runs.
/// Sleeps while there are none. Waits for nothing else: a sign-out is in force within a moment.
pub(crate) async fn sweep(room: Rc<Room>) {
    loop {
        if room.flows.all.borrow().is_empty() && room.pool.is_empty() {
            room.to_look_after.notified().await;
        }
        tokio::time::sleep(limits::SESSION_SWEEP).await;
        end_with_their_sessions(&room);
        room.pool.drop_idle(room.portal.settings.load().config.limits.pool_idle, Instant::now());
    }
}

/// Judges the flows of one thread again, for as long as it runs. May have to wait for a file system.
pub(crate) async fn judge_from_time_to_time(room: Rc<Room>) {
    loop {
        tokio::time::sleep(limits::JUDGE_AGAIN).await;
        judge_again(&room).await;
    }
}

fn end_with_their_sessions(room: &Room) {
    let idle = room.portal.settings.load().idle_seconds();
    let now = now();
    let is_known = room.portal.service.knows_who_is_over();
    let mut unknown = 0u32;
    for (_, flow) in room.flows.all.borrow().iter() {
        if !flow.basis.session.is_live(now, idle) {
            end(flow, Over::Session);
        } else if !is_known && flow.over.get().is_none() {
            unknown += 1;
            end(flow, Over::Unknown);
        }
    }
    if unknown > 0 {
        tracing::warn!(
            flows = unknown,
            "ended: the broker is silent, and nobody knows whether their sessions are over"
        );
    }
}

fn end(flow: &State, over: Over) {
    // The first reason counts.
    let _ = flow.over.set(over);
    if let Some(waker) = flow.waker.borrow_mut().take() {
        waker.wake();
    }
}

async fn judge_again(room: &Rc<Room>) {
    // One that must end, and whose browser is slow to take the end of it, is not judged once more.
    let going_on = |(_, flow): (usize, &Rc<State>)| flow.over.get().is_none().then(|| Rc::clone(flow));
    let flows: Vec<Rc<State>> = room.flows.all.borrow().iter().filter_map(going_on).collect();
    // Side by side: a forward's file system that hangs delays no other flow.
    let mut judging = JoinSet::new();
    for flow in flows {
        let room = Rc::clone(room);
        judging.spawn_local(async move {
            let Basis { session, grant, owner } = &flow.basis;
            if let Err(withdrawn) = authorize::judge_again(&room, session, grant, owner).await {
                end(&flow, Over::Right(withdrawn));
            }
        });
    }
    while judging.join_next().await.is_some() {}
}
