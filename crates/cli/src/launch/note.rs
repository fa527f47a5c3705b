//! The endpoint's record in the person's home, which the workspace reads: in the job's directory, or for what was started by hand
//! in one of its own that goes with it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::Context;
use portreeve_jobs::records::{self, Endpoint, EntryId};
use portreeve_portal::now;

use crate::arguments::StateDir;

/// Where it is written, and what was written last.
pub(super) struct Note {
    dir: PathBuf,
    /// It was started by hand, and nobody asks for it once it is over.
    by_hand: bool,
    pub(super) endpoint: Endpoint,
}

impl Note {
    /// Writes the first.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(super) fn begin(endpoint: Endpoint) -> anyhow::Result<Self> {
        let entry = std::env::var_os("PORTREEVE_ENTRY").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let by_hand = entry.is_none();
        let dir = match entry {
            Some(dir) => dir,
            None => {
                let id = EntryId::new(now())?;
                let dir = StateDir { dir: None }.path()?.join("endpoints").join(id.as_str());
                DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(|| {
                    format!(
                        "{} can't be made: the workspace learns from it where the program listens",
                        dir.display()
                    )
                })?;
                dir
            }
        };
        let note = Self { dir, by_hand, endpoint };
        records::write(&note.dir, &note.endpoint)
            .with_context(|| format!("{} can't be written", note.dir.join("endpoint.json").display()))?;
        Ok(note)
    }

    /// Writes what changed. A disk that is full now may not be in a moment: the program goes on meanwhile.
    pub(super) fn write(&self) {
        if let Err(error) = records::write(&self.dir, &self.endpoint) {
            eprintln!("portreeve launch: the workspace can't be told: {}: {error}", self.dir.display());
        }
    }

    /// It is over.
    pub(super) fn end(self) {
        if self.by_hand {
            let _ = std::fs::remove_dir_all(&self.dir);
        } else {
            self.write();
        }
    }
}
