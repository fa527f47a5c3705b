//! What is known of one node: its connection, which boot it is in, why it is not connected.
//! Invariant: one connection speaks for a node. The newest one wins, since it proved to have the node's key (or the
//! node's address) just now, while the older one may be a machine that has crashed; but a boot that was already left behind
//! does not come back while the present one's connection lives: that is a second machine with the same key.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use portreeve_model::wire::agent::{Answer, Question};
use portreeve_model::{Node, NodeName, Speaker};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::limits;

/// How it stands with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name in the map.
    pub node: NodeName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its agent.
    pub connection: Connection,
    /// Counts its boots that this portal saw.
    pub generation: u64,
}

/// How it stands with a node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// It is there.
    Up {
        /// Since when.
        since: SystemTime,
        /// From where.
        from: SocketAddr,
        /// The kernel's boot id.
        boot: String,
        /// What it calls its node, if that is another name than the map's.
        calls_itself: Option<NodeName>,
        /// From the last question to its answer.
        latency: Option<Duration>,
        /// Without a key: the weaker way.
        plain: bool,
    },
    /// It is not.
    Down {
        /// A clause.
        why: String,
    },
}

/// A question on its way to the connection's task.
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What comes of a question.
pub(super) type Reply = Result<Answer, TooMany>;

/// The agent has as many open questions as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// Why a connection is to end, from outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A newer one is there.
    Replaced,
    /// The rules do not have it any more.
    Rules,
}

/// One connection, as the rest of the portal has it.
pub(super) struct Link {
    pub(super) node: NodeName,
    pub(super) speaker: Speaker,
    pub(super) peer: SocketAddr,
    pub(super) boot: String,
    pub(super) calls_itself: Option<NodeName>,
    pub(super) since: SystemTime,
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) end: oneshot::Sender<Ending>,
    /// From the last question that was answered to its answer.
    pub(super) latency: Arc<Mutex<Option<Duration>>>,
}

/// One node.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// There is a connection now.
    arrived: Notify,
}

#[derive(Default)]
struct State {
    link: Option<(u64, Link)>,
    /// Numbers the connections.
    connections: u64,
    boot: Option<String>,
    former: VecDeque<String>,
    generation: u64,
    why: Option<String>,
}

/// A way to ask, for now.
pub(super) struct Line {
    asked: mpsc::Sender<Asked>,
    pub(super) generation: u64,
}

impl Line {
    /// Hands the question over. If the connection has ended, `reply` is dropped.
    pub(super) fn ask(&self, question: Question, reply: oneshot::Sender<Reply>) -> Result<(), TooMany> {
        match self.asked.try_send(Asked { question, reply }) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(TooMany),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}

/// Holds a node's connection until dropped.
pub(super) struct Holding {
    slot: Arc<Slot>,
    number: u64,
    why: String,
}

impl Holding {
    /// Why it ends.
    pub(super) fn because(&mut self, why: String) {
        self.why = why;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.slot.state();
        // A newer one may be there already.
        if state.link.as_ref().is_some_and(|(number, _)| *number == self.number) {
            state.link = None;
            state.why = Some(std::mem::take(&mut self.why));
        }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this the node's connection, and ends the one before.
    ///
    /// # Errors
    /// When it comes from a boot that is over.
    pub(super) fn take(self: &Arc<Self>, link: Link) -> Result<Holding, &'static str> {
        let mut state = self.state();
        if state.link.is_some() && state.former.contains(&link.boot) {
            return Err("it is from a boot of the node that is over: do two machines have the same key?");
        }
        if state.boot.as_ref() != Some(&link.boot) {
            let before = state.boot.replace(link.boot.clone());
            state.former.retain(|boot| *boot != link.boot);
            state.former.extend(before);
            if state.former.len() > limits::AGENT_BOOTS {
                state.former.pop_front();
            }
            state.generation += 1;
        }
        state.connections += 1;
        let number = state.connections;
        if let Some((_, before)) = state.link.replace((number, link)) {
            let _ = before.end.send(Ending::Replaced);
        }
        self.arrived.notify_waiters();
        Ok(Holding { slot: Arc::clone(self), number, why: "the portal ended the connection".to_owned() })
    }

    /// Ends the connection, if there is one that may not stay.
    pub(super) fn end_unless(&self, may_stay: impl FnOnce(&Link) -> bool, ending: Ending) {
        let mut state = self.state();
        if state.link.as_ref().is_some_and(|(_, link)| !may_stay(link))
            && let Some((_, link)) = state.link.take()
        {
            state.why = Some(ending.to_string());
            let _ = link.end.send(ending);
        }
    }

    /// Why there is no connection, as far as one could see.
    pub(super) fn note(&self, why: &str) {
        let mut state = self.state();
        if state.link.is_none() {
            state.why = Some(why.to_owned());
        }
    }

    /// A way to ask.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn line(&self) -> Result<Line, String> {
        let state = self.state();
        match &state.link {
            Some((_, link)) => Ok(Line { asked: link.asked.clone(), generation: state.generation }),
            None => Err(state.why()),
        }
    }

    /// The same, for one who waits until then for the agent to be back: it may just have been restarted.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn line_by(&self, by: Instant) -> Result<Line, String> {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            // From here on nothing is missed.
            arrived.as_mut().enable();
            let why = match self.line() {
                Ok(line) => return Ok(line),
                Err(why) => why,
            };
            if timeout_at(by, arrived).await.is_err() {
                return Err(why);
            }
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    pub(super) fn state_of(&self, node: &Node) -> NodeState {
        let state = self.state();
        let connection = match &state.link {
            Some((_, link)) => Connection::Up {
                since: link.since,
                from: link.peer,
                boot: link.boot.clone(),
                calls_itself: link.calls_itself.clone(),
                latency: *link.latency.lock().unwrap_or_else(PoisonError::into_inner),
                plain: link.speaker == Speaker::Plain,
            },
            None => Connection::Down {
                why: match node.speaker {
                    Some(_) => state.why(),
                    None => "it has no key in the node map".to_owned(),
                },
            },
        };
        NodeState {
            node: node.name.clone(),
            addresses: node.addresses.clone(),
            connection,
            generation: state.generation,
        }
    }
}

impl State {
    fn why(&self) -> String {
        self.why.clone().unwrap_or_else(|| "it has not connected since the portal started".to_owned())
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Replaced => "a newer connection of the same node has taken its place",
            Self::Rules => "the node map does not have it any more",
        })
    }
}
