//! Between the firewalls of two nodes: the one at whose node a connection arrives asks the one from whose node it comes.
//! A TLS stream that the asking one opened; frames with a length. And what `portreeve why` and `portreeve check --live`
//! ask on the control socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::firewall::{Connector, LetThrough, Refused};

/// The name of the protocol, in TLS's ALPN. Another version has another name.
pub const PROTOCOL: &[u8] = b"portreeve-firewall/1";
/// Questions that one connection may have open.
pub const AT_ONCE: usize = 4096;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// A flow by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// What carries it.
    pub transport: Transport,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it goes to.
    pub to: SocketAddr,
}

/// Whose program connects from this node?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Chosen by whoever asks.
    pub id: u32,
    /// `from` must be an address of the node that is asked, `to` one of the node that asks.
    pub flow: Flow,
    /// Whether the groups of the holding processes are wanted as well.
    pub groups: Groups,
}

/// How much is done to find the groups of the processes that hold a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Groups {
    /// They are not wanted.
    No,
    /// They are told if it is known where to look, and nobody waits for a search.
    AtAGlance,
    /// They are searched for.
    Yes,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Of the question.
    pub id: u32,
    /// Who it is, or why that can't be said.
    pub found: Result<Connector, NoConnector>,
}

/// Why nobody is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NoConnector {
    /// There is no such socket, or nobody holds it.
    #[error("no program connects from there")]
    NoSuchSocket,
    /// Several users could have sent it.
    #[error("sockets of several users have that port")]
    Ambiguous,
    /// The question is not one for this node, or is not the asking node's.
    #[error("the question was refused: {0}")]
    Refused(String),
    /// The kernel can't be asked.
    #[error("the lookup failed: {0}")]
    Lookup(String),
}

/// A question on the control socket. SEQPACKET, one for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlQuestion {
    /// How it goes.
    Status,
    /// What would become of this flow now, and why? For root, and for whoever owns one of its ends.
    Why {
        /// The flow; with port 0 in `from`, one that is not there yet, from that node.
        flow: Flow,
    },
    /// The metrics, as text.
    Metrics,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlAnswer {
    /// To `Status`.
    Status(Status),
    /// To `Why`.
    Why(Box<Explained>),
    /// To `Metrics`, in Prometheus' text format.
    Metrics(String),
    /// Not answered.
    Refused {
        /// A clause.
        reason: String,
    },
}

/// How it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The node, as the key file says.
    pub node: String,
    /// Nothing is refused.
    pub dry_run: bool,
    /// The queues that are served, each with what the kernel says of it.
    pub queues: Vec<QueueState>,
    /// What was decided so far, by rule or reason.
    pub decided: BTreeMap<String, u64>,
}

/// One queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueState {
    /// Its number.
    pub number: u16,
    /// Packets that wait in the kernel.
    pub waiting: u64,
    /// Packets that were lost because the queue was full.
    pub dropped_full: u64,
    /// Packets that were lost on the way to this process.
    pub dropped_unread: u64,
    /// Packets so far.
    pub packets: u64,
    /// Packets that wait for another node's answer, or for a look at processes.
    pub undecided: u64,
    /// Flows of UDP that are watched.
    pub udp_flows: u64,
    /// Milliseconds since its thread was last heard of. It says so once a second.
    pub silent_ms: u64,
}

/// What becomes of a flow, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// What was found, one sentence each.
    pub steps: Vec<String>,
    /// What becomes of it; `None`: it is not looked at.
    pub verdict: Option<Result<LetThrough, Refused>>,
}
