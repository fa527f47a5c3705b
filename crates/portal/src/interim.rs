//! Where an application's interim (1xx) answers go, in whichever protocol the browser speaks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::header::LINK;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::front_io::Interim;
use crate::limits;

/// Towards one browser's request.
#[derive(Clone)]
pub(crate) enum InterimSink {
    /// `None`: an older client that knows no interim answers.
    Http1(Option<Interim>),
    Http2(Interims),
}

/// Interim answers of one HTTP/2 request that wait to be sent, as far as [`Bound`] lets them.
#[derive(Clone, Default)]
pub(crate) struct Interims(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    heads: VecDeque<Response<()>>,
    bound: Bound,
    waker: Option<Waker>,
}

/// How many of one stream's heads wait somewhere, and how long they are. What would be too many is not to be kept.
#[derive(Default)]
pub(crate) struct Bound {
    heads: usize,
    bytes: usize,
}

impl Bound {
    /// Whether one more may wait; if so, it is counted.
    pub(crate) fn takes(&mut self, head: &Response<()>) -> bool {
        let bytes = bytes_of(head);
        let has_room =
            self.heads < limits::HTTP2_INTERIMS && self.bytes.saturating_add(bytes) <= limits::HEAD_BYTES;
        // It has no fields, comes once, and whoever holds a body back waits for it.
        let takes = has_room || head.status() == StatusCode::CONTINUE;
        if takes {
            self.heads += 1;
            self.bytes += bytes;
        }
        takes
    }

    /// One waits no longer.
    fn let_go(&mut self, head: &Response<()>) {
        self.heads -= 1;
        self.bytes -= bytes_of(head);
    }
}

fn bytes_of(head: &Response<()>) -> usize {
    head.headers().values().map(HeaderValue::len).sum()
}

impl Interims {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, head: Response<()>) {
        let mut waiting = self.waiting();
        if waiting.bound.takes(&head) {
            waiting.heads.push_back(head);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    /// The one that waits longest.
    pub(crate) fn next(&self) -> Option<Response<()>> {
        let mut waiting = self.waiting();
        let head = waiting.heads.pop_front()?;
        waiting.bound.let_go(&head);
        Some(head)
    }

    /// The same, once there is one.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Response<()>> {
        if let Some(head) = self.next() {
            return Poll::Ready(head);
        }
        self.waiting().waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl InterimSink {
    /// Passes an interim answer on, or drops it where the connection can't take it now. Only `Link` goes with it, which
    /// such answers are for (RFC 8297): nothing that could set a cookie or frame a message.
    pub(crate) fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let links = headers.get_all(LINK).iter();
        match self {
            Self::Http1(None) => {}
            Self::Http1(Some(interim)) => {
                let reason = status.canonical_reason().unwrap_or("Interim");
                let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str());
                for link in links.filter_map(|value| value.to_str().ok()) {
                    head.push_str("link: ");
                    head.push_str(link);
                    head.push_str("\r\n");
                }
                head.push_str("\r\n");
                interim.push(head.as_bytes());
            }
            Self::Http2(interims) => {
                let mut head = Response::new(());
                *head.status_mut() = status;
                for link in links {
                    head.headers_mut().append(LINK, link.clone());
                }
                interims.push(head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_http2_one_too_many_is_dropped() {
        let interims = Interims::default();
        let sink = InterimSink::Http2(interims.clone());
        for number in 0..limits::HTTP2_INTERIMS + 3 {
            let link = HeaderMap::from_iter([(LINK, number.to_string().parse().unwrap())]);
            sink.send(StatusCode::EARLY_HINTS, &link);
        }
        for number in 0..limits::HTTP2_INTERIMS {
            assert_eq!(interims.next().unwrap().headers()[LINK], *number.to_string());
        }
        assert!(interims.next().is_none());
        // There is room again.
        sink.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        assert!(interims.next().is_some());
    }

    #[test]
    fn over_http2_they_are_no_longer_than_a_head_together() {
        let interims = Interims::default();
        let sink = InterimSink::Http2(interims.clone());
        let link = |length| HeaderMap::from_iter([(LINK, "l".repeat(length).parse().unwrap())]);
        for _ in 0..3 {
            sink.send(StatusCode::EARLY_HINTS, &link(limits::HEAD_BYTES / 2));
        }
        let kept: Vec<usize> = std::iter::from_fn(|| interims.next()).map(|head| bytes_of(&head)).collect();
        assert_eq!(kept, [limits::HEAD_BYTES / 2; 2]);
        sink.send(StatusCode::EARLY_HINTS, &link(limits::HEAD_BYTES + 1));
        assert!(interims.next().is_none());
    }

    #[test]
    fn over_http2_whoever_holds_a_body_back_is_told_to_go_on_whatever_waits() {
        let interims = Interims::default();
        let sink = InterimSink::Http2(interims.clone());
        for _ in 0..limits::HTTP2_INTERIMS {
            sink.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        }
        sink.send(StatusCode::CONTINUE, &HeaderMap::new());
        let last = std::iter::from_fn(|| interims.next()).last().unwrap();
        assert_eq!(last.status(), StatusCode::CONTINUE);
    }
}
