//! Something that begins once and for all threads: the portal drains, the portal stops.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// It has not begun until [`set`](Self::set), and has begun ever after.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    is_set: AtomicBool,
    token: CancellationToken,
}

impl Latch {
    /// It begins. Who waits is woken.
    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it has begun.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Ready when it has begun. It belongs to the task that polls it first.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        Waiting { latch: self, waits: Box::pin(self.token.cancelled()), asked: false }
    }
}

/// See [`Latch::wait`]. A connection's task is woken for each of its requests: then this must not cost a lock.
pub(crate) struct Waiting<'a> {
    latch: &'a Latch,
    waits: Pin<Box<WaitForCancellationFuture<'a>>>,
    asked: bool,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The token has this task's waker from the first time on.
        if self.asked && !self.latch.is_set() {
            return Poll::Pending;
        }
        self.asked = true;
        self.waits.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_however_often_they_looked() {
        let latch = Arc::new(Latch::default());
        assert!(!latch.is_set());
        let of_another_thread = Arc::clone(&latch);
        let mut setting = None;
        let mut waiting = pin!(latch.wait());
        let mut looks = 0;
        poll_fn(|cx| {
            looks += 1;
            if looks < 3 {
                cx.waker().wake_by_ref();
            } else if looks == 3 {
                let latch = Arc::clone(&of_another_thread);
                setting = Some(std::thread::spawn(move || latch.set()));
            }
            waiting.as_mut().poll(cx)
        })
        .await;
        setting.unwrap().join().unwrap();
        assert!(latch.is_set());
        latch.wait().await;
    }
}
