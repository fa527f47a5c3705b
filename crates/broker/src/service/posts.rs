//! One process of a user's at a time: the dialers, or the workers. Started when a portal first needs it, handed each further
//! channel, and started again when it is gone; one that dies at once is given time.
//!
//! Invariant: however many ask at the same time, one is started; when a user's post is closed, it ends, even if it was just
//! being started.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use portreeve_model::wire::spawner::Start;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::channel::ChannelError;
use super::children::{Child, Children, StartError};
use super::limits;

/// The processes of one sort.
pub(super) struct Posts {
    children: Rc<Children>,
    by_uid: RefCell<HashMap<u32, Rc<Post>>>,
}

#[derive(Default)]
struct Post {
    /// Held while one is started or handed something.
    manned: Mutex<Manned>,
    closed: Cell<bool>,
}

#[derive(Default)]
struct Manned {
    running: Option<Running>,
    /// Deaths at once, one after the other.
    deaths: u32,
    not_before: Option<Instant>,
}

struct Running {
    child: Child,
    order: Start,
    since: Instant,
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// The last one died at once.
    #[error("it ended as soon as it had started, and is started again in {0} seconds")]
    Resting(u64),
    /// As many users as can be served have theirs.
    #[error("too many people are signed in at the moment")]
    Full,
    /// It could not be started.
    #[error("it could not be started")]
    Start(#[from] StartError),
    /// It does not take what it is given.
    #[error("it does not take another channel")]
    Stuck,
    /// It is gone, and so is its successor.
    #[error("it ended")]
    Gone(#[source] ChannelError),
    /// The user's last session ended meanwhile.
    #[error("the last session has ended")]
    Closed,
}

impl Manned {
    /// Notes that it is gone: by itself at `at`.
    fn ended(&mut self, at: Instant) {
        let Some(running) = self.running.take() else { return };
        if at.saturating_duration_since(running.since) >= limits::LIVES {
            self.deaths = 0;
            self.not_before = None;
            return;
        }
        let rest = limits::RESTART_FIRST.saturating_mul(1 << self.deaths.min(16)).min(limits::RESTART_MOST);
        self.deaths = self.deaths.saturating_add(1);
        self.not_before = Some(at + rest);
        tracing::warn!(order = what(&running.order), deaths = self.deaths, "a child died at once");
    }

    fn look(&mut self) {
        if let Some((at, _)) = self.running.as_ref().and_then(|running| running.child.ended()) {
            self.ended(at);
        }
    }

    fn may_start(&self, now: Instant) -> Result<(), PostError> {
        match self.not_before.map(|at| at.saturating_duration_since(now)) {
            Some(rest) if !rest.is_zero() => Err(PostError::Resting(rest.as_secs() + 1)),
            _ => Ok(()),
        }
    }
}

fn what(order: &Start) -> &'static str {
    match order {
        Start::Dialer(_) => "dialer",
        Start::Worker { .. } => "worker",
        _ => "other",
    }
}

impl Posts {
    /// The processes that hold workers' PAM sessions.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.children.workers()
    }

    pub(super) fn new(children: Rc<Children>) -> Self {
        Self { children, by_uid: RefCell::default() }
    }

    fn post(&self, uid: u32) -> Rc<Post> {
        Rc::clone(self.by_uid.borrow_mut().entry(uid).or_default())
    }

    /// Hands `descriptor` with `message` to the user's process. If none runs, or one by another order (the user's groups
    /// changed), one is started by `order` and told what is `first`.
    pub(super) async fn hand_over<F: Serialize, M: Serialize>(
        &self,
        uid: u32,
        order: Start,
        first: impl Fn() -> Vec<F>,
        message: &M,
        descriptor: OwnedFd,
    ) -> Result<(), PostError> {
        let post = self.post(uid);
        let mut manned = post.manned.lock().await;
        manned.look();
        if manned.running.as_ref().is_some_and(|running| running.order != order) {
            manned.running = None;
        }
        let mut tried = false;
        loop {
            if manned.running.is_none() {
                manned.may_start(Instant::now())?;
                if !self.children.has_room_for_lasting() {
                    return Err(PostError::Full);
                }
                let child = self.children.start(order.clone()).await?;
                let told = tell_each(&child, &first()).await;
                manned.running = Some(Running { child, order: order.clone(), since: Instant::now() });
                if let Err(error) = told {
                    manned.ended(Instant::now());
                    return Err(error);
                }
            }
            if post.closed.get() {
                manned.running = None;
                return Err(PostError::Closed);
            }
            let Some(running) = &manned.running else { continue };
            let handed = running.child.channel().send_with(message, descriptor.as_fd());
            match timeout(limits::HAND_OVER, handed).await {
                Ok(Ok(())) => return Ok(()),
                // It left just now; its successor gets it.
                Ok(Err(ChannelError::Closed)) if !tried => {
                    tried = true;
                    manned.ended(Instant::now());
                }
                Ok(Err(error)) => {
                    manned.ended(Instant::now());
                    return Err(PostError::Gone(error));
                }
                Err(_) => {
                    manned.running = None;
                    return Err(PostError::Stuck);
                }
            }
        }
    }

    /// Tells all that run.
    pub(super) fn tell_all<M: Serialize + 'static>(&self, message: M) {
        let message = Rc::new(message);
        for post in self.by_uid.borrow().values() {
            tokio::task::spawn_local(told(Rc::clone(post), Rc::clone(&message)));
        }
    }

    /// Tells the user's, if one runs or is being started.
    pub(super) fn tell<M: Serialize + 'static>(&self, uid: u32, message: M) {
        if let Some(post) = self.by_uid.borrow().get(&uid) {
            tokio::task::spawn_local(told(Rc::clone(post), Rc::new(message)));
        }
    }

    /// The user's process ends.
    pub(super) fn close(&self, uid: u32) {
        if let Some(post) = self.by_uid.borrow_mut().remove(&uid) {
            post.closed.set(true);
            // Whoever hands something over now sees that and lets it go; otherwise nobody holds it any more.
        }
    }

    /// Forgets posts whose process is gone and could be started again at once.
    pub(super) fn sweep(&self, now: Instant) {
        self.by_uid.borrow_mut().retain(|_, post| {
            // One that is just being used stays.
            if Rc::strong_count(post) > 1 {
                return true;
            }
            let Ok(mut manned) = post.manned.try_lock() else { return true };
            manned.look();
            manned.running.is_some() || manned.not_before.is_some_and(|at| now < at + limits::RESTART_MOST)
        });
    }
}

async fn told<M: Serialize>(post: Rc<Post>, message: Rc<M>) {
    let mut manned = post.manned.lock().await;
    if let Some(running) = &manned.running
        && let Err(error) = tell(&running.child, &*message).await
    {
        tracing::warn!(%error, "a child can't be told the news, and is let go");
        manned.running = None;
    }
}

async fn tell_each<M: Serialize>(child: &Child, messages: &[M]) -> Result<(), PostError> {
    for message in messages {
        tell(child, message).await?;
    }
    Ok(())
}

async fn tell<M: Serialize>(child: &Child, message: &M) -> Result<(), PostError> {
    match timeout(limits::HAND_OVER, child.channel().send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(PostError::Gone(error)),
        Err(_) => Err(PostError::Stuck),
    }
}
