//! Between the broker and the process that forks for it. SEQPACKET. Each order carries one descriptor, which the child gets
//! as number 3; `End` carries none.

use serde::{Deserialize, Serialize};

use crate::{ForwardName, ForwardStat, Login, UserName};

/// Children at once.
pub const AT_ONCE: usize = 4096;

/// Who a child becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Login name.
    pub name: UserName,
    /// User id.
    pub uid: u32,
    /// Login group.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Names the child from now on; chosen by the broker, never used twice.
    pub child: u64,
    /// What to start.
    pub start: Start,
}

/// What can be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// Connects as this user. The descriptor is its control channel (SEQPACKET): each message (`wire::dialer::ToDialer`)
    /// brings one more channel, a descriptor; the dialer does not read its bytes. Its end is the dialer's.
    Dialer(Identity),
    /// Serves this user's workspace. The descriptor is its control channel (`wire::worker`), as a dialer's. For root or a system account its
    /// exit status is 77, and no program was run.
    Worker {
        /// Whose.
        user: UserName,
    },
    /// Speaks with PAM. The descriptor carries `wire::pam`. The name of root or of a system account is refused at once, without
    /// PAM; so is an account check of one.
    Conversation {
        /// The name that was typed, if PAM is not to ask for it.
        user: Option<UserName>,
        /// From where (PAM_RHOST).
        from: std::net::IpAddr,
    },
    /// Asks PAM whether an account may be used, without a question to anybody. The descriptor carries `wire::pam`.
    AccountCheck {
        /// Whose.
        user: UserName,
    },
    /// Asks the user database. The descriptor takes one `Found`.
    LookUp(LookUp),
    /// Reads a forward file for a user. The descriptor takes one `Found`.
    Forward {
        /// Who asks.
        visitor: Identity,
        /// For which forward.
        name: ForwardName,
    },
    /// Ends the child of this number, which the broker started; a program is asked first and killed later. Not answered:
    /// `Ended` comes when it has ended, and nothing if it had before.
    End {
        /// Which.
        child: u64,
    },
}

/// A question to the user database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LookUp {
    /// The account of this name.
    Name(UserName),
    /// The account of this uid.
    Uid(u32),
    /// Name and login group of this uid.
    Login(u32),
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Found {
    /// An account.
    Account(Identity),
    /// A name and its login group, and whether that is its user's alone.
    Login(Login),
    /// A forward that the visitor may use.
    Forward {
        /// Owner, group, mode.
        stat: ForwardStat,
        /// The line that counts, as it stands in the file; empty for a disabled forward.
        line: String,
        /// An earlier line says something else.
        lines_differ: bool,
    },
    /// There is none, or it may not be used.
    Nothing(Missing),
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The user database has no such entry.
    #[error("the user database has no such account")]
    NoAccount,
    /// A name, uid or gid that is not served: root, or a system account.
    #[error("this account is not served")]
    NotServed,
    /// There is no forward of this name.
    #[error("there is no forward of this name")]
    NoForward,
    /// The visitor lacks execute permission.
    #[error("the forward's file does not give you execute permission")]
    NotExecutable,
    /// No plain file with one name.
    #[error("the forward's file is {0}, and only a plain file with one name is used")]
    NotPlain(String),
    /// Not even its owner may read it, or root is kept out of the file system.
    #[error("the forward's file can't be read, not even as its owner")]
    Unreadable,
    /// Its content is no target; the reason never shows the line.
    #[error("the forward's file can't be understood: {0}")]
    Invalid(String),
    /// The system failed.
    #[error("it could not be looked up: {0}")]
    Failed(String),
}

/// What the spawner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SpawnerNews {
    /// It runs.
    Started {
        /// Which.
        child: u64,
        /// Its process.
        pid: u32,
    },
    /// It was not started.
    Refused {
        /// Which.
        child: u64,
        /// A clause for the log.
        why: String,
    },
    /// It is gone; for what it was asked, no answer comes any more.
    Ended {
        /// Which.
        child: u64,
        /// Its exit status; `None` when a signal ended it.
        status: Option<i32>,
    },
}
