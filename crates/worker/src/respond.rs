//! Answers. Invariant: this file alone gives a refusal its status and its words, and none of them holds anything of the
//! request.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Why a request is not answered with what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No ticket that is good here.
    Ticket,
    /// There is no such path.
    NotFound,
    /// The path takes another method.
    Method { allowed: &'static str },
    /// The body is longer than allowed.
    TooLarge,
    /// The body did not come in time.
    Late,
    /// The body is not what the path takes.
    Malformed,
    /// Something failed here; the log has it.
    Failed,
}

impl Refused {
    fn said(self) -> (StatusCode, &'static str) {
        match self {
            Self::Ticket => (StatusCode::FORBIDDEN, "no ticket that is good here\n"),
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such path\n"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "this path takes another method\n"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than allowed\n"),
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
            Self::Malformed => (StatusCode::BAD_REQUEST, "the body is not what this path takes\n"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "it could not be done\n"),
        }
    }

    pub(crate) fn answer(self) -> Answer {
        let (status, text) = self.said();
        let mut answer = of_type("text/plain; charset=utf-8", text.to_owned());
        *answer.status_mut() = status;
        if let Self::Method { allowed } = self {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        answer
    }
}

/// A page.
pub(crate) fn page(html: String) -> Answer {
    of_type("text/html; charset=utf-8", html)
}

fn of_type(kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
