//! What the broker says on the control channel of a user's worker. SEQPACKET; its end is the worker's.

use serde::{Deserialize, Serialize};

use super::broker::PublicKey;

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToWorker {
    /// What tickets may be signed with: first, and whenever it changes.
    Keys(Vec<PublicKey>),
    /// The descriptor that comes along is one more connection of the portal's: a stream that carries HTTP/1.1.
    Connection,
}
