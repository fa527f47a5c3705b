//! Where an application's interim (1xx) answers go, in whichever protocol the browser speaks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::header::LINK;
use http::{HeaderMap, Response, StatusCode};

use crate::front_io::Interim;
use crate::limits;

/// Towards one browser's request.
#[derive(Clone)]
pub(crate) enum InterimSink {
    /// `None`: an older client that knows no interim answers.
    Http1(Option<Interim>),
    Http2(Interims),
}

/// Interim answers of one HTTP/2 request that wait to be sent. They are few and small; one too many is dropped.
#[derive(Clone, Default)]
pub(crate) struct Interims(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    heads: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Interims {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, head: Response<()>) {
        let mut waiting = self.waiting();
        if waiting.heads.len() < limits::HTTP2_INTERIMS {
            waiting.heads.push_back(head);
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    /// The one that waits longest.
    pub(crate) fn next(&self) -> Option<Response<()>> {
        self.waiting().heads.pop_front()
    }

    /// The same, once there is one.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Response<()>> {
        let mut waiting = self.waiting();
        match waiting.heads.pop_front() {
            Some(head) => Poll::Ready(head),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
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
}
