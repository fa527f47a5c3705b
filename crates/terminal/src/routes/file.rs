//! `/file?path=`: GET sends a file to the browser, PUT stores what the browser sends.
//!
//! Invariants: a file is stored whole or not at all, whatever ends the request. None is replaced but the one whose ETag
//! the page names. The thread of the terminal never waits for a file system.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use portreeve_files::{Error, Finish, Identity, NewMode, Only, OpenFile, Put, RelPath, Status};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::access::{Admitted, Keeper};
use crate::desk::Desk;
use crate::limits;
use crate::place::Place;
use crate::respond::{self, Answer, Refused};

pub(super) async fn file(
    admitted: &Admitted,
    keeper: &Keeper,
    desk: &Rc<Desk>,
    request: Request<Incoming>,
) -> Result<Answer, Refused> {
    let place = Place::of_query(request.uri().query(), &desk.settings.home).ok_or(Refused::NotFound)??;
    match *request.method() {
        Method::GET | Method::HEAD => download(keeper, place).await,
        Method::PUT if !admitted.may_converse(request.headers()) => Err(Refused::Origin),
        Method::PUT => {
            let (head, mut body) = request.into_parts();
            let stored = upload(keeper, place, &head.headers, &mut body).await;
            if stored.is_err() {
                // One that is still sending reads the answer only if it may go on for a while.
                desk.beside(discard(body));
            }
            stored
        }
        _ => Err(Refused::Method("GET, HEAD, PUT")),
    }
}

async fn download(_: &Keeper, place: Place) -> Result<Answer, Refused> {
    let path = file_path(&place)?;
    let file = Arc::new(aside(move || Place::root()?.read(&path)).await?);
    let status = *file.status();
    let pieces = try_unfold(0, move |offset| {
        let file = Arc::clone(&file);
        async move {
            let piece = next_piece(file, offset).await?;
            Ok(piece.map(|piece| (Frame::data(piece.clone()), offset + piece.len() as u64)))
        }
    });
    respond::file(place.name(), &status, BodyExt::boxed_unsync(StreamBody::new(pieces)))
}

/// `None` at the end, which is where it was when the file was opened: its length has been said.
async fn next_piece(file: Arc<OpenFile>, offset: u64) -> std::io::Result<Option<Bytes>> {
    let left = file.status().size.saturating_sub(offset);
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(limits::FILE_PIECE);
    if most == 0 {
        return Ok(None);
    }
    let piece = spawn_blocking(move || file.piece(offset, most)).await.map_err(std::io::Error::other)?;
    let bytes = piece.map_err(std::io::Error::other)?.bytes;
    if bytes.is_empty() {
        return Err(std::io::Error::other("the file became shorter while it was sent"));
    }
    Ok(Some(bytes.into()))
}

async fn upload(
    _: &Keeper,
    place: Place,
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<Answer, Refused> {
    let only = condition(headers)?;
    let path = file_path(&place)?;
    let mut upload = Upload(Some(aside(move || begin(&path, only)).await?));
    loop {
        match timeout(limits::UPLOAD_SILENCE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    upload.write(bytes).await?;
                }
            }
            Ok(Some(Err(error))) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "an upload was cut off");
                return Err(Refused::Cut);
            }
            Err(_) => return Err(Refused::Cut),
        }
    }
    let status = upload.finish(Finish { mode: NewMode::Kept, only }).await?;
    Ok(respond::stored(&status, only == Only::IfAbsent))
}

/// Without one it would be easy to lose a file.
fn condition(headers: &HeaderMap) -> Result<Only, Refused> {
    let one = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (one(header::IF_NONE_MATCH), one(header::IF_MATCH)) {
        (Some("*"), None) => Ok(Only::IfAbsent),
        (None, Some(etag)) => {
            let identity =
                etag.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(Identity::parse);
            identity.map(Only::IfStill).ok_or(Refused::Condition)
        }
        _ => Err(Refused::Condition),
    }
}

/// Says so before anything was sent, if the name is taken or the file is another one.
fn begin(path: &RelPath, only: Only) -> Result<Put, Error> {
    let root = Place::root()?;
    match (only, root.status(path)) {
        (Only::IfAbsent, Ok(_)) => Err(Error::Exists),
        (Only::IfStill(asked), Ok(now)) if now.identity != asked => Err(Error::Changed),
        (Only::IfStill(_), Err(Error::NotFound)) => Err(Error::Changed),
        _ => root.put(path),
    }
}

fn file_path(place: &Place) -> Result<RelPath, Refused> {
    place.below_root().cloned().ok_or(Refused::File(Error::IsADirectory))
}

/// A file that is being written. Also what is left of it goes where it may wait.
struct Upload(Option<Put>);

impl Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Refused> {
        let mut put = self.0.take().ok_or(Refused::Failed)?;
        let (put, written) = spawn_blocking(move || {
            let written = put.write(&bytes);
            (put, written)
        })
        .await
        .map_err(|_| Refused::Failed)?;
        self.0 = Some(put);
        Ok(written?)
    }

    async fn finish(mut self, how: Finish) -> Result<Status, Refused> {
        let put = self.0.take().ok_or(Refused::Failed)?;
        aside(move || put.finish(how)).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(put), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(put));
        }
    }
}

/// Does what may wait for a file system in a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Refused> {
    spawn_blocking(act).await.map_err(|_| Refused::Failed)?.map_err(Refused::File)
}

async fn discard(mut body: Incoming) {
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(limits::DISCARD, reading).await;
}
