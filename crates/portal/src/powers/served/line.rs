//! The line to the broker: one connection, which the broker makes; questions with a number, answers in any order, news
//! unasked. One task has it; every thread asks through a queue.
//!
//! Invariants: only root's process is heard. What the broker said of ended sessions is in force before anything that it
//! says later; when the connection ends, so do the questions, and the list is had anew from the next one.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use portreeve_broker::Verifier;
use portreeve_model::wire::MAX_FRAME;
use portreeve_model::wire::broker::{AT_ONCE, Answer, Ask, FromBroker, PublicKey, Question};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::channel::{Channel, ChannelError};
use super::ended::{Ended, List};
use crate::chain::chain;
use crate::limits;
use crate::sessions::Sessions;

/// The line, as those who ask have it.
pub(super) struct Line {
    asked: mpsc::Sender<Asked>,
    pub(super) ended: Ended,
    verifier: Arc<ArcSwap<Verifier>>,
    /// Counts how often a key was taken back: what was verified before is verified again.
    epoch: AtomicU64,
}

/// A question on its way.
struct Asked {
    question: Question,
    descriptor: Option<OwnedFd>,
    reply: oneshot::Sender<Answer>,
}

/// The questions, as the one task has them.
pub(super) struct Questions {
    queue: mpsc::Receiver<Asked>,
    /// Taken from the queue, and not asked yet.
    waiting: Option<Asked>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The broker does not run, or can't be reached.
    #[error("the broker can't be reached")]
    NotThere,
    /// It did not answer in time.
    #[error("the broker did not answer in time")]
    Late,
    /// It has more to do than it can.
    #[error("too many questions wait for the broker")]
    Busy,
    /// It failed, and said why.
    #[error("the broker could not do it: {0}")]
    Failed(String),
    /// It answered another question.
    #[error("the broker answered another question")]
    OtherAnswer,
}

impl Line {
    pub(super) fn new() -> (Self, Questions) {
        let (asked, queue) = mpsc::channel(AT_ONCE);
        let line = Self {
            asked,
            ended: Ended::new(),
            verifier: Arc::new(ArcSwap::from_pointee(Verifier::new([]))),
            epoch: AtomicU64::new(0),
        };
        (line, Questions { queue, waiting: None })
    }

    /// Knows the keys that the broker has.
    pub(super) fn verifier(&self) -> &Arc<ArcSwap<Verifier>> {
        &self.verifier
    }

