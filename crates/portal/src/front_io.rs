//! The browser's connection under the HTTP library. It adds three things that the library lacks: a limit on how long
//! a peer may refuse to take what is ready for it; interim (1xx) answers over HTTP/1.1, and an end of the connection
//! there that does not take the last answer back.

use std::io;
use std::pin::Pin;
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
    interim: Option<Interim>,
    /// What of the interim answers is being written.
    writing: Vec<u8>,
    stall: Stall,
    /// Since when our side is closed.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrontIo<S> {
    /// `interim` goes with HTTP/1.1.
    pub(crate) fn new(inner: S, interim: Option<Interim>, stall: Stall) -> Self {
        Self { inner, interim, writing: Vec::new(), stall, lingering: None }
    }

    /// Writes queued interim answers; called whenever the library polls, which reading wakes it for.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(interim) = &self.interim else { return Ok(()) };
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
        if let Some(interim) = &self.interim {
            let mut state = interim.state();
            state.flushed = flushed;
            // They came while all was flushed, so they go before the answer that begins here.
            if !flushed {
                self.writing.append(&mut state.pending);
            }
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
            if self.interim.as_ref().is_none_or(|interim| interim.state().upgraded) {
                return Poll::Ready(Ok(()));
            }
            self.lingering = Some(Box::pin(tokio::time::sleep(limits::LINGER)));
        }
        self.poll_linger(cx)
    }
}
