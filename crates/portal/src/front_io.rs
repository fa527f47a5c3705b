//! The browser's connection under the HTTP library. It adds three things that the library lacks: a limit on how long
//! a peer may refuse to take what is ready for it; interim (1xx) answers over HTTP/1.1, and an end of the connection
//! there that does not take the last answer back.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::limits;

/// Interim answers that wait to be written. Cloned into the request that may cause them.
///
/// Invariant: bytes enter the stream only between two complete messages of the HTTP library. It flushes all that it
/// has before it waits for an answer, so "everything flushed" is such a moment; while it is not, interim answers are
/// dropped, which is harmless.
#[derive(Clone, Default)]
pub(crate) struct Interim(Arc<Mutex<InterimState>>);

#[derive(Default)]
struct InterimState {
    pending: Vec<u8>,
    flushed: bool,
    /// The connection carries another protocol now, which may close one direction alone.
    upgraded: bool,
    waker: Option<Waker>,
}

impl Interim {
    fn state(&self) -> std::sync::MutexGuard<'_, InterimState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that what follows is another protocol.
    pub(crate) fn end_with_upgrade(&self) {
        self.state().upgraded = true;
    }

    /// Queues a 1xx head, in wire form.
    pub(crate) fn push(&self, head: &[u8]) {
        let mut state = self.state();
        if state.flushed && state.pending.len() + head.len() <= limits::HEAD_BYTES {
            state.pending.extend_from_slice(head);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Whether everything that the HTTP library had to write was taken, the last time that it wrote. What it is given while that is not
/// so waits in its memory.
#[derive(Clone, Default)]
pub(crate) struct Flushed(Arc<AtomicBool>);

impl Flushed {
    /// Says so once, and again when something more has been flushed.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// What goes with the connection, by its protocol.
pub(crate) enum Beside {
    Http1(Interim),
    Http2(Flushed),
}

/// A limit on how long a peer may take nothing of what is ready for it.
pub(crate) struct Stall {
    after: Duration,
    standing_still: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn after(after: Duration) -> Self {
        Self { after, standing_still: None }
    }

    /// Passes a write's outcome on, or fails when it has been pending for too long.
    pub(crate) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.standing_still = None;
            return outcome;
        }
        let after = self.after;
        let stall = self.standing_still.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A stream towards a browser.
pub(crate) struct FrontIo<S> {
    inner: S,
    beside: Beside,
    /// What of the interim answers is being written.
    writing: Vec<u8>,
    stall: Stall,
    /// Since when our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrontIo<S> {
    pub(crate) fn new(inner: S, beside: Beside, stall: Stall) -> Self {
        Self { inner, beside, writing: Vec::new(), stall, lingering: None }
    }

    /// Writes queued interim answers; called whenever the library polls, which reading wakes it for.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Beside::Http1(interim) = &self.beside else { return Ok(()) };
        let mut written = false;
        loop {
            // One that the browser does not take holds up those behind it, which are no more than so much.
            if self.writing.is_empty() {
                let mut state = interim.state();
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
                self.writing.append(&mut state.pending);
            }
            if self.writing.is_empty() {
                break;
            }
            match Pin::new(&mut self.inner).poll_write(cx, &self.writing) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => drop(self.writing.drain(..n)),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
            written = true;
        }
        if !written {
            return Ok(());
        }
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// An interim answer that was begun must be complete before anything else is written.
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.writing))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writing.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes in what the browser still sends, until it closes too. Refused at its head, a request may be under way for
    /// a while; closed with something unread, the connection would be reset, and the refusal lost with it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unread = [0; limits::LINGER_CHUNK];
        loop {
            if self.lingering.as_mut().is_none_or(|lingering| lingering.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }

    fn note_flushed(&mut self, flushed: bool) {
        match &self.beside {
            Beside::Http1(interim) => {
                let mut state = interim.state();
                state.flushed = flushed;
                // They came while all was flushed, so they go before the answer that begins here.
                if !flushed {
                    self.writing.append(&mut state.pending);
                }
            }
            Beside::Http2(all) => all.0.store(flushed, Relaxed),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for FrontIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_interim(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FrontIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note_flushed(false);
        let outcome = match self.poll_begun(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.inner).poll_write(cx, buf),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.stall.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_flushed(false);
        let outcome = match self.poll_begun(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.stall.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if outcome.is_ready() {
            self.note_flushed(true);
        }
        self.stall.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.stall.watch(cx, outcome))?;
            match &self.beside {
                Beside::Http1(interim) if !interim.state().upgraded => {}
                Beside::Http1(_) | Beside::Http2(_) => return Poll::Ready(Ok(())),
            }
            self.lingering = Some(Box::pin(tokio::time::sleep(limits::LINGER)));
        }
        self.poll_linger(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn of_interim_answers_that_a_browser_does_not_take_so_many_are_kept() {
        let (ours, mut browser) = tokio::io::duplex(64);
        let interim = Interim::default();
        let mut front =
            FrontIo::new(ours, Beside::Http1(interim.clone()), Stall::after(Duration::from_secs(60)));
        interim.push(HINT);
        assert_eq!(interim.state().pending, b"", "what was written before may not be a whole message");
        front.flush().await.unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        // What is being written, and what waits for that.
        let most = 2 * limits::HEAD_BYTES;
        for _ in 0..2 * most / HINT.len() {
            interim.push(HINT);
            let read = Pin::new(&mut front).poll_read(&mut cx, &mut ReadBuf::new(&mut [0]));
            assert!(read.is_pending());
            let kept = front.writing.len() + interim.state().pending.len();
            assert!(kept <= most, "{kept} bytes are kept");
        }
        // What was kept comes whole, and before the answer.
        let answers = async {
            front.write_all(ANSWER).await.unwrap();
            interim.push(HINT);
            assert_eq!(interim.state().pending, b"", "nothing gets into the middle of an answer");
            front.flush().await.unwrap();
            drop(front);
        };
        let mut taken = Vec::new();
        let (_, read) = tokio::join!(answers, browser.read_to_end(&mut taken));
        read.unwrap();
        let hints = taken.strip_suffix(ANSWER).unwrap();
        assert!(hints.chunks(HINT.len()).all(|hint| hint == HINT));
        assert!((limits::HEAD_BYTES..most + 64).contains(&hints.len()), "{}", hints.len());
    }
}
