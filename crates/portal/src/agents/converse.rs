//! One connection to an agent: questions out, answers in. Before: `greet`. It runs on the thread that accepted it; the
//! other threads' questions come through a queue, and their answers go back through a channel each.
//! Invariant: an answer that nobody asked for, or of another kind, ends the connection. A question that its asker gave up
//! keeps its number until it is answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use portreeve_agent::channel::{FrameError, FrameReader};
use portreeve_model::wire::agent::{AT_ONCE, Answer, FromAgent, Question, ToAgent};
use portreeve_model::wire::{self, ControlReply, WireError};
use portreeve_model::{NodeName, Speaker};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::check;
use super::greet::{Greeted, goodbye};
use super::slot::{Asked, Ending, Link, Reply, TooMany};
use super::{Agents, LoginAsked};
use crate::limits;

/// Questions that are written at once.
const TOGETHER: usize = 64;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Told(Ending),
    #[error("it answered what nobody asked")]
    Unasked,
    #[error("its answer does not fit the question")]
    Unfitting,
    #[error("it greeted twice")]
    Greeted,
    #[error("it asks for sign-in addresses, and its node does not have the role login")]
    NoLogin,
    #[error("it leaves questions unanswered")]
    Silent,
    #[error("its questions are all numbered")]
    Numbers,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        FrameError::from(error).into()
    }
}

/// A question that was sent.
struct Open {
    question: Question,
    since: Instant,
    /// `None`: a sign of life, for ourselves.
    reply: Option<oneshot::Sender<Reply>>,
}

/// What the two halves of a conversation share.
struct Talk<'a> {
    agents: &'a Agents,
    node: &'a NodeName,
    /// By number, so the oldest is the first.
    open: Mutex<BTreeMap<u32, Open>>,
    latency: Arc<Mutex<Option<Duration>>>,
    /// Places for questions of theirs.
    logins: Arc<Semaphore>,
}

/// Converses until the connection ends, and says why it did.
pub(super) async fn converse(agents: &Agents, greeted: Greeted) {
    let Greeted { node, speaker, peer, boot, calls_itself, reader, mut writer } = greeted;
    let Some(slot) = agents.force.load().slots.get(&node).cloned() else { return };
    let (asked, questions) = mpsc::channel(limits::AGENT_QUEUE);
    let (end, ended) = oneshot::channel();
    let latency = Arc::default();
    let link = Link {
        node: node.clone(),
        speaker,
        peer,
        boot,
        calls_itself: calls_itself.clone(),
        since: SystemTime::now(),
        asked,
        end,
        latency: Arc::clone(&latency),
    };
    let mut holding = match slot.take(link) {
        Ok(holding) => holding,
        Err(why) => {
            tracing::error!(%node, from = %peer, "an agent's connection was refused: {why}");
            return goodbye(&mut writer, why).await;
        }
    };
    // The rules may have changed since the greeting.
    let force = agents.force.load_full();
    let speaks = |link: &Link| {
        let known = force.nodes.nodes().iter().find(|known| known.name == link.node);
        known.is_some_and(|known| known.speaker == Some(link.speaker)) && force.admits(link)
    };
    slot.end_unless(speaks, Ending::Rules);
    tracing::info!(%node, from = %peer, "an agent has connected");
    if let Some(name) = calls_itself {
        tracing::warn!(%node, calls_itself = %name, "an agent has another name for its node than the node map");
    }
    if speaker == Speaker::Plain {
        tracing::warn!(%node, from = %peer, "it has no key, and is believed by its address: the weaker way");
    }

    let talk = Talk {
        agents,
        node: &node,
        open: Mutex::default(),
        latency,
        logins: Arc::new(Semaphore::new(limits::AGENT_LOGINS)),
    };
    let (replies, to_reply) = mpsc::channel(limits::AGENT_LOGINS);
    let why = tokio::select! {
        // What is to be ended is not heard any more.
        biased;
        told = ended => End::Told(told.unwrap_or(Ending::Replaced)),
        end = talk.read(reader, replies) => never(end),
        end = talk.write(&mut writer, questions, to_reply) => never(end),
    };
    let told = match &why {
        End::Frame(error @ FrameError::Wire(source)) => format!("{error}: {source}"),
        why => why.to_string(),
    };
    holding.because(told.clone());
    drop(holding);
    tracing::warn!(%node, from = %peer, "an agent's connection ended: {told}");
    // Nobody waits on for an answer that does not come any more.
    talk.open().clear();
    if !matches!(why, End::Frame(FrameError::Ended | FrameError::Io(_) | FrameError::Stuck)) {
        goodbye(&mut writer, &told).await;
    }
}

