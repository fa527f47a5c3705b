//! WebDAV (RFC 4918, classes 1, 2 and 3; RFC 4331 for quotas) over a user's files. It runs in a process that has that user's rights and
//! no more: the kernel decides what is permitted.
//!
//! | module | what it does |
//! | --- | --- |
//! | `conditions` | `If`, `If-Match` and the others |
//! | `locks` | who has locked what |
//! | `properties` | live and dead properties |
//! | `find` | PROPFIND, piece by piece |
//! | `patch` | PROPPATCH |
//! | `change` | MKCOL, DELETE, COPY, MOVE |
//! | `lock` | LOCK, UNLOCK |
//! | `read` | GET and HEAD, with ranges |
//! | `write` | PUT |
//! | `xml` | what requests say, in and out |
//! | `refusal` | every error's status |
//! | `limits` | every bound |
//!
//! Invariants: what a client sees of a path is the path itself, below one prefix; nothing is changed that is locked; what is written is
//! there whole or not at all (`portreeve-files`). All calls block: asynchronous callers give them a thread.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod change;
mod conditions;
mod find;
#[doc(hidden)]
pub mod fuzz;
pub mod limits;
mod lock;
mod locks;
mod patch;
mod properties;
mod read;
mod refusal;
mod write;
mod xml;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use find::Listing;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use portreeve_files::{Address, Found, RelPath, Root, Roots, Status, address as addresses};
pub use read::Reading;
pub use refusal::Refusal;
pub use write::Writing;

use crate::conditions::{If, State};
use crate::locks::{Locks, Reach};

/// Where everything is.
const PREFIX: &str = "/dav";
const XML_TYPE: &str = "application/xml; charset=utf-8";
const XML_DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
/// How an answer about several resources begins.
const MULTI_STATUS: &str = "<D:multistatus xmlns:D=\"DAV:\">\n";
const METHODS: &str = "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK";

/// One user's.
#[derive(Debug, Default)]
pub struct Dav {
    roots: Roots,
    locks: Mutex<Locks>,
}

/// A request.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, as it came.
    pub path: String,
    /// Its fields.
    pub headers: HeaderMap,
    /// `https://HOST[:PORT]`: what the client calls this server.
    pub origin: String,
}

/// What it is answered with.
#[derive(Debug)]
pub enum Answer {
    /// All at once.
    Whole(Response<Vec<u8>>),
    /// This head, and piece by piece what the listing says.
    Listing(Response<()>, Box<Listing>),
}

/// An address that is understood.
pub(crate) struct Place {
    pub(crate) path: Option<RelPath>,
    pub(crate) slash: bool,
}

impl Dav {
    /// Over what these roots show.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { roots, locks: Mutex::default() }
    }

    /// Whether something is locked now.
    #[must_use]
    pub fn has_locks(&self) -> bool {
        !self.locks().is_empty(Instant::now())
    }

    /// What it shows.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Whether a file may be changed by somebody who knows no lock: as [`Refusal`] if not.
    ///
    /// # Errors
    /// When it is locked.
    pub fn is_free(&self, path: &RelPath) -> Result<(), Refusal> {
        self.unlocked(Some(path), Reach::Existence, &If::default())
    }

    /// Where it is, if it may be changed by somebody who knows no lock.
    ///
    /// # Errors
    /// When it is locked, or none of what is shown.
    pub fn changeable(&self, path: &RelPath) -> Result<(Root, RelPath), Refusal> {
        self.is_free(path)?;
        Ok(self.roots.named(Some(path))?)
    }

    /// Answers all but GET, HEAD and PUT.
    #[must_use]
    pub fn answer(&self, asked: &Asked, body: &[u8]) -> Answer {
        let done = match asked.method.as_str() {
            "OPTIONS" => Ok(Self::options()),
            "PROPFIND" => match self.find(asked, body) {
                Ok((head, listing)) => return Answer::Listing(head, Box::new(listing)),
                Err(refusal) => Err(refusal),
            },
            "PROPPATCH" => self.patch(asked, body),
            "MKCOL" => self.make(asked, body),
            "DELETE" => self.delete(asked),
            "COPY" | "MOVE" => self.transfer(asked),
            "LOCK" => self.lock(asked, body),
            "UNLOCK" => self.unlock(asked),
            _ => Err(Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, "This method is not known here.")),
        };
        Answer::Whole(done.unwrap_or_else(|refusal| {
            let mut answer = refusal.answer();
            if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
            }
            answer
        }))
    }

    fn options() -> Response<Vec<u8>> {
        let mut answer = Response::new(Vec::new());
        let headers = answer.headers_mut();
        headers.insert("dav", HeaderValue::from_static("1, 2, 3"));
        headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
        // Without it, Windows takes the server for one of an older kind.
        headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
        answer
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That the change is not forbidden by a lock whose token is not shown.
    fn unlocked(&self, path: Option<&RelPath>, reach: Reach, shown: &If) -> Result<(), Refusal> {
        let tokens: Vec<&str> = shown.tokens().collect();
        let forbidding = self.locks().forbidding(path, reach, &tokens, Instant::now());
        if forbidding.is_empty() {
            return Ok(());
        }
        Err(Refusal::locked(&forbidding))
    }

    /// That the field `If` holds, and HTTP's own conditions; what `If` shows.
    fn conditions(&self, asked: &Asked, place: &Place, status: Option<&Status>) -> Result<If, Refusal> {
        let shown = If::of(&asked.headers)?;
        let holds = shown.holds(|of, state| match of.map(|text| asked.place_at(text)) {
            None => self.has(place.path.as_ref(), status, state),
            Some(Ok(place)) => self.has(place.path.as_ref(), self.status(&place).ok().as_ref(), state),
            Some(Err(_)) => false,
        });
        if !holds {
            return Err(Refusal::plain(StatusCode::PRECONDITION_FAILED, "What the field If says is not so."));
        }
        conditions::check(&asked.headers, &asked.method, status)?;
        Ok(shown)
    }

    fn has(&self, path: Option<&RelPath>, status: Option<&Status>, state: &State) -> bool {
        match state {
            State::Token(token) => {
                self.locks().of(path, Instant::now()).iter().any(|lock| lock.token == *token)
            }
            State::Tag(tag) => status.is_some_and(|status| conditions::tag(status) == *tag),
        }
    }

    fn status(&self, place: &Place) -> Result<Status, portreeve_files::Error> {
        match self.roots.find(place.path.as_ref())? {
            Found::In(root, path) => status_in(&root, path.as_ref()),
            Found::Above(_) => status_above(),
        }
    }
}

