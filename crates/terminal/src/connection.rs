//! One connection: HTTP/1.1, one request after the other, or one WebSocket.

use std::convert::Infallible;
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::desk::Desk;
use crate::{limits, routes};

/// Serves it to its end.
pub(crate) async fn serve(stream: TcpStream, desk: Rc<Desk>) {
    // Each key is a packet of its own.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection waits to fill its packets");
    }
    let service = service_fn(move |request| {
        let desk = Rc::clone(&desk);
        async move { Ok::<_, Infallible>(routes::answer(&desk, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_buf_size(limits::HEAD_BYTES)
        .max_header_size(limits::HEAD_BYTES)
        .max_headers(limits::HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
    }
}
