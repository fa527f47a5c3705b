//! Every wait, buffer and queue of the firewall has its limit here, by name.

use std::time::Duration;

/// Packets of one queue that wait in the kernel.
pub(super) const QUEUE_LENGTH: u32 = 8192;
/// Of each packet so much is read, in bytes: what an ICMP error quotes (RFC 1812 section 4.3.2.3).
pub(super) const PACKET_BYTES: u16 = 548;
/// Packets that are read in one go, before answers are looked at.
pub(super) const PACKETS_AT_ONCE: usize = 64;
/// Packets of one queue that wait for an answer or a look. Past that they are dropped, and sent again.
pub(super) const WAITING: usize = 4096;
/// See [`WAITING`]: of those, from one node, whatever its addresses.
pub(super) const WAITING_OF_ONE: usize = WAITING / 4;
/// How often a queue's thread says that it lives.
pub(super) const PULSE: Duration = Duration::from_secs(1);
/// A queue's thread of which nothing was heard for so long is stuck.
pub(super) const SILENT: Duration = Duration::from_secs(5);
/// How often systemd is told that all of them live.
pub(super) const WATCHDOG: Duration = Duration::from_secs(5);
/// Threads for looks at processes, of each queue and of all answers.
pub(super) const LOOK_THREADS: usize = 2;
/// Looks that wait or run.
pub(super) const LOOKS: usize = 256;
/// How long a login group is believed.
pub(super) const LOGIN_GROUP_FRESH: Duration = Duration::from_secs(60);
/// Users whose login group is remembered.
pub(super) const LOGIN_GROUPS: usize = 1024;
/// Connecting to another node, and the same again for the TLS handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// After a connection that failed, so long nobody tries again: packets are dropped at once.
pub(super) const AGAIN: Duration = Duration::from_millis(250);
/// Questions to one node that wait to be written.
pub(super) const QUESTIONS: usize = 4096;
/// A connection on which nothing was asked for so long is closed.
pub(super) const IDLE: Duration = Duration::from_secs(600);
/// From a message's first byte to its last.
pub(super) const FRAME: Duration = Duration::from_secs(2);
/// The other end takes nothing.
pub(super) const STALL: Duration = Duration::from_secs(2);
/// Other nodes' connections that have not shown a known key yet, and all of them.
pub(super) const STRANGERS: usize = 256;
/// See [`STRANGERS`]: of one address.
pub(super) const STRANGERS_OF_ONE: usize = 16;
/// See [`STRANGERS`].
pub(super) const CONNECTIONS: usize = 8192;
/// Of one node: one for each of its queues, and some for those that are ending.
pub(super) const OF_ONE_NODE: usize = 2 * portreeve_model::firewall_config::MAX_QUEUES as usize;
/// Answers of one connection that wait to be written.
pub(super) const ANSWERS: usize = 1024;
/// Connections that wait to be accepted.
pub(super) const BACKLOG: i32 = 1024;
/// After a failure to accept, such as too many open files.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Flows of UDP that one queue watches. One more, and the one that was used longest ago is asked about again.
pub(super) const FLOWS: usize = 16_384;
/// How often it is looked whether a watched flow's socket is still the same.
pub(super) const FLOWS_LOOK: Duration = Duration::from_secs(1);
/// How often flows of UDP that began on this node are looked at, and how many of them are known at most.
pub(super) const OUTGOING_LOOK: Duration = Duration::from_secs(2);
/// See [`OUTGOING_LOOK`]. One more is forgotten at the next look.
pub(super) const OUTGOING: usize = 65_536;
/// See [`OUTGOING`]: of those, one user's.
pub(super) const OUTGOING_OF_ONE: usize = OUTGOING / 4;
/// Refusals that are logged: so many at once, and then so many a second, of all; the rest is counted.
pub(super) const AUDIT_BURST: u32 = 100;
/// See [`AUDIT_BURST`].
pub(super) const AUDIT_PER_SECOND: u32 = 20;
/// The same refusal is not logged again for so long.
pub(super) const AUDIT_SAME: Duration = Duration::from_secs(10);
/// Refusals that are remembered for that.
pub(super) const AUDIT_REMEMBERED: usize = 4096;
/// ICMP errors in a second, of one queue.
pub(super) const ICMP_PER_SECOND: u32 = 1000;
/// Questions on the control socket at once, of everybody but root; and root's.
pub(super) const CONTROLS: usize = 16;
/// See [`CONTROLS`]: of those, one user's.
pub(super) const CONTROLS_OF_ONE: usize = CONTROLS / 4;
/// Each step of one.
pub(super) const CONTROL: Duration = Duration::from_secs(5);
/// A question, in bytes.
pub(super) const CONTROL_QUESTION: usize = 1024;
/// Whoever asks waits for the answer: looks at processes on two nodes are among it.
pub(super) const CONTROL_ASKING: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: metrics of 64 queues.
pub(super) const CONTROL_ANSWER: usize = 256 * 1024;
