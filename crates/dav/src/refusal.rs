//! Why something was not done. Invariant: this file alone gives an error its status (RFC 4918, sections 8 to 11, 16), and no answer
//! repeats what was sent, but for the sentence that says who has locked something.

use http::header::{self, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use portreeve_files::{Error, Status};
use quick_xml::escape::escape;

use crate::locks::Lock;
use crate::xml::XmlError;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What the client is told.
    pub status: StatusCode,
    /// Which condition of the protocol was not met: an element of `DAV:`.
    condition: Option<&'static str>,
    /// The resources that this is about: addresses.
    about: Vec<String>,
    /// A sentence.
    pub why: String,
    /// What else is said.
    field: Option<Box<(HeaderName, String)>>,
}

impl Refusal {
    /// A status, and a sentence.
    pub(crate) fn plain(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, condition: None, about: Vec::new(), why: why.into(), field: None }
    }

    /// One of the protocol's own conditions.
    pub(crate) fn condition(
        status: StatusCode,
        condition: &'static str,
        about: Vec<String>,
        why: &str,
    ) -> Self {
        Self { status, condition: Some(condition), about, why: why.to_owned(), field: None }
    }

    pub(crate) fn not_modified() -> Self {
        Self::plain(StatusCode::NOT_MODIFIED, String::new())
    }

    /// A directory has no content.
    pub(crate) fn no_page() -> Self {
        Self::plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "A directory is listed with PROPFIND, or on the page Files.",
        )
    }

    /// Which content the client has.
    pub(crate) fn with_tag(mut self, status: &Status) -> Self {
        if self.status == StatusCode::NOT_MODIFIED {
            self.field = Some(Box::new((header::ETAG, crate::conditions::tag(status))));
        }
        self
    }

    /// How long the file is (RFC 9110, section 14.4).
    pub(crate) fn with_size(mut self, size: u64) -> Self {
        self.field = Some(Box::new((header::CONTENT_RANGE, format!("bytes */{size}"))));
        self
    }

    /// By these.
    pub(crate) fn locked(locks: &[Lock]) -> Self {
        let about = locks.iter().map(|lock| crate::address(lock.path.as_ref(), false)).collect();
        let why = match locks.iter().find_map(Lock::holder) {
            Some(holder) => format!("Somebody has locked it, by the name \"{holder}\"."),
            None => "Somebody has locked it.".to_owned(),
        };
        Self::condition(StatusCode::LOCKED, "lock-token-submitted", about, &why)
    }

    /// What is missing is a directory above.
    pub(crate) fn of_parent(error: &Error) -> Self {
        match error {
            Error::NotFound => {
                Self::plain(StatusCode::CONFLICT, "The directory in which it is to be does not exist.")
            }
            other => Self::from(other),
        }
    }

    /// The element `error` of a multi-status answer; nothing if there is no condition.
    pub(crate) fn element(&self) -> String {
        self.condition.map_or_else(String::new, |condition| {
            let about: String =
                self.about.iter().map(|address| format!("<D:href>{}</D:href>", escape(address))).collect();
            let about = if about.is_empty() {
                format!("<D:{condition}/>")
            } else {
                format!("<D:{condition}>{about}</D:{condition}>")
            };
            format!("<D:error>{about}</D:error>")
        })
    }

    /// As an answer.
    #[must_use]
    pub fn answer(self) -> Response<Vec<u8>> {
        let (kind, body) = match self.condition {
            Some(_) => {
                let element = self.element().replacen("<D:error>", "<D:error xmlns:D=\"DAV:\">", 1);
                (crate::XML_TYPE, format!("{}{element}\n", crate::XML_DECLARATION))
            }
            None => (
                "text/plain; charset=utf-8",
                if self.why.is_empty() { String::new() } else { self.why + "\n" },
            ),
        };
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = self.status;
        if let Some((name, value)) = self.field.map(|field| *field)
            && let Ok(value) = HeaderValue::try_from(value)
        {
            response.headers_mut().insert(name, value);
        }
        if !response.body().is_empty() {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        response
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let why = sentence(error);
        let status = match error {
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::Denied | Error::Outside | Error::NotRegular(_) | Error::TooLong => StatusCode::FORBIDDEN,
            Error::Exists | Error::Changed => StatusCode::PRECONDITION_FAILED,
            Error::NotADirectory => StatusCode::CONFLICT,
            Error::IsADirectory => StatusCode::METHOD_NOT_ALLOWED,
            Error::Full => {
                return Self::condition(
                    StatusCode::INSUFFICIENT_STORAGE,
                    "sufficient-disk-space",
                    Vec::new(),
                    &why,
                );
            }
            Error::Quota => {
                return Self::condition(
                    StatusCode::INSUFFICIENT_STORAGE,
                    "quota-not-exceeded",
                    Vec::new(),
                    &why,
                );
            }
            Error::Loop => StatusCode::LOOP_DETECTED,
            Error::Apart | Error::Unsupported(_) => StatusCode::FORBIDDEN,
            Error::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::plain(status, why)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<XmlError> for Refusal {
    fn from(error: XmlError) -> Self {
        match error {
            XmlError::Long => Self::plain(StatusCode::PAYLOAD_TOO_LARGE, format!("The body: {error}.")),
            XmlError::DocType => Self::condition(
                StatusCode::FORBIDDEN,
                "no-external-entities",
                Vec::new(),
                "The body has a document type.",
            ),
            other => Self::plain(StatusCode::BAD_REQUEST, format!("The body: {other}.")),
        }
    }
}

/// What happened, with the system's reason.
fn sentence(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}.");
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
