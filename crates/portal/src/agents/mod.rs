//! The nodes' agents, as the portal sees them: they dial in, and are asked who owns a connection's far end. Beside the
//! request's life: `resolve` takes addresses from the node map, `authorize` asks here.
//!
//! Invariant: an answer is believed only about an address that root's node map gives to the very node whose key the agent
//! proved to have. Whatever is late, unreachable, refused or makes no sense is an error, never a yes.
//!
//! | file | |
//! | --- | --- |
//! | `waiting.rs` | connections that have not said yet who they are, a bounded number |
//! | `greet.rs` | from a TCP connection to a node: TLS and key, or the weaker way |
//! | `slot.rs` | what is known of one node: its connection, its boot, why there is none |
//! | `converse.rs` | one connection: questions out, answers in |
//! | `check.rs` | does this answer fit that question? |

mod check;
mod converse;
mod greet;
mod slot;
mod waiting;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portreeve_agent::channel::Identity;
use portreeve_agent::channel::tls::server_config;
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::agent::{Answer, Owned, Question, Row};
use portreeve_model::{ListenerId, Network, Node, NodeMap, NodeName, Owner, Speaker, Tuple, Unowned};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::limits;
pub use slot::{Connection, NodeState};

use slot::{Ending, Slot, TooMany};
use waiting::Waiting;

/// What root wrote down, as it is in force.
pub struct Rules {
    /// The key that agents know the portal by; `None`: only the weaker way is open.
    pub key: Option<Identity>,
    /// The nodes.
    pub nodes: NodeMap,
    /// Where agents without a key may connect from. Empty: nowhere.
    pub plain_networks: Vec<Network>,
}

/// Somebody on a login node asks for a sign-in address.
#[derive(Debug)]
pub struct LoginAsked {
    /// On this node, whose key has the role `login`.
    pub node: NodeName,
    /// Whose process, as the node's kernel says.
    pub uid: u32,
    /// For the reply. To drop it is a refusal.
    pub reply: oneshot::Sender<ControlReply>,
}

/// Why an agent said nothing that could be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No node of the map has this address.
    #[error("{0} is no node's address")]
    NoNode(IpAddr),
    /// There is no such node.
    #[error("there is no node {0}")]
    UnknownNode(NodeName),
    /// The address is another node's.
    #[error("{address} is not an address of {node}")]
    NotItsAddress {
        /// Who was to be asked.
        node: NodeName,
        /// About what.
        address: IpAddr,
    },
    /// The node's agent is not connected.
    #[error("the agent on {node} can't be asked: {why}")]
    Unreachable {
        /// The node.
        node: NodeName,
        /// A clause.
        why: String,
    },
    /// No answer in time.
    #[error("the agent on {0} did not answer in time")]
    Late(NodeName),
    /// Too much is asked of it already.
    #[error("the agent on {0} has too many questions already")]
    Busy(NodeName),
    /// The agent refused to answer.
    #[error("the agent on {node} refused: {why}")]
    Refused {
        /// The node.
        node: NodeName,
        /// A clause of the agent's.
        why: String,
    },
}

impl AgentError {
    /// A short name for the log. The page says `unknown-owner`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoNode(_) | Self::UnknownNode(_) => "unknown-node",
            Self::NotItsAddress { .. } => "not-its-address",
            Self::Unreachable { .. } => "agent-unreachable",
            Self::Late(_) => "agent-late",
            Self::Busy(_) => "agent-busy",
            Self::Refused { .. } => "agent-refused",
        }
    }
}

/// An answer that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard<T> {
    /// What was said.
    pub said: T,
    /// By which node's agent.
    pub node: NodeName,
    /// Counts the node's boots that this portal saw. Another number than with an earlier answer means that nothing which
    /// was said then, listeners' ids above all, is of any meaning now.
    pub generation: u64,
}

/// Why an owner is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoOwner {
    /// The agent looked, and there is none.
    #[error(transparent)]
    Unowned(#[from] Unowned),
    /// Nobody looked.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl From<NoOwner> for Unowned {
    fn from(none: NoOwner) -> Self {
        match none {
            NoOwner::Unowned(unowned) => unowned,
            NoOwner::Agent(error) => Self::Lookup(error.to_string()),
        }
    }
}

/// All agents. To be shared by the portal's threads: any of them may ask.
pub struct Agents {
    force: ArcSwap<InForce>,
    waiting: Waiting,
    logins: mpsc::Sender<LoginAsked>,
}

struct InForce {
    nodes: Arc<NodeMap>,
    plain_networks: Vec<Network>,
    tls: Option<Arc<ServerConfig>>,
    slots: HashMap<NodeName, Arc<Slot>>,
}

