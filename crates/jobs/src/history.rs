//! The history: one directory for each job that was ever started here, below `portreeve/jobs` in the person's state directory.
//!
//! | file | written by | what |
//! | --- | --- | --- |
//! | `entry.json`, `script` | whoever starts the job | what was started |
//! | `run.json` | `portreeve batch`, where it runs | how the script runs and ended |
//! | `endpoint.json` | `portreeve launch`, where it runs | where the application listens |
//! | `output`, `errors` | the job | what it writes |
//! | `cancelled.json` | whoever ends it | that it is to end |
//! | `outcome.json` | whoever sees its end first | how it ended, for good |
//!
//! Invariants: a directory appears whole or not at all, also when the disk is full. What has an outcome does not change any more.
//! A record that can't be read is said, and the job stays on the list.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::limits;
use crate::records::{self, Cancelled, Entry, EntryId, JobRef, Links, Outcome};
use crate::state::Records;

/// What the job writes.
pub const OUTPUT: &str = "output";
/// What it complains.
pub const ERRORS: &str = "errors";
/// Its script.
pub const SCRIPT: &str = "script";

/// One person's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    dir: PathBuf,
}

/// One job of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What was started.
    pub entry: Entry,
    /// How it ended, once it did.
    pub outcome: Option<Outcome>,
}

