//! Answers. Invariant: this file alone gives a refusal its status and its words, and none of them holds anything of the
//! request.

use std::pin::Pin;
use std::task::{Context, Poll};

use askama::Template;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use portreeve_model::wire::worker::{Reader, Visit};
use serde::Serialize;
use tokio::sync::mpsc;

/// An answer.
pub(crate) type Answer = Response<Said>;

/// An answer's body.
pub(crate) enum Said {
    /// All at once.
    Whole(Option<Bytes>),
    /// As it comes. An error breaks the answer off.
    Stream(mpsc::Receiver<Result<Bytes, BrokeOff>>),
}

/// What was to be said could not be said to its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct BrokeOff;

impl Body for Said {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll_recv(cx).map(|said| said.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Why a request is not answered with what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No ticket that is good here.
    Ticket,
    /// There is no such path.
    NotFound,
    /// The path takes another method.
    Method { allowed: &'static str },
    /// The body is longer than allowed.
    TooLarge,
    /// The body says that it is something else than JSON.
    NotJson,
    /// The body did not come in time.
    Late,
    /// The request is not what the path takes.
    Malformed,
    /// The same, and this is what is not understood: a sentence.
    NotUnderstood(String),
    /// It would change something, and does not come from our own page.
    NotOurPage,
    /// What was sent does not fit: a sentence, and one for each field that does not.
    Unfit { why: String, fields: Vec<(String, String)> },
    /// It is not so that it could be done: a sentence.
    Conflict(String),
    /// Slurm, or the system, did not do it: a sentence.
    NotDone(String),
    /// The disk is full: a sentence.
    Full(String),
    /// There is no such file: a sentence.
    NoFile(String),
    /// The kernel does not permit it: a sentence.
    Denied(String),
    /// It was to be done only if something is so, which is not: a sentence.
    Precondition(String),
    /// Too many watch already.
    TooMany,
    /// Something failed here; the log has it.
    Failed,
}

impl Refused {
    fn said(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Ticket => (StatusCode::UNAUTHORIZED, "ticket", "No ticket that is good here"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is nothing at this address"),
            Self::Method { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method", "This address takes another method")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "That is more than can be taken"),
            Self::NotJson => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The body is not of a kind that is taken")
            }
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "late", "The request did not come in time"),
            Self::Malformed | Self::NotUnderstood(_) => {
                (StatusCode::BAD_REQUEST, "malformed", "This request is not understood")
            }
            Self::NotOurPage => {
                (StatusCode::FORBIDDEN, "not-our-page", "This was not asked for by a page of the workspace")
            }
            Self::Unfit { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "unfit", "What was filled in does not fit")
            }
            Self::Conflict(_) => (StatusCode::CONFLICT, "not-now", "This can't be done now"),
            Self::NotDone(_) => (StatusCode::BAD_GATEWAY, "not-done", "It was not done"),
            Self::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "full", "Your disk is full"),
            Self::NoFile(_) => (StatusCode::NOT_FOUND, "no-file", "There is no such file"),
            Self::Denied(_) => (StatusCode::FORBIDDEN, "denied", "You may not do that"),
            Self::Precondition(_) => {
                (StatusCode::PRECONDITION_FAILED, "precondition", "That is not so that it could be done")
            }
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too-many", "Too many pages watch at once"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed", "It could not be done"),
        }
    }

    /// The sentence of those that have one of their own.
    pub(crate) fn sentence(&mut self) -> Option<&mut String> {
        match self {
            Self::Unfit { why: text, .. }
            | Self::NotUnderstood(text)
            | Self::Conflict(text)
            | Self::NotDone(text)
            | Self::Full(text)
            | Self::NoFile(text)
            | Self::Denied(text)
            | Self::Precondition(text) => Some(text),
            _ => None,
        }
    }

    fn detail(&self) -> String {
        if let Some(text) = self.clone().sentence() {
            return std::mem::take(text);
        }
        match self {
            Self::Method { allowed } => format!("It takes {allowed}."),
            Self::TooLarge => "A body is no longer than a mebibyte.".to_owned(),
            Self::NotJson => "Send JSON, and say so: Content-Type: application/json.".to_owned(),
            Self::TooMany => "Close some, or ask without watching.".to_owned(),
            Self::NotOurPage => "Open the workspace, and try it there once more.".to_owned(),
            Self::Failed => "The log of your worker has more.".to_owned(),
            _ => String::new(),
        }
    }

    /// For programs.
    pub(crate) fn answer(self) -> Answer {
        let (status, code, title) = self.said();
        let mut body = serde_json::json!({ "error": code, "title": title, "detail": self.detail() });
        if let Self::Unfit { fields, .. } = &self {
            body["fields"] = fields
                .iter()
                .map(|(name, why)| (name.clone(), why.clone().into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        let mut answer = json_value(&body);
        *answer.status_mut() = status;
        if let Self::Method { allowed } = self {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        answer
    }

    /// For whoever reads it: a page for a window.
    pub(crate) fn shown(self, visit: &Visit) -> Answer {
        #[derive(Template)]
        #[template(path = "refused.html")]
        struct Page<'p> {
            title: &'p str,
            detail: &'p str,
        }
        if visit.reader == Reader::Program {
            return self.answer();
        }
        let (status, _, title) = self.said();
        let detail = self.detail();
        let frame = portreeve_pages::Frame {
            title,
            user: Some(visit.user.as_str()),
            ..portreeve_pages::Frame::default()
        };
        match (Page { title, detail: &detail }).render().and_then(|body| frame.around(&body)) {
            Ok(html) => {
                let mut answer = page(html);
                *answer.status_mut() = status;
                answer
            }
            Err(_) => self.answer(),
        }
    }
}

/// A page.
pub(crate) fn page(html: String) -> Answer {
    of_type("text/html; charset=utf-8", html.into())
}

/// A page that a template makes.
pub(crate) fn rendered(html: Result<String, askama::Error>) -> Result<Answer, Refused> {
    html.map(page).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "no page");
        Refused::Failed
    })
}

/// Data for programs.
pub(crate) fn json(value: &impl Serialize) -> Result<Answer, Refused> {
    serde_json::to_value(value).map(|value| json_value(&value)).map_err(|error| {
        tracing::error!(%error, "no answer");
        Refused::Failed
    })
}

fn json_value(value: &serde_json::Value) -> Answer {
    of_type("application/json", format!("{value}\n").into())
}

/// With this status.
pub(crate) fn with_status(mut answer: Answer, status: StatusCode) -> Answer {
    *answer.status_mut() = status;
    answer
}

/// The browser is sent elsewhere, with GET.
pub(crate) fn see_other(location: &str) -> Result<Answer, Refused> {
    let mut answer = of_type("text/plain; charset=utf-8", Bytes::new());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let location = HeaderValue::try_from(location).map_err(|_| Refused::Malformed)?;
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

/// Done, and nothing to say.
pub(crate) fn nothing() -> Answer {
    let mut answer = Response::new(Said::Whole(None));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// What a job wrote. Never a page, whatever stands in it.
pub(crate) fn output(bytes: Vec<u8>) -> Answer {
    of_type("text/plain; charset=utf-8", bytes.into())
}

/// Something that goes on.
pub(crate) fn stream(kind: &'static str, stream: mpsc::Receiver<Result<Bytes, BrokeOff>>) -> Answer {
    let mut answer = of_type(kind, Bytes::new());
    *answer.body_mut() = Said::Stream(stream);
    answer
}

fn of_type(kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Said::Whole(Some(body)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