fn never(ended: Result<Infallible, End>) -> End {
    match ended {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

impl Talk<'_> {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u32, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read<R: AsyncRead + Unpin>(
        &self,
        mut reader: FrameReader<R>,
        replies: mpsc::Sender<(u32, ControlReply)>,
    ) -> Result<Infallible, End> {
        let mut logins = JoinSet::new();
        loop {
            // The signs of life keep it from being silent for longer.
            match reader.next(limits::AGENT_PING + limits::AGENT_SILENT, limits::AGENT_FRAME).await? {
                FromAgent::Answer { id, answer } => self.answered(id, answer)?,
                FromAgent::Login { id, uid } => {
                    while logins.try_join_next().is_some() {}
                    self.login(id, uid, &mut logins, &replies)?;
                }
                FromAgent::Hello { .. } => return Err(End::Greeted),
            }
        }
    }

    fn answered(&self, id: u32, answer: Answer) -> Result<(), End> {
        let Some(open) = self.open().remove(&id) else { return Err(End::Unasked) };
        if !check::fits(&open.question, &answer) {
            return Err(End::Unfitting);
        }
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner) = Some(open.since.elapsed());
        if let Some(reply) = open.reply {
            // That the asker has given up is no fault of the agent's.
            let _ = reply.send(Ok(answer));
        }
        Ok(())
    }

    /// Somebody on the node wants to sign in.
    fn login(
        &self,
        id: u32,
        uid: u32,
        logins: &mut JoinSet<()>,
        replies: &mpsc::Sender<(u32, ControlReply)>,
    ) -> Result<(), End> {
        let nodes = self.agents.nodes();
        if !nodes.nodes().iter().any(|node| node.name == *self.node && node.is_login) {
            return Err(End::NoLogin);
        }
        let place = Arc::clone(&self.logins).try_acquire_owned();
        let (reply, replied) = oneshot::channel();
        let asked = LoginAsked { node: self.node.clone(), uid, reply };
        // When nobody takes the question, its reply is dropped, and that is a refusal.
        let asked = place.map(|place| self.agents.logins.try_send(asked).map(|()| place));
        let replies = replies.clone();
        logins.spawn(async move {
            let refused = || ControlReply::Refused {
                reason: "the portal can't sign in anybody at the moment".to_owned(),
            };
            let (reply, _place) = match asked {
                Ok(Ok(place)) => (replied.await.unwrap_or_else(|_| refused()), Some(place)),
                _ => (refused(), None),
            };
            let _ = replies.send((id, reply)).await;
        });
        Ok(())
    }

    async fn write<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        mut questions: mpsc::Receiver<Asked>,
        mut to_reply: mpsc::Receiver<(u32, ControlReply)>,
    ) -> Result<Infallible, End> {
        let mut next: u32 = 0;
        let mut together = Vec::with_capacity(TOGETHER);
        let mut looked_after = interval(limits::AGENT_PING);
        loop {
            let mut bytes = Vec::new();
            let mut ask = |question: Question, reply| {
                let id = next;
                next = next.checked_add(1).ok_or(End::Numbers)?;
                bytes.extend(wire::encode(&ToAgent::Ask { id, question: question.clone() })?);
                self.open().insert(id, Open { question, since: Instant::now(), reply });
                Ok::<(), End>(())
            };
            tokio::select! {
                count = questions.recv_many(&mut together, TOGETHER) => {
                    if count == 0 {
                        // Nobody can ask any more, since the connection is to end: whoever decided that says so.
                        std::future::pending::<()>().await;
                    }
                    for Asked { question, reply } in together.drain(..) {
                        if reply.is_closed() {
                            // They gave up while it waited here.
                        } else if self.open().len() < AT_ONCE {
                            ask(question, Some(reply))?;
                        } else {
                            let _ = reply.send(Err(TooMany));
                        }
                    }
                }
                Some((id, reply)) = to_reply.recv() => bytes.extend(wire::encode(&ToAgent::Login { id, reply })?),
                // At once for the first time: it tells the agent that it is known.
                _ = looked_after.tick() => {
                    let oldest = self.open().first_key_value().map(|(_, open)| open.since);
                    if oldest.is_some_and(|since| since.elapsed() >= limits::AGENT_SILENT) {
                        return Err(End::Silent);
                    }
                    ask(Question::Ping, None)?;
                }
            }
            let written = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            match timeout(limits::AGENT_STALL, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(FrameError::Io(error).into()),
                Err(_) => return Err(FrameError::Stuck.into()),
            }
        }
    }
}
