//! Between the broker and the short-lived process that speaks with PAM. SEQPACKET, one conversation.

use serde::{Deserialize, Serialize};

use crate::{Secret, UserName};

/// Prompts and messages of one step at most.
pub const MAX_PROMPTS: usize = 16;
/// The longest text of a prompt or answer, in bytes. PAM's own limit is 512 (PAM_MAX_MSG_SIZE, PAM_MAX_RESP_SIZE).
pub const MAX_TEXT: usize = 2048;

/// What a PAM module wants to show or to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// How.
    pub kind: PromptKind,
    /// The module's words, without control characters. Whoever shows them escapes them.
    pub text: String,
}

/// The four styles of a PAM message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptKind {
    /// A question whose answer may be seen while it is typed.
    Visible,
    /// A question whose answer may not be seen.
    Hidden,
    /// Something to tell.
    Info,
    /// Something that went wrong.
    Error,
}

impl PromptKind {
    /// Whether an answer is expected.
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Self::Visible | Self::Hidden)
    }
}

/// What the helper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PamNews {
    /// It needs these answered: `PamReply` with one text for each that asks, in their order.
    Prompts(Vec<Prompt>),
    /// The person is who they say, and the account may be used. PAM may have changed the name.
    Granted {
        /// As PAM has it now.
        user: UserName,
        /// What was said on the way and not yet shown.
        said: Vec<Prompt>,
    },
    /// Not so.
    Refused {
        /// Of which kind.
        why: PamRefusal,
        /// What was said on the way and not yet shown.
        said: Vec<Prompt>,
    },
}

/// Why PAM did not grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum PamRefusal {
    /// A wrong name, password or code: not told apart on purpose.
    #[error("the name or what was typed is wrong")]
    Credentials,
    /// The account is closed, expired, or may not sign in here or now.
    #[error("this account may not sign in here now")]
    Account,
    /// A new password was needed, and was not set.
    #[error("the password has expired and was not changed")]
    PasswordExpired,
    /// The module counts this name's failures, and waits.
    #[error("too many tries for this account")]
    TooManyTries,
    /// The system's part of it failed: the reason is in the log.
    #[error("the sign-in service of this system does not work at the moment")]
    System,
}

/// The answers to `Prompts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PamReply {
    /// One for each prompt that asks.
    pub answers: Vec<Secret>,
}
