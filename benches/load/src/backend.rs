//! What stands behind the proxies where a file is not enough: WebSocket messages come back, and of a body it is said how long it was.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

#[derive(clap::Args)]
pub(crate) struct Backend {
    /// Where to listen
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
}

/// Of each WebSocket, so that ten thousand of them fit.
const BUFFER: usize = 4096;

impl Backend {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
                let _ = served.with_upgrades().await;
            });
        }
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let said = |status, text: String| {
        let mut answer = Response::new(Full::from(text));
        *answer.status_mut() = status;
        answer
    };
    if let Some(key) = request.headers().get("sec-websocket-key") {
        let accepted = derive_accept_key(key.as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
                let stream = TokioIo::new(upgraded);
                echo(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await).await;
            }
        });
        let answer = Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", accepted)
            .body(Full::default());
        return Ok(answer.unwrap_or_default());
    }
    let (mut body, mut bytes) = (request.into_body(), 0);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(error) => return Ok(said(hyper::StatusCode::BAD_REQUEST, error.to_string())),
        }
    }
    Ok(said(hyper::StatusCode::OK, bytes.to_string()))
}

async fn echo<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() || socket.send(message).await.is_err() {
            return;
        }
    }
}
