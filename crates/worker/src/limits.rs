//! Every wait, buffer and queue of the worker, by name.

use std::time::Duration;

/// Without a connection for so long, the worker leaves. A new one costs its user a moment.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// Connections of portals at once; one more is closed as soon as it comes. What one session has at once takes less than half of them.
pub const CONNECTIONS: usize = 256;
/// Tickets that are remembered: one for each session of the person's.
pub(crate) const TICKETS: usize = 32;
/// A connection on which no request comes, or whose request's head takes so long, ends.
pub(crate) const REQUEST_HEAD: Duration = Duration::from_secs(60);
/// A request's head, in bytes: a ticket has at most 4096. More is answered with 431.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// Header fields of a request.
pub(crate) const HEAD_FIELDS: usize = 64;
/// A request's whole body; late is answered with 408.
pub(crate) const BODY: Duration = Duration::from_secs(10);
/// What nobody wants to read of a body is taken for so long, so that the answer is not lost.
pub(crate) const DISCARD: Duration = Duration::from_secs(5);
/// A portal that takes nothing of an answer for so long has its connection ended.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);
/// Listing the directory of forwards, which may be on a file system that hangs; then the page says so.
pub(crate) const FORWARDS_LIST: Duration = Duration::from_secs(3);
/// Such lists at once. While as many hang, further pages say so without waiting.
pub(crate) const FORWARDS_LISTS: usize = 2;
/// Threads for what may block.
pub(crate) const BLOCKING_THREADS: usize = 48;
const _: () = assert!(FORWARDS_LISTS <= BLOCKING_THREADS);
/// Without work such a thread ends.
pub(crate) const BLOCKING_IDLE: Duration = Duration::from_secs(5);

/// What is shown of a program's name, in characters.
pub(crate) const COMMAND: usize = 64;
/// What is shown of a clause that somebody else wrote, or of what was typed, in characters.
pub(crate) const CLAUSE: usize = 300;

/// What is shown of a path, in characters.
pub(crate) const PATH_SHOWN: usize = 4096;
/// A look at files takes so long at most; then the page says that they hang.
pub(crate) const FILES: Duration = Duration::from_secs(3);
/// Such looks at once.
pub(crate) const FILE_LOOKS: usize = 4;
/// Pieces of files that are read or written at once.
pub(crate) const TRANSFERS: usize = 32;
const _: () = assert!(FORWARDS_LISTS + FILE_LOOKS + TRANSFERS + CHANGES <= BLOCKING_THREADS);
/// A look at a file or directory takes so long at most, less than the portal waits for an answer.
pub(crate) const LOOK: Duration = Duration::from_secs(8);
/// A piece takes so long at most; then the file is given up. The last step of writing one waits for the disk.
pub(crate) const TRANSFER: Duration = Duration::from_secs(60);
/// Such a piece, in bytes.
pub(crate) const PIECE: usize = 256 * 1024;
/// At its end a worker waits so long for threads that remove what was given up.
pub(crate) const LEAVE: Duration = Duration::from_secs(2);
/// A file of which nothing comes for so long is given up.
pub(crate) const UPLOAD_STALL: Duration = Duration::from_secs(30);
/// A change that takes as long as it takes: a tree that is copied or removed, an archive that is unpacked.
pub(crate) const CHANGE: Duration = Duration::from_secs(60 * 60);
/// Such changes at once.
pub(crate) const CHANGES: usize = 8;
/// Entries of a directory that are told of at all.
pub(crate) const DIRECTORY: usize = 1_000_000;
/// Directories that are remembered as they were read.
pub(crate) const SNAPSHOTS: usize = 2;
/// Rows of the page *Files* before a script asks for more.
pub(crate) const ROWS: usize = 200;
/// An archive that is made or unpacked. More is refused; what is too deep is left out of one that is made.
pub(crate) const ARCHIVE: Archive = Archive { count: 100_000, depth: 200, table: 32 * 1024 * 1024 };
/// Of what is left out of an archive, so many are named.
pub(crate) const ARCHIVE_LEFT_OUT: usize = 1000;
/// An archive may get so many times as large as it is,
pub(crate) const UNPACKED_RATIO: u64 = 200;
/// and so many bytes more.
pub(crate) const UNPACKED_SPARE: u64 = 64 * 1024 * 1024;
/// Files at once that come in parts.
pub(crate) const UPLOADS: usize = 64;
/// One with which nobody goes on for so long is given up.
pub(crate) const UPLOAD_IDLE: Duration = Duration::from_secs(60 * 60);
/// That one is complete is remembered for so long.
pub(crate) const UPLOAD_TOLD: Duration = Duration::from_secs(10 * 60);
/// What is shown of a text file, in bytes.
pub(crate) const PREVIEW: usize = 64 * 1024;
/// A picture that is shown has no more bytes.
pub(crate) const PICTURE: u64 = 4 * 1024 * 1024;
/// Entries of a directory in one answer.
pub(crate) const ENTRIES: usize = 10_000;
/// A page waits so long for Slurm; then it shows what was said last.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// The same where something is known that is not `STALE`, or where Slurm did not answer the last time.
pub(crate) const HASTE: Duration = Duration::from_millis(300);
/// Slurm is not asked for the queue more often.
pub(crate) const QUEUE_AGE: Duration = Duration::from_secs(2);
/// What a cluster offers is asked for again after so long.
pub(crate) const SITE_AGE: Duration = Duration::from_secs(60);
/// What Slurm said longer ago than this is said to be old.
pub(crate) const STALE: Duration = Duration::from_secs(15);
/// A list of jobs is good for so long.
pub(crate) const LIST_AGE: Duration = Duration::from_millis(900);
/// A change of one of so many jobs, the youngest, is told to whoever watches.
pub(crate) const WATCHED: usize = 50;
/// While somebody watches, it is looked so often whether something changed.
pub(crate) const WATCH: Duration = Duration::from_secs(2);
/// Who watches and hears nothing is told so often that the connection is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
/// Watchers at once.
pub(crate) const WATCHERS: usize = 32;
/// A process of this machine is noted so soon after it began, in seconds.
pub(crate) const BEGINS: i64 = 10;
/// Records of what was started by hand that are looked at.
pub(crate) const BY_HAND: usize = 200;
/// A form, in bytes.
pub(crate) const FORM: usize = 1024 * 1024;
/// Records of the history that are read in one look.
pub(crate) const READ_AT_ONCE: usize = 100;
/// Such looks side by side; one place is left for others.
pub(crate) const READERS: usize = FILE_LOOKS - 1;
/// Jobs on one page of the history.
pub(crate) const HISTORY_PAGE: usize = 50;
/// What is shown of a job's output at first, in bytes.
pub(crate) const OUTPUT_SHOWN: u64 = 64 * 1024;
/// Bytes of output in one answer at most.
pub(crate) const OUTPUT_MOST: u64 = 1024 * 1024;

/// How much one archive may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Archive {
    /// Files and directories.
    pub(crate) count: usize,
    /// Directories in one another.
    pub(crate) depth: usize,
    /// The table at its end, in bytes: all of it is read at once when it is unpacked.
    pub(crate) table: u64,
}
