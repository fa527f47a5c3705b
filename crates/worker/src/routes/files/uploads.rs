//! `/api/v1/uploads`: a file that comes in parts, so that a connection that breaks off costs what was under way and no more.
//!
//! | request | does |
//! | --- | --- |
//! | `POST` with `path`, `size` and `replace` | begins one |
//! | `GET /ID` | how much is there |
//! | `PUT /ID?offset=N` | adds what its body has; with the last byte the file is put in its place, and 201 says so, also once more |
//! | `DELETE /ID` | gives it up |
//!
//! Invariant: until the last byte is there nothing of it is; what nobody goes on with is given up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::body::Body;
use portreeve_files::{Error, Finish, NewMode, Only, RelPath};
use serde::Deserialize;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::super::Asked;
use super::changes::{refused, whole};
use super::kept::Kept;
use super::{hangs, take, too_much, without_directory};
use crate::desk::Desk;
use crate::limits;
use crate::respond::{self, Answer, Refused};

/// Those of one person.
#[derive(Debug, Default)]
pub(crate) struct Uploads(RefCell<BTreeMap<String, Upload>>);

impl Uploads {
    /// Whether somebody may go on with one.
    pub(crate) fn is_expected(&self) -> bool {
        let mut uploads = self.0.borrow_mut();
        uploads.retain(|_, upload| upload.is_fresh());
        uploads.values().any(Upload::is_open)
    }

    /// A place for one that begins.
    fn reserve(&self, size: u64) -> Result<String, Refused> {
        let mut uploads = self.0.borrow_mut();
        uploads.retain(|_, upload| upload.is_fresh());
        if uploads.values().filter(|upload| upload.is_open()).count() >= limits::UPLOADS {
            return Err(Refused::Conflict("Too many uploads have begun and are not complete.".to_owned()));
        }
        let id = format!("{:016x}", getrandom::u64().map_err(|_| Refused::Failed)?);
        uploads.insert(id.clone(), Upload { part: Part::Coming, size, used: Instant::now() });
        Ok(id)
    }

    fn set(&self, id: &str, part: Part) {
        if let Some(upload) = self.0.borrow_mut().get_mut(id) {
            (upload.part, upload.used) = (part, Instant::now());
        }
    }

    fn give_up(&self, id: &str) -> Option<Upload> {
        self.0.borrow_mut().remove(id)
    }
}

#[derive(Debug)]
struct Upload {
    part: Part,
    size: u64,
    used: Instant,
}

/// How far it is.
#[derive(Debug)]
enum Part {
    /// Something comes.
    Coming,
    /// So much is there, and nothing comes.
    There(Kept, Whereto),
    /// The file is in its place. Whoever did not hear of it can ask.
    Done,
}

/// Where the file is to be, and under which condition.
#[derive(Debug, Clone)]
struct Whereto {
    path: RelPath,
    only: Only,
}

impl Upload {
    fn is_open(&self) -> bool {
        !matches!(self.part, Part::Done)
    }

    fn is_fresh(&self) -> bool {
        let patience = if self.is_open() { limits::UPLOAD_IDLE } else { limits::UPLOAD_TOLD };
        matches!(self.part, Part::Coming) || self.used.elapsed() < patience
    }
}

/// A file that is to come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Begin {
    path: String,
    size: u64,
    #[serde(default)]
    replace: bool,
}

/// What is asked of one that has begun.
pub(in crate::routes) async fn answer<B>(asked: &Asked<'_>, id: &str, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match asked.method {
        Method::PUT => {
            let offset = asked.parameter("offset").and_then(|text| text.parse().ok()).ok_or_else(|| {
                Refused::NotUnderstood("offset is where the part begins, in bytes.".to_owned())
            })?;
            add(asked.desk, id, offset, body).await
        }
        Method::DELETE => match asked.desk.uploads.give_up(id) {
            Some(_) => Ok(respond::nothing()),
            None => Err(gone()),
        },
        _ => state(asked, id),
    }
}

fn gone() -> Refused {
    Refused::NoFile("There is no such upload: it was given up, or is complete for a while.".to_owned())
}

