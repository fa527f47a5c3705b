//! Every wait, buffer and queue of the agent has its limit here, by name.

use std::time::Duration;

/// Connecting to a portal, name look-up included, and the same again for the TLS handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// A portal asks at least for a sign of life every ten seconds (the portal's `limits::AGENT_PING`).
pub(super) const SILENT: Duration = Duration::from_secs(40);
/// From a message's first byte to its last.
pub(super) const FRAME: Duration = Duration::from_secs(5);
/// The portal takes no answer.
pub(super) const STALL: Duration = Duration::from_secs(10);
/// Answers of one connection that wait for the portal to take them.
pub(super) const ANSWERS: usize = 1024;
/// Threads for looks at the processes that hold a connection, and the looks that may wait for one, over all portals.
pub(super) const SLOW_THREADS: usize = 2;
/// See [`SLOW_THREADS`].
pub(super) const SLOW: usize = 64;
/// One that has waited so long is not made: the portal has given it up (its `limits::AGENT_ANSWER`).
pub(super) const SLOW_WAIT: Duration = Duration::from_secs(2);
/// The same for lists of what somebody has listening, which are for show: no owner's look waits for one.
pub(super) const LISTENING_THREADS: usize = 2;
/// See [`LISTENING_THREADS`].
pub(super) const LISTENING: usize = 64;
/// A list that has waited so long for a thread is not made: the portal has given it up (its `limits::LISTENING`).
pub(super) const LISTENING_WAIT: Duration = Duration::from_millis(700);
/// Threads for names of portals, which a resolver may keep waiting.
pub(super) const RESOLVER_THREADS: usize = 4;
/// Control groups whose jobs are remembered.
pub(super) const JOBS: usize = 1024;
/// The first wait after a connection that failed; each is twice the one before, up to [`BACKOFF_MOST`].
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// See [`BACKOFF_FIRST`].
pub(super) const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// Failures that count after a connection that the portal welcomed, however short it was: the wait is then at most
/// 800 ms, which is less than the portal has its visitors wait for a node (its `limits::AGENT_BACK`).
pub(super) const BACKOFF_WELCOMED: u32 = 2;
/// A connection that lasted so long was a good one: after it, waiting begins anew.
pub(super) const BACKOFF_FORGET: Duration = Duration::from_secs(10);
/// Each step of a question on the login socket: reading it, asking a portal, answering.
pub(super) const LOGIN: Duration = Duration::from_secs(10);
/// Such questions at once, and of one user.
pub(super) const LOGINS: usize = 64;
/// See [`LOGINS`].
pub(super) const LOGINS_OF_ONE: usize = 2;
/// Callers at once who have their share and are told so; past that they are told by the closed connection. None of these takes
/// one of [`LOGINS`].
pub(super) const LOGIN_REFUSALS: usize = 16;
/// A question on the login socket, in bytes.
pub(super) const LOGIN_QUESTION: usize = 1024;
/// Callers that wait to be accepted.
pub(super) const LOGIN_QUEUE: i32 = 64;
/// After a failure to accept, such as too many open files.
pub(super) const LOGIN_PAUSE: Duration = Duration::from_millis(100);
/// From a refusal until the caller closes.
pub(super) const LOGIN_LINGER: Duration = Duration::from_millis(200);