impl Agents {
    /// Nobody is connected yet. What login nodes ask for arrives at the other end of `logins`.
    ///
    /// # Errors
    /// When the TLS library refuses the key.
    pub fn new(rules: Rules, logins: mpsc::Sender<LoginAsked>) -> Result<Self, rustls::Error> {
        let force = ArcSwap::from_pointee(InForce::new(rules, &HashMap::new())?);
        Ok(Self { force, waiting: Waiting::default(), logins })
    }

    /// Takes new rules into use at once: a connection whose node or key they do not have any more ends.
    ///
    /// # Errors
    /// When the TLS library refuses the key; the old rules stay in force then.
    pub fn reload(&self, rules: Rules) -> Result<(), rustls::Error> {
        let old = self.force.load_full();
        let new = Arc::new(InForce::new(rules, &old.slots)?);
        self.force.store(Arc::clone(&new));
        for (name, slot) in &old.slots {
            let speaker =
                new.nodes.find(name).filter(|node| node.name == *name).and_then(|node| node.speaker);
            slot.end_unless(|link| speaker == Some(link.speaker) && new.admits(link), Ending::Rules);
        }
        Ok(())
    }

    /// Serves a connection that came to the agents' listening socket, to its end. What there is to say of it is logged.
    pub async fn accept(&self, stream: TcpStream) {
        let Some(greeted) = greet::greet(self, stream).await else { return };
        converse::converse(self, greeted).await;
    }

    /// The nodes that are in force.
    #[must_use]
    pub fn nodes(&self) -> Arc<NodeMap> {
        Arc::clone(&self.force.load().nodes)
    }

    /// Asks the agent of a node, and checks that the answer is one to this question, about an address of that node. A question
    /// about a connection waits a little for an agent that is just being restarted.
    ///
    /// # Errors
    /// Whenever there is no such answer within `patience`.
    pub async fn ask(
        &self,
        node: &NodeName,
        question: Question,
        patience: Duration,
    ) -> Result<Heard<Answer>, AgentError> {
        let by = Instant::now() + patience;
        let force = self.force.load_full();
        let (node, slot) = force.node(node)?;
        let name = || node.name.clone();
        let (mut tries, mut back_by) = (1, None);
        if let Some(server) = check::server_of(&question) {
            force.must_be(node, server)?;
            (tries, back_by) = (2, Some(by.min(Instant::now() + limits::AGENT_BACK)));
        }
        let (answer, generation) = loop {
            tries -= 1;
            let line = match back_by {
                Some(back_by) => slot.line_by(back_by).await,
                None => slot.line(),
            };
            let line = line.map_err(|why| AgentError::Unreachable { node: name(), why })?;
            let (reply, replied) = oneshot::channel();
            line.ask(question.clone(), reply).map_err(|TooMany| AgentError::Busy(name()))?;
            match timeout_at(by, replied).await {
                Ok(Ok(Ok(answer))) => break (answer, line.generation),
                Ok(Ok(Err(TooMany))) => return Err(AgentError::Busy(name())),
                // It died meanwhile: its successor is asked.
                Ok(Err(_)) if tries > 0 => yield_now().await,
                Ok(Err(_)) => return Err(unreachable(name(), "the connection ended before the answer")),
                Err(_) => return Err(AgentError::Late(name())),
            }
        };
        // The rules may have changed meanwhile: it is the present ones that count.
        if let Some(server) = check::server_of(&question) {
            let now = self.force.load();
            now.must_be(now.node(&node.name)?.0, server)?;
        }
        match answer {
            Answer::Refused { why } => Err(AgentError::Refused { node: name(), why }),
            said => Ok(Heard { said, node: name(), generation }),
        }
    }