/// Begins one.
pub(in crate::routes) async fn begin(asked: &Asked<'_>, begin: Begin) -> Result<Answer, Refused> {
    let path = whole("path", &begin.path)?;
    let id = asked.desk.uploads.reserve(begin.size)?;
    let (desk, to, replace) = (Rc::clone(asked.desk), id.clone(), begin.replace);
    let begun = spawn_local(async move {
        let dav = Arc::clone(&desk.dav);
        let put = desk.transfer(move || {
            let (root, below) = dav.changeable(&path)?;
            // What is replaced is what is there now, and not what somebody puts there meanwhile.
            let only = match root.status(&below) {
                Ok(status) if replace => Only::IfStill(status.identity),
                _ if replace || !root.has_name(&below)? => Only::IfAbsent,
                _ => return Err(Error::Exists.into()),
            };
            Ok((root.put(&below)?, Whereto { path, only }))
        });
        let begun = put.await.map_err(hangs).and_then(|put| put.map_err(refused).map_err(without_directory));
        match begun {
            Ok((put, whereto)) => desk.uploads.set(&to, Part::There(Kept::of(put), whereto)),
            Err(why) => {
                desk.uploads.give_up(&to);
                return Err(why);
            }
        }
        Ok(())
    });
    begun.await.map_err(|_| Refused::Failed)??;
    told(&id, 0, begin.size).map(|answer| respond::with_status(answer, StatusCode::CREATED))
}

fn state(asked: &Asked<'_>, id: &str) -> Result<Answer, Refused> {
    let uploads = asked.desk.uploads.0.borrow();
    let upload = uploads.get(id).ok_or_else(gone)?;
    match &upload.part {
        Part::Coming => Err(busy()),
        Part::There(put, _) => told(id, put.written(), upload.size),
        Part::Done => told(id, upload.size, upload.size),
    }
}

fn told(id: &str, offset: u64, size: u64) -> Result<Answer, Refused> {
    respond::json(&serde_json::json!({ "id": id, "offset": offset, "size": size }))
}

fn busy() -> Refused {
    Refused::Conflict("A part of it is still coming: ask again in a moment.".to_owned())
}

async fn add<B>(desk: &Desk, id: &str, offset: u64, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (put, whereto, size) = {
        let mut uploads = desk.uploads.0.borrow_mut();
        let upload = uploads.get_mut(id).ok_or_else(gone)?;
        let there = match &upload.part {
            Part::Coming => return Err(busy()),
            Part::There(put, _) => put.written(),
            Part::Done => upload.size,
        };
        if offset != there {
            return Err(Refused::Conflict(format!("{there} bytes are there: go on at that place.")));
        }
        match std::mem::replace(&mut upload.part, Part::Coming) {
            Part::There(put, whereto) => (put, whereto, upload.size),
            done => {
                upload.part = done;
                return Ok(respond::with_status(respond::nothing(), StatusCode::CREATED));
            }
        }
    };
    // Said before anything of it is taken.
    if body.size_hint().exact().is_some_and(|length| length > size.saturating_sub(offset)) {
        desk.uploads.set(id, Part::There(put, whereto));
        return Err(too_much());
    }
    let mut put = Some(put);
    let received = take(desk, &mut put, body, size).await;
    // What could not be written has a hole: then it is over.
    let Some(put) = put else {
        desk.uploads.give_up(id);
        return Err(received.err().unwrap_or(Refused::Failed));
    };
    let written = put.written();
    if received.is_err() || written < size {
        desk.uploads.set(id, Part::There(put, whereto));
        received?;
        return told(id, written, size);
    }
    if !desk.uploads.0.borrow().contains_key(id) {
        // Given up while its end came.
        return Err(gone());
    }
    let (dav, Whereto { path, only }) = (Arc::clone(&desk.dav), whereto);
    let finished = desk.transfer(move || {
        dav.is_free(&path)?;
        Ok(put.finish(Finish { mode: NewMode::Kept, only })?)
    });
    match finished.await.map_err(hangs).and_then(|done| done.map_err(refused)) {
        Ok(_) => desk.uploads.set(id, Part::Done),
        Err(why) => {
            desk.uploads.give_up(id);
            return Err(why);
        }
    }
    Ok(respond::with_status(respond::nothing(), StatusCode::CREATED))
}
