//! Every wait, buffer and queue of the worker, by name.

use std::time::Duration;

/// Without a connection for so long, the worker leaves. A new one costs its user a moment.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// Connections of portals at once; one more is closed as soon as it comes.
pub(crate) const CONNECTIONS: usize = 64;
/// A connection on which no request comes, or whose request's head takes so long, ends.
pub(crate) const REQUEST_HEAD: Duration = Duration::from_secs(60);
/// A request's head, in bytes: a ticket has at most 4096. More is answered with 431.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// Header fields of a request.
pub(crate) const HEAD_FIELDS: usize = 64;
/// A request's whole body; late is answered with 408.
pub(crate) const BODY: Duration = Duration::from_secs(10);
/// A portal that takes nothing of an answer for so long has its connection ended.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);
/// Listing the directory of forwards, which may be on a file system that hangs; then the page says so.
pub(crate) const FORWARDS_LIST: Duration = Duration::from_secs(3);
/// Such lists at once. While as many hang, further pages say so without waiting.
pub(crate) const FORWARDS_LISTS: usize = 2;
/// Threads for what may block.
pub(crate) const BLOCKING_THREADS: usize = 4;
const _: () = assert!(FORWARDS_LISTS <= BLOCKING_THREADS);
/// Without work such a thread ends.
pub(crate) const BLOCKING_IDLE: Duration = Duration::from_secs(5);

/// What is shown of a program's name, in characters.
pub(crate) const COMMAND: usize = 64;
/// What is shown of a clause that somebody else wrote, or of what was typed, in characters.
pub(crate) const CLAUSE: usize = 300;