    /// See [`Line::epoch`].
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Asks. A question that belongs with a descriptor brings one.
    pub(super) async fn ask(
        &self,
        question: Question,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, LineError> {
        let patience = match question {
            // A person is on the way to their telephone, or a directory is slow.
            Question::Begin { .. } | Question::Reply { .. } => limits::BROKER_CONVERSATION,
            _ => limits::BROKER_ANSWER,
        };
        let (reply, answer) = oneshot::channel();
        self.asked.try_send(Asked { question, descriptor, reply }).map_err(|_| LineError::Busy)?;
        match timeout(patience, answer).await {
            Ok(Ok(Answer::Failed { why })) => Err(LineError::Failed(why)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(LineError::NotThere),
            Err(_) => Err(LineError::Late),
        }
    }

    /// Takes in what the broker connects to `listener`, one connection after the other, for as long as the portal runs.
    pub(super) async fn serve(
        &self,
        listener: StdUnixListener,
        mut questions: Questions,
        sessions: &Sessions,
    ) {
        let listening = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let listener = match listening {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the broker's socket can't be listened on"),
        };
        loop {
            let channel = tokio::select! {
                channel = accept(&listener) => channel,
                () = questions.refuse_late() => continue,
            };
            tracing::info!("the broker is there");
            let ended = self.converse(&channel, &mut questions, sessions).await;
            tracing::warn!(error = %chain(&ended), "the broker's connection ended");
        }
    }

    /// One connection, to its end.
    async fn converse(
        &self,
        channel: &Channel,
        questions: &mut Questions,
        sessions: &Sessions,
    ) -> ChannelError {
        let mut buffer = zeroize::Zeroizing::new(vec![0; MAX_FRAME]);
        let mut conversation =
            Conversation { line: self, sessions, open: HashMap::new(), whole: Some(List::default()) };
        let mut next = 0u32;
        loop {
            // Hearing first: answers free places for questions.
            tokio::select! {
                biased;
                heard = channel.receive_plain(&mut buffer) => {
                    if let Err(error) = heard.and_then(|said| conversation.hear(said)) {
                        return error;
                    }
                }
                Some(asked) = questions.next(), if conversation.open.len() < AT_ONCE => {
                    next = next.wrapping_add(1);
                    let Asked { question, descriptor, reply } = asked;
                    // Whoever asked may have left.
                    if reply.is_closed() {
                        continue;
                    }
                    let ask = Ask { id: next, question };
                    let descriptor = descriptor.as_ref().map(AsFd::as_fd);
                    if let Err(error) = channel.send(&ask, descriptor).await {
                        return error;
                    }
                    conversation.open.insert(next, reply);
                }
            }
        }
    }
}

/// What one connection has going.
struct Conversation<'l> {
    line: &'l Line,
    sessions: &'l Sessions,
    open: HashMap<u32, oneshot::Sender<Answer>>,
    /// The list as it comes on this connection, until it is whole.
    whole: Option<List>,
}

impl Conversation<'_> {
    fn hear(&mut self, said: FromBroker) -> Result<(), ChannelError> {
        match said {
            FromBroker::Answer { id, answer } => {
                let reply = self.open.remove(&id).ok_or(ChannelError::NoQuestion)?;
                // Whoever asked may have left.
                let _ = reply.send(answer);
            }
            FromBroker::Keys(keys) => self.take_keys(&keys)?,
            FromBroker::AlsoEnded { sessions, users } => match &mut self.whole {
                Some(list) => list.add(sessions, users),
                None => self.line.ended.list().add(sessions, users),
            },
            FromBroker::Ended(sessions) => {
                match self.whole.take() {
                    // The first one completes the list. It replaces what was known: old entries have had their day.
                    Some(mut list) => {
                        list.add(sessions, []);
                        *self.line.ended.list() = list;
                        self.end_all();
                    }
                    None if sessions.is_empty() => {}
                    None => {
                        self.line.ended.list().add(sessions, []);
                        self.end_all();
                    }
                }
                if self.line.ended.list().is_full() {
                    return Err(io::Error::other("the list of ended sessions is to be had anew").into());
                }
                self.line.ended.note_heard();
            }
        }
        Ok(())
    }

    /// Ends the sessions of this portal that are on the list.
    fn end_all(&self) {
        let list = self.line.ended.list();
        self.sessions.end_those(|claims| list.has(claims));
    }

    fn take_keys(&self, keys: &[PublicKey]) -> Result<(), ChannelError> {
        let verifier = Verifier::of_keys(keys).map_err(io::Error::other)?;
        let old = self.line.verifier.swap(Arc::new(verifier));
        let new = self.line.verifier.load();
        if old.key_ids().any(|id| !new.knows_key(id)) {
            self.line.epoch.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }
}

/// The next connection that is root's.
async fn accept(listener: &UnixListener) -> Channel {
    loop {
        let accepted = listener.accept().await;
        let checked = accepted.and_then(|(socket, _)| match portreeve_sys::peer_uid(&socket)? {
            0 => Ok(Channel::over(socket)),
            uid => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("uid {uid} connected to the broker's socket, and only root's process is heard there"),
            )),
        });
        match checked {
            Ok(channel) => return channel,
            Err(error) => {
                tracing::warn!(%error, "a connection to the broker's socket was not taken");
                sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Questions {
    async fn next(&mut self) -> Option<Asked> {
        match self.waiting.take() {
            Some(asked) => Some(asked),
            None => self.queue.recv().await,
        }
    }

    /// Nobody is there to ask: whoever asks hears so after a while, in which the broker may be back. Never returns before
    /// somebody heard so; nothing is lost when it is cancelled.
    async fn refuse_late(&mut self) {
        self.waiting = match self.next().await {
            Some(first) => Some(first),
            None => return std::future::pending().await,
        };
        sleep(limits::BROKER_BACK).await;
        self.waiting = None;
        while self.queue.try_recv().is_ok() {}
    }
}
