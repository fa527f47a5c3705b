//! What stands in a job's files. Invariants: a record is written whole or not at all, and is for its owner's eyes (mode 0600). One
//! that can't be read, or is of another version, says so; it is never taken for one that is not there.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::BASE32_NOPAD;
use nix::fcntl::OFlag;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Names a job that was started here: when, and something that no other has. Sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId(String);

impl EntryId {
    /// For a job that is started now (unix seconds).
    ///
    /// # Errors
    /// When no random numbers can be had.
    pub fn new(now: i64) -> io::Result<Self> {
        let mut random = [0; 5];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let moment = jiff::Timestamp::from_second(now).map_err(io::Error::other)?;
        let moment = moment.strftime("%Y%m%dt%H%M%S");
        Ok(Self(format!("{moment}-{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase())))
    }

    /// Of an id as written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let (moment, random) = text.split_once('-')?;
        let fits = moment.len() == 15 && random.len() == 8 && moment.bytes().chain(random.bytes()).all(plain);
        fits.then(|| Self(text.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EntryId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no id of a job")
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> Self {
        id.0
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record's file.
pub trait Record: Serialize + DeserializeOwned {
    /// Its name in the job's directory.
    const FILE: &'static str;
}

/// What was started: written when it is, and never changed but for the job's number, which is known a moment later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id, which is its directory's name, too.
    pub id: EntryId,
    /// The application.
    pub app: String,
    /// What people call it.
    pub title: String,
    /// On which of the systems.
    pub system: String,
    /// What was filled in.
    pub values: BTreeMap<String, String>,
    /// What Slurm was told, for whoever wants to know.
    pub arguments: Vec<String>,
    /// The directory it runs in.
    pub directory: String,
    /// How it is opened: what follows its address. `None`: it has none.
    pub open: Option<String>,
    /// Unused for so long, it is stopped.
    pub idle_minutes: Option<u32>,
    /// When it was started (unix seconds).
    pub submitted: i64,
    /// The job, once whoever runs it has said so.
    pub job: Option<JobRef>,
}

impl Record for Entry {
    const FILE: &'static str = "entry.json";
}

/// Which job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobRef {
    /// Slurm's number.
    Slurm(u32),
    /// A process of this machine.
    Process {
        /// Its number, which is its group's, too.
        pid: i32,
        /// When it began, in the clock ticks of `/proc/PID/stat`: another process may get the number.
        began: u64,
    },
}

/// How the script runs and ended: written by whatever runs it, where it runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// On which nodes, in Slurm's notation.
    pub node: String,
    /// When it began (unix seconds).
    pub started: i64,
    /// When it ended (unix seconds).
    pub ended: Option<i64>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was told to stop (unix seconds).
    pub told_to_stop: Option<i64>,
    /// What it used on this node.
    pub usage: Option<Usage>,
    /// Files in its directory that are new, or were changed meanwhile.
    pub files: Vec<String>,
}

impl Record for Run {
    const FILE: &'static str = "run.json";
}

/// What a job used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds of CPU.
    pub cpu_seconds: f64,
    /// Memory that one of its processes had at most, in KiB.
    pub max_rss_kib: u64,
}

/// How far an application's program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// It was started, and does not answer yet.
    Starting,
    /// It answers.
    Ready,
    /// It was told to stop.
    Stopping,
    /// It is over.
    Over,
}

/// Where an application listens: written by `portreeve launch`, where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// How far it is.
    pub progress: Progress,
    /// The node, by the name that the portal has for it.
    pub node: String,
    /// The port.
    pub port: u16,
    /// It speaks HTTPS.
    pub tls: bool,
    /// What follows its address, with its token. A secret of its owner's.
    pub open: String,
    /// The forward that leads there.
    pub forward: Option<String>,
    /// The Slurm job that it runs in.
    pub job: Option<u32>,
    /// The program, as it was called.
    pub program: String,
    /// Its process.
    pub pid: u32,
    /// When it was started (unix seconds).
    pub started: i64,
    /// When it answered first (unix seconds).
    pub ready: Option<i64>,
    /// When it ended (unix seconds).
    pub ended: Option<i64>,
    /// When it was last used (unix seconds), to the minute.
    pub last_used: Option<i64>,
    /// When it will be stopped if nobody uses it (unix seconds).
    pub idle_stop: Option<i64>,
    /// Why it ended, or does not answer.
    pub why: Option<String>,
    /// The last lines that it wrote.
    pub last_words: String,
}

impl Record for Endpoint {
    const FILE: &'static str = "endpoint.json";
}

/// Somebody wants it to end: written before whoever runs it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// When (unix seconds).
    pub at: i64,
}

