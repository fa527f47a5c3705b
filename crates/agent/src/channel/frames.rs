//! Frames on a stream, with a deadline for each. The form is `portreeve_model::wire`'s.
//! Invariant: a frame's length is checked before there is memory for it, and half a frame ends the stream.

use std::io;
use std::time::Duration;

use portreeve_model::wire::{self, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What is read from the socket at once, in bytes: some forty short frames.
const READ_AHEAD: usize = 8 * 1024;
/// Frames that are written at once.
const TOGETHER: usize = 64;

/// Why no frame came, or none could be sent.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two frames.
    #[error("the other end closed the connection")]
    Ended,
    /// The stream ended within a frame.
    #[error("the connection ended in the middle of a message")]
    Cut,
    /// A frame began, and its end did not come in time.
    #[error("a message was begun and not finished")]
    Slow,
    /// No frame began in time.
    #[error("nothing was heard for too long")]
    Silent,
    /// The other end takes nothing.
    #[error("the other end takes nothing")]
    Stuck,
    /// Not a message of the expected form.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Reads frames.
pub struct FrameReader<R> {
    stream: BufReader<R>,
    body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// From the stream's first byte on.
    pub fn new(stream: R) -> Self {
        Self { stream: BufReader::with_capacity(READ_AHEAD, stream), body: Vec::new() }
    }

    /// What it reads from, for a test to write to.
    #[cfg(test)]
    pub(crate) fn stream(&mut self) -> &mut R {
        self.stream.get_mut()
    }

    /// The next message: it must begin within `idle`, and from then on end within `whole`. Not to be called again when
    /// it was dropped before it was done.
    ///
    /// # Errors
    /// After any error the stream is of no more use.
    pub async fn next<T: DeserializeOwned>(
        &mut self,
        idle: Duration,
        whole: Duration,
    ) -> Result<T, FrameError> {
        let mut head = [0; 4];
        match timeout(idle, self.stream.read(&mut head[..1])).await {
            Ok(Ok(0)) => return Err(FrameError::Ended),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(FrameError::Silent),
        }
        let rest = async {
            self.stream.read_exact(&mut head[1..]).await.map_err(cut)?;
            self.body.resize(wire::frame_length(head)?, 0);
            self.stream.read_exact(&mut self.body).await.map_err(cut)?;
            Ok(wire::decode(&self.body)?)
        };
        timeout(whole, rest).await.unwrap_or(Err(FrameError::Slow))
    }
}

fn cut(error: io::Error) -> FrameError {
    if error.kind() == io::ErrorKind::UnexpectedEof { FrameError::Cut } else { failed(error) }
}

/// Peers that close without TLS's own goodbye are common: they crash.
fn failed(error: io::Error) -> FrameError {
    if error.kind() == io::ErrorKind::UnexpectedEof { FrameError::Ended } else { FrameError::Io(error) }
}

/// Puts a message into the queue that [`write_queue`] writes. Waits while the queue is full.
///
/// # Errors
/// When it is too long for a frame. That nobody writes any more is no error: the connection is ending.
pub async fn queue_frame<T: Serialize>(queue: &mpsc::Sender<Vec<u8>>, message: &T) -> Result<(), WireError> {
    let _ = queue.send(wire::encode(message)?).await;
    Ok(())
}

/// Writes what is in the queue, several frames at once where there are, until every sender is gone.
///
/// # Errors
/// When the other end takes nothing for `stall`, or the stream fails.
pub async fn write_queue<W: AsyncWrite + Unpin>(
    stream: &mut W,
    queue: &mut mpsc::Receiver<Vec<u8>>,
    stall: Duration,
) -> Result<(), FrameError> {
    let mut frames = Vec::with_capacity(TOGETHER);
    loop {
        if queue.recv_many(&mut frames, TOGETHER).await == 0 {
            return Ok(());
        }
        let bytes = frames.concat();
        frames.clear();
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        match timeout(stall, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(FrameError::Stuck),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_model::wire::ControlRequest;

    const IDLE: Duration = Duration::from_millis(60);
    const WHOLE: Duration = Duration::from_millis(20);

    async fn read(bytes: &[u8], close: bool) -> Result<ControlRequest, FrameError> {
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(bytes).await.unwrap();
        let mut reader = FrameReader::new(far);
        let kept = (!close).then_some(near);
        let read = reader.next(IDLE, WHOLE).await;
        drop(kept);
        read
    }

    #[tokio::test]
    async fn every_way_to_end() {
        let whole = wire::encode(&ControlRequest::Login).unwrap();
        assert!(matches!(read(&whole, true).await, Ok(ControlRequest::Login)));
        assert!(matches!(read(b"", true).await, Err(FrameError::Ended)));
        assert!(matches!(read(b"", false).await, Err(FrameError::Silent)));
        for cut in 1..whole.len() {
            assert!(matches!(read(&whole[..cut], true).await, Err(FrameError::Cut)), "{cut}");
            assert!(matches!(read(&whole[..cut], false).await, Err(FrameError::Slow)), "{cut}");
        }
        assert!(matches!(
            read(b"\0\x01\0\x01", false).await,
            Err(FrameError::Wire(WireError::TooLong { .. }))
        ));
        assert!(matches!(read(b"\0\0\0\0", false).await, Err(FrameError::Wire(WireError::Empty))));
        assert!(matches!(read(b"\0\0\0\x02{}", false).await, Err(FrameError::Wire(WireError::Json(_)))));
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_ends_the_writing() {
        let (mut near, _far) = tokio::io::duplex(16);
        let (queue, mut waiting) = mpsc::channel(4);
        queue_frame(&queue, &"x".repeat(100)).await.unwrap();
        let written = write_queue(&mut near, &mut waiting, WHOLE).await;
        assert!(matches!(written, Err(FrameError::Stuck)));
    }
}
