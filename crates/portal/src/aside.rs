//! What may block for long or for ever: file systems, the user database, a look at other processes. Never on a thread
//! that serves.
//!
//! Invariant: each kind has places of its own, and together they have no more than there are threads for it. So one
//! that hangs keeps nobody waiting but those who ask for the same, and those not for ever; nor does anything queue up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// One kind of work that may block, for one thread.
pub(crate) struct Aside {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Aside {
    /// So many at once, of which none is waited for longer than `patience`.
    pub(crate) fn new(places: usize, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), patience }
    }

    /// What `work` gives; `None` when it had no place or was not done in time. It keeps its place until it ends, also
    /// when nobody waits for it any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let places = Arc::clone(&self.places);
        let done = async {
            let place = places.acquire_owned().await.ok()?;
            let working = tokio::task::spawn_blocking(move || {
                let _place = place;
                work()
            });
            working.await.ok()
        };
        tokio::time::timeout(self.patience, done).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_left_and_takes_no_more_than_its_places() {
        let (reads, looks) =
            (Aside::new(2, Duration::from_millis(50)), Aside::new(1, Duration::from_secs(5)));
        let (started, starts) = mpsc::channel();
        let mut hanging = Vec::new();
        for _ in 0..4 {
            let (release, held) = mpsc::channel::<()>();
            let started = started.clone();
            let work = move || {
                let _ = started.send(());
                let _ = held.recv();
            };
            assert_eq!(reads.run(work).await, None);
            hanging.push(release);
        }
        assert_eq!(starts.try_iter().count(), 2, "two places, however many ask");
        assert_eq!(looks.run(|| 7).await, Some(7), "another kind is not held up");
        drop(hanging);
        let mut again = None;
        for _ in 0..100 {
            again = again.or(reads.run(|| 7).await);
        }
        assert_eq!(again, Some(7), "the places are free once it ends");
    }
}
