//! PUT (RFC 4918, section 9.7; RFC 9110, section 9.3.4): whole or not at all.

use http::{HeaderValue, Response, StatusCode, header};
use portreeve_files::{Error, Finish, Identity, Kind, NewMode, Only, Put, Status};

use crate::locks::Reach;
use crate::refusal::Refusal;
use crate::{Asked, Dav, conditions};

/// A file that is being written.
#[derive(Debug)]
pub struct Writing {
    only: Only,
    existed: bool,
    /// What the client says will come, where HTTP has no length.
    expected: Option<u64>,
}

impl Dav {
    /// Begins to write what is asked for: what takes its bytes, and what is to be done then.
    ///
    /// # Errors
    /// Before anything of it came.
    pub fn write(&self, asked: &Asked) -> Result<(Put, Writing), Refusal> {
        if asked.headers.contains_key(header::CONTENT_RANGE) {
            return Err(Refusal::plain(
                StatusCode::BAD_REQUEST,
                "A file is written whole: Content-Range is not understood.",
            ));
        }
        let place = asked.place()?;
        let is_directory = || Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, "It is a directory.");
        if place.slash {
            return Err(is_directory());
        }
        let (root, path) = self.roots.named(place.path.as_ref())?;
        let status = match root.status(&path) {
            Ok(status) if status.kind == Kind::Directory => return Err(is_directory()),
            Ok(status) => Some(status),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        let shown = self.conditions(asked, &place, status.as_ref())?;
        let reach = if status.is_some() { Reach::Content } else { Reach::Existence };
        self.unlocked(place.path.as_ref(), reach, &shown)?;
        let only = only(asked, status.map(|status| status.identity));
        let put = root.put(&path).map_err(|error| Refusal::of_parent(&error))?;
        // What macOS sends beside a body of no said length.
        let expected =
            asked.headers.get("x-expected-entity-length").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((put, Writing { only, existed: status.is_some(), expected }))
    }
}

/// What was true when it began is to be true when it is put in place: a condition is no less one for a file that takes long.
fn only(asked: &Asked, identity: Option<Identity>) -> Only {
    let is_conditional =
        ["if", "if-match", "if-unmodified-since"].iter().any(|name| asked.headers.contains_key(*name));
    match identity {
        Some(identity) if is_conditional => Only::IfStill(identity),
        None if asked.headers.contains_key(header::IF_NONE_MATCH) => Only::IfAbsent,
        _ => Only::Always,
    }
}

impl Writing {
    /// Puts it in place.
    ///
    /// # Errors
    /// Then the old file is as it was.
    pub fn finish(self, put: Put) -> Result<Response<Vec<u8>>, Refusal> {
        if self.expected.is_some_and(|expected| expected != put.written()) {
            return Err(Refusal::plain(StatusCode::BAD_REQUEST, "Less came than was said, or more."));
        }
        let status: Status = put.finish(Finish { mode: NewMode::Kept, only: self.only })?;
        let mut answer =
            crate::with_status(if self.existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED });
        if let Ok(tag) = HeaderValue::try_from(conditions::tag(&status)) {
            answer.headers_mut().insert(header::ETAG, tag);
        }
        Ok(answer)
    }
}