    /// Who owns the server's end of this connection, according to the agent of the node that has its address.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn owner(&self, tuple: &Tuple, group: bool) -> Result<Heard<Owned>, NoOwner> {
        self.ask_owner(tuple, Question::Owner { tuple: *tuple, group }).await
    }

    /// Who owns it, now that it must have been accepted.
    ///
    /// # Errors
    /// When that is not known, or differs from what was said before.
    pub async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Heard<Owned>, NoOwner> {
        self.ask_owner(tuple, Question::Confirm { tuple: *tuple, before: *before }).await
    }

    async fn ask_owner(&self, tuple: &Tuple, question: Question) -> Result<Heard<Owned>, NoOwner> {
        let heard = self.ask(&self.node_at(tuple)?, question, limits::AGENT_ANSWER).await?;
        let Heard { said, node, generation } = heard;
        match said {
            Answer::Owner(owned) => Ok(Heard { said: owned?, node, generation }),
            _ => Err(unreachable(node, "it answered another question").into()),
        }
    }

    /// Whether the LISTEN socket that took the connection listens still.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn listens_still(
        &self,
        tuple: &Tuple,
        listener: ListenerId,
    ) -> Result<Heard<bool>, AgentError> {
        let question = Question::ListensStill { tuple: *tuple, listener };
        let heard = self.ask(&self.node_at(tuple)?, question, limits::AGENT_ANSWER).await?;
        let Heard { said, node, generation } = heard;
        match said {
            Answer::ListensStill(still) => Ok(Heard { said: still, node, generation }),
            _ => Err(unreachable(node, "it answered another question")),
        }
    }

    /// What a user listens on at a node, and whether there is more. For show.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn listening(&self, node: &NodeName, uid: u32) -> Result<(Vec<Row>, bool), AgentError> {
        let heard = self.ask(node, Question::Listening { uid }, limits::AGENT_ANSWER).await?;
        match heard.said {
            Answer::Listening { rows, more } => Ok((rows, more)),
            _ => Err(unreachable(heard.node, "it answered another question")),
        }
    }

    /// Counts the boots of a node that this portal saw: see [`Heard::generation`]. 0: its agent was never here.
    #[must_use]
    pub fn generation(&self, node: &NodeName) -> u64 {
        let force = self.force.load();
        force.node(node).map_or(0, |(_, slot)| slot.generation())
    }

    /// How it stands with every node, in the map's order.
    #[must_use]
    pub fn states(&self) -> Vec<NodeState> {
        let force = self.force.load();
        let nodes = force.nodes.nodes().iter();
        nodes.filter_map(|node| Some(force.slots.get(&node.name)?.state_of(node))).collect()
    }

    fn node_at(&self, tuple: &Tuple) -> Result<NodeName, AgentError> {
        let address = tuple.server.ip().to_canonical();
        self.force.load().nodes.at(address).map(|node| node.name.clone()).ok_or(AgentError::NoNode(address))
    }
}

fn unreachable(node: NodeName, why: &str) -> AgentError {
    AgentError::Unreachable { node, why: why.to_owned() }
}

impl InForce {
    /// What is known of a node stays, if the node does.
    fn new(rules: Rules, known: &HashMap<NodeName, Arc<Slot>>) -> Result<Self, rustls::Error> {
        let nodes = Arc::new(rules.nodes);
        let tls = match &rules.key {
            Some(key) => {
                let nodes = Arc::clone(&nodes);
                Some(Arc::new(server_config(key, move |key| nodes.of_key(key).is_some())?))
            }
            None => None,
        };
        let slot = |node: &Node| {
            let slot = known.get(&node.name).map_or_else(Arc::default, Arc::clone);
            (node.name.clone(), slot)
        };
        let slots = nodes.nodes().iter().map(slot).collect();
        Ok(Self { nodes, plain_networks: rules.plain_networks, tls, slots })
    }

    fn node(&self, name: &NodeName) -> Result<(&Node, &Arc<Slot>), AgentError> {
        let node = self.nodes.find(name);
        let found = node.and_then(|node| Some((node, self.slots.get(&node.name)?)));
        found.ok_or_else(|| AgentError::UnknownNode(name.clone()))
    }

    /// An agent speaks for its own node's addresses.
    fn must_be(&self, node: &Node, server: SocketAddr) -> Result<(), AgentError> {
        let address = server.ip().to_canonical();
        match self.nodes.at(address) {
            Some(at) if at.name == node.name => Ok(()),
            _ => Err(AgentError::NotItsAddress { node: node.name.clone(), address }),
        }
    }

    /// Whether a connection without a key may (still) be there.
    fn admits(&self, link: &slot::Link) -> bool {
        match link.speaker {
            Speaker::Key(_) => true,
            Speaker::Plain => self.plain_node(link.peer).is_ok_and(|node| node.name == link.node),
        }
    }

    /// The node that speaks from here without a key: the weaker way, by a privileged port and an address of the node in
    /// a network that the site lists.
    fn plain_node(&self, peer: SocketAddr) -> Result<&Node, &'static str> {
        let address = peer.ip().to_canonical();
        if !self.plain_networks.iter().any(|network| network.contains(address)) {
            return Err("a connection without a key, from outside agents.plain_networks");
        }
        if peer.port() >= 1024 {
            return Err("a connection without a key, from an unprivileged port");
        }
        match self.nodes.at(address) {
            Some(node) if node.speaker == Some(Speaker::Plain) => Ok(node),
            Some(_) => Err("a connection without a key, from a node that is not plain in the node map"),
            None => Err("a connection without a key, from an address that is no node's"),
        }
    }
}

#[cfg(test)]
mod tests;
