//! One connection with a portal: its questions, their answers, and the news.
//!
//! Invariant: a frame that is too long, can't be understood, or brings a descriptor where none belongs ends this connection, and
//! nothing but this connection. What it began ends with it.

use std::convert::Infallible;
use std::rc::Rc;

use nix::sys::socket::{getsockopt, sockopt};
use portreeve_model::wire::broker::{AT_ONCE, Answer, Ask, FromBroker};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::channel::{Buffer, Channel, ChannelError};
use super::holders::failed;
use super::news::{Listener, messages};
use super::questions::takes_descriptor;
use super::{Service, limits};

/// Names a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PortalId(pub(super) u64);

/// A send buffer in which the first heartbeats fill up, so that we notice when somebody begins to read: the kernel makes the
/// least of it that it allows, about 4 KiB.
const SMALL_BUFFER: usize = 1;
/// Sessions or users in one message while the buffer is small.
const SMALL_MESSAGE: usize = 60;
/// A message that waited so long was blocked.
const BLOCKED: std::time::Duration = std::time::Duration::from_millis(100);

/// A connection that a portal has taken, or that waits in its queue.
pub(super) struct Connection {
    id: PortalId,
    channel: Rc<Channel>,
    /// Somebody reads it: a portal has it.
    taken: watch::Sender<bool>,
    /// The send buffer that it was made with, in bytes.
    usual_buffer: usize,
    /// Held by whoever tells the news, so that they stay in their order.
    telling: Mutex<()>,
}

impl Connection {
    pub(super) fn new(id: PortalId, channel: Channel) -> std::io::Result<Self> {
        let usual_buffer = getsockopt(&channel, sockopt::SndBuf)?;
        let (taken, telling) = (watch::Sender::new(false), Mutex::new(()));
        Ok(Self { id, channel: Rc::new(channel), taken, usual_buffer, telling })
    }

    /// Waits until a portal has it.
    pub(super) async fn is_taken(&self) {
        // The sender is ours, so it can't be gone.
        let _ = self.taken.subscribe().wait_for(|taken| *taken).await;
    }

    fn take(&self) {
        if !self.taken.send_replace(true) {
            // The kernel doubles what it is told (socket(7)). An answer may be long.
            if let Err(error) = self.channel.set_send_buffer(self.usual_buffer / 2) {
                tracing::warn!(%error, "the send buffer stays small");
            }
            tracing::info!(portal = self.id.0, "a portal has taken its connection");
        }
    }

    /// Serves it until it ends.
    pub(super) async fn serve(&self, service: &Rc<Service>) {
        let listener = service.news.listen();
        let ended = tokio::select! {
            ended = self.hear(service, &listener) => ended,
            ended = self.tell(service, &listener) => ended,
        };
        service.conversations.end_of_portal(self.id);
        service.ident2.end_of_portal(self.id);
        match ended {
            ChannelError::Closed => tracing::info!(portal = self.id.0, "a portal's connection ended"),
            error => tracing::warn!(
                portal = self.id.0,
                error = &error as &dyn std::error::Error,
                "a portal's connection was ended"
            ),
        }
    }

    /// Hears questions. Those under way end with it. Before the first one is answered, all that is news by then was told: a
    /// portal believes nothing of what it finds in a connection until it has that answer.
    async fn hear(&self, service: &Rc<Service>, listener: &Listener) -> ChannelError {
        let mut buffer = Buffer::new();
        let mut under_way = JoinSet::new();
        let mut has_told = false;
        loop {
            let (Ask { id, question }, descriptor) = match self.channel.receive(&mut buffer).await {
                Ok(received) => received,
                Err(error) => return error,
            };
            self.take();
            if !std::mem::replace(&mut has_told, true)
                && let Err(error) = self.tell_once(service, listener, limits::NEWS_SESSIONS).await
            {
                return error;
            }
            if takes_descriptor(&question) != descriptor.is_some() {
                return ChannelError::Descriptors;
            }
            while let Some(ended) = under_way.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a question was not answered");
                }
            }
            if under_way.len() >= AT_ONCE {
                // Here, and not in a task: whoever does not read its answers is not heard either.
                let answer = failed("the broker is busy");
                if let Err(error) = self.channel.send(&FromBroker::Answer { id, answer }).await {
                    return error;
                }
                continue;
            }
            let (service, channel, portal) = (Rc::clone(service), Rc::clone(&self.channel), self.id);
            under_way.spawn_local(async move {
                let answer = service.answer(portal, question, descriptor).await;
                give(&channel, id, answer).await;
            });
        }
    }

    /// Tells the news: all of it first, then at least once a second.
    async fn tell(&self, service: &Service, listener: &Listener) -> ChannelError {
        match self.tell_all(service, listener).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn tell_all(&self, service: &Service, listener: &Listener) -> Result<Infallible, ChannelError> {
        self.tell_once(service, listener, limits::NEWS_SESSIONS).await?;
        if !*self.taken.borrow() {
            self.channel.set_send_buffer(SMALL_BUFFER)?;
        }
        let mut told = 0u32;
        while !*self.taken.borrow() {
            tokio::select! {
                () = tokio::time::sleep(limits::NEWS) => {}
                () = listener.wake.notified() => {}
                () = self.is_taken() => {}
            }
            self.tell_once(service, listener, SMALL_MESSAGE).await?;
            told += 1;
            if told >= limits::UNREAD {
                self.take();
            }
        }
        loop {
            let _ = timeout(limits::NEWS, listener.wake.notified()).await;
            self.tell_once(service, listener, limits::NEWS_SESSIONS).await?;
        }
    }

    async fn tell_once(
        &self,
        service: &Service,
        listener: &Listener,
        most: usize,
    ) -> Result<(), ChannelError> {
        let _telling = self.telling.lock().await;
        let waiting = listener.take();
        let (sessions, users) = match waiting.whole {
            true => service.revocations.borrow().all(service.now()),
            false => (waiting.sessions, waiting.users),
        };
        let keys = waiting.keys.then(|| service.keys.borrow().public());
        for message in messages(keys, sessions, users, most) {
            let began = Instant::now();
            self.channel.send(&message).await?;
            if began.elapsed() >= BLOCKED {
                // There was no room, and now there is: somebody reads.
                self.take();
            }
        }
        Ok(())
    }
}

async fn give(channel: &Channel, id: u32, answer: Answer) {
    let mut given = channel.send(&FromBroker::Answer { id, answer }).await;
    if let Err(ChannelError::Frame(error)) = &given {
        tracing::error!(%error, "an answer does not fit into a frame");
        let answer = failed("the answer is too long");
        given = channel.send(&FromBroker::Answer { id, answer }).await;
    }
    if let Err(error) = given {
        tracing::debug!(%error, "an answer can't be given");
    }
}
