//! Every bound of this crate, by name.

use std::time::Duration;

/// A name, in bytes: NAME_MAX of Linux, which few file systems undercut and none that matters exceeds.
pub const NAME: usize = 255;
/// A path, in bytes. The kernel's PATH_MAX of 4096 counts the zero byte at the end.
pub const PATH: usize = 4095;
/// How often a path is resolved again because something was renamed meanwhile, so that the kernel could not say whether
/// `..` in a link leads out (`EAGAIN`, openat2(2)). After that, it is an error.
pub const RESOLUTIONS: usize = 128;
/// Links that one leads to another at the end of the path that is written to: as many as the kernel follows.
pub const LINKS: usize = 40;
/// Random names tried for a file that is being written. A second one is needed about never.
pub const HIDDEN_NAMES: usize = 16;
/// What is read of a file at once into memory, in bytes. Who asks for more gets so much.
pub const PIECE: usize = 4 * 1024 * 1024;
/// Directories in one another that are copied or removed as one: each is kept open meanwhile.
pub const DEPTH: usize = 256;
/// Of what could not be removed, so many are told of.
pub const LEFT: usize = 100;
/// The value of an extended attribute, in bytes: the most that Linux takes.
pub const ATTRIBUTE: usize = 64 * 1024;
/// The names of a file's extended attributes together, in bytes: the most that Linux takes.
pub const ATTRIBUTES: usize = 64 * 1024;
/// Entries of a directory that are told of. Who asks for more gets so many.
pub const ENTRIES: usize = 1_000_000;
/// Entries of a directory whose names are read at once, and that are looked at before they are asked for,
pub const BATCH: usize = 1024;
/// unless there are fewer than this.
pub const FEW: usize = 64;
/// Looks by which is judged whether they wait for a server or a disk.
pub const TIMED: usize = 8;
const _: () = assert!(TIMED < FEW && FEW < BATCH);
/// One that takes so long waits.
pub const WAITS: Duration = Duration::from_micros(20);
/// Threads that look ahead for one request,
pub const HELPERS_EACH: usize = 4;
/// and for all of a process. One that hangs is counted.
pub const HELPERS: usize = 16;
