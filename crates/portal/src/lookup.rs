//! Who says whose the far end of a connection is: the nodes' agents, or a site's ident2 service. Before: `authorize`,
//! through `powers`. After: `agents/`, or `lookup/ident2.rs`.
//!
//! Invariant: one of the two is asked, as root configured it, and never the other one in its place.

mod ident2;

use std::net::SocketAddr;
use std::sync::Arc;

use portreeve_model::config::LookupConfig;
use portreeve_model::{ListenerId, Owner, Tuple, Unowned};

use crate::agents::{Agents, Heard, NoOwner};
pub use ident2::ByIdent2;

/// Who is asked.
pub enum Lookup {
    /// The agents, each about its own node.
    Agents(Arc<Agents>),
    /// The ident2 service of this node, about all nodes of the map.
    Ident2(Box<ByIdent2>),
}

impl Lookup {
    /// As it is configured. `agents` have the map of nodes in either case.
    #[must_use]
    pub fn new(config: &LookupConfig, agents: Arc<Agents>) -> Self {
        match config {
            LookupConfig::Agents => Self::Agents(agents),
            LookupConfig::Ident2(_) => Self::Ident2(Box::new(ByIdent2::new(agents))),
        }
    }

    /// Who owns the server's end of a connection.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        match self {
            Self::Agents(agents) => heard(tuple, agents.owner(tuple, false).await).map(|owned| owned.owner),
            Self::Ident2(ident2) => ident2.owner(tuple, false).await,
        }
    }

    /// The same with the group of the processes that hold it.
    ///
    /// # Errors
    /// When that is not known, or it is somebody else's by now.
    pub async fn with_group(&self, tuple: &Tuple, owner: Owner) -> Result<Owner, Unowned> {
        let again = match self {
            Self::Agents(agents) => heard(tuple, agents.owner(tuple, true).await)?.owner,
            Self::Ident2(ident2) => ident2.owner(tuple, true).await?,
        };
        if again.uid != owner.uid {
            return Err(Unowned::OwnersDiffer { listener: owner.uid, accepted: again.uid });
        }
        match self {
            Self::Agents(_) if again.listener != owner.listener => Err(Unowned::NoSuchConnection),
            Self::Agents(_) | Self::Ident2(_) => Ok(again),
        }
    }

    /// Who owns it, now that it must have been accepted.
    ///
    /// # Errors
    /// When that is not known, or differs from what was said before.
    pub async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        match self {
            Self::Agents(agents) => {
                heard(tuple, agents.confirm(tuple, before).await).map(|owned| owned.owner)
            }
            Self::Ident2(ident2) => ident2.confirm(tuple, before).await,
        }
    }

    /// Whether the LISTEN socket that took the connection listens still. Nobody knows counts as no.
    pub async fn listens_still(&self, tuple: &Tuple, listener: ListenerId) -> bool {
        match self {
            Self::Agents(agents) => agents.listens_still(tuple, listener).await.is_ok_and(|heard| heard.said),
            // It tells no listener from another.
            Self::Ident2(_) => false,
        }
    }

    /// Counts the boots of the node that has this address: see [`Heard::generation`].
    #[must_use]
    pub fn generation(&self, address: SocketAddr) -> u64 {
        match self {
            Self::Agents(agents) => {
                let nodes = agents.nodes();
                nodes.at(address.ip()).map_or(0, |node| agents.generation(&node.name))
            }
            // No listener's id comes twice.
            Self::Ident2(_) => 0,
        }
    }
}

/// Says in the log what an agent could not be asked for.
fn heard<T>(tuple: &Tuple, heard: Result<Heard<T>, NoOwner>) -> Result<T, Unowned> {
    heard.map(|heard| heard.said).map_err(|none| {
        if let NoOwner::Agent(error) = &none {
            tracing::warn!(server = %tuple.server, code = error.code(), %error, "an owner can't be asked for");
        }
        Unowned::from(none)
    })
}
