//! Moves, copies, removes, unpacks, and who may do what. One way for pages and programs.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Body;
use portreeve_dav::{Dav, Refusal};
use portreeve_files::{Error, Over, RelPath};
use serde::Deserialize;

use super::super::Asked;
use super::hangs;
use super::unpack::{self, NotUnpacked};
use crate::respond::{self, Answer, Refused};
use crate::{body, limits};

/// What is to be done with a file or directory.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Change {
    Move {
        to: String,
        #[serde(default)]
        replace: bool,
    },
    Copy {
        to: String,
        #[serde(default)]
        replace: bool,
    },
    Mode {
        /// Octal, such as `0640`.
        mode: String,
    },
    Unpack {
        to: String,
    },
}

/// `POST`: one change.
pub(super) async fn change<B>(asked: &Asked<'_>, path: RelPath, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !asked.sends_json {
        return Err(Refused::NotJson);
    }
    match body::json(body).await? {
        Change::Move { to, replace } => relocate(asked, path, whole("to", &to)?, over(replace)).await?,
        Change::Copy { to, replace } => copy(asked, path, whole("to", &to)?, over(replace)).await?,
        Change::Mode { mode } => set_mode(asked, path, &mode).await?,
        Change::Unpack { to } => unpack(asked, path, whole("to", &to)?).await?,
    }
    Ok(respond::nothing())
}

fn over(replace: bool) -> Over {
    if replace { Over::Replace } else { Over::Refuse }
}

pub(super) async fn relocate(
    asked: &Asked<'_>,
    from: RelPath,
    to: RelPath,
    over: Over,
) -> Result<(), Refused> {
    at_length(asked, move |dav| dav.relocate(&from, &to, over)).await
}

pub(super) async fn copy(asked: &Asked<'_>, from: RelPath, to: RelPath, over: Over) -> Result<(), Refused> {
    at_length(asked, move |dav| dav.copy(&from, &to, over)).await
}

/// `mode` is octal, such as `0640`.
pub(super) async fn set_mode(asked: &Asked<'_>, path: RelPath, mode: &str) -> Result<(), Refused> {
    let mode = octal(mode)?;
    at_length(asked, move |dav| {
        let (root, below) = dav.changeable(&path)?;
        root.set_mode(&below, mode)?;
        Ok(())
    })
    .await
}

pub(super) async fn unpack(asked: &Asked<'_>, from: RelPath, to: RelPath) -> Result<(), Refused> {
    let dav = Arc::clone(&asked.desk.dav);
    let unpacked = asked.desk.at_length(move || unpack::unpack(&dav, &from, &to, limits::ARCHIVE));
    unpacked.await.map_err(hangs)?.map_err(|why| match why {
        NotUnpacked::Refused(refusal) => refused(refusal),
        other => Refused::Conflict(format!("Nothing was unpacked: {other}.")),
    })
}

/// `DELETE`: it, and all that is in it.
pub(super) async fn remove(asked: &Asked<'_>, path: RelPath) -> Result<(), Refused> {
    let dav = Arc::clone(&asked.desk.dav);
    let left = asked.desk.at_length(move || dav.remove(&path)).await.map_err(hangs)?.map_err(refused)?;
    let Some(first) = left.first() else { return Ok(()) };
    let which = if first.below.is_empty() {
        String::new()
    } else {
        format!("{}: ", crate::workspace::shown(&String::from_utf8_lossy(&first.below), 200))
    };
    let others = if left.len() > 1 { format!(", and {} others", left.len() - 1) } else { String::new() };
    Err(Refused::Conflict(format!("Not all of it was removed. What stays: {which}{}{others}.", first.error)))
}

async fn at_length<F>(asked: &Asked<'_>, act: F) -> Result<(), Refused>
where
    F: FnOnce(&Dav) -> Result<(), Refusal> + Send + 'static,
{
    let dav = Arc::clone(&asked.desk.dav);
    asked.desk.at_length(move || act(&dav)).await.map_err(hangs)?.map_err(refused)
}

/// What the protocol beside this says, in this one's words.
pub(super) fn refused(refusal: Refusal) -> Refused {
    match refusal.status {
        StatusCode::NOT_FOUND => Refused::NoFile(refusal.why),
        StatusCode::FORBIDDEN => Refused::Denied(refusal.why),
        StatusCode::PRECONDITION_FAILED => Refused::Precondition(refusal.why),
        StatusCode::INSUFFICIENT_STORAGE => Refused::Full(refusal.why),
        StatusCode::INTERNAL_SERVER_ERROR => Refused::NotDone(refusal.why),
        // It has the name that a program gave itself.
        StatusCode::LOCKED => Refused::Conflict(crate::workspace::shown(&refusal.why, limits::CLAUSE)),
        _ => Refused::Conflict(refusal.why),
    }
}

/// A whole path, as people write it.
pub(super) fn whole(field: &str, text: &str) -> Result<RelPath, Refused> {
    let unfit = |why: String| Refused::Unfit {
        why: format!("This is no path: {why}."),
        fields: vec![(field.to_owned(), why)],
    };
    let below = text.strip_prefix('/').ok_or_else(|| unfit("it does not begin with a slash".to_owned()))?;
    RelPath::parse(below.trim_end_matches('/').as_bytes()).map_err(|error| unfit(error.to_string()))
}

fn octal(text: &str) -> Result<u32, Refused> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() <= 4);
    mode.ok_or_else(|| Refused::Unfit {
        why: "These are no permissions.".to_owned(),
        fields: vec![("mode".to_owned(), "write three octal digits, such as 640".to_owned())],
    })
}

impl From<Error> for NotUnpacked {
    fn from(error: Error) -> Self {
        Self::Refused(Refusal::from(error))
    }
}
