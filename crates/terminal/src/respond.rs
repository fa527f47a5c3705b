//! Answers. Invariant: this file alone gives a refusal its status and its words, and every answer the header fields that
//! keep it where it belongs.

use std::io;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// An answer.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What xterm.js needs, and nothing else: it makes its style sheet as it goes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; font-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
/// Its address holds what it holds.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// Why a request is not answered with what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It does not show the token.
    Token,
    /// A page of another origin asks.
    Origin,
    /// There is no such path.
    NotFound,
    /// The path takes another method.
    Method,
    /// The path is a WebSocket's, and this is none.
    NotASocket,
    /// Something failed here; the log has it.
    Failed,
}

impl Refused {
    fn said(self) -> (StatusCode, &'static str) {
        match self {
            Self::Token => (
                StatusCode::FORBIDDEN,
                "This terminal opens from your workspace only. Go back to the workspace and open it there.\n",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "This connection was asked for by a page that is not the terminal's.\n",
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such path.\n"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "This path is read with GET.\n"),
            Self::NotASocket => {
                (StatusCode::UPGRADE_REQUIRED, "This path is for a WebSocket of version 13.\n")
            }
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "It could not be done.\n"),
        }
    }

    pub(crate) fn answer(self) -> Answer {
        let (status, text) = self.said();
        let mut answer = of_type("text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()));
        *answer.status_mut() = status;
        match self {
            Self::Method => set(&mut answer, header::ALLOW, "GET, HEAD"),
            Self::NotASocket => {
                set(&mut answer, header::UPGRADE, "websocket");
                set(&mut answer, header::SEC_WEBSOCKET_VERSION, "13");
            }
            _ => {}
        }
        answer
    }
}

/// A page.
pub(crate) fn page(html: String) -> Answer {
    of_type("text/html; charset=utf-8", html.into())
}

/// A file whose address changes with it.
pub(crate) fn asset(kind: &'static str, content: &'static [u8]) -> Answer {
    let mut answer = of_type(kind, Bytes::from_static(content));
    set(&mut answer, header::CACHE_CONTROL, FOR_EVER);
    answer
}

/// On to the page, with the cookie that opens it.
pub(crate) fn let_in(cookie: &str) -> Result<Answer, Refused> {
    let mut answer = of_type("text/plain; charset=utf-8", Bytes::new());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    set(&mut answer, header::LOCATION, "./");
    let cookie = HeaderValue::from_str(&format!("{cookie}; HttpOnly; SameSite=Strict; Path=/"));
    let mut cookie = cookie.map_err(|_| Refused::Failed)?;
    cookie.set_sensitive(true);
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(answer)
}

/// The connection is a WebSocket's from here on. `accept` answers the key that it came with.
pub(crate) fn switch(accept: &str) -> Result<Answer, Refused> {
    let mut answer = Response::new(Full::default().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    set(&mut answer, header::CONNECTION, "upgrade");
    set(&mut answer, header::UPGRADE, "websocket");
    let accept = HeaderValue::from_str(accept).map_err(|_| Refused::Failed)?;
    answer.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

fn of_type(kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::from(body).map_err(|never| match never {}).boxed_unsync());
    set(&mut answer, header::CONTENT_TYPE, kind);
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    set(&mut answer, header::CONTENT_SECURITY_POLICY, POLICY);
    set(&mut answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut answer, header::REFERRER_POLICY, "no-referrer");
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}
