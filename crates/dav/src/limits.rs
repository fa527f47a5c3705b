//! Every bound of this crate, by name.

use std::time::Duration;

/// A request's XML, in bytes.
pub const XML: usize = 64 * 1024;
/// Elements of it in one another.
pub const XML_DEPTH: usize = 32;
/// Properties that are asked for at once.
pub const NAMES: usize = 256;
/// The field `If`, in bytes.
pub const IF: usize = 8 * 1024;
/// What one resource keeps of dead properties, in bytes, names included. Many file systems keep less.
pub const PROPERTIES: usize = 60 * 1024;
/// Locks of one user; one more is refused.
pub const LOCKS: usize = 1000;
/// What a lock says of its owner, in bytes.
pub const LOCK_OWNER: usize = 4 * 1024;
/// How long a lock lasts if its holder does not say, and at most. It can be refreshed.
pub const LOCK_TIME: Duration = Duration::from_secs(10 * 60);
/// See [`LOCK_TIME`].
pub const LOCK_MOST: Duration = Duration::from_secs(60 * 60);
/// A piece of a listing, in bytes, but for its last entry.
pub const PIECE: usize = 256 * 1024;
