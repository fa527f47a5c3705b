//! A temporary directory with a root of each policy.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use portreeve_files::{RelPath, Root, Within};

pub(crate) struct Room {
    dir: tempfile::TempDir,
    /// Keeps to the directory.
    pub(crate) root: Root,
    /// Does not.
    pub(crate) anywhere: Root,
}

impl Room {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), Within::Root).unwrap();
        let anywhere = Root::open(dir.path(), Within::Anywhere).unwrap();
        Self { dir, root, anywhere }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub(crate) fn path(text: impl AsRef<[u8]>) -> RelPath {
    RelPath::parse(text.as_ref()).unwrap()
}

/// A failure when it hangs, so that the other tests can still be read.
pub(crate) fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(run()));
    wait.recv_timeout(Duration::from_secs(20)).expect("it hangs, or it panicked")
}
