//! The socket for whoever watches over the portal. Plain HTTP/1.1 on the main thread; no person comes here.
//!
//! Invariant: nothing that is asked here changes anything or keeps a serving thread waiting; what is open at once and
//! how long is bounded.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::{exposition, nodes};
use crate::limits;
use crate::portal::Portal;

/// A socket that is bound and listens.
pub enum MetricsSocket {
    /// A path.
    Unix(UnixListener),
    /// An address.
    Tcp(TcpListener),
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

enum Listener {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl Listener {
    fn new(socket: MetricsSocket) -> io::Result<Self> {
        Ok(match socket {
            MetricsSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Self::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
            MetricsSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Self::Tcp(tokio::net::TcpListener::from_std(socket)?)
            }
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
        })
    }
}

/// Answers for as long as it is polled.
pub(crate) async fn serve(portal: Arc<Portal>, socket: MetricsSocket) {
    let listener = match Listener::new(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the metrics socket can't be used"),
    };
    let mut answering = JoinSet::new();
    let mut failing = false;
    loop {
        while answering.len() >= limits::METRICS_CONNECTIONS {
            answering.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => {
                    failing = false;
                    let portal = Arc::clone(&portal);
                    match accepted {
                        Accepted::Unix(stream) => answering.spawn(converse(portal, stream)),
                        Accepted::Tcp(stream) => answering.spawn(converse(portal, stream)),
                    };
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the metrics socket failed to accept; it is tried again");
                    }
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                }
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

/// One request and its answer.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(portal: Arc<Portal>, stream: S) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&portal, request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let conversation = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(limits::METRICS_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits::METRICS_REQUEST, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the metrics socket ended"),
        Err(_) => tracing::debug!("a connection to the metrics socket took too long"),
    }
}

fn answer(portal: &Arc<Portal>, method: &Method, path: &str) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => match exposition::text(portal) {
            Ok(text) => said(StatusCode::OK, exposition::CONTENT_TYPE, text),
            Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics can't be written\n"),
        },
        "/health" => said(StatusCode::OK, TEXT, "ok\n"),
        "/ready" => match portal.is_ready() {
            Ok(()) => said(StatusCode::OK, TEXT, "ready\n"),
            Err(why) => said(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        },
        "/nodes" => match serde_json::to_string(&nodes::rows(portal)) {
            Ok(json) => said(StatusCode::OK, "application/json", json + "\n"),
            Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the nodes can't be written\n"),
        },
        _ => said(StatusCode::NOT_FOUND, TEXT, "/metrics, /health, /ready or /nodes\n"),
    }
}

fn said(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