impl Record for Cancelled {
    const FILE: &'static str = "cancelled.json";
}

/// How it ended: written once that is known, and never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it failed.
    pub failed: bool,
    /// In a clause.
    pub reason: String,
    /// When it began to run (unix seconds).
    pub started: Option<i64>,
    /// When it ended, or was seen to have (unix seconds).
    pub ended: i64,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Where it ran.
    pub nodes: String,
    /// What it used.
    pub usage: Option<Usage>,
    /// The last lines that it wrote.
    pub last_words: String,
    /// Files that it made or changed.
    pub files: Vec<String>,
}

impl Record for Outcome {
    const FILE: &'static str = "outcome.json";
}

/// Reads a record; `None`: it is not there.
///
/// # Errors
/// When it can't be read, or is none.
pub fn read<R: Record>(dir: &Path) -> io::Result<Option<R>> {
    let file = match open_file(&dir.join(R::FILE), Links::Refused) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&read_whole(file, limits::RECORD)?).map(Some).map_err(io::Error::from)
}

/// Whether a file may be behind a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Followed,
    Refused,
}

/// Opens a plain file to be read, and nothing that would hang.
pub(crate) fn open_file(path: &Path, links: Links) -> io::Result<File> {
    let flags = match links {
        Links::Followed => OFlag::O_NONBLOCK,
        Links::Refused => OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW,
    };
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is no plain file"))
    }
}

/// All of it, if it has no more bytes than that.
pub(crate) fn read_whole(file: File, most: u64) -> io::Result<Vec<u8>> {
    // With room for it and a little more, it is one call, and another one that finds its end.
    let size = file.metadata()?.len().min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 64);
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    Ok(bytes)
}

/// Writes a record in the place of the one before. What is written is on the disk when this returns.
///
/// # Errors
/// When the disk is full or the system refuses: then the one before is there still.
pub fn write<R: Record>(dir: &Path, record: &R) -> io::Result<()> {
    let mut text = serde_json::to_vec(record)?;
    text.push(b'\n');
    write_file(dir, R::FILE, &text)
}

/// The same with any file.
///
/// # Errors
/// As [`write()`].
pub fn write_file(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let mut random = [0; 5];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let temporary = dir.join(format!(".{name}.{}", BASE32_NOPAD.encode(&random)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, dir.join(name))?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // What is left of it is nobody's.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = EntryId::new(1_795_708_845).unwrap();
        assert!(id.as_str().starts_with("20261126t160045-"), "{id}");
        assert_eq!(EntryId::parse(id.as_str()), Some(id.clone()));
        assert_ne!(EntryId::new(1_795_708_845).unwrap(), id);
        for bad in [
            "",
            "..",
            "20261126t160045",
            "20261126t160045-abc/defg",
            "20261126T160045-abcdefgh",
            "../../../etc-passwd12",
        ] {
            assert_eq!(EntryId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn records_are_whole_and_their_owners() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read::<Cancelled>(dir.path()).unwrap(), None);
        write(dir.path(), &Cancelled { at: 1 }).unwrap();
        write(dir.path(), &Cancelled { at: 2 }).unwrap();
        assert_eq!(read::<Cancelled>(dir.path()).unwrap(), Some(Cancelled { at: 2 }));
        let file = dir.path().join(Cancelled::FILE);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        for bad in ["", "{", "{\"at\":\"now\"}", "null"] {
            std::fs::write(&file, bad).unwrap();
            assert!(read::<Cancelled>(dir.path()).is_err(), "{bad}");
        }
        std::fs::write(&file, vec![b' '; 2 << 20]).unwrap();
        assert!(read::<Cancelled>(dir.path()).is_err());
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert!(read::<Cancelled>(dir.path()).is_err());
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read::<Cancelled>(dir.path()).is_err(), "a pipe is not waited for");
    }
}
