//! Between one thread of the portal and the process that connects as a user. SEQPACKET. Only a message of the dialer's comes
//! with a descriptor. A channel that says anything unexpected is closed, and what was under way for it. And what the
//! broker says on the dialer's control channel, whose end is the dialer's.
//!
//! A connection comes in two messages: `Connected` carries the socket; `Released` says that the dialer has closed its own
//! copy. Only then may the portal use the socket: whoever held a copy could connect it elsewhere.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Connections that one channel may have under way.
pub const AT_ONCE: usize = 256;
/// The longest message in either direction, in bytes: one short object.
pub const MAX_MESSAGE: usize = 512;

/// What the broker says on the control channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToDialer {
    /// The descriptor that comes along is one more channel.
    Channel,
}

/// Connect to this address, and to no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dial {
    /// Chosen by the portal; comes back with the answer.
    pub id: u32,
    /// An address literal.
    pub to: SocketAddr,
    /// How long to try, in milliseconds.
    pub patience: u32,
}

/// What the dialer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Dialed {
    /// The socket comes with this message.
    Connected {
        /// Of the question.
        id: u32,
    },
    /// The dialer has no copy of it any more.
    Released {
        /// Of the question.
        id: u32,
    },
    /// No connection: EBUSY when `AT_ONCE` were under way, ETIMEDOUT when the patience was at its end.
    Failed {
        /// Of the question.
        id: u32,
        /// The system's error number (errno).
        errno: i32,
    },
}
