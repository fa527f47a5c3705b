//! What a user has listening on each node, for show: all agents are asked at once, and not waited for long.
//!
//! Invariant: for one user an agent has one such question of each sort at a time, however many requests want to know.

use std::net::SocketAddr;
use std::sync::Arc;

use portreeve_model::wire::agent::Row;
use portreeve_model::wire::worker::{NodeView, Rows};
use portreeve_model::{Node, NodeName};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::latest::Latest;
use crate::agents::Agents;
use crate::limits;

/// What was said a moment ago, for all threads.
pub(super) struct NodesView {
    /// By uid.
    everywhere: Latest<u32, Arc<[NodeView]>>,
    /// On one node. `None`: not known.
    there: Latest<(u32, NodeName), Option<Arc<[Row]>>>,
}

impl NodesView {
    pub(super) fn new() -> Self {
        Self { everywhere: Latest::new(), there: Latest::new() }
    }

    /// Whether what a user has on this port listens on the node's loopback address alone.
    pub(super) async fn is_loopback_only(&self, agents: &Agents, uid: u32, address: SocketAddr) -> bool {
        let nodes = agents.nodes();
        let Some(node) = nodes.at(address.ip()) else { return false };
        let ask = async || match timeout(limits::LISTENING, agents.listening(&node.name, uid)).await {
            Ok(Ok((rows, _))) => Some(rows.into()),
            Ok(Err(_)) | Err(_) => None,
        };
        // It is not said of what is not known.
        let Some(rows) = self.there.answer((uid, node.name.clone()), ask).await else { return false };
        let mut on_port = rows.iter().filter(|row| row.port == address.port()).peekable();
        on_port.peek().is_some() && on_port.all(|row| row.address.to_canonical().is_loopback())
    }

    /// Every node that has something to tell, in the map's order: what listens there, or why that is not known.
    pub(super) async fn of(&self, agents: &Arc<Agents>, uid: u32) -> Arc<[NodeView]> {
        self.everywhere.answer(uid, async || ask(agents, uid).await.into()).await
    }
}

async fn ask(agents: &Arc<Agents>, uid: u32) -> Vec<NodeView> {
    let nodes = agents.nodes();
    let mut asking = JoinSet::new();
    for (place, Node { name, addresses, .. }) in nodes.nodes().iter().enumerate() {
        let (agents, node, addresses) = (Arc::clone(agents), name.clone(), addresses.clone());
        asking.spawn(async move {
            let listening = match timeout(limits::LISTENING, agents.listening(&node, uid)).await {
                Ok(Ok((rows, more))) => Ok(Rows { rows, more }),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the agent on {node} did not answer in time")),
            };
            (place, NodeView { node, addresses, listening })
        });
    }
    let mut views = Vec::new();
    while let Some(answered) = asking.join_next().await {
        views.extend(answered.ok());
    }
    views.sort_by_key(|(place, _)| *place);
    let tells = |view: &NodeView| view.listening.as_ref().is_ok_and(|rows| !rows.rows.is_empty());
    let mut troubles = 0;
    let mut worth_it = |view: &NodeView| {
        troubles += usize::from(view.listening.is_err());
        tells(view) || (view.listening.is_err() && troubles <= limits::NODES_IN_TROUBLE)
    };
    views.into_iter().map(|(_, view)| view).filter(|view| worth_it(view)).collect()
}
