//! Every wait, buffer and queue of the ident2 service has its limit here, by name.

use std::time::Duration;

use portreeve_model::wire::ident2::MAX_MESSAGE;

/// Processes of this node that are connected, and those of one user. A web server may have a connection for each of its
/// processes, and the others must still get in.
pub(super) const CALLERS: usize = 512;
/// See [`CALLERS`].
pub(super) const CALLERS_OF_ONE: usize = 384;
/// Callers that wait to be accepted.
pub(super) const BACKLOG: i32 = 64;
/// After a failure to accept or to receive, such as too many open files.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// The longest message, with one byte more, which shows one that is longer.
pub(super) const MESSAGE: usize = MAX_MESSAGE + 1;
/// What the kernel keeps of datagrams that were not read yet, in bytes, as far as the system lets us: when a large job
/// starts, its connections all come at once.
pub(super) const RECEIVED: usize = 4 * 1024 * 1024;
/// Answers that wait for one caller, beside what its socket holds. With that many it is not read from, and what comes
/// from other nodes for it is lost.
pub(super) const ANSWERS: usize = 1024;
/// A caller that takes no answer for so long is dropped.
pub(super) const STALL: Duration = Duration::from_secs(5);
/// Threads for looks at processes.
pub(super) const LOOK_THREADS: usize = 2;
/// Looks that wait for a thread or have one, for this node's callers all together, and for one of them. What is more is
/// not answered: whoever asks will ask again.
pub(super) const LOOKS: usize = 4096;
/// See [`LOOKS`].
pub(super) const LOOKS_OF_ONE: usize = 2048;
/// The same for other nodes, which take none of the callers' places.
pub(super) const PEER_LOOKS: usize = 4096;
/// See [`PEER_LOOKS`].
pub(super) const PEER_LOOKS_OF_ONE: usize = 1024;
/// A look that has waited so long is not made. Whoever asks gives up earlier: a firewall of that system after one second.
pub(super) const LOOK_WAIT: Duration = Duration::from_secs(1);
/// Questions to other nodes that are open, for all callers together; what is more is not asked.
pub(super) const ASKED: usize = 16_384;
/// Of one caller; a new one takes the oldest one's place.
pub(super) const ASKED_OF_ONE: usize = 2048;
/// An answer that comes later is not believed.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// How often questions that nobody answered are looked for.
pub(super) const SWEEP: Duration = Duration::from_secs(1);
/// How often the log tells of one kind of odd event.
pub(super) const TELL: Duration = Duration::from_secs(10);
/// Questions that a client of ours has open.
pub(super) const OPEN: usize = 4096;
/// How often such a question is asked anew if the connection ends.
pub(super) const TRIES: u32 = 3;
/// Before it connects again.
pub(super) const AGAIN: Duration = Duration::from_millis(10);
