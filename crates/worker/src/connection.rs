//! One connection of the portal's: HTTP/1.1, one request after the other.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::desk::Desk;
use crate::limits;
use crate::respond::{Answer, Refused};
use crate::routes;
use crate::stall::Stall;

/// Serves it to its end; after the first answer unless it is `lasting`.
pub(crate) async fn serve(stream: UnixStream, desk: Rc<Desk>, lasting: bool) {
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = Rc::clone(&desk);
        async move {
            // When the connection breaks off, what is under way for it is dropped: but not what came of a file.
            let answer = match *request.method() {
                Method::PUT => match spawn_local(answer(desk, request)).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        tracing::error!(%error, "a request was not answered");
                        Refused::Failed.answer()
                    }
                },
                _ => answer(desk, request).await,
            };
            Ok::<_, Infallible>(answer)
        }
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

async fn answer(desk: Rc<Desk>, request: Request<Incoming>) -> Answer {
    let (parts, mut body) = request.into_parts();
    let answer = routes::answer(&desk, Request::from_parts(parts, &mut body)).await;
    if !body.is_end_stream() {
        spawn_local(discard(body));
    }
    answer
}

/// Were the connection closed with something unread in it, the answer would be lost as well.
async fn discard(mut body: Incoming) {
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(limits::DISCARD, reading).await;
}
