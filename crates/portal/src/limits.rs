//! Every wait, buffer and queue of the portal has its limit here, by name. A few can be set in `portreeve.toml`; those
//! are in `portreeve_model::config::LimitsConfig` and have their defaults there.

use std::time::Duration;

/// From the TCP connection to the end of the TLS handshake.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// For taking in what somebody still sends who spoke plain HTTP and was told so.
pub const LINGER: Duration = Duration::from_secs(1);
/// From a connection's first byte, or the end of the last answer, to the end of the next request's head (HTTP/1.1).
/// Answers slow headers, and ends idle connections.
pub const REQUEST_HEAD: Duration = Duration::from_secs(20);
/// An HTTP/2 connection without any request, from the handshake on.
pub const FIRST_REQUEST: Duration = Duration::from_secs(20);
/// An HTTP/2 connection on which nothing is going on.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(300);
/// An HTTP/2 connection that was told to end, and on which nothing is going on.
pub const GOODBYE: Duration = Duration::from_secs(5);
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take.
pub const HTTP2_PING: Duration = Duration::from_secs(30);
/// See [`HTTP2_PING`].
pub const HTTP2_PING_ANSWER: Duration = Duration::from_secs(20);
/// The browser takes nothing of an answer that is ready for it: a slow or stuck reader.
pub const WRITE_STALL: Duration = Duration::from_secs(120);
/// Connecting to an application.
pub const CONNECT: Duration = Duration::from_secs(5);
/// TLS handshake with an `https://` application.
pub const UPSTREAM_TLS: Duration = Duration::from_secs(10);
/// Waiting for an application to say `100 Continue` before the body is sent all the same (RFC 9110 section 10.1.1).
pub const EXPECT_CONTINUE: Duration = Duration::from_secs(1);
/// Reading a forward file: a hanging network file system.
pub const FORWARD_READ: Duration = Duration::from_secs(5);
/// Forward files that one thread reads at once.
pub const FORWARD_READS: usize = 2;
/// How long a look into the user database or at processes may take; without an answer no group grants anything.
pub const GROUP_LOOK: Duration = Duration::from_secs(5);
/// How long another user's login group is believed, and of how many users.
pub const LOGIN_FRESH: Duration = Duration::from_secs(60);
/// See [`LOGIN_FRESH`].
pub const LOGINS: usize = 1024;
/// How long what a forward file said is believed.
pub const FORWARD_FRESH: Duration = Duration::from_millis(900);
/// How long this machine's list of addresses is believed.
pub const ADDRESSES_FRESH: Duration = Duration::from_secs(5);
/// An upgrade that both sides agreed to, until both connections are handed over.
pub const UPGRADE: Duration = Duration::from_secs(10);
/// How often tunnels and long answers are looked at: has their session ended?
pub const SESSION_SWEEP: Duration = Duration::from_millis(250);
/// How often they are judged again in full.
pub const JUDGE_AGAIN: Duration = Duration::from_secs(4);
/// A pooled connection that is just being finished by its last request.
pub const POOL_READY: Duration = Duration::from_millis(5);
/// An idle pooled connection to an application.
pub const POOL_IDLE: Duration = Duration::from_secs(30);
/// From the signal to stop until what still runs is cut off.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The head of a request or answer over HTTP/1.1, in bytes; more is refused with 431 (browser) or 502 (application).
pub const HEAD_BYTES: usize = 64 * 1024;
/// Header fields of one message.
pub const HEAD_FIELDS: usize = 128;
/// The header list of a request over HTTP/2, uncompressed, in bytes.
pub const HTTP2_HEADER_LIST: u32 = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS: u32 = 200;
/// What a browser may send ahead on one HTTP/2 stream, and on all of a connection together, in bytes.
pub const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
/// See [`HTTP2_STREAM_WINDOW`].
pub const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept of one HTTP/2 answer before the browser takes it, in bytes.
pub const HTTP2_SEND_BUFFER: usize = 256 * 1024;
/// Streams that a peer opened and reset before they were looked at ("rapid reset", CVE-2023-44487).
pub const HTTP2_PENDING_RESETS: usize = 20;
/// The body of a form of our own, in bytes.
pub const FORM_BYTES: usize = 4 * 1024;
/// The chunk in which a tunnel copies, in bytes. One buffer a thread, not one a tunnel.
pub const TUNNEL_CHUNK: usize = 64 * 1024;
/// Idle pooled connections to one application for one user.
pub const POOL_PER_TARGET: usize = 64;
/// Idle pooled connections of one thread.
pub const POOL_TOTAL: usize = 1024;
/// Places (`localhost:8888`, `alice-tb`) that one thread remembers as parsed.
pub const PLACES: usize = 1024;
/// Tickets that one thread remembers as verified.
pub const TICKETS: usize = 4096;
/// Sessions that are remembered; past that, the ones whose tickets ended are dropped, and then nobody is let in.
pub const SESSIONS: usize = 100_000;
/// Between two records of other users of this machine who connect to the portal, for each thread.
pub const STRANGER_RECORDS: Duration = Duration::from_secs(1);
/// Refused codes from one address in [`CODE_FAILURE_WINDOW`] before it has to wait.
pub const CODE_FAILURES: u32 = 10;
/// See [`CODE_FAILURES`].
pub const CODE_FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose refused codes are counted.
pub const CODE_FAILURE_ADDRESSES: usize = 4096;
/// From an agent's TCP connection to its greeting, TLS included.
pub const AGENT_HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections of agents that have not greeted yet, and of one address. One more ends the oldest: a genuine agent needs
/// milliseconds.
pub const AGENT_HANDSHAKES: usize = 256;
/// See [`AGENT_HANDSHAKES`].
pub const AGENT_HANDSHAKES_OF_ONE: usize = 8;
/// An agent's answer, from the question on. Later is no answer.
pub const AGENT_ANSWER: Duration = Duration::from_secs(2);
/// How often a quiet agent is asked whether it is still there.
pub const AGENT_PING: Duration = Duration::from_secs(10);
/// A question that an agent leaves unanswered for so long ends its connection.
pub const AGENT_SILENT: Duration = Duration::from_secs(20);
/// An agent's message, from its first byte to its last.
pub const AGENT_FRAME: Duration = Duration::from_secs(5);
/// An agent takes no question.
pub const AGENT_STALL: Duration = Duration::from_secs(5);
/// Questions that wait to be sent to one agent.
pub const AGENT_QUEUE: usize = 1024;
/// Sign-in addresses that one login node asks for at once.
pub const AGENT_LOGINS: usize = 64;
/// Between two records of connections to the agents' socket that were refused.
pub const AGENT_RECORDS: Duration = Duration::from_secs(1);
/// Former boots of a node that are remembered.
pub const AGENT_BOOTS: usize = 8;
