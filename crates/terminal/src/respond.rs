//! Answers. Invariant: this file alone gives a refusal its status and its words, and every answer the header fields that
//! keep it where it belongs.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use portreeve_files::{Error, Identity, PathError, Status};
use serde::Serialize;

/// An answer.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What xterm.js needs, and nothing else: it makes its style sheet as it goes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; font-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
/// Also a page that could not read it does not get it.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Its address holds what it holds.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// Why a request is not answered with what it wants.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It does not show the token.
    Token,
    /// A page of another origin asks.
    Origin,
    /// It is for those who may type.
    Looks,
    /// There is no such path.
    NotFound,
    /// The path takes these methods.
    Method(&'static str),
    /// An upload says neither that the file is to be new nor which one it replaces.
    Condition,
    /// The rest of an upload did not come.
    Cut,
    /// What was asked for is no path.
    Path(PathError),
    /// The file system says no.
    File(Error),
    /// The path is a WebSocket's, and this is none.
    NotASocket,
    /// Something failed here; the log has it.
    Failed,
}

impl From<PathError> for Refused {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

impl Refused {
    fn said(&self) -> (StatusCode, String) {
        let (status, text) = match self {
            Self::Token => (
                StatusCode::FORBIDDEN,
                "This terminal opens from your workspace only. Go back to the workspace and open it there.",
            ),
            Self::Origin => {
                (StatusCode::FORBIDDEN, "This was asked for by a page that is not the terminal's.")
            }
            Self::Looks => {
                (StatusCode::FORBIDDEN, "You may look at this terminal; its files are not shared.")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such path."),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "This path takes another method."),
            Self::Condition => (
                StatusCode::PRECONDITION_REQUIRED,
                "Say If-None-Match: * to store a new file, or If-Match: ETAG for the one to replace.",
            ),
            Self::Cut => (StatusCode::REQUEST_TIMEOUT, "The rest did not come. Nothing was stored."),
            Self::NotASocket => (StatusCode::UPGRADE_REQUIRED, "This path is for a WebSocket of version 13."),
            Self::Path(PathError::DotDot) => (StatusCode::BAD_REQUEST, "Write the path without \"..\"."),
            Self::Path(error) => return (StatusCode::BAD_REQUEST, sentence(error)),
            Self::File(error) => return file_said(error),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "It could not be done."),
        };
        (status, text.to_owned())
    }

