//! Every wait, buffer and queue of the portal has its limit here, by name. Those that can be set in `portreeve.toml`
//! are in `portreeve_model::config::LimitsConfig`, and have their defaults there.

use std::time::Duration;

/// From the TCP connection to the end of the TLS handshake.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// Of this, for a trusted proxy's PROXY header.
pub const PROXY_HEADER: Duration = Duration::from_secs(3);
/// A PROXY header, in bytes, with all that it says beside the addresses.
pub const PROXY_HEADER_BYTES: usize = 4 * 1024;
/// Between two records of connections that trusted proxies began without a good header, for each thread.
pub const PROXY_RECORDS: Duration = Duration::from_secs(1);
/// For taking in what somebody still sends whose connection ends, over plain HTTP or HTTP/1.1: closed with something
/// unread, a connection is reset, and the answer may be lost with it.
pub const LINGER: Duration = Duration::from_secs(1);
/// How much of that is taken at once, in bytes.
pub const LINGER_CHUNK: usize = 4 * 1024;
/// After a connection could not be accepted (most likely no descriptor is free), until it is tried again.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// From a connection's first byte, or the end of the last answer, to the end of the next request's head (HTTP/1.1).
/// Answers slow headers, and ends idle connections.
pub const REQUEST_HEAD: Duration = Duration::from_secs(20);
/// An HTTP/2 connection without any request, from the handshake on; `limits.idle_connection`, if that is shorter.
pub const FIRST_REQUEST: Duration = Duration::from_secs(20);
/// An HTTP/2 connection that was told to end, and on which nothing is going on.
pub const GOODBYE: Duration = Duration::from_secs(5);
/// When the portal is told to stop, an HTTP/1.1 connection on which nothing was asked yet has so long to ask: whoever has just
/// connected asks no second time.
pub const STOP_FIRST_REQUEST: Duration = Duration::from_secs(1);
/// How long an HTTP/2 peer may take to say that it is still there; `limits.http2_ping`, if that is shorter.
pub const HTTP2_PING_ANSWER: Duration = Duration::from_secs(20);
/// Connecting to an application.
pub const CONNECT: Duration = Duration::from_secs(5);
/// After so long without an answer from one address of a node, the next one is tried beside it.
pub const CONNECT_NEXT: Duration = Duration::from_millis(500);
/// What was sent to an application and its machine neither acknowledges nor takes for so long ends the connection
/// (TCP_USER_TIMEOUT, tcp(7)): the machine is gone. Without it, whoever waits for an answer waits for
/// `limits.response_head`.
pub const UPSTREAM_GONE: Duration = Duration::from_secs(60);
/// TLS handshake with an `https://` application.
pub const UPSTREAM_TLS: Duration = Duration::from_secs(10);
/// Waiting for an application to say `100 Continue` before the body is sent all the same (RFC 9110 section 10.1.1).
pub const EXPECT_CONTINUE: Duration = Duration::from_secs(1);
/// Reading a forward file, or the directory of forwards: a hanging network file system.
pub const FORWARD_READ: Duration = Duration::from_secs(5);
/// Others' applications that a session shows beside its visitor's own, with their consent; the oldest gives way.
pub const CONSENTS: usize = 64;
/// Applications opened in a session of which the workspace says how they get their paths; the oldest gives way.
pub const MODES_SHOWN: usize = 64;
/// Forward files that one thread reads at once. No file is read twice at once, so it takes as many that hang.
pub const FORWARD_READS: usize = 2;
/// How long a look into the user database or at processes may take; without an answer no group grants anything.
pub const GROUP_LOOK: Duration = Duration::from_secs(5);
/// Such looks that one thread has going at once.
pub const GROUP_LOOKS: usize = 3;
/// How long writing down that a session has ended may hold its person up.
pub const STATE_WRITE: Duration = Duration::from_secs(5);
/// How many of them one thread has waiting for the file system.
pub const STATE_WRITES: usize = 1;
/// How often it is tried again to write down what could not be written: the disk was full.
pub const STATE_RETRY: Duration = Duration::from_secs(5);
/// Threads, for each one that serves, that do what may block (`aside.rs`).
pub const BLOCKING_THREADS: usize = 8;
const _: () = assert!(FORWARD_READS + GROUP_LOOKS + STATE_WRITES <= BLOCKING_THREADS);
/// After so long without work such a thread ends. Costs nothing but the next one's start, so nothing tests it.
pub const BLOCKING_IDLE: Duration = Duration::from_secs(5);
/// When a serving thread ends, how long it waits for those. What hangs in a file system ends with the process; a test
/// would see no difference.
pub const BLOCKING_END: Duration = Duration::from_millis(100);
/// So often it is looked again whether an application has accepted a connection that its group is to decide about.
pub const ACCEPT_LOOKS: u32 = 5;
/// Before each of these.
pub const ACCEPT_LOOK: Duration = Duration::from_millis(2);
/// How long another user's login group is believed, and of how many users.
pub const LOGIN_FRESH: Duration = Duration::from_secs(60);
/// See [`LOGIN_FRESH`].
pub const LOGINS: usize = 1024;
/// How long what a forward file said is believed.
pub const FORWARD_FRESH: Duration = Duration::from_millis(900);
/// How long this machine's list of addresses is believed.
pub const ADDRESSES_FRESH: Duration = Duration::from_secs(5);
/// An upgrade that both sides agreed to, until both connections are handed over. Nobody outside can make that wait: it
/// is the libraries' own work once the answer is written, which `limits.write_stall` bounds. So nothing tests it.
pub const UPGRADE: Duration = Duration::from_secs(10);
/// How often tunnels, long answers and requests that wait for one are looked at: has their session ended?
pub const SESSION_SWEEP: Duration = Duration::from_millis(250);
/// How often they are judged again in full.
pub const JUDGE_AGAIN: Duration = Duration::from_secs(4);
/// A pooled connection that is just being finished by its last request: on a busy thread that takes a few turns.
pub const POOL_READY: Duration = Duration::from_millis(50);
/// From when what still runs is cut off, after `limits.drain`, until the process ends in any case.
pub const CUT_OFF: Duration = Duration::from_secs(5);

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
/// Interim (1xx) answers that wait to be sent on one HTTP/2 stream, with `HEAD_BYTES` of fields at most; one too many is dropped.
pub const HTTP2_INTERIMS: usize = 4;
/// The body of a form of our own, in bytes.
pub const FORM_BYTES: usize = 4 * 1024;
/// The chunk in which a tunnel copies, in bytes. One buffer a thread, not one a tunnel.
pub const TUNNEL_CHUNK: usize = 64 * 1024;
/// Idle pooled connections to one application for one user: whoever asks for so much at once finds them the next time.
pub const POOL_PER_TARGET: usize = 256;
/// Of these, so many are looked at for one that can be used at once.
pub const POOL_LOOKS: usize = 16;
/// One that was idle for longer is looked at before it is used: the application may have closed it.
pub const POOL_LOOK_AFTER: Duration = Duration::from_millis(10);
/// Of what an application sends, so many bytes count as one of the steps that a task may take in a turn, which are 128.
pub const TURN_READ: usize = 4 * 1024;
/// Idle pooled connections of one thread.
pub const POOL_TOTAL: usize = 1024;
/// Places (`localhost:8888`, `alice-tb`) that one thread remembers as parsed, and forward files as read.
pub const PLACES: usize = 1024;
/// The name of a place, in bytes: a full host name and a port.
pub const PLACE_BYTES: usize = 270;
/// What is repeated of the name of a host that is not ours, on pages and in the log, in characters.
pub const HOST_SHOWN: usize = 253;
/// Applications of which is remembered how they want their paths.
pub const MODES: usize = 4096;
/// Where a browser wanted to go before it was sent to sign in, in bytes.
pub const NEXT_BYTES: usize = 4 * 1024;
/// How long a browser remembers that, and its way into an application's origin: the age of two cookies. It is the
/// browser that keeps to it.
pub const WAY_BACK: Duration = Duration::from_secs(600);
/// Tickets that one thread remembers as verified.
pub const TICKETS: usize = 4096;
/// Sessions that are remembered; past that, those that are over are dropped, and then nobody is let in.
pub const SESSIONS: usize = 100_000;
/// Of these, one user's. One more, and of their own the one that was used longest ago is dropped: what is open by it ends, and
/// its ticket is looked at anew.
pub const SESSIONS_OF_A_USER: usize = 256;
/// Pages of the portal's own at once, for one session: the workspace, `/-/listening`, the way into an application's origin.
pub const PAGES: u32 = 32;
/// Files that are read or written at once, and questions about files, for one session. Counted until the answer has gone out.
pub const FILES: u32 = 32;
/// Windows that are told at once when something changes, for one session. One more asks by itself, every few seconds.
pub const WATCHERS: u32 = 24;
// Two sessions that have taken all of these places leave their user's worker room for what 16 threads keep.
const _: () =
    assert!(2 * (PAGES + FILES + WATCHERS) as usize + 16 * WORKER_KEPT <= portreeve_worker::CONNECTIONS);
