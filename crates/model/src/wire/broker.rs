//! Between the portal and the broker. SEQPACKET: questions with a number, answers in any order, news unasked.
//!
//! Whom a question is about is never said by the portal: it shows a ticket, which the broker verifies itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::pam::{PamRefusal, Prompt};
use super::spawner::Missing;
use crate::{Claims, ForwardName, ForwardStat, Login, Secret, SessionId, UserName};

/// Questions that a portal may have open.
pub const AT_ONCE: usize = 1024;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Chosen by the portal.
    pub id: u32,
    /// The question.
    pub question: Question,
}

/// What a portal may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Begins a sign-in with PAM. Answered with `Prompts`, `SignedIn` or `Refused`.
    Begin {
        /// The name that was typed.
        user: UserName,
        /// The browser's address.
        from: IpAddr,
        /// The browser shows a mark that this user signed in with it before: others' tries don't slow it.
        mark: Option<Secret>,
    },
    /// Goes on with one. Answered as `Begin`.
    Reply {
        /// Which.
        conversation: Secret,
        /// One for each prompt that asked.
        answers: Vec<Secret>,
    },
    /// Whom does this code sign in? Does not use it up.
    Look {
        /// The code.
        code: Secret,
    },
    /// Takes a sign-in code.
    Enter {
        /// The code.
        code: Secret,
        /// The browser's address.
        from: IpAddr,
    },
    /// Takes an access token. Answered with `SignedIn` (a ticket for the portal's own origin, always of the same session, as
    /// long as the token lasts), `BadToken`, `Wait`, or `Refused` when the account may not be used.
    Token {
        /// The token, as the program showed it.
        token: Secret,
        /// The program's address.
        from: IpAddr,
    },
    /// A younger ticket of the same session, for the same origin.
    Renew {
        /// One that is good still.
        ticket: Secret,
    },
    /// A code that lets this session enter an application's origin from one browser.
    Entry {
        /// The portal's own ticket.
        ticket: Secret,
        /// The origin's host name.
        host: String,
        /// SHA-256 of the browser's secret, base64url.
        browser: String,
    },
    /// Takes such a code. Answered with `SignedIn`: a ticket for that host.
    TakeEntry {
        /// The code.
        code: Secret,
        /// The host that it was shown to.
        host: String,
        /// SHA-256 of the secret that the browser showed, base64url.
        browser: String,
    },
    /// Ends this session, or all of its user's.
    SignOut {
        /// A ticket of the session.
        ticket: Secret,
        /// All of the user's sessions.
        everywhere: bool,
    },
    /// The user's groups as they are now.
    Groups {
        /// A ticket.
        ticket: Secret,
    },
    /// Gives the descriptor that comes along to the user's dialer, as one more channel.
    Dialer {
        /// A ticket.
        ticket: Secret,
    },
    /// Gives the descriptor that comes along to the user's worker, as one more connection.
    Worker {
        /// A ticket.
        ticket: Secret,
    },
    /// Reads a forward file for the user.
    Forward {
        /// A ticket.
        ticket: Secret,
        /// Which.
        name: ForwardName,
    },
    /// Name and login group of a uid: needed to judge other users' applications, and to say whose they are.
    Login {
        /// Whose.
        uid: u32,
    },
    /// Sends a connection with the site's ident2 service, with an `Ident2Line`, over the channel that comes along. Which
    /// service that is the broker's configuration says. A portal has one such connection: the one before is shut down.
    Ident2,
    /// A sign-in address for a uid on a login node, vouched for by an agent's key with the role `login`.
    LoginAddress {
        /// Who asks there.
        uid: u32,
    },
}

/// What the broker says on a channel that came with `Question::Ident2`: its descriptor is the connection (SEQPACKET).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ident2Line {}

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromBroker {
    /// First, once, and whenever it changes.
    Keys(Vec<PublicKey>),
    /// Sessions that are over before their tickets are. The first one, together with the `AlsoEnded` before it, has all of
    /// them; it comes at least once a second, empty or not.
    Ended(Vec<SessionId>),
    /// Belongs to the `Ended` that follows: sessions that had no room in it, and users all of whose sessions are over.
    AlsoEnded {
        /// Sessions.
        sessions: Vec<SessionId>,
        /// Users: also their sessions that the broker never saw are over.
        users: Vec<UserEnded>,
    },
    /// An answer.
    Answer {
        /// Of the question.
        id: u32,
        /// The answer.
        answer: Answer,
    },
}

/// All sessions of a user up to a moment are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEnded {
    /// Whose.
    pub uid: u32,
    /// A ticket with this `auth_time` or an earlier one is no good (unix seconds). It may lie a little in the future.
    pub until: i64,
}

/// A key that tickets may be signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// As in a ticket's header.
    pub id: String,
    /// Ed25519, 32 bytes in base64url.
    pub key: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// PAM asks.
    Prompts {
        /// Names the conversation: a secret of this browser's.
        conversation: Secret,
        /// What to show.
        prompts: Vec<Prompt>,
    },
    /// A session, or a younger ticket of one.
    SignedIn {
        /// What the ticket says.
        claims: Box<Claims>,
        /// The ticket.
        ticket: Secret,
        /// All groups of the user.
        groups: Vec<u32>,
        /// For `Question::Begin` next time.
        mark: Option<Secret>,
        /// What PAM said on the way.
        said: Vec<Prompt>,
    },
    /// PAM did not grant: to `Begin`, `Reply`, and to `Enter` and `Token` when the account may not be used.
    Refused {
        /// Of which kind.
        why: PamRefusal,
        /// What PAM said on the way.
        said: Vec<Prompt>,
    },
    /// Too many failures of this name or address, or too many people at once: wait.
    Wait {
        /// For so many seconds.
        seconds: u32,
    },
    /// To `Look`.
    Code {
        /// Whom it signs in.
        user: UserName,
    },
    /// To `Look`, `Enter` and `TakeEntry`: the code is no good.
    BadCode(BadCode),
    /// To `Token`: it is no good.
    BadToken(BadToken),
    /// To `Entry`.
    Entry {
        /// The code.
        code: Secret,
    },
    /// To `Groups`.
    Groups(Vec<u32>),
    /// To `Forward`.
    Forward(Result<ForwardFound, Missing>),
    /// To `Login`; `None` when the user database can't tell.
    Login(Option<Login>),
    /// To `LoginAddress`.
    LoginAddress(super::ControlReply),
    /// Done: to `SignOut`, `Dialer`, `Worker`, `Ident2`.
    Done,
    /// The ticket is not genuine, its session is over, or its account is not served any more.
    NoTicket,
    /// It could not be done now; the reason is in the broker's log.
    Failed {
        /// A clause for the page.
        why: String,
    },
}

/// A forward that the user may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardFound {
    /// Owner, group, mode.
    pub stat: ForwardStat,
    /// The line that counts; empty for a disabled forward.
    pub line: String,
    /// An earlier line says something else.
    pub lines_differ: bool,
}

/// Why a code is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum BadCode {
    /// It was redeemed before.
    #[error("this code was already used")]
    Used,
    /// Its time is over.
    #[error("this code has expired")]
    Expired,
    /// No such code was handed out.
    #[error("this code is not one that was handed out")]
    Unknown,
}

/// Why an access token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum BadToken {
    /// Its time is over.
    #[error("this access token has expired")]
    Expired,
    /// There is no such token, or not any more.
    #[error("this is no access token, or it was revoked")]
    Unknown,
}