    pub(crate) fn answer(self) -> Answer {
        let (status, text) = self.said();
        let mut answer = of_type("text/plain; charset=utf-8", format!("{text}\n").into());
        *answer.status_mut() = status;
        match self {
            Self::Method(those) => set(&mut answer, header::ALLOW, those),
            Self::NotASocket => {
                set(&mut answer, header::UPGRADE, "websocket");
                set(&mut answer, header::SEC_WEBSOCKET_VERSION, "13");
            }
            _ => {}
        }
        answer
    }
}

/// A file system's refusal, for whoever uploads or downloads. The text is shown as it is.
fn file_said(error: &Error) -> (StatusCode, String) {
    let status = match error {
        Error::NotFound => StatusCode::NOT_FOUND,
        Error::Denied | Error::Outside => StatusCode::FORBIDDEN,
        Error::Exists | Error::Changed => StatusCode::PRECONDITION_FAILED,
        Error::NotADirectory | Error::IsADirectory | Error::NotRegular(_) | Error::Loop => {
            StatusCode::CONFLICT
        }
        Error::TooLong => StatusCode::BAD_REQUEST,
        Error::Full => {
            return (StatusCode::INSUFFICIENT_STORAGE, "Your disk is full. Nothing was stored.".to_owned());
        }
        Error::Quota => {
            let text = "Your quota is full: remove something, or ask for more. Nothing was stored.";
            return (StatusCode::INSUFFICIENT_STORAGE, text.to_owned());
        }
        Error::Apart | Error::Unsupported(_) | Error::Io { .. } => {
            tracing::warn!(error = error as &dyn std::error::Error, "a file could not be read or stored");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, sentence(error))
}

fn sentence(error: &dyn std::error::Error) -> String {
    let text = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

/// For the page's scripts.
pub(crate) fn json(what: &impl Serialize) -> Result<Answer, Refused> {
    let text = serde_json::to_string(what).map_err(|_| Refused::Failed)?;
    Ok(of_type("application/json", text.into()))
}

/// Which content it is, for `If-Match`.
pub(crate) fn etag(identity: &Identity) -> String {
    format!("\"{identity}\"")
}

/// Something that a user's file holds: to be kept, never to be shown here.
pub(crate) fn file(
    name: &OsStr,
    status: &Status,
    body: UnsyncBoxBody<Bytes, io::Error>,
) -> Result<Answer, Refused> {
    let mut answer = of_type("application/octet-stream", Bytes::new());
    *answer.body_mut() = body;
    set(&mut answer, header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    for (name, value) in [
        (header::CONTENT_DISPOSITION, attachment(name)),
        (header::CONTENT_LENGTH, status.size.to_string()),
        (header::ETAG, etag(&status.identity)),
    ] {
        let value = HeaderValue::from_str(&value).map_err(|_| Refused::Failed)?;
        answer.headers_mut().insert(name, value);
    }
    Ok(answer)
}

/// RFC 6266 with the extended notation of RFC 8187: first for who does not know that notation.
fn attachment(name: &OsStr) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let name = String::from_utf8_lossy(name.as_bytes());
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || " -._".contains(letter) { letter } else { '_' }
    };
    let nearly: String = name.chars().map(plain).collect();
    format!("attachment; filename=\"{nearly}\"; filename*=UTF-8''{}", percent_encode(name.as_bytes(), PLAIN))
}

/// It is there.
pub(crate) fn stored(status: &Status, new: bool) -> Answer {
    let mut answer = of_type("text/plain; charset=utf-8", Bytes::new());
    *answer.status_mut() = if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    if let Ok(etag) = HeaderValue::from_str(&etag(&status.identity)) {
        answer.headers_mut().insert(header::ETAG, etag);
    }
    answer
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
pub(crate) fn let_in(cookie: &str, by_tls: bool) -> Result<Answer, Refused> {
    let mut answer = of_type("text/plain; charset=utf-8", Bytes::new());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    set(&mut answer, header::LOCATION, "./");
    let secure = if by_tls { "; Secure" } else { "" };
    let cookie = HeaderValue::from_str(&format!("{cookie}; HttpOnly; SameSite=Strict; Path=/{secure}"));
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
    set(&mut answer, CROSS_ORIGIN_RESOURCE_POLICY, "same-origin");
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_a_header_field() {
        let of = |name: &[u8]| attachment(OsStr::from_bytes(name));
        assert_eq!(of(b"out.log"), "attachment; filename=\"out.log\"; filename*=UTF-8''out.log");
        assert_eq!(
            of("ä \"b\"\r\nx: y%;'".as_bytes()),
            "attachment; filename=\"_ _b___x_ y___\"; filename*=UTF-8''%C3%A4%20%22b%22%0D%0Ax%3A%20y%25%3B%27"
        );
        assert_eq!(of(b"\xff"), "attachment; filename=\"_\"; filename*=UTF-8''%EF%BF%BD");
    }

    #[test]
    fn space_that_lacks_is_said_plainly() {
        for (error, said) in [(Error::Full, "disk is full"), (Error::Quota, "quota is full")] {
            let (status, text) = Refused::from(error).said();
            assert!(status == StatusCode::INSUFFICIENT_STORAGE && text.contains(said), "{text}");
        }
        let source = io::Error::other("it burns");
        assert_eq!(sentence(&Error::Io { doing: "read it", source }), "Can't read it: it burns.");
    }
}
