//! `/api/v1/uploads`: a file that comes in parts, so that a connection that breaks off costs what was under way and no more.
//!
//! | request | does |
//! | --- | --- |
//! | `POST` with `path`, `size` and `replace` | begins one |
//! | `GET /ID` | how much is there |
//! | `PUT /ID?offset=N` | adds what its body has; with the last byte the file is put in its place |
//! | `DELETE /ID` | gives it up |
//!
//! Invariant: until the last byte is there nothing of it is; what nobody goes on with is given up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use hyper::body::Body;
use portreeve_files::{Error, Finish, NewMode, Only, Put, RelPath};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::Asked;
use super::changes::{refused, whole};
use super::{hangs, take};
use crate::limits;
use crate::respond::{self, Answer, Refused};

/// Those of one person.
#[derive(Debug, Default)]
pub(crate) struct Uploads(RefCell<BTreeMap<String, Upload>>);

impl Uploads {
    /// Whether somebody may go on with one.
    pub(crate) fn is_expected(&self) -> bool {
        self.0.borrow().values().any(Upload::is_fresh)
    }
}

impl Upload {
    fn is_fresh(&self) -> bool {
        self.put.is_none() || self.used.elapsed() < limits::UPLOAD_IDLE
    }
}

#[derive(Debug)]
struct Upload {
    /// `None` while a part comes.
    put: Option<Put>,
    path: RelPath,
    size: u64,
    only: Only,
    used: Instant,
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
        Method::PUT => add(asked, id, body).await,
        Method::DELETE => match asked.desk.uploads.0.borrow_mut().remove(id) {
            Some(_) => Ok(respond::nothing()),
            None => Err(gone()),
        },
        _ => state(asked, id),
    }
}

fn gone() -> Refused {
    Refused::NoFile("There is no such upload: it may be complete, or was given up.".to_owned())
}

/// Begins one.
pub(in crate::routes) async fn begin(asked: &Asked<'_>, begin: Begin) -> Result<Answer, Refused> {
    let path = whole("path", &begin.path)?;
    let only = if begin.replace { Only::Always } else { Only::IfAbsent };
    {
        let mut uploads = asked.desk.uploads.0.borrow_mut();
        uploads.retain(|_, upload| upload.is_fresh());
        if uploads.len() >= limits::UPLOADS {
            return Err(Refused::Conflict("Too many uploads have begun and are not complete.".to_owned()));
        }
    }
    let (dav, at) = (Arc::clone(&asked.desk.dav), path.clone());
    let put = asked.desk.transfer(move || {
        let (root, below) = dav.changeable(&at)?;
        if only == Only::IfAbsent && root.has_name(&below)? {
            return Err(Error::Exists.into());
        }
        Ok(root.put(&below)?)
    });
    let put = put.await.map_err(hangs)?.map_err(refused)?;
    let random = getrandom::u64().map_err(|_| Refused::Failed)?;
    let id = format!("{random:016x}");
    let upload = Upload { put: Some(put), path, size: begin.size, only, used: Instant::now() };
    asked.desk.uploads.0.borrow_mut().insert(id.clone(), upload);
    told(&id, 0, begin.size).map(|answer| respond::with_status(answer, StatusCode::CREATED))
}

fn state(asked: &Asked<'_>, id: &str) -> Result<Answer, Refused> {
    let uploads = asked.desk.uploads.0.borrow();
    let upload = uploads.get(id).ok_or_else(gone)?;
    let Some(put) = &upload.put else { return Err(busy()) };
    told(id, put.written(), upload.size)
}

fn told(id: &str, offset: u64, size: u64) -> Result<Answer, Refused> {
    respond::json(&serde_json::json!({ "id": id, "offset": offset, "size": size }))
}

fn busy() -> Refused {
    Refused::Conflict("A part of it is still coming: ask again in a moment.".to_owned())
}

async fn add<B>(asked: &Asked<'_>, id: &str, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let offset: u64 = asked
        .parameter("offset")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refused::NotUnderstood("offset is where the part begins, in bytes.".to_owned()))?;
    let (mut put, size) = {
        let mut uploads = asked.desk.uploads.0.borrow_mut();
        let upload = uploads.get_mut(id).ok_or_else(gone)?;
        let there = upload.put.as_ref().ok_or_else(busy)?.written();
        if offset != there {
            return Err(Refused::Conflict(format!("{there} bytes are there: go on at that place.")));
        }
        (upload.put.take(), upload.size)
    };
    let received = take(asked.desk, &mut put, body, size).await;
    // What could not be written has a hole: then it is over.
    let Some(put) = put else {
        asked.desk.uploads.0.borrow_mut().remove(id);
        return Err(received.err().unwrap_or(Refused::Failed));
    };
    let written = put.written();
    if received.is_err() || written < size {
        if let Some(upload) = asked.desk.uploads.0.borrow_mut().get_mut(id) {
            (upload.put, upload.used) = (Some(put), Instant::now());
        }
        received?;
        return told(id, written, size);
    }
    let upload = asked.desk.uploads.0.borrow_mut().remove(id).ok_or_else(gone)?;
    let (dav, only) = (Arc::clone(&asked.desk.dav), upload.only);
    let finished = asked.desk.transfer(move || {
        dav.is_free(&upload.path)?;
        Ok(put.finish(Finish { mode: NewMode::Kept, only })?)
    });
    finished.await.map_err(hangs)?.map_err(refused)?;
    Ok(respond::with_status(respond::nothing(), StatusCode::CREATED))
}