/// Of what is at the path, or of the root itself.
pub(crate) fn status_in(root: &Root, path: Option<&RelPath>) -> Result<Status, portreeve_files::Error> {
    match path {
        Some(path) => root.status(path),
        None => root.own_status(),
    }
}

/// Of a directory above the roots, which is made of names alone.
pub(crate) fn status_above() -> Result<Status, portreeve_files::Error> {
    Root::open(std::path::Path::new("/"), portreeve_files::Within::Root)?.own_status()
}

impl Asked {
    fn place(&self) -> Result<Place, Refusal> {
        place(&self.path)
    }

    /// What an address in a field means: a whole one must be of this server.
    fn place_at(&self, text: &str) -> Result<Place, Refusal> {
        let elsewhere = || Refusal::plain(StatusCode::BAD_GATEWAY, "That address is on another server.");
        let uri: Uri = text
            .parse()
            .map_err(|_| Refusal::plain(StatusCode::BAD_REQUEST, "An address is not understood."))?;
        if let Some(authority) = uri.authority() {
            // A proxy in front may speak another scheme than the client.
            let ours = self.origin.split_once("://").map_or(&*self.origin, |(_, host)| host);
            if !authority.as_str().eq_ignore_ascii_case(ours) {
                return Err(elsewhere());
            }
        }
        let path = uri.path();
        if is_address(path) { place(path) } else { Err(elsewhere()) }
    }

    fn destination(&self) -> Result<Place, Refusal> {
        let missing =
            || Refusal::plain(StatusCode::BAD_REQUEST, "The field Destination does not say where to.");
        let text =
            self.headers.get("destination").and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
        self.place_at(text)
    }

    /// The field `Depth`.
    fn depth(&self) -> Result<Option<Depth>, Refusal> {
        match self.headers.get("depth").map(HeaderValue::as_bytes) {
            None => Ok(None),
            Some(b"0") => Ok(Some(Depth::Zero)),
            Some(b"1") => Ok(Some(Depth::One)),
            // As Windows asks ([MS-WDV], section 2.2.3).
            Some(word) if word.eq_ignore_ascii_case(b"1,noroot") => Ok(Some(Depth::Members)),
            Some(word) if word.eq_ignore_ascii_case(b"infinity") => Ok(Some(Depth::Infinity)),
            Some(_) => Err(Refusal::plain(StatusCode::BAD_REQUEST, "The field Depth is not understood.")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Zero,
    One,
    /// What is directly in it, and not it itself.
    Members,
    Infinity,
}

fn place(path: &str) -> Result<Place, Refusal> {
    let rest = path.strip_prefix(PREFIX).unwrap_or(path);
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let parsed = Address::parse(rest);
    let Address { path, slash } = parsed.map_err(|error| {
        Refusal::plain(StatusCode::BAD_REQUEST, format!("This is no address of a file: {error}."))
    })?;
    Ok(Place { path, slash })
}

/// Whether a path is an address here.
#[must_use]
pub fn is_address(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The address of a file.
#[must_use]
pub fn address_of(path: &RelPath) -> String {
    address(Some(path), false)
}

/// The address of a resource, with a slash at the end for a collection.
pub(crate) fn address(path: Option<&RelPath>, slash: bool) -> String {
    match path {
        None => format!("{PREFIX}/"),
        Some(path) => format!("{PREFIX}/{}{}", addresses::segments(path), if slash { "/" } else { "" }),
    }
}

fn with_status(status: StatusCode) -> Response<Vec<u8>> {
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = status;
    answer
}

/// `element` is the document's one.
fn xml_answer(status: StatusCode, element: &str) -> Response<Vec<u8>> {
    let mut answer = Response::new(format!("{XML_DECLARATION}{element}").into_bytes());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(XML_TYPE));
    answer
}
