//! HTTP/2 with one browser, on the `h2` library itself: hyper's server has no way to send interim (1xx) answers.
//!
//! Each stream is a task of its own, which ends when the browser resets the stream; with it ends what was asked of the
//! application.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::header::{DATE, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::chain::chain;
use crate::front::{Connection, idle};
use crate::front_body::{FrontBody, StreamIo};
use crate::front_io::{Flushed, Stall};
use crate::interim::{Bound, InterimSink, Interims};
use crate::limits;
use crate::record::Sent;
use crate::serve::serve;
use crate::upgrade::Pending;

/// Serves one connection to its end.
pub(crate) async fn serve_http2<S>(connection: Rc<Connection>, io: S, flushed: Flushed)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let room = Rc::clone(&connection.room);
    let handshake = h2::server::Builder::new()
        .enable_connect_protocol()
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .max_header_list_size(limits::HTTP2_HEADER_LIST)
        .initial_window_size(limits::HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW)
        .max_send_buffer_size(limits::HTTP2_SEND_BUFFER)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS)
        .handshake::<_, Bytes>(io);
    let Ok(Ok(mut http2)) = tokio::time::timeout(limits::FIRST_REQUEST, handshake).await else { return };
    let mut alive = pin!(keep_alive(http2.ping_pong(), connection.limits.http2_ping));
    let mut idling = pin!(idle(&connection));
    let mut draining = false;
    let (mut stops, mut drains) = (pin!(room.portal.stopping.wait()), pin!(room.portal.draining.wait()));
    loop {
        let next = tokio::select! {
            biased;
            () = &mut stops => return,
            next = http2.accept() => next,
            () = &mut alive => return,
            // Told that this is the end, a peer with nothing going on is not waited for.
            () = tokio::time::sleep(limits::GOODBYE), if draining => {
                if connection.is_quiet() {
                    return;
                }
                continue;
            }
            () = &mut idling, if !draining => {
                http2.graceful_shutdown();
                draining = true;
                continue;
            }
            () = &mut drains, if !draining => {
                http2.graceful_shutdown();
                draining = true;
                continue;
            }
        };
        match next {
            Some(Ok((request, respond))) => {
                let (connection, hints) = (Rc::clone(&connection), Hints::after(&flushed));
                // Moved by its address: a task is moved whole several times before it runs.
                room.tasks.spawn_local(Box::pin(async move {
                    let _active = connection.begin();
                    serve_stream(&connection, request, respond, hints).await;
                }));
            }
            Some(Err(error)) => return tracing::debug!(error = %chain(&error), "an HTTP/2 connection ended"),
            None => return,
        }
    }
}

/// Asks the browser so often whether it is still there; returns when it is not.
async fn keep_alive(ping_pong: Option<PingPong>, every: Duration) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        match tokio::time::timeout(limits::HTTP2_PING_ANSWER.min(every), ping_pong.ping(Ping::opaque())).await
        {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Gives the library one stream's interim answers. It keeps what the browser does not take, however much that is; so it gets
/// no more of them than may wait.
struct Hints {
    flushed: Flushed,
    /// Of what was sent since the browser had taken all.
    waiting: Bound,
}

impl Hints {
    fn after(flushed: &Flushed) -> Self {
        Self { flushed: flushed.clone(), waiting: Bound::default() }
    }

    fn send(&mut self, respond: &mut SendResponse<Bytes>, head: Response<()>) {
        if self.flushed.take() {
            self.waiting = Bound::default();
        }
        if self.waiting.takes(&head) {
            let _ = respond.send_informational(head);
        }
    }
}

async fn serve_stream(
    connection: &Rc<Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    mut hints: Hints,
) {
    let (parts, incoming) = request.into_parts();
    let is_connect = parts.method == Method::CONNECT;
    let interims = Interims::default();
    let interim = InterimSink::Http2(interims.clone());
    let (upgrade, body, tunnel) = if is_connect {
        let (hand_over, pending) = oneshot::channel();
        (Some(Pending::Http2(pending)), FrontBody::None, Some((incoming, hand_over)))
    } else {
        (None, FrontBody::http2(incoming, &parts.headers, &interim), None)
    };
    let request = Request::from_parts(parts, body);
    let response = {
        let mut answering = pin!(serve(connection, request, upgrade, interim));
        loop {
            tokio::select! {
                biased;
                response = &mut answering => break response,
                head = poll_fn(|cx| interims.poll_next(cx)) => hints.send(&mut respond, head),
                // The browser left: dropping the answer in the making cancels what was asked of the application.
                _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            }
        }
    };
    while let Some(head) = interims.next() {
        hints.send(&mut respond, head);
    }
    let (mut head, answer) = response.into_parts();
    head.version = http::Version::HTTP_2;
    if !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        head.headers.insert(DATE, date);
    }
    let is_tunnel = is_connect && head.status.is_success();
    let ends = !is_tunnel && answer.is_end_stream();
    let stream = match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(error = %chain(&error), "an answer could not be sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    match tunnel {
        Some((incoming, hand_over)) if is_tunnel => {
            let stalled = Stall::after(connection.limits.write_stall);
            drop(hand_over.send(StreamIo::new(stream, incoming, stalled, connection.begin())))
        }
        _ if !ends => send_body(answer, stream, connection.limits.write_stall).await,
        _ => {}
    }
}

/// What can go on with a stream.
enum Step {
    Frame(Option<Result<http_body::Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>),
    Reset,
}

/// Sends a body no faster than the browser takes it, who may take nothing of it for so long.
async fn send_body(answer: Sent, mut stream: SendStream<Bytes>, stall: Duration) {
    let mut answer = pin!(answer);
    loop {
        let step = poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return std::task::Poll::Ready(Step::Reset);
            }
            answer.as_mut().poll_frame(cx).map(Step::Frame)
        });
        match step.await {
            Step::Reset => return,
            Step::Frame(None) => return drop(stream.send_data(Bytes::new(), true)),
            Step::Frame(Some(Err(error))) => {
                tracing::debug!(%error, "an answer was cut off");
                return stream.send_reset(Reason::INTERNAL_ERROR);
            }
            Step::Frame(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let ends = answer.is_end_stream();
                    if !send_data(&mut stream, data, ends, stall).await || ends {
                        return;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return drop(stream.send_trailers(trailers));
                    }
                }
            },
        }
    }
}

/// Sends one piece; false when the browser reset the stream or takes nothing for too long.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, ends: bool, stall: Duration) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match stream.capacity() {
            0 => match tokio::time::timeout(stall, poll_fn(|cx| poll_capacity(stream, cx))).await {
                Ok(Some(granted)) => granted,
                Ok(None) => return false,
                Err(_) => {
                    stream.send_reset(Reason::CANCEL);
                    return false;
                }
            },
            granted => granted,
        };
        let piece = data.split_to(granted.min(data.len()));
        let last = ends && data.is_empty();
        if stream.send_data(piece, last).is_err() {
            return false;
        }
        if last {
            return true;
        }
    }
    !ends || stream.send_data(Bytes::new(), true).is_ok()
}

/// How much may be sent; `None` when the stream is over.
pub(crate) fn poll_capacity(
    stream: &mut SendStream<Bytes>,
    cx: &mut std::task::Context<'_>,
) -> std::task::Poll<Option<usize>> {
    use std::task::Poll;
    if stream.poll_reset(cx).is_ready() {
        return Poll::Ready(None);
    }
    loop {
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(0))) => {}
            Poll::Ready(Some(Ok(granted))) => return Poll::Ready(Some(granted)),
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}
