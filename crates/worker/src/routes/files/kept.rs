//! A file that is being written, on a thread where nothing may wait for a file system.

use portreeve_files::{Error, Finish, Put, Status};
use tokio::task::spawn_blocking;

/// What is dropped is given up on a thread of its own: to close and remove a file is to ask its file system, too.
#[derive(Debug)]
pub(super) struct Kept<T: Send + 'static = Put>(Option<T>);

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

impl<T: Send + 'static> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some(put) = self.0.take() {
            match tokio::runtime::Handle::try_current() {
                Ok(_) => drop(spawn_blocking(move || drop(put))),
                Err(_) => drop(put),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::ThreadId;
    use std::time::{Duration, Instant};

    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::limits;
    use crate::process::leave;

    /// What a file system takes its time to give up.
    struct Slow {
        /// It answers when something comes, or after so long.
        answers: mpsc::Receiver<()>,
        after: Duration,
        /// Told when it did, and on which thread.
        gone: mpsc::Sender<ThreadId>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.answers.recv_timeout(self.after);
            let _ = self.gone.send(std::thread::current().id());
        }
    }

    const NEVER: Duration = Duration::from_secs(30);

    fn slow(after: Duration) -> (Kept<Slow>, mpsc::Sender<()>, mpsc::Receiver<ThreadId>) {
        let ((answer, answers), (gone, seen)) = (mpsc::channel(), mpsc::channel());
        (Kept(Some(Slow { answers, after, gone })), answer, seen)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn where_a_file_system_hangs_nobody_waits_for_what_is_given_up() {
        let (kept, answer, gone) = slow(NEVER);
        runtime().block_on(async move {
            drop(kept);
            assert!(gone.try_recv().is_err(), "it is under way");
            answer.send(()).unwrap();
            let thread = gone.recv_timeout(NEVER / 3).unwrap();
            assert_ne!(thread, std::thread::current().id());
        });
    }

    /// What a connection has begun is given up with it when a worker leaves.
    fn left_with(kept: Kept<Slow>) -> Duration {
        let (runtime, tasks) = (runtime(), LocalSet::new());
        tasks.block_on(&runtime, async {
            spawn_local(async {
                let _kept = kept;
                std::future::pending::<()>().await;
            });
            tokio::task::yield_now().await;
        });
        let begun = Instant::now();
        leave(runtime, tasks);
        begun.elapsed()
    }

    #[test]
    fn who_leaves_waits_until_what_is_given_up_is_gone() {
        let (kept, _answer, gone) = slow(limits::LEAVE / 4);
        left_with(kept);
        assert_ne!(gone.try_recv().unwrap(), std::thread::current().id());
    }

    #[test]
    fn who_leaves_does_not_wait_for_a_file_system_that_hangs() {
        let (kept, answer, gone) = slow(NEVER);
        let took = left_with(kept);
        assert!((limits::LEAVE..NEVER / 2).contains(&took), "{took:?}");
        assert!(gone.try_recv().is_err());
        answer.send(()).unwrap();
        gone.recv_timeout(NEVER / 3).unwrap();
    }
}
