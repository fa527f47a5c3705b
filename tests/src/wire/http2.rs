//! An HTTP/2 client by the library, for everything that a well-behaved browser does.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::task::JoinHandle;

use super::soon;

/// One HTTP/2 connection; it ends when dropped.
#[derive(Debug)]
pub struct Http2 {
    /// Opens streams.
    pub open: SendRequest<Bytes>,
    driving: JoinHandle<Result<(), h2::Error>>,
}

/// An answer in full.
#[derive(Debug)]
pub struct Whole {
    /// Status and fields.
    pub head: Response<()>,
    /// The body.
    pub body: Vec<u8>,
    /// What came after the body.
    pub trailers: Option<HeaderMap>,
    /// How the body was cut off.
    pub broken: Option<h2::Error>,
}

impl Whole {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    /// A field that is there once.
    ///
    /// # Panics
    /// When it is there several times or is no text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all: Vec<_> = self.head.headers().get_all(name).iter().collect();
        assert!(all.len() <= 1, "{name}: {all:?}");
        all.first().map(|value| value.to_str().unwrap())
    }
}

impl Http2 {
    /// Begins HTTP/2 on a stream, with these windows for what comes back.
    ///
    /// # Panics
    /// When the other side does not speak it.
    pub async fn begin<S>(stream: S, stream_window: u32, connection_window: u32) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(stream_window).initial_connection_window_size(connection_window);
        builder.enable_push(false);
        let (open, connection) = builder.handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        Self { open, driving }
    }

    /// Opens a stream.
    ///
    /// # Panics
    /// When the connection is over.
    pub async fn stream(&mut self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = soon("a stream", self.open.clone().ready()).await.unwrap();
        ready.send_request(request, ends).unwrap()
    }

    /// Asks without a body, and reads the whole answer.
    ///
    /// # Errors
    /// When the stream was reset before an answer.
    pub async fn ask(&mut self, request: Request<()>) -> Result<Whole, h2::Error> {
        let (answer, _body) = self.stream(request, true).await;
        whole(answer).await
    }

    /// Waits for the end of the connection: what the other side had against it.
    ///
    /// # Errors
    /// The connection's error.
    pub async fn end(&mut self) -> Result<(), h2::Error> {
        (&mut self.driving).await.expect("the connection's task does not panic")
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// The whole answer.
///
/// # Errors
/// When the stream was reset before one.
pub async fn whole(answer: ResponseFuture) -> Result<Whole, h2::Error> {
    soon("an answer", async {
        let (parts, mut stream) = answer.await?.into_parts();
        let mut whole =
            Whole { head: Response::from_parts(parts, ()), body: Vec::new(), trailers: None, broken: None };
        while let Some(data) = stream.data().await {
            match data {
                Ok(data) => {
                    give_back(&mut stream, data.len());
                    whole.body.extend_from_slice(&data);
                }
                Err(error) => {
                    whole.broken = Some(error);
                    return Ok(whole);
                }
            }
        }
        whole.trailers = stream.trailers().await?;
        Ok(whole)
    })
    .await
}

/// Lets the other side send as much again as was taken.
pub fn give_back(stream: &mut RecvStream, count: usize) {
    // Fails only on a stream that is over.
    let _ = stream.flow_control().release_capacity(count);
}
