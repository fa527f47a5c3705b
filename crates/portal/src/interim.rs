//! Where an application's interim (1xx) answers go, in whichever protocol the browser speaks.

use http::header::LINK;
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::mpsc;

use crate::front_io::Interim;

/// Towards one browser's request.
#[derive(Clone)]
pub(crate) enum InterimSink {
    /// `None`: an older client that knows no interim answers.
    Http1(Option<Interim>),
    Http2(mpsc::Sender<Response<()>>),
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
            Self::Http2(sender) => {
                let mut head = Response::new(());
                *head.status_mut() = status;
                for link in links {
                    head.headers_mut().append(LINK, link.clone());
                }
                let _ = sender.try_send(head);
            }
        }
    }
}
