//! One HTTP/1.1 request over a connection that is there already.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest answer, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// For a question and its answer: a part of a file may be on its way for a while.
const PATIENCE: Duration = Duration::from_secs(300);

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Its body as text: what a job wrote need be none.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Asks, and waits for the whole answer.
///
/// # Errors
/// When none comes, or it is too long.
pub(crate) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
) -> anyhow::Result<Reply> {
    let asked = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let answered = async {
            let response = sender.send_request(request.map(Full::new)).await?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, MAX_BODY).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        };
        // The connection has to be driven. It may end as soon as all of the answer is here.
        tokio::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(anyhow::Error::from(error)),
            },
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.context("it took too long")?
}
