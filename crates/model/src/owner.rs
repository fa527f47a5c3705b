//! What is known about who owns the far end of one TCP connection. Made by the socket lookup on the node; judged
//! by `decision`. Invariant: whatever could not be observed is said so (`Unknown`, `Unowned`), never guessed.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One TCP connection as the server's kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuple {
    /// The end that connected.
    pub client: SocketAddr,
    /// The end that listened: the server's local end.
    pub server: SocketAddr,
}

/// The kernel's cookie of a LISTEN socket: 64 bits, unique for as long as the node is up, so that a port that
/// changed hands is never taken for the same listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerId(pub u64);

/// Who owns the server's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The uid on which the LISTEN socket and, once accepted, the connection's own socket agree.
    pub uid: u32,
    /// What is known of the holding processes' group.
    pub groups: OwnerGroups,
    /// The LISTEN socket that took the connection.
    pub listener: ListenerId,
    /// False while the connection waits in the listener's queue: it must be judged again once accepted.
    pub accepted: bool,
}

/// The effective group of the processes that hold a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnerGroups {
    /// Nobody has looked: equal uid needs no look at the processes.
    NotLooked,
    /// Every process seen to hold the socket has this effective gid.
    Egid(u32),
    /// Somebody looked, and there is no answer.
    Unknown(UnknownGroup),
}

/// Why the holders' group is not known. Each Display is a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownGroup {
    /// At least two holders with different effective gids.
    #[error("the processes that hold the socket run with different groups")]
    Disagree,
    /// No process was seen to hold the socket.
    #[error("no process was seen to hold the socket")]
    NoHolderSeen,
    /// The processes may not be looked at.
    #[error("the processes on the node may not be looked at")]
    NotPermitted,
}

/// Why a connection has no known owner. Each Display is a clause.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Unowned {
    /// The kernel knows no socket of this tuple.
    #[error("the node knows no such connection")]
    NoSuchConnection,
    /// The connection exists, but nothing listens at its address any more.
    #[error("nothing listens at the connection's address any more")]
    NoListener,
    /// Only a LISTEN socket answered. Under address translation it may be somebody else's, so it is no evidence.
    #[error("only a listening socket answered, which does not show whose connection this is")]
    ListenerOnly,
    /// The listener and the accepted socket belong to different users.
    #[error("the listener belongs to uid {listener}, but the accepted connection to uid {accepted}")]
    OwnersDiffer {
        /// uid of the LISTEN socket.
        listener: u32,
        /// uid of the accepted socket.
        accepted: u32,
    },
    /// It still waits in its listener's queue.
    #[error("nobody has accepted the connection yet")]
    NotAccepted,
    /// The connection is being torn down (TIME_WAIT and the like), where the kernel no longer tells the uid.
    #[error("the connection is already closing")]
    Closing,
    /// The lookup itself failed; the text says how.
    #[error("the lookup failed: {0}")]
    Lookup(String),
}
