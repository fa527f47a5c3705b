//! The line to the broker: one connection, which the broker makes; questions with a number, answers in any order, news
//! unasked. One task has it; every thread asks through a queue.
//!
//! Invariants: only root's process is heard; a question that may have been obeyed is not asked twice, unless that makes no
//! difference.

mod conversation;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use portreeve_broker::Verifier;
use portreeve_model::wire::broker::{AT_ONCE, Answer, Question};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use self::conversation::converse;
use super::channel::Channel;
use super::ended::Ended;
use super::shares::{Share, Shares, Sort};
use crate::chain::chain;
use crate::limits;
use crate::sessions::Sessions;

/// The line, as those who ask have it.
pub(in crate::powers) struct Line {
    asked: mpsc::Sender<Asked>,
    pub(super) ended: Ended,
    verifier: Arc<ArcSwap<Verifier>>,
    /// Counts how often a key was taken back: what was verified before is verified again.
    epoch: AtomicU64,
    shares: Shares,
}

/// A question on its way.
struct Asked {
    question: Question,
    descriptor: Option<OwnedFd>,
    reply: oneshot::Sender<Answer>,
    /// Given back when it was answered.
    _share: Option<Share>,
}

/// The questions, as the one task has them.
pub(super) struct Questions {
    queue: mpsc::Receiver<Asked>,
    /// Taken from the queue, and to be asked before what is in it.
    waiting: VecDeque<Asked>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The broker does not run, can't be reached, or hangs.
    #[error("the broker can't be reached")]
    NotThere,
    /// It did not answer in time.
    #[error("the broker did not answer in time")]
    Late,
    /// It has more to do than it can.
    #[error("too many questions wait for the broker")]
    Busy,
    /// One user's requests ask for more at once than they may.
    #[error("you ask for too much at once")]
    TooMany,
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
            shares: Shares::new(),
        };
        (line, Questions { queue, waiting: VecDeque::new() })
    }

    /// Knows the keys that the broker has.
    pub(super) fn verifier(&self) -> &Arc<ArcSwap<Verifier>> {
        &self.verifier
    }

    /// See [`Line::epoch`].
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Asks what nobody can cause as often as they like: to sign in, or what the portal asks of itself. A question that belongs
    /// with a descriptor brings one.
    pub(super) async fn ask(
        &self,
        question: Question,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, LineError> {
        self.put(question, descriptor, None).await
    }

    /// Asks what each request of a signed-in user may cause, within that user's share.
    pub(super) async fn ask_for(
        &self,
        uid: u32,
        sort: Sort,
        question: Question,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, LineError> {
        let share = self.shares.take(uid, sort).await?;
        self.put(question, descriptor, Some(share)).await
    }

    async fn put(
        &self,
        question: Question,
        descriptor: Option<OwnedFd>,
        share: Option<Share>,
    ) -> Result<Answer, LineError> {
        let patience = match question {
            // A person is on the way to their telephone, or a directory is slow.
            Question::Begin { .. } | Question::Reply { .. } => limits::BROKER_CONVERSATION,
            _ => limits::BROKER_ANSWER,
        };
        let (reply, answer) = oneshot::channel();
        let asked = Asked { question, descriptor, reply, _share: share };
        self.asked.try_send(asked).map_err(|_| LineError::Busy)?;
        tokio::select! {
            biased;
            answered = timeout(patience, answer) => match answered {
                Ok(Ok(Answer::Failed { why })) => Err(LineError::Failed(why)),
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(_)) => Err(LineError::NotThere),
                Err(_) => Err(LineError::Late),
            },
            () = self.silence() => Err(LineError::NotThere),
        }
    }

    /// Returns when the broker, which always has something to say, says nothing: then it won't answer either, and nobody
    /// is to wait as long as PAM may take.
    async fn silence(&self) {
        let mut pause = if self.ended.is_fresh() { limits::BROKER_FRESH } else { limits::BROKER_BACK };
        loop {
            sleep(pause).await;
            if !self.ended.is_fresh() {
                return;
            }
            pause = limits::BROKER_LOOK;
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
            let ended = converse(self, &channel, &mut questions, sessions).await;
            tracing::warn!(error = %chain(&ended), "the broker's connection ended");
        }
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

impl Asked {
    /// Whether it makes no difference if it is asked, and obeyed, twice.
    fn may_be_repeated(&self) -> bool {
        match self.question {
            Question::Look { .. }
            | Question::Token { .. }
            | Question::Renew { .. }
            | Question::SignOut { .. }
            | Question::Groups { .. }
            | Question::Dialer { .. }
            | Question::Worker { .. }
            | Question::Forward { .. }
            | Question::Ident2
            | Question::Login { .. } => true,
            Question::Begin { .. }
            | Question::Reply { .. }
            | Question::Enter { .. }
            | Question::Entry { .. }
            | Question::TakeEntry { .. }
            | Question::LoginAddress { .. } => false,
        }
    }
}

impl Questions {
    async fn next(&mut self) -> Option<Asked> {
        match self.waiting.pop_front() {
            Some(asked) => Some(asked),
            None => self.queue.recv().await,
        }
    }

    /// As the broker has the next one: with where its answer goes.
    #[cfg(test)]
    pub(super) async fn played(&mut self) -> (Question, Option<OwnedFd>, oneshot::Sender<Answer>) {
        let asked = self.next().await.expect("somebody may ask still");
        (asked.question, asked.descriptor, asked.reply)
    }

    /// The broker has gone without an answer to these: they are for its successor, or whoever asked hears that there is none.
    fn ask_again(&mut self, unanswered: impl Iterator<Item = Asked>) {
        self.waiting.extend(unanswered.filter(Asked::may_be_repeated));
    }

    /// Nobody is there to ask: whoever asks hears so after a while, in which the broker may be back. Never returns before
    /// somebody heard so; nothing is lost when it is cancelled.
    async fn refuse_late(&mut self) {
        match self.next().await {
            Some(first) => self.waiting.push_front(first),
            None => return std::future::pending().await,
        }
        sleep(limits::BROKER_BACK).await;
        self.waiting.clear();
        while self.queue.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portreeve_model::{ForwardName, Secret};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_broker_that_is_not_there() {
        let (line, _questions) = Line::new();
        let began = tokio::time::Instant::now();
        let code = Secret::new("code".to_owned());
        let asked = line.ask(Question::Look { code }, None).await;
        assert!(matches!(asked, Err(LineError::NotThere)), "{asked:?}");
        assert_eq!(began.elapsed().as_secs(), limits::BROKER_BACK.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_gives_no_place_back_before_the_answer() {
        let (line, mut questions) = Line::new();
        let ask = |uid| {
            let (ticket, name) = (Secret::new("t".to_owned()), ForwardName::parse("tb").unwrap());
            line.ask_for(uid, Sort::Forward, Question::Forward { ticket, name }, None)
        };
        let leave = async |uid| tokio::time::timeout(Duration::from_millis(1), ask(uid)).await.unwrap_err();
        for _ in 0..limits::ASKED_OF_ONE {
            leave(1).await;
        }
        let refused = ask(1).await;
        assert!(matches!(refused, Err(LineError::TooMany)), "{refused:?}");
        leave(2).await;
        // One is answered, or passed over because nobody waits for it.
        drop(questions.next().await);
        leave(1).await;
        assert!(matches!(ask(1).await, Err(LineError::TooMany)));
    }

    #[tokio::test]
    async fn what_the_broker_may_have_done_already_is_not_asked_of_the_next_one() {
        let (line, mut questions) = Line::new();
        let secret = || Secret::new("secret".to_owned());
        let from = "192.0.2.1".parse().unwrap();
        let asked =
            |question| Asked { question, descriptor: None, reply: oneshot::channel().0, _share: None };
        let (once, any) = (Question::Enter { code: secret(), from }, Question::Groups { ticket: secret() });
        questions.ask_again([once, any.clone()].map(asked).into_iter());
        line.asked.try_send(asked(Question::Login { uid: 1 })).unwrap();
        assert_eq!(questions.next().await.unwrap().question, any);
        assert!(matches!(questions.next().await.unwrap().question, Question::Login { .. }));
    }
}
