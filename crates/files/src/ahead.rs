//! What a directory holds, looked at before it is asked for: on a network file system each look is a round trip, and five at once
//! take as long as one. Before: `listing`, which has the names.
//!
//! Names are read in batches, and threads look from a batch's end towards whoever reads from its beginning: they meet once, and
//! until then nobody waits for anybody.
//!
//! Invariants: entries come as the directory gives them. Whoever reads waits for a thread only if it looks at the very next entry:
//! where that hangs, it would have hung without the thread. Who drops an overview waits for nothing: a thread that hangs keeps a
//! descriptor and a batch until the file system answers, and the process has [`limits::HELPERS`] such threads at most.

use std::array;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use rustix::fs::DirEntry;

use crate::error::Error;
use crate::limits;
use crate::listing::{Entries, Entry, look, looked};
use crate::rel_path::RelPath;
use crate::root::Root;
use crate::status::{Kind, Status};

/// A directory that is being told of. Who goes on into what it holds takes [`Entries`], where nothing is looked at before its turn.
#[derive(Debug)]
pub struct Overview {
    entries: Entries,
    /// Its path, to follow links from.
    base: Vec<u8>,
    batch: Arc<Batch>,
    /// The next one of the batch.
    at: usize,
    /// Why there is nothing after the batch.
    broken: Option<Error>,
}

/// Names in a row.
#[derive(Debug, Default)]
struct Batch {
    told: Vec<DirEntry>,
    /// Of all of them where threads help, else of the first at most: whoever reads looks for itself.
    found: Vec<OnceLock<Found>>,
    /// So many of them, from the first on, no thread has begun with.
    left: AtomicUsize,
}

type Found = Result<Status, Errno>;

impl Root {
    /// Opens the directory at `path`, or the root itself, to tell in steps what it holds.
    ///
    /// # Errors
    /// When there is no such directory or it can't be read.
    pub fn overview(&self, path: Option<&RelPath>) -> Result<Overview, Error> {
        Ok(Overview {
            entries: self.entries(path)?,
            base: path.map_or(&b"."[..], RelPath::as_bytes).to_vec(),
            batch: Arc::default(),
            at: 0,
            broken: None,
        })
    }
}

impl Overview {
    /// The next entry. `root` is the one that the directory was opened below.
    ///
    /// # Errors
    /// When the directory can't be read on.
    pub fn next(&mut self, root: &Root) -> Option<Result<Entry, Error>> {
        loop {
            if self.at == self.batch.told.len() {
                self.refill();
                self.get_help();
            }
            let Some(told) = self.batch.told.get(self.at) else { return self.broken.take().map(Err) };
            let found = self.entries.inside().map(|inside| self.batch.found(self.at, inside));
            self.at += 1;
            let Some(mut entry) = looked(told, found) else { continue };
            if entry.kind == Kind::Link {
                entry.link_to = self.behind(root, entry.name.as_bytes());
            }
            return Some(Ok(entry));
        }
    }

    fn refill(&mut self) {
        let mut told = Vec::with_capacity(self.batch.told.len());
        while told.len() < limits::BATCH && self.broken.is_none() {
            match self.entries.next_told() {
                Some(Ok(one)) => told.push(one),
                Some(Err(error)) => self.broken = Some(error),
                None => break,
            }
        }
        self.batch = Arc::new(Batch { told, ..Batch::default() });
        self.at = 0;
    }

    /// Looks at the first ones, to see whether help would help.
    fn get_help(&mut self) {
        let many = self.batch.told.len();
        if many < limits::FEW {
            return;
        }
        let (Ok(dir), Some(batch)) = (self.entries.inside(), Arc::get_mut(&mut self.batch)) else { return };
        let took = array::from_fn(|at| {
            let begun = Instant::now();
            batch.found.push(look(dir, &batch.told[at]).into());
            begun.elapsed()
        });
        let helpers = helpers(many, took);
        if helpers > 0 {
            self.start(helpers);
        }
    }

    /// Without help it takes longer, and goes on.
    fn start(&mut self, helpers: usize) {
        let Ok(Ok(dir)) = self.entries.inside().map(|dir| dir.try_clone_to_owned().map(Arc::new)) else {
            return;
        };
        if let Some(batch) = Arc::get_mut(&mut self.batch) {
            batch.found.resize_with(batch.told.len(), OnceLock::new);
            batch.left = batch.told.len().into();
        }
        for _ in 0..helpers {
            let Some(helper) = Helper::new() else { return };
            let (batch, dir) = (Arc::clone(&self.batch), Arc::clone(&dir));
            let help = move || {
                let _helper = helper;
                batch.look_ahead(dir.as_fd());
            };
            if thread::Builder::new().name("look-ahead".to_owned()).spawn(help).is_err() {
                return;
            }
        }
    }

    fn behind(&self, root: &Root, name: &[u8]) -> Option<Status> {
        let path = [&self.base, &b"/"[..], name].concat();
        Status::of(root.resolve(&path, OFlag::O_PATH).ok()?).ok()
    }
}

impl Drop for Overview {
    fn drop(&mut self) {
        self.batch.left.store(0, Ordering::Relaxed);
    }
}

impl Batch {
    /// Whoever asks first looks.
    fn found(&self, at: usize, dir: BorrowedFd<'_>) -> Found {
        let look = || look(dir, &self.told[at]);
        self.found.get(at).map_or_else(look, |found| *found.get_or_init(look))
    }

    fn look_ahead(&self, dir: BorrowedFd<'_>) {
        let one_less = |left: usize| left.checked_sub(1);
        while let Ok(left) = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            let at = left - 1;
            if self.found[at].get().is_some() {
                // Whoever reads has come here.
                return;
            }
            let _ = self.found(at, dir);
        }
    }
}

/// How many threads help with so many looks, if the first took so long. Where looks do not wait, a thread needs a core of its own, and
/// enough to do to be worth its start.
fn helpers(looks: usize, took: [Duration; limits::TIMED]) -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    let waits = took.iter().filter(|took| **took >= limits::WAITS).count();
    if waits > limits::TIMED / 2 {
        return limits::HELPERS_EACH;
    }
    usize::from(looks == limits::BATCH && *CORES > 1)
}

/// How many threads look ahead.
static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Helper;

impl Helper {
    fn new() -> Option<Self> {
        let one_more = |helpers: usize| (helpers < limits::HELPERS).then(|| helpers + 1);
        HELPERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Self)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
