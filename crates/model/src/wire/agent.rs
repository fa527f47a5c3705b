//! Between a node's agent and a portal. A TLS stream that the agent opened; frames with a length.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{ListenerId, NodeName, Owner, Tuple, Unowned};

/// The protocol's version, in `Hello`. A portal refuses another one.
pub const VERSION: u32 = 1;
/// Questions that a portal may have open with one agent.
pub const AT_ONCE: usize = 4096;
/// Rows of one `Listening` at most.
pub const MAX_ROWS: usize = 256;
/// The longest name of a program in a row, in bytes.
pub const MAX_COMMAND: usize = 64;
/// The lowest port of a row. Lower ones are the system's; forwards don't lead there.
pub const FIRST_PORT: u16 = 1024;

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAgent {
    /// First, once.
    Hello {
        /// See [`VERSION`].
        version: u32,
        /// The node it believes to be on. The portal believes the key, and says so when they differ.
        node: NodeName,
        /// The kernel's boot id: another one means that no socket of before is there any more.
        boot: String,
    },
    /// An answer.
    Answer {
        /// Of the question.
        id: u32,
        /// The answer.
        answer: Answer,
    },
    /// Somebody on this node asks for a sign-in address. Heard only from a key with the role `login`.
    Login {
        /// Chosen by the agent.
        id: u32,
        /// By the peer credentials of who asks.
        uid: u32,
    },
}

/// What a portal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToAgent {
    /// A question.
    Ask {
        /// Chosen by the portal.
        id: u32,
        /// The question.
        question: Question,
    },
    /// The answer to `Login`.
    Login {
        /// Of the question.
        id: u32,
        /// As on the control socket.
        reply: super::ControlReply,
    },
    /// The portal ends the connection.
    Goodbye {
        /// A clause for the agent's log.
        why: String,
    },
}

/// A question to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Who owns the server's end of this connection?
    Owner {
        /// The connection; its server's end must be an address of the agent's node.
        tuple: Tuple,
        /// Whether the group of the holding processes is wanted as well.
        group: bool,
    },
    /// Whose is it, now that it must have been accepted?
    Confirm {
        /// The connection.
        tuple: Tuple,
        /// What was said before.
        before: Owner,
    },
    /// Does this LISTEN socket listen still?
    ListensStill {
        /// The connection that it took.
        tuple: Tuple,
        /// The socket.
        listener: ListenerId,
    },
    /// What does this user have listening?
    Listening {
        /// Whose.
        uid: u32,
    },
    /// Is anybody there?
    Ping,
}

/// An agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To `Owner` and `Confirm`.
    Owner(Result<Owned, Unowned>),
    /// To `ListensStill`.
    ListensStill(bool),
    /// To `Listening`.
    Listening {
        /// By port and address, at most `MAX_ROWS`.
        rows: Vec<Row>,
        /// There are more.
        more: bool,
    },
    /// To `Ping`.
    Pong,
    /// More questions than an agent answers at once, or one that is not about its node.
    Refused {
        /// A clause.
        why: String,
    },
}

/// An owner, and the job that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// Whose it is.
    pub owner: Owner,
    /// The Slurm job, where the control group shows it. For show only.
    pub job: Option<u32>,
}

/// One address that something of the user listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// 0.0.0.0 for every address.
    pub address: IpAddr,
    /// The port, [`FIRST_PORT`] or above.
    pub port: u16,
    /// The program's name for itself, without control characters, at most [`MAX_COMMAND`] bytes.
    pub command: Option<String>,
    /// The Slurm job, where the control group shows it.
    pub job: Option<u32>,
}
