//! The portal's end of the channel to the broker. One task of the main thread holds it; every thread asks through here.
//!
//! Invariant: a question that was not answered in time, or whose connection broke, is an error. Who has heard nothing from the
//! broker for a while does not know who signed out, and says so ([`Broker::is_fresh`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use portreeve_broker::channel::{Buffer, Channel, ChannelError};
use portreeve_model::wire::broker::{Answer, Ask, FromBroker, Question};
use portreeve_sys::peer_uid;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::limits;

/// One question, and who waits for its answer.
struct Asked {
    question: Question,
    descriptor: Option<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// Asks the broker, from any thread.
#[derive(Clone)]
pub(crate) struct Broker {
    asks: mpsc::Sender<Asked>,
    heard: Arc<Heard>,
}

/// When the broker was heard last.
struct Heard {
    began: Instant,
    /// Milliseconds after `began`; 0: never.
    last: AtomicU64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Too many questions wait already.
    #[error("the broker is asked too much at once")]
    Busy,
    /// It is not connected, or went away.
    #[error("the broker is not there")]
    Gone,
    /// It said nothing in time.
    #[error("the broker did not answer in time")]
    Late,
    /// It answered something else.
    #[error("the broker answered another question")]
    Unexpected,
}

impl Heard {
    fn note(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since.max(1), Relaxed);
    }

    fn is_fresh(&self) -> bool {
        let last = self.last.load(Relaxed);
        last != 0 && self.began.elapsed() < Duration::from_millis(last) + limits::BROKER_SILENCE
    }
}

impl Broker {
    /// Asks; `descriptor` goes with the question.
    pub(crate) async fn ask(
        &self,
        question: Question,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, AskError> {
        // The first sign-in may wait for a person's directory server; everything else is quick.
        let patience = match question {
            Question::Begin { .. } | Question::Reply { .. } | Question::Enter { .. } => limits::SIGN_IN_STEP,
            _ => limits::BROKER_ANSWER,
        };
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(Asked { question, descriptor, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Gone,
        })?;
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Gone),
            Err(_) => Err(AskError::Late),
        }
    }

    /// Whether it is known who signed out.
    pub(crate) fn is_fresh(&self) -> bool {
        self.heard.is_fresh()
    }
}

/// The task's half.
pub(crate) struct Line {
    asks: mpsc::Receiver<Asked>,
    heard: Arc<Heard>,
}

/// Both halves.
pub(crate) fn line() -> (Broker, Line) {
    let (asks, asked) = mpsc::channel(limits::BROKER_QUESTIONS);
    let heard = Arc::new(Heard { began: Instant::now(), last: AtomicU64::new(0) });
    (Broker { asks, heard: Arc::clone(&heard) }, Line { asks: asked, heard })
}

impl Line {
    /// Takes the broker's connections from `listener`, one after the other, for as long as the portal runs. `news` hears
    /// what comes unasked.
    pub(crate) async fn serve(mut self, listener: OwnedFd, news: impl Fn(FromBroker)) -> std::io::Result<()> {
        let listener = AsyncFd::new(listener)?;
        loop {
            let channel = accept(&listener).await?;
            match peer_uid(&channel) {
                Ok(0) => {}
                Ok(uid) => {
                    tracing::error!(uid, "somebody who is not root wants to be the broker; refused");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "who connects as the broker is not known; refused");
                    continue;
                }
            }
            tracing::info!("the broker is connected");
            let ended = self.talk(&channel, &news).await;
            tracing::warn!(error = %ended, "the broker is gone; sign-ins and new connections wait for it");
        }
    }

    /// Until the connection ends. Whoever waits for an answer then hears that it is gone.
    async fn talk(&mut self, channel: &Channel, news: &impl Fn(FromBroker)) -> ChannelError {
        let waiting: Rc<RefCell<HashMap<u32, oneshot::Sender<Answer>>>> = Rc::default();
        let next = Cell::new(0_u32);
        let heard = Arc::clone(&self.heard);
        let hears = async {
            let mut buffer = Buffer::new();
            loop {
                match channel.receive_plain::<FromBroker>(&mut buffer).await {
                    Ok(FromBroker::Answer { id, answer }) => {
                        // Nobody may be waiting any more.
                        if let Some(asker) = waiting.borrow_mut().remove(&id) {
                            let _ = asker.send(answer);
                        }
                    }
                    Ok(other) => {
                        heard.note();
                        news(other);
                    }
                    Err(error) => return error,
                }
            }
        };
        let asks = async {
            while let Some(Asked { question, descriptor, answer }) = self.asks.recv().await {
                let id = next.get();
                next.set(id.wrapping_add(1));
                let ask = Ask { id, question };
                {
                    let mut waiting = waiting.borrow_mut();
                    waiting.retain(|_, asker| !asker.is_closed());
                    waiting.insert(id, answer);
                }
                let sent = match descriptor {
                    Some(descriptor) => channel.send_with(&ask, descriptor.as_fd()).await,
                    None => channel.send(&ask).await,
                };
                match sent {
                    Ok(()) => {}
                    // One that can't be put into a frame is this asker's trouble alone.
                    Err(ChannelError::Frame(error)) => {
                        tracing::warn!(%error, "a question to the broker can't be sent");
                        waiting.borrow_mut().remove(&id);
                    }
                    Err(error) => return error,
                }
            }
            ChannelError::Closed
        };
        tokio::select! {
            ended = hears => ended,
            ended = asks => ended,
        }
    }
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> std::io::Result<Channel> {
    use nix::sys::socket::{SockFlag, accept4};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    loop {
        let mut ready = listener.readable().await?;
        let taken = ready.try_io(|inner| Ok(accept4(inner.get_ref().as_raw_fd(), flags)?));
        match taken {
            Ok(Ok(number)) => return Channel::new(portreeve_sys::descriptors::owned(number)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the broker's connection could not be accepted");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
            Err(_) => {}
        }
    }
}
