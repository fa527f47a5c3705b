//! Every wait, buffer and queue of the terminal, by name.

use std::time::Duration;

/// Output that is kept as it came, in bytes: what a browser can go back to. What is older lives on as a picture.
pub(crate) const LOG: usize = 4 * 1024 * 1024;
/// So much falls out of it at once, so that its beginning stays where it is for a while.
pub(crate) const LOG_STEP: usize = 256 * 1024;
/// How far the cut looks for the end of an escape sequence. One that is longer is cut.
pub(crate) const LOG_CUT: usize = 64 * 1024;
/// Changes of the size that are kept with it. One more, and the output before the second falls out.
pub(crate) const LOG_SIZES: usize = 1024;
const _: () = assert!(LOG_STEP + LOG_CUT < LOG);
/// What the picture's parser is given of one string (a window's title), in bytes: it would keep all of it.
pub(crate) const STRING: usize = 4096;
/// What is kept of a sequence's parameters, in bytes.
pub(crate) const PARAMETERS: usize = 32;

/// One read of the program's output.
pub(crate) const READ: usize = 64 * 1024;
/// Pieces of typed input that wait for the program. While they do, whoever typed them is not read.
pub(crate) const INPUT: usize = 16;
/// The program has ended and its output has not (a child has kept the terminal): so long it is read on.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// From SIGHUP to SIGKILL.
pub(crate) const HANG_UP: Duration = Duration::from_secs(10);

/// Output in one message, in bytes.
pub(crate) const PIECE: usize = 64 * 1024;
/// Output under way to a browser that has not said that it has shown it, in bytes.
pub(crate) const WINDOW: usize = 512 * 1024;
/// A message of a browser's, in bytes.
pub(crate) const MESSAGE: usize = 64 * 1024;
/// What waits in a WebSocket to be written, in bytes: a piece, and answers to pings.
pub(crate) const WRITE_BUFFER: usize = 2 * PIECE;
/// How a browser names itself, in bytes.
pub(crate) const CLIENT: usize = 64;
/// Browsers at once.
pub(crate) const VIEWERS: usize = 32;
/// From the WebSocket's beginning to the message that says what the browser has seen.
pub(crate) const ATTACH: Duration = Duration::from_secs(10);
/// Tells the page that the connection lives. It reconnects after 25 seconds without.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
/// Makes the browser answer.
pub(crate) const PING: Duration = Duration::from_secs(20);
/// A browser that says nothing for so long has gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// For what a browser has yet to take, and its goodbye, once its connection is to end.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);

/// Connections at once; one more is closed as soon as it comes.
pub(crate) const CONNECTIONS: usize = 128;
/// A connection on which no request comes, or whose request's head takes so long, ends.
pub(crate) const REQUEST_HEAD: Duration = Duration::from_secs(60);
/// A request's head, in bytes: cookies of other applications come along.
pub(crate) const HEAD_BYTES: usize = 32 * 1024;
/// Header fields of a request.
pub(crate) const HEAD_FIELDS: usize = 100;
/// After a connection that could not be accepted: there are too many open files, and soon fewer.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long the server stays once the program has ended, for browsers that have yet to show it.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// How long it stays then while somebody is there who may fetch what the program wrote. Its job is held for so long.
pub(crate) const FETCH: Duration = Duration::from_secs(120);

/// Entries of a directory that the page lists.
pub(crate) const LISTED: usize = 5000;
/// What is read of a file at once, in bytes: one such piece waits for a browser that is slow.
pub(crate) const FILE_PIECE: usize = 256 * 1024;
/// An upload of which nothing came for so long is given up.
pub(crate) const UPLOAD_SILENCE: Duration = Duration::from_secs(60);
/// For so long the rest of an upload that was refused is read, so that its browser reads the answer.
pub(crate) const DISCARD: Duration = Duration::from_secs(10);

/// A token's length. The shortest has 95 bits if it is random letters and digits.
pub(crate) const TOKEN: std::ops::RangeInclusive<usize> = 16..=256;
/// A terminal's width, in columns.
pub(crate) const COLUMNS: std::ops::RangeInclusive<i64> = 2..=1000;
/// A terminal's height, in rows.
pub(crate) const ROWS: std::ops::RangeInclusive<i64> = 1..=500;
