//! `/api/v1/files/PATH`: the file system as the person sees it, from its root down. A slash at the end means a directory: what is in
//! it, or a new one.
//!
//! Invariant: what may be read and written the kernel decides, for this process has its person's rights; a file is written whole or
//! not at all; no thread waits for a browser.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use portreeve_files::{
    Entry, Error, Finish, Identity, Listed, NewMode, Only, OpenFile, RelPath, Root, Within,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::Asked;
use crate::desk::Desk;
use crate::jobs::Hangs;
use crate::limits;
use crate::respond::{self, Answer, Refused};

/// What may stand in an address as it is (RFC 3986, unreserved characters).
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What an address means.
enum Place {
    File(RelPath),
    /// `None`: the root.
    Directory(Option<RelPath>),
}

impl Place {
    /// A name can hold a slash no more than a file system's can: `%2F` is refused.
    fn parse(segments: &[&str]) -> Result<Self, Refused> {
        let (is_directory, names) = match segments {
            [names @ .., ""] => (true, names),
            names => (false, names),
        };
        let mut path = Vec::new();
        for name in names {
            // A sign that encodes nothing would stand for itself.
            if !name.split('%').skip(1).all(begins_with_two_digits) {
                return Err(wrong("a percent sign in it is not followed by two hexadecimal digits"));
            }
            let name: Vec<u8> = percent_decode_str(name).collect();
            if name.is_empty() {
                return Err(wrong("it has an empty name in it"));
            }
            if name.contains(&b'/') {
                return Err(wrong("a name can't have a slash in it"));
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(name);
        }
        if is_directory && names.is_empty() {
            return Ok(Self::Directory(None));
        }
        let path = RelPath::parse(&path).map_err(|error| wrong(&error.to_string()))?;
        Ok(if is_directory { Self::Directory(Some(path)) } else { Self::File(path) })
    }
}

/// The address of a file by its whole path.
pub(super) fn address(path: &str) -> String {
    path.split('/').fold("/api/v1/files".to_owned(), |address, name| match name {
        "" | "." => address,
        name => address + "/" + &segment(name.as_bytes()),
    })
}

fn begins_with_two_digits(text: &str) -> bool {
    matches!(text.as_bytes(), [one, two, ..] if one.is_ascii_hexdigit() && two.is_ascii_hexdigit())
}

fn wrong(why: &str) -> Refused {
    Refused::Unfit { why: format!("This is no address of a file: {why}."), fields: Vec::new() }
}

/// Answers.
pub(super) async fn answer<B>(asked: &Asked<'_>, segments: &[&str], body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let place = Place::parse(segments)?;
    match (&asked.method, place) {
        (&Method::GET | &Method::HEAD, Place::Directory(path)) => list(asked, path).await,
        (&Method::GET | &Method::HEAD, Place::File(path)) => read(asked, path).await,
        (&Method::PUT, Place::File(path)) => write(asked, path, body).await,
        (&Method::PUT, Place::Directory(Some(path))) => make(asked, path).await,
        (&Method::PUT, Place::Directory(None)) => Err(failed(&Error::Exists)),
        _ => Err(Refused::Method { allowed: "GET, HEAD, PUT" }),
    }
}

/// What is done with files, on a thread of its own.
async fn aside<T: Send + 'static>(
    asked: &Asked<'_>,
    act: impl FnOnce(&Root) -> Result<T, Error> + Send + 'static,
) -> Result<T, Refused> {
    let done = asked
        .desk
        .jobs
        .aside(move || Root::open(Path::new("/"), Within::Anywhere).and_then(|root| act(&root)));
    match done.await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(why) => Err(hangs(why)),
    }
}

fn hangs(_: Hangs) -> Refused {
    Refused::NotDone("The file system does not answer.".to_owned())
}

