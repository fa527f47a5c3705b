//! Carries bytes both ways between a browser and an application after an upgrade. They are not looked at.
//!
//! Each direction closes on its own (half-close). A direction that waits holds no buffer: bytes are read into one
//! that the thread's tunnels share, and only what the other side did not take at once is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::flows::Flow;
use crate::limits;
use crate::metrics::Direction as Metered;
use crate::record::Line;

thread_local! {
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; limits::TUNNEL_CHUNK]);
}

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both sides closed.
    Closed,
    /// The session, or the right to the application, ended.
    Withdrawn,
    /// One side broke off.
    Broken(io::Error),
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// Read, and not yet taken by the other side.
    rest: Vec<u8>,
    taken: usize,
    needs_flush: bool,
    end_of_input: bool,
    closed: bool,
    /// Bytes that were read and not yet counted.
    moved: usize,
}

/// Carries bytes until both sides have closed, one breaks off, or the flow must end.
pub(crate) async fn carry<B, A>(mut browser: B, mut application: A, flow: &Flow, line: Option<&Line>) -> Ended
where
    B: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    poll_fn(|cx| {
        if flow.poll_over(cx).is_ready() {
            return Poll::Ready(Ended::Withdrawn);
        }
        let upward = up.poll(cx, &mut browser, &mut application);
        let moved = std::mem::take(&mut up.moved);
        if moved > 0 {
            flow.touch();
            flow.carried(Metered::ToApplication, moved);
        }
        let downward = down.poll(cx, &mut application, &mut browser);
        let moved = std::mem::take(&mut down.moved);
        if moved > 0 {
            flow.carried(Metered::ToBrowser, moved);
            if let Some(line) = line {
                line.sent(moved as u64);
            }
        }
        match (upward, downward) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Ended::Broken(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Closed),
            _ => Poll::Pending,
        }
    })
    .await
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            while self.taken < self.rest.len() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.taken..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.taken += n;
            }
            if !self.rest.is_empty() {
                self.rest = Vec::new();
                self.taken = 0;
            }
            if self.end_of_input {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.closed = true;
                continue;
            }
            match self.poll_chunk(cx, from, to) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => {
                    // Nothing more to read for now: what was written must not wait in a buffer.
                    if self.needs_flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once, and writes what was read as far as it is taken at once.
    fn poll_chunk<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        CHUNK.with_borrow_mut(|chunk| {
            let mut buffer = ReadBuf::new(chunk);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                self.end_of_input = true;
                return Poll::Ready(Ok(()));
            }
            self.moved += read.len();
            self.needs_flush = true;
            let mut taken = 0;
            while taken < read.len() {
                match Pin::new(&mut *to).poll_write(cx, &read[taken..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => taken += n,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.rest.extend_from_slice(&read[taken..]);
                        break;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}