impl History {
    /// In a state directory, such as `~/.local/state/portreeve`.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self { dir: state.join("jobs") }
    }

    /// The directory itself.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// A job's directory.
    #[must_use]
    pub fn directory(&self, id: &EntryId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    /// All jobs, the youngest first. Blocks, as everything here.
    ///
    /// # Errors
    /// When the directory can't be listed. That it is not there is none.
    pub fn ids(&self) -> io::Result<Vec<EntryId>> {
        let found = match std::fs::read_dir(&self.dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut ids = Vec::new();
        for entry in found {
            ids.extend(entry?.file_name().to_str().and_then(EntryId::parse));
        }
        ids.sort_by(|one, other| other.cmp(one));
        Ok(ids)
    }

    /// Keeps one that is about to be started.
    ///
    /// # Errors
    /// When the disk is full or the system refuses: then nothing of it is there.
    pub fn create(&self, entry: &Entry, script: &str) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let whole = self.directory(&entry.id);
        let unfinished = self.dir.join(format!(".{}", entry.id));
        let made = (|| {
            DirBuilder::new().mode(0o700).create(&unfinished)?;
            records::write_file(&unfinished, SCRIPT, script.as_bytes())?;
            records::write(&unfinished, entry)?;
            std::fs::rename(&unfinished, &whole)?;
            File::open(&self.dir)?.sync_all()
        })();
        if let Err(error) = made {
            let _ = std::fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        Ok(whole)
    }

    /// Takes one away that was not started after all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, id: &EntryId) -> io::Result<()> {
        // Out of the list first: half of one is never seen.
        let gone = self.dir.join(format!(".{id}"));
        std::fs::rename(self.directory(id), &gone)?;
        std::fs::remove_dir_all(gone)
    }

    /// What was started, and how it ended.
    ///
    /// # Errors
    /// When it is not there, or can't be read.
    pub fn read(&self, id: &EntryId) -> io::Result<Kept> {
        let dir = self.directory(id);
        let entry: Entry = records::read(&dir)?.ok_or(io::ErrorKind::NotFound)?;
        if entry.id != *id {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is another job's record"));
        }
        Ok(Kept { entry, outcome: records::read(&dir)? })
    }

    /// What the records of one that is going on say.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn records(&self, id: &EntryId) -> io::Result<Records> {
        let dir = self.directory(id);
        let mut found = Records {
            run: records::read(&dir)?,
            endpoint: records::read(&dir)?,
            cancelled: records::read(&dir)?,
            last_words: String::new(),
        };
        found.last_words = self.last_words(id, &found);
        Ok(found)
    }

    /// The last lines that it wrote: what `portreeve launch` noted, or else of its complaints, or else of its output.
    fn last_words(&self, id: &EntryId, records: &Records) -> String {
        let noted = records.endpoint.as_ref().map(|endpoint| endpoint.last_words.clone());
        let of_file = |name| {
            let (text, _) = self.tail(id, name, limits::LAST_WORDS as u64).unwrap_or_default();
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        noted
            .into_iter()
            .chain([ERRORS, OUTPUT].into_iter().map(of_file))
            .find(|words| !words.trim().is_empty())
            .unwrap_or_default()
    }

    /// Notes which job it became.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_job(&self, entry: &Entry, job: JobRef) -> io::Result<()> {
        records::write(&self.directory(&entry.id), &Entry { job: Some(job), ..entry.clone() })
    }

    /// Notes that it is to end.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn cancel(&self, id: &EntryId, now: i64) -> io::Result<()> {
        records::write(&self.directory(id), &Cancelled { at: now })
    }

    /// Notes how it ended.
    ///
    /// # Errors
    /// When it can't be written: whoever sees it next tries again.
    pub fn finish(&self, id: &EntryId, outcome: &Outcome) -> io::Result<()> {
        records::write(&self.directory(id), outcome)
    }

    /// The job's script.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn script(&self, id: &EntryId) -> io::Result<String> {
        let file = records::open_file(&self.directory(id).join(SCRIPT), Links::Refused)?;
        String::from_utf8(records::read_whole(file, limits::RECORD)?).map_err(io::Error::other)
    }

    /// At most `most` bytes of what it wrote (`OUTPUT` or `ERRORS`), from `offset` on, and where the file ends now. A file that is
    /// not there yet is empty.
    ///
    /// # Errors
    /// When it can't be read, or is no plain file.
    pub fn written(&self, id: &EntryId, name: &str, offset: u64, most: u64) -> io::Result<(Vec<u8>, u64)> {
        let mut file = match records::open_file(&self.directory(id).join(name), Links::Refused) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        };
        let end = file.metadata()?.len();
        let mut bytes = Vec::new();
        // There is nothing; and the kernel takes no offset that a file can't have.
        if offset >= end {
            return Ok((bytes, end));
        }
        file.seek(SeekFrom::Start(offset))?;
        file.take(most).read_to_end(&mut bytes)?;
        Ok((bytes, end))
    }

    /// Its last `most` bytes, and where the file ends now.
    ///
    /// # Errors
    /// As [`Self::written`].
    pub fn tail(&self, id: &EntryId, name: &str, most: u64) -> io::Result<(Vec<u8>, u64)> {
        let (_, end) = self.written(id, name, 0, 0)?;
        self.written(id, name, end.saturating_sub(most), most)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn entry(now: i64) -> Entry {
        Entry {
            id: EntryId::new(now).unwrap(),
            app: "run".to_owned(),
            title: "Run".to_owned(),
            system: "main".to_owned(),
            values: BTreeMap::new(),
            arguments: Vec::new(),
            directory: "/".to_owned(),
            open: None,
            idle_minutes: None,
            submitted: now,
            job: None,
        }
    }

    pub(crate) fn outcome() -> Outcome {
        Outcome {
            failed: false,
            reason: String::new(),
            started: None,
            ended: 9,
            exit_code: Some(0),
            signal: None,
            nodes: String::new(),
            usage: None,
            last_words: String::new(),
            files: Vec::new(),
        }
    }

    #[test]
    fn a_jobs_life() {
        let state = tempfile::tempdir().unwrap();
        let history = History::below(state.path());
        assert_eq!(history.ids().unwrap(), []);
        let (old, new) = (entry(1000), entry(2000));
        for entry in [&old, &new] {
            history.create(entry, "#!/bin/sh\n").unwrap();
        }
        assert!(history.create(&old, "").is_err(), "it is there already");
        assert_eq!(history.ids().unwrap(), [new.id.clone(), old.id.clone()]);
        assert_eq!(history.read(&old.id).unwrap(), Kept { entry: old.clone(), outcome: None });
        assert_eq!(history.script(&old.id).unwrap(), "#!/bin/sh\n");
        history.set_job(&old, JobRef::Slurm(7)).unwrap();
        history.cancel(&old.id, 5).unwrap();
        assert!(history.records(&old.id).unwrap().cancelled.is_some());
        history.finish(&old.id, &outcome()).unwrap();
        let kept = history.read(&old.id).unwrap();
        assert_eq!((kept.entry.slurm_job(), kept.outcome), (Some(7), Some(outcome())));
        history.remove(&new.id).unwrap();
        assert_eq!(history.ids().unwrap(), [old.id]);
        assert!(history.read(&new.id).is_err());
    }

    #[test]
    fn what_a_job_writes() {
        let state = tempfile::tempdir().unwrap();
        let history = History::below(state.path());
        let entry = entry(1);
        let dir = history.create(&entry, "").unwrap();
        assert_eq!(history.written(&entry.id, OUTPUT, 0, 100).unwrap(), (vec![], 0));
        std::fs::write(dir.join(OUTPUT), "0123456789").unwrap();
        assert_eq!(history.written(&entry.id, OUTPUT, 2, 3).unwrap(), (b"234".to_vec(), 10));
        for beyond in [10, 99, u64::MAX] {
            assert_eq!(history.written(&entry.id, OUTPUT, beyond, 3).unwrap(), (vec![], 10));
        }
        assert_eq!(history.tail(&entry.id, OUTPUT, 4).unwrap(), (b"6789".to_vec(), 10));
        assert_eq!(history.records(&entry.id).unwrap().last_words, "0123456789");
        std::fs::write(dir.join(ERRORS), "oops\n").unwrap();
        assert_eq!(history.records(&entry.id).unwrap().last_words, "oops");
        std::fs::remove_file(dir.join(OUTPUT)).unwrap();
        nix::unistd::mkfifo(&dir.join(OUTPUT), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(history.written(&entry.id, OUTPUT, 0, 1).is_err(), "a pipe is not waited for");
    }

    #[test]
    fn what_is_no_job_is_passed_over_and_a_bad_record_said() {
        let state = tempfile::tempdir().unwrap();
        let history = History::below(state.path());
        let entry = entry(1);
        let dir = history.create(&entry, "").unwrap();
        std::fs::create_dir(state.path().join("jobs/.20260101t000000-abcdefgh")).unwrap();
        std::fs::create_dir(state.path().join("jobs/mine")).unwrap();
        assert_eq!(history.ids().unwrap().len(), 1);
        std::fs::write(dir.join("run.json"), "{").unwrap();
        assert!(history.records(&entry.id).is_err());
        std::fs::write(dir.join("entry.json"), "").unwrap();
        assert!(history.read(&entry.id).is_err());
    }
}
