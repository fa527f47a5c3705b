//! A browser's bytes in whichever protocol they come: a request's body, or its half of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::front::Active;
use crate::front_io::Stall;
use crate::headers::expects_continue;
use crate::http2::poll_capacity;
use crate::interim::InterimSink;
use crate::limits;

/// A request's body.
pub(crate) enum FrontBody {
    None,
    Http1(Incoming),
    /// `expecting`: whom to tell, once the body is asked for, that it may come (`Expect: 100-continue`). Over HTTP/1.1
    /// the library does that.
    Http2 {
        stream: Received,
        length: Option<u64>,
        data_done: bool,
        expecting: Option<InterimSink>,
    },
}

/// Why it was cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrontBodyError {
    #[error("over HTTP/1.1")]
    Http1(#[source] hyper::Error),
    #[error("over HTTP/2")]
    Http2(#[source] h2::Error),
}

impl FrontBody {
    pub(crate) fn http2(stream: RecvStream, headers: &HeaderMap, interim: &InterimSink) -> Self {
        if stream.is_end_stream() {
            return Self::None;
        }
        // The library refuses a body that is not as long as announced.
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let expecting = expects_continue(headers).then(|| interim.clone());
        Self::Http2 { stream: Received(Some(stream)), length, data_done: false, expecting }
    }
}

/// The receiving half of a stream. Once it is dropped the browser is told to send no more, and some clients, curl 7.88 among them, then
/// don't look at the answer that came before: so it stays for a moment, in which nothing of it is taken.
pub(crate) struct Received(Option<RecvStream>);

impl Received {
    /// `None` only once it is dropped.
    fn stream(&mut self) -> Option<&mut RecvStream> {
        self.0.as_mut()
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(RecvStream::is_end_stream)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let unread = self.0.take().filter(|stream| !stream.is_end_stream());
        if let (Some(stream), Ok(runtime)) = (unread, Handle::try_current()) {
            runtime.spawn(async move {
                sleep(limits::BODY_LEFT).await;
                drop(stream);
            });
        }
    }
}

impl Body for FrontBody {
    type Data = Bytes;
    type Error = FrontBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FrontBodyError>>> {
        match &mut *self {
            Self::None => Poll::Ready(None),
            Self::Http1(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(FrontBodyError::Http1))),
            Self::Http2 { stream, length, data_done, expecting } => {
                if let Some(interim) = expecting.take() {
                    interim.send(StatusCode::CONTINUE, &HeaderMap::new());
                }
                let Some(stream) = stream.stream() else { return Poll::Ready(None) };
                if !*data_done {
                    match ready!(stream.poll_data(cx)) {
                        Some(Ok(data)) => {
                            // Taken over by us: the browser may send as much again.
                            let _ = stream.flow_control().release_capacity(data.len());
                            if let Some(left) = length {
                                *left = left.saturating_sub(data.len() as u64);
                            }
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        Some(Err(error)) => return Poll::Ready(Some(Err(FrontBodyError::Http2(error)))),
                        None => *data_done = true,
                    }
                }
                match ready!(stream.poll_trailers(cx)) {
                    Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Ok(None) => Poll::Ready(None),
                    Err(error) => Poll::Ready(Some(Err(FrontBodyError::Http2(error)))),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2 { stream, .. } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2 { length, .. } => length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// An HTTP/2 stream as a stream of bytes: the browser's half of a tunnel (RFC 8441).
pub(crate) struct StreamIo {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Read from the stream, not yet taken by the reader.
    rest: Bytes,
    stall: Stall,
    /// The connection is in use for as long as the tunnel.
    _active: Active,
}

impl StreamIo {
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream, stall: Stall, active: Active) -> Self {
        Self { send, receive, rest: Bytes::new(), stall, _active: active }
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL) => io::ErrorKind::BrokenPipe.into(),
        _ => io::Error::other(error),
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(n));
        let _ = self.receive.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        let granted = match self.send.capacity() {
            0 => {
                let granted = poll_capacity(&mut self.send, cx)
                    .map(|granted| granted.ok_or_else(|| io::ErrorKind::BrokenPipe.into()));
                ready!(self.stall.watch(cx, granted))?
            }
            granted => granted,
        };
        let n = granted.min(buf.len());
        let sent = self.send.send_data(Bytes::copy_from_slice(&buf[..n]), false);
        Poll::Ready(sent.map(|()| n).map_err(broken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task sends what it has.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.send.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}
