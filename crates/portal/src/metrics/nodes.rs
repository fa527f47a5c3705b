//! How it stands with the nodes' agents, for `/nodes` and for the count of each state.

use jiff::Timestamp;
use portreeve_model::{NodeMap, Speaker};
use serde::Serialize;

use super::labels::Label;
use crate::agents::{Connection, NodeState};
use crate::portal::Portal;

/// One node, as `/nodes` has it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    node: String,
    addresses: Vec<std::net::IpAddr>,
    /// `ed25519:...`; `None` when the node map has none.
    key: Option<String>,
    pub(super) agent: Agent,
    /// Since when it is connected (RFC 3339).
    since: Option<String>,
    /// From the last question to its answer.
    latency_us: Option<u64>,
    /// A clause.
    problem: Option<String>,
}

/// How it stands with a node's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Agent {
    /// It is there.
    Connected,
    /// It was not there since the portal started.
    Never,
    /// It was there.
    Gone,
}

impl Label for Agent {
    const ALL: &'static [Self] = &[Self::Connected, Self::Never, Self::Gone];

    fn number(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Never => "never",
            Self::Gone => "gone",
        }
    }
}

/// All nodes; none where there are no agents.
pub(super) fn rows(portal: &Portal) -> Vec<Row> {
    let Some(agents) = portal.agents() else { return Vec::new() };
    let map = agents.nodes();
    agents.states().into_iter().map(|state| row(state, &map)).collect()
}

fn row(state: NodeState, map: &NodeMap) -> Row {
    let speaker = map.find(&state.node).and_then(|node| node.speaker);
    let key = match speaker {
        Some(Speaker::Key(key)) => Some(key.to_string()),
        Some(Speaker::Plain) | None => None,
    };
    let (agent, since, latency, problem) = match state.connection {
        Connection::Up { since, latency, calls_itself, plain, .. } => {
            let other_name = calls_itself.map(|name| format!("it calls itself {name}"));
            let problem = other_name.or_else(|| plain.then(|| "it has shown no key".to_owned()));
            (Agent::Connected, Timestamp::try_from(since).ok(), latency, problem)
        }
        Connection::Down { why } => {
            let agent = if state.generation == 0 { Agent::Never } else { Agent::Gone };
            (agent, None, None, Some(why))
        }
    };
    Row {
        node: state.node.to_string(),
        addresses: state.addresses,
        key,
        agent,
        since: since.map(|since| format!("{since:.0}")),
        latency_us: latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        problem,
    }
}
