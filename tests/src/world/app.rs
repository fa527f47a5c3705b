//! Applications inside the test process: what they answer is a closure, and what reached them is counted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A response's body.
pub type Body = BoxBody<Bytes, io::Error>;
/// What an application answers.
pub type Reply = Response<Body>;

/// A body that is there at once.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// 200 with this text.
pub fn text(text: impl Into<String>) -> Reply {
    Response::new(full(text.into()))
}

struct Channel(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(http_body::Frame::data(chunk))))
    }
}

/// A body that the test sends piece by piece; it ends when the sender is dropped.
pub fn streaming() -> (tokio::sync::mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Channel(receiver).boxed())
}

/// A request that reached an application.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its header fields.
    pub headers: HeaderMap,
}

/// What reached an application.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicUsize,
    open: AtomicUsize,
    bytes: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    counts: Arc<Counts>,
}

/// An application. Dropping it closes its listener and all its connections.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl App {
    /// One whose connections are for `conversation` to handle, on a port of `127.0.0.1` that was free.
    ///
    /// # Panics
    /// When none can be had.
    pub async fn raw<F: Future<Output = ()> + Send + 'static>(
        conversation: impl Fn(Counted) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::raw_on("127.0.0.1:0", conversation).await
    }

    /// The same on this address.
    ///
    /// # Panics
    /// When it can't be had.
    pub async fn raw_on<F: Future<Output = ()> + Send + 'static>(
        address: &str,
        conversation: impl Fn(Counted) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            // Aborting this task drops the set, and with it every conversation.
            let mut conversations = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let _ = stream.set_nodelay(true);
                        shared.connections.fetch_add(1, SeqCst);
                        shared.open.fetch_add(1, SeqCst);
                        let counts = Arc::clone(&shared);
                        conversations.spawn(conversation(Counted { stream, counts }));
                    }
                    Some(_) = conversations.join_next() => {}
                }
            }
        });
        Self { address, counts, task }
    }

    /// One that speaks HTTP/1.1 and answers each request with `handler`.
    pub async fn start<F: Future<Output = Reply> + Send + 'static>(
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("127.0.0.1:0", handler).await
    }

    /// The same on this address.
    pub async fn start_on<F: Future<Output = Reply> + Send + 'static>(
        address: &str,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self {
        let handler = Arc::new(handler);
        Self::raw_on(address, move |stream| {
            let (handler, counts) = (Arc::clone(&handler), Arc::clone(&stream.counts));
            async move { converse(stream, counts, handler).await }
        })
        .await
    }

    /// One that speaks HTTP/1.1 over TLS with this configuration.
    pub async fn https<F: Future<Output = Reply> + Send + 'static>(
        config: Arc<rustls::ServerConfig>,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self {
        let handler = Arc::new(handler);
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        Self::raw(move |stream| {
            let (handler, counts, acceptor) =
                (Arc::clone(&handler), Arc::clone(&stream.counts), acceptor.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, counts, handler).await;
                }
            }
        })
        .await
    }

    /// One that answers every request with what it got, as JSON, and echoes WebSockets.
    pub async fn echo() -> Self {
        Self::start(echo).await
    }

    /// One that echoes WebSockets, and answers everything else with server-sent events, one every 100 ms.
    pub async fn live() -> Self {
        Self::start(|mut request| async move {
            if request.headers().contains_key("sec-websocket-key") {
                return echo_websocket(&mut request);
            }
            let (sender, body) = streaming();
            tokio::spawn(async move {
                while sender.send(Bytes::from_static(b"data: tick\n\n")).await.is_ok() {
                    // A clock's pace, not a wait.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            });
            let mut reply = Response::new(body);
            reply.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
            reply
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `/fw2/localhost:PORT`, followed by `rest`.
    pub fn path(&self, rest: &str) -> String {
        format!("/fw2/localhost:{}{rest}", self.port())
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(SeqCst)
    }

    /// How many of them are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(SeqCst)
    }

    /// How many bytes it read from them.
    pub fn bytes(&self) -> usize {
        self.counts.bytes.load(SeqCst)
    }

    /// The requests that reached it.
    pub fn seen(&self) -> Vec<Seen> {
        self.counts.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse<S, F>(stream: S, counts: Arc<Counts>, handler: Arc<impl Fn(Request<Incoming>) -> F>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        let seen = Seen { method: request.method().clone(), path, headers: request.headers().clone() };
        counts.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let answer = handler(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _ = connection.await;
}

async fn echo(mut request: Request<Incoming>) -> Reply {
    if request.headers().contains_key("sec-websocket-key") {
        return echo_websocket(&mut request);
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let said = serde_json::json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map(ToString::to_string),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut response = text(said.to_string());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// Changes to a WebSocket that sends back what it gets.
pub(super) fn echo_websocket(request: &mut Request<Incoming>) -> Reply {
    let key = request.headers().get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket =
            tokio_tungstenite::WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None);
        let (mut sink, mut stream) = socket.await.split();
        while let Some(Ok(message)) = stream.next().await {
            if (message.is_text() || message.is_binary()) && sink.send(message).await.is_err() {
                return;
            }
        }
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", key.unwrap_or_default())
        .body(full(""))
        .expect("a response")
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, SeqCst);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.counts.bytes.fetch_add(buffer.filled().len() - before, SeqCst);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
