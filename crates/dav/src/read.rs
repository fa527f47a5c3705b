//! GET and HEAD of files: conditions, one range, and a type that no browser runs.
//!
//! Invariant: what is sent of a user's file is never a page, a script or a picture with scripts in it on the portal's own origin.

use headers::{ContentRange, HeaderMapExt, IfRange, LastModified, Range};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use portreeve_files::{OpenFile, RelPath, Status};

use crate::properties::{content_type, in_range};
use crate::refusal::Refusal;
use crate::{Asked, Dav, conditions};

/// What is sent.
#[derive(Debug)]
pub struct Reading {
    /// The answer's head, with the length of what follows.
    pub head: Response<()>,
    /// The file.
    pub file: OpenFile,
    /// Where it begins.
    pub begin: u64,
    /// How many bytes; none for HEAD.
    pub length: u64,
}

impl Dav {
    /// Opens what is asked for.
    ///
    /// # Errors
    /// Also what the client has already (304).
    pub fn read(&self, asked: &Asked) -> Result<Reading, Refusal> {
        let place = asked.place()?;
        let (root, path) = match self.roots.named(place.path.as_ref()) {
            // One of the roots, or above them.
            Err(portreeve_files::Error::Denied) => return Err(Refusal::no_page()),
            named => named?,
        };
        let file = match root.read(&path) {
            Err(portreeve_files::Error::IsADirectory) => return Err(Refusal::no_page()),
            file => file?,
        };
        let status = *file.status();
        self.conditions(asked, &place, Some(&status)).map_err(|refusal| refusal.with_tag(&status))?;
        let (head, begin, length) = ranged(&asked.headers, &status)?;
        let mut head = dressed(head, &path, &status);
        head.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        let length = if asked.method == Method::HEAD { 0 } else { length };
        Ok(Reading { head, file, begin, length })
    }
}

/// One range is answered; who asks for several gets all (RFC 9110, section 14.2).
fn ranged(asked: &HeaderMap, status: &Status) -> Result<(Response<()>, u64, u64), Refusal> {
    let whole = || (Response::new(()), 0, status.size);
    let Some(range) = asked.typed_get::<Range>() else { return Ok(whole()) };
    if asked.contains_key(header::IF_RANGE) {
        let tag = conditions::tag(status).parse().ok();
        let modified = LastModified::from(in_range(status.modified));
        let is_same =
            asked.typed_get::<IfRange>().is_some_and(|only| !only.is_modified(tag.as_ref(), Some(&modified)));
        if !is_same {
            return Ok(whole());
        }
    }
    let mut ranges = range.satisfiable_ranges(status.size);
    let (first, second) = (ranges.next(), ranges.next());
    if second.is_some() {
        return Ok(whole());
    }
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let last = status.size.saturating_sub(1);
    let bounds = first.map(|(begin, end)| {
        let begin = match begin {
            Included(begin) => begin,
            Excluded(begin) => begin.saturating_add(1),
            Unbounded => 0,
        };
        let end = match end {
            Included(end) => end.min(last),
            Excluded(end) => end.saturating_sub(1).min(last),
            Unbounded => last,
        };
        (begin, end)
    });
    match bounds {
        Some((begin, end)) if begin <= end && begin < status.size => {
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::PARTIAL_CONTENT;
            if let Ok(said) = ContentRange::bytes(begin..=end, status.size) {
                head.headers_mut().typed_insert(said);
            }
            Ok((head, begin, end - begin + 1))
        }
        _ => {
            Err(Refusal::plain(StatusCode::RANGE_NOT_SATISFIABLE, "The file is shorter.")
                .with_size(status.size))
        }
    }
}

fn dressed(mut head: Response<()>, path: &RelPath, status: &Status) -> Response<()> {
    let headers = head.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(harmless(content_type(path.name().as_encoded_bytes()))),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.typed_insert(LastModified::from(in_range(status.modified)));
    if let Ok(tag) = HeaderValue::try_from(conditions::tag(status)) {
        headers.insert(header::ETAG, tag);
    }
    // RFC 8187. A browser saves it.
    let name = portreeve_files::address::segment(path.name().as_encoded_bytes());
    if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename*=UTF-8''{name}")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    head
}

/// The type, if it is one that nothing runs from.
fn harmless(kind: &str) -> &'static str {
    const KINDS: [&str; 12] = [
        "application/pdf",
        "application/json",
        "application/zip",
        "application/gzip",
        "audio/mpeg",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/csv",
        "text/plain",
        "video/mp4",
    ];
    KINDS.iter().find(|known| **known == kind).copied().unwrap_or("application/octet-stream")
}
