//! A file that is being written, on a thread where nothing may wait for a file system.

use portreeve_files::{Error, Finish, Put, Status};
use tokio::task::spawn_blocking;

/// What is dropped is given up on a thread of its own: to close and remove a file is to ask its file system, too.
#[derive(Debug)]
pub(super) struct Kept(Option<Put>);

impl Kept {
    pub(super) fn of(put: Put) -> Self {
        Self(Some(put))
    }

    pub(super) fn written(&self) -> u64 {
        self.0.as_ref().map_or(0, Put::written)
    }

    /// Blocks.
    ///
    /// # Errors
    /// As [`Put::write`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.as_mut().map_or(Err(Error::NotFound), |put| put.write(bytes))
    }

    /// Blocks.
    ///
    /// # Errors
    /// As [`Put::finish`].
    pub(super) fn finish(mut self, how: Finish) -> Result<Status, Error> {
        self.0.take().map_or(Err(Error::NotFound), |put| put.finish(how))
    }

    /// To be finished elsewhere.
    pub(super) fn into_put(mut self) -> Option<Put> {
        self.0.take()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(put) = self.0.take() {
            match tokio::runtime::Handle::try_current() {
                Ok(_) => drop(spawn_blocking(move || drop(put))),
                Err(_) => drop(put),
            }
        }
    }
}