fn failed(error: &Error) -> Refused {
    let said = format!("{}.", capital(&error.to_string()));
    match error {
        Error::NotFound => Refused::NoFile(said),
        Error::Denied => Refused::Denied(said),
        Error::Exists | Error::Changed => Refused::Precondition(said),
        Error::Full | Error::Quota => Refused::Full(said),
        Error::NotADirectory
        | Error::IsADirectory
        | Error::NotRegular(_)
        | Error::TooLong
        | Error::Loop
        | Error::Outside => Refused::Conflict(said),
        Error::Unsupported(_) | Error::Io { .. } => {
            let cause =
                std::error::Error::source(error).map(|cause| format!(" {}.", capital(&cause.to_string())));
            Refused::NotDone(said + &cause.unwrap_or_default())
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[derive(Serialize)]
struct Directory {
    /// The first so many, by their names; directories first.
    entries: Vec<EntrySaid>,
    /// There are others.
    more: bool,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct EntrySaid {
    /// Sorted by this first.
    #[serde(skip)]
    is_other: bool,
    /// What is not UTF-8 in it is replaced.
    name: String,
    /// As it stands in an address.
    segment: String,
    /// `file`, `directory` or `other`; of a link, what it leads to.
    kind: &'static str,
    size: Option<u64>,
    /// Unix seconds.
    modified: Option<i64>,
}

impl From<Entry> for EntrySaid {
    fn from(entry: Entry) -> Self {
        use portreeve_files::Kind;
        use std::os::unix::ffi::OsStrExt;
        let kind = match entry.link_to.unwrap_or(entry.kind) {
            Kind::File => "file",
            Kind::Directory => "directory",
            _ => "other",
        };
        let status = entry.status.filter(|_| entry.kind == Kind::File);
        Self {
            is_other: kind != "directory",
            name: entry.name.to_string_lossy().into_owned(),
            segment: segment(entry.name.as_bytes()),
            kind,
            size: status.map(|status| status.size),
            modified: entry.status.and_then(|status| seconds(status.modified)),
        }
    }
}

fn segment(name: &[u8]) -> String {
    percent_encode(name, &PLAIN).to_string()
}

fn seconds(time: SystemTime) -> Option<i64> {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok())
}

async fn list(asked: &Asked<'_>, path: Option<RelPath>) -> Result<Answer, Refused> {
    let listed = aside(asked, move |root| {
        let mut entries = Vec::new();
        let listed = root.list(path.as_ref(), limits::ENTRIES, |entry| {
            entries.push(EntrySaid::from(entry));
            ControlFlow::Continue(())
        })?;
        entries.sort();
        Ok(Directory { entries, more: listed == Listed::Part })
    });
    respond::json(&listed.await?)
}

async fn read(asked: &Asked<'_>, path: RelPath) -> Result<Answer, Refused> {
    let name = segment(std::os::unix::ffi::OsStrExt::as_bytes(path.name()));
    let file = aside(asked, move |root| root.read(&path)).await?;
    let status = *file.status();
    let (sender, receiver) = mpsc::channel(1);
    if asked.method != Method::HEAD {
        spawn_local(pieces(Rc::clone(asked.desk), file, status.size, sender));
    }
    let mut answer = respond::stream("application/octet-stream", receiver);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, status.size.into());
    headers.insert(header::ETAG, etag(&status.identity));
    // RFC 8187.
    let disposition = HeaderValue::try_from(format!("attachment; filename*=UTF-8''{name}"));
    headers.insert(header::CONTENT_DISPOSITION, disposition.map_err(|_| Refused::Failed)?);
    Ok(answer)
}

/// So many bytes, piece by piece, as fast as they are taken. Should there be fewer, or should it fail, the answer breaks off.
async fn pieces(desk: Rc<Desk>, file: OpenFile, size: u64, taker: mpsc::Sender<Bytes>) {
    let (mut file, mut offset) = (file, 0);
    while offset < size {
        let most = usize::try_from(size - offset).unwrap_or(usize::MAX).min(limits::PIECE);
        let read = desk.transfer(move || (file.piece(offset, most), file)).await;
        let Ok((Ok(piece), back)) = read else { return };
        (file, offset) = (back, piece.end());
        if piece.bytes.is_empty() || taker.send(piece.bytes.into()).await.is_err() {
            return;
        }
    }
}

fn etag(identity: &Identity) -> HeaderValue {
    HeaderValue::try_from(format!("\"{identity}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Under which condition it is written (RFC 9110, section 13). One that is not understood is not met.
fn only(asked: &Asked<'_>) -> Result<Only, Refused> {
    let unmet = || Refused::Precondition("The condition is not understood.".to_owned());
    match (&asked.if_match, &asked.if_none_match) {
        (None, None) => Ok(Only::Always),
        (None, Some(names)) if names == "*" => Ok(Only::IfAbsent),
        (Some(tag), None) => {
            let identity =
                tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(Identity::parse);
            identity.map(Only::IfStill).ok_or_else(unmet)
        }
        _ => Err(unmet()),
    }
}

async fn make(asked: &Asked<'_>, path: RelPath) -> Result<Answer, Refused> {
    aside(asked, move |root| root.make_dir(&path, 0o777)).await?;
    Ok(respond::with_status(respond::nothing(), StatusCode::CREATED))
}

async fn write<B>(asked: &Asked<'_>, path: RelPath, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let only = only(asked)?;
    let absent = path.clone();
    let mut put = aside(asked, move |root| {
        // Said before all of it came.
        if only == Only::IfAbsent && root.status(&absent).is_ok() {
            return Err(Error::Exists);
        }
        root.put(&absent)
    })
    .await?;
    let mut body = Box::pin(body);
    let mut piece = BytesMut::new();
    loop {
        let frame = match timeout(limits::UPLOAD_STALL, body.frame()).await {
            Ok(Some(Ok(frame))) => frame.into_data().ok(),
            Ok(None) => None,
            Ok(Some(Err(error))) => {
                tracing::debug!(error = &*error.into() as &dyn std::error::Error, "a file broke off");
                return Err(Refused::Malformed);
            }
            Err(_) => return Err(Refused::Late),
        };
        let is_last = frame.is_none();
        piece.extend(frame.unwrap_or_default());
        if piece.len() >= limits::PIECE || is_last {
            let piece = piece.split().freeze();
            let written = asked.desk.transfer(move || put.write(&piece).map(|()| put)).await;
            put = written.map_err(hangs)?.map_err(|error| failed(&error))?;
        }
        if is_last {
            break;
        }
    }
    let finish = Finish { mode: NewMode::Kept, only };
    let finished = asked.desk.transfer(move || put.finish(finish)).await;
    let status = finished.map_err(hangs)?.map_err(|error| failed(&error))?;
    let code = if only == Only::IfAbsent { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    let mut answer = respond::with_status(respond::nothing(), code);
    answer.headers_mut().insert(header::ETAG, etag(&status.identity));
    Ok(answer)
}
