//! One connection of the portal's: HTTP/1.1, one request after the other.

use std::convert::Infallible;
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;

use crate::desk::Desk;
use crate::limits;
use crate::routes;
use crate::stall::Stall;

/// Serves it to its end; after the first answer unless it is `lasting`.
pub(crate) async fn serve(stream: UnixStream, desk: Rc<Desk>, lasting: bool) {
    let service = service_fn(move |request| {
        let desk = Rc::clone(&desk);
        async move { Ok::<_, Infallible>(routes::answer(&desk, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(lasting)
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_buf_size(limits::HEAD_BYTES)
        .max_header_size(limits::HEAD_BYTES)
        .max_headers(limits::HEAD_FIELDS)
        .serve_connection(TokioIo::new(Stall::new(stream, limits::WRITE_STALL)), service);
    if let Err(error) = served.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
    }
}
