//! Every wait, buffer and list of this crate, by name.

use std::time::Duration;

/// A command of Slurm's may take so long; one that takes longer is ended, and Slurm is said not to answer.
pub(crate) const COMMAND: Duration = Duration::from_secs(20);
/// What a command says, in bytes; one that says more is ended.
pub(crate) const COMMAND_BYTES: usize = 16 * 1024 * 1024;
/// What is kept of a command's complaint, in bytes.
pub(crate) const COMPLAINT: usize = 4096;
/// A manifest's file, in bytes.
pub(crate) const MANIFEST: u64 = 1024 * 1024;
/// Manifests in one directory.
pub(crate) const MANIFESTS: usize = 200;
/// A record of an entry's directory, in bytes.
pub(crate) const RECORD: u64 = 1024 * 1024;
/// What is kept of a program's last words in its record, in bytes.
pub const LAST_WORDS: usize = 4096;
/// Files that a job made, named in its record.
pub const FILES_MADE: usize = 500;
/// What a group is shown of a job's output, and of its complaints, in bytes: the last of it.
pub(crate) const SHARED_OUTPUT: u64 = 4 * 1024 * 1024;
/// Jobs of others that are listed, in all and of one person's: nobody's hide everybody else's.
pub(crate) const SHARED: usize = 1000;
pub(crate) const SHARED_OF_ONE: usize = 200;
/// The records of one that is listed, in bytes. One with more is shown by its address alone.
pub(crate) const SHARED_RECORD: u64 = 64 * 1024;
/// A job that Slurm does not know of for so long after it was handed over is gone.
pub(crate) const UNKNOWN: i64 = 60;