/// Of a session's requests at once, one in so many may go to other users' applications.
pub const FOREIGN_SHARE: u32 = 4;
/// Of the browsers' connections (`limits.connections`), one in so many may come from one address, or from one /64 of IPv6. One
/// more is ended at once. In `up`, this machine's own addresses are not counted: there only its user is answered.
pub const ADDRESS_SHARE: usize = 4;
/// Between two records of other users of this machine who connect to the portal, for each thread.
pub const STRANGER_RECORDS: Duration = Duration::from_secs(1);
/// Refused codes from one address in [`CODE_FAILURE_WINDOW`] before it has to wait.
pub const CODE_FAILURES: u32 = 10;
/// See [`CODE_FAILURES`].
pub const CODE_FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose refused codes are counted.
pub const CODE_FAILURE_ADDRESSES: usize = 4096;
/// Refusals of people who are not signed in that a serving thread logs in a second. Past that they are counted, and the number
/// is logged.
pub const REFUSAL_RECORDS: u32 = 10;

/// Of a path, what the access log has, in characters.
pub const PATH_SHOWN: usize = 1024;
/// Connections to the metrics socket at once; more wait in the kernel's queue.
pub const METRICS_CONNECTIONS: usize = 16;
/// From such a connection to the end of its answer; it carries one request.
pub const METRICS_REQUEST: Duration = Duration::from_secs(10);
/// The head of such a request, in bytes.
pub const METRICS_HEAD_BYTES: usize = 16 * 1024;
/// From an agent's TCP connection to its greeting, TLS included.
pub const AGENT_HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections of agents that have not greeted yet, and of one address. One more ends the oldest: a genuine agent needs
/// milliseconds.
pub const AGENT_HANDSHAKES: usize = 256;
/// See [`AGENT_HANDSHAKES`].
pub const AGENT_HANDSHAKES_OF_ONE: usize = 8;
/// An agent's answer, from the question on. Later is no answer.
pub const AGENT_ANSWER: Duration = Duration::from_secs(2);
/// Of that, a question about a connection waits for an agent that is not there: it may just be restarted.
pub const AGENT_BACK: Duration = Duration::from_millis(1750);
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
/// An answer of ident2's, before it is asked once more: of [`AGENT_ANSWER`], which both have together. Between nodes it goes
/// by datagrams, which get lost.
pub const IDENT2_TRY: Duration = Duration::from_secs(1);
/// Before it is asked again about a connection that it did not find: so long such a service may remember that.
pub const IDENT2_FORGETS: Duration = Duration::from_millis(300);
/// Before the next connection with ident2.
pub const IDENT2_AGAIN: Duration = Duration::from_millis(250);
/// For the broker to hand over a connection with ident2 that it says is there.
pub const IDENT2_HANDED: Duration = Duration::from_secs(1);
/// Without news from the broker for so long, nobody is answered: who is signed out meanwhile would not be known.
pub const BROKER_FRESH: Duration = Duration::from_secs(5);
/// A question that finds no broker waits for so long for it to be back.
pub const BROKER_BACK: Duration = Duration::from_secs(3);
/// A portal that begins looks so often whether the broker has spoken. It takes no browser's connection before that, or for
/// [`BROKER_BACK`].
pub const BROKER_BEGUN: Duration = Duration::from_millis(10);
/// How often one who waits for the broker looks whether it hangs.
pub const BROKER_LOOK: Duration = Duration::from_millis(500);
/// The broker's answer, from the question on: it may have to look somebody up, and to start a process.
pub const BROKER_ANSWER: Duration = Duration::from_secs(35);
/// A step of a conversation with PAM: a little longer than the broker lets a whole one take.
pub const BROKER_CONVERSATION: Duration = Duration::from_secs(185);
/// Questions of one sort (forward files; connections to the worker; groups and tickets) that one user's requests have with
/// the broker at once. One more waits for [`ASKED_TURN`], and is refused.
pub const ASKED_OF_ONE: usize = 8;
/// See [`ASKED_OF_ONE`].
pub const ASKED_TURN: Duration = Duration::from_secs(4);
/// Such questions of all users. The broker takes 1024 questions at once: the rest are for signing in, for dialers and for what
/// the portal asks of itself.
pub const ASKED_BY_REQUESTS: usize = 768;
const _: () = assert!(ASKED_BY_REQUESTS < portreeve_model::wire::broker::AT_ONCE);
/// Users whose groups are asked for again at once.
pub const GROUPS_AT_ONCE: usize = 32;
/// An access token that was taken is believed for so long; then the broker checks its account again.
pub const TOKEN_FRESH: Duration = Duration::from_secs(300);
/// Sign-outs that wait for the broker to be back, to be written down. One more is in force in this portal alone.
pub const SIGN_OUTS: usize = 4096;
/// Ended sessions that are remembered. One more, and the list is had anew, without those whose time is over anyhow.
pub const ENDED_SESSIONS: usize = 200_000;
/// A dialer's answer, beyond [`CONNECT`].
pub const DIALER_ANSWER: Duration = Duration::from_secs(2);
/// Users whose dialer one thread knows, before those that ended are forgotten.
pub const DIALERS: usize = 1024;
/// A body that is not read, because the request was answered before, is refused so long after.
pub const BODY_LEFT: Duration = Duration::from_millis(300);
/// A worker's answer.
pub const WORKER_ANSWER: Duration = Duration::from_secs(15);
/// The same where a tree is copied, moved, removed or unpacked: longer than the worker gives that itself, so that it is the worker who
/// says how it ended.
pub const WORKER_CHANGE: Duration = Duration::from_secs(61 * 60);
/// Without an answer for so long, it is looked whether the worker takes connections at all.
pub const WORKER_KNOCK: Duration = Duration::from_secs(4);
/// Users to whose worker one thread keeps connections.
pub const WORKERS: usize = 1024;
/// So many of them for each: half of what a worker takes, if there are 32 threads.
pub const WORKER_KEPT: usize = 4;
/// A connection that rested for longer may be about to be ended by its worker, which does so after 60 s.
pub const WORKER_FRESH: Duration = Duration::from_secs(30);
/// How long the nodes may take to say what somebody has listening, for show.
pub const LISTENING: Duration = Duration::from_millis(700);
/// How long that is believed. Meanwhile, and while they are asked, whoever else asks for the same user gets the same answer.
pub const LISTENING_FRESH: Duration = Duration::from_secs(1);
/// How long a browser that was on a cluster's portal comes by HTTPS alone, and offers nobody to go on past a certificate that it
/// does not know (RFC 6797). It is the browser that keeps to it.
pub const HTTPS_ONLY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a browser is known as one that a user signed in with: the age of a cookie.
pub const MARK: Duration = Duration::from_secs(90 * 24 * 3600);
/// Nodes whose agent can't be asked that are named on a page.
pub const NODES_IN_TROUBLE: usize = 16;
