//! `/api/v1/files/PATH`: the file system as the person sees it, from its root down. A slash at the end means a directory: what is in
//! it, or a new one.
//!
//! | file | has |
//! | --- | --- |
//! | `listing` | what a directory holds, a window at a time |
//! | `changes` | moves, copies, removes, unpacks, permissions |
//! | `archive`, `unpack` | zip, out and in |
//! | `uploads` | a file in parts |
//! | `kept` | a file that is being written |
//! | `page` | the page *Files* |
//!
//! Invariant: what may be read and written the kernel decides, for this process has its person's rights; a file is written whole or
//! not at all; no thread waits for a browser; what is locked by WebDAV (`dav`) is locked here.

mod archive;
mod changes;
mod kept;
mod listing;
pub(super) mod page;
mod unpack;
pub(super) mod uploads;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
pub(crate) use listing::Snapshot;
use portreeve_dav::{Dav, Refusal};
use portreeve_files::address::segment;
use portreeve_files::{Address, Error, Finish, Identity, NewMode, Only, OpenFile, Put, RelPath};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;
pub(crate) use uploads::Uploads;

use self::changes::refused;
use self::kept::Kept;
use self::listing::Wish;
use super::Asked;
use crate::desk::Desk;
use crate::jobs::Hangs;
use crate::limits;
use crate::respond::{self, Answer, BrokeOff, Refused};
use crate::workspace::sentence;

/// The address of a file by its whole path.
pub(super) fn address(path: &str) -> String {
    path.split('/').fold("/api/v1/files".to_owned(), |address, name| match name {
        "" | "." => address,
        name => address + "/" + &segment(name.as_bytes()),
    })
}

fn parsed(address: &str) -> Result<Address, Refused> {
    Address::parse(address).map_err(|error| Refused::Unfit {
        why: format!("This is no address of a file: {error}."),
        fields: Vec::new(),
    })
}

/// Answers.
pub(super) async fn answer<B>(asked: &Asked<'_>, address: &str, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Address { path, slash } = parsed(address)?;
    match (&asked.method, path, slash) {
        (&Method::GET | &Method::HEAD, path, true) => {
            let wish = Wish::of(asked, limits::ENTRIES)?;
            if let Some(names) = chosen(asked)? {
                return zip(asked, path, names).await;
            }
            respond::json(&listing::window(asked, path, wish).await?)
        }
        (&Method::GET | &Method::HEAD, Some(path), false) => {
            Wish::of(asked, limits::ENTRIES)?; // a file has no use for it, and yet what makes no sense is said
            read(asked, path).await
        }
        (&Method::PUT, Some(path), false) => write(asked, path, body).await,
        (&Method::PUT, Some(path), true) => make(asked, path).await,
        (&Method::PUT, None, _) => Err(failed(&Error::Exists)),
        (&Method::POST, Some(path), _) => changes::change(asked, path, body).await,
        (&Method::DELETE, Some(path), _) => {
            changes::remove(asked, path).await?;
            Ok(respond::nothing())
        }
        (&Method::POST | &Method::DELETE, None, _) => Err(failed(&Error::Denied)),
        _ => Err(Refused::Method { allowed: "GET, HEAD, PUT, POST, DELETE" }),
    }
}

/// What is done with files, on a thread of its own.
async fn aside<T: Send + 'static>(
    asked: &Asked<'_>,
    act: impl FnOnce(&Dav) -> Result<T, Error> + Send + 'static,
) -> Result<T, Refused> {
    let dav = Arc::clone(&asked.desk.dav);
    match asked.desk.look(move || act(&dav)).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(why) => Err(hangs(why)),
    }
}

pub(super) fn hangs(_: Hangs) -> Refused {
    Refused::NotDone("The file system does not answer.".to_owned())
}

fn failed(error: &Error) -> Refused {
    let said = sentence(&error.to_string());
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
        | Error::Outside
        | Error::Apart => Refused::Conflict(said),
        Error::Unsupported(_) | Error::Io { .. } => {
            let cause = std::error::Error::source(error).map(|cause| sentence(&cause.to_string()));
            Refused::NotDone([said, cause.unwrap_or_default()].join(" ").trim_end().to_owned())
        }
    }
}

/// The names in a directory of which an archive is wanted, as they stand in addresses; an empty one is the directory itself.
fn chosen(asked: &Asked<'_>) -> Result<Option<Vec<RelPath>>, Refused> {
    let names = asked.all("zip");
    if names.is_empty() {
        return Ok(None);
    }
    let name = |text: &String| match parsed(text)?.path {
        Some(path) if path.parent().is_none() => Ok(path),
        _ => Err(Refused::NotUnderstood(
            "zip is a name in the directory, as it stands in an address.".to_owned(),
        )),
    };
    names.iter().filter(|text| !text.is_empty()).map(name).collect::<Result<_, _>>().map(Some)
}

/// An archive of these names in a directory, or of all of it.
async fn zip(asked: &Asked<'_>, directory: Option<RelPath>, names: Vec<RelPath>) -> Result<Answer, Refused> {
    let title = match (&names[..], &directory) {
        ([only], _) => only.name().to_owned(),
        (_, Some(directory)) => directory.name().to_owned(),
        (_, None) => "files".into(),
    };
    let paths = match (names.is_empty(), &directory) {
        (true, Some(directory)) => vec![directory.clone()],
        (true, None) => return Err(Refused::NotUnderstood("Choose what is to be in it.".to_owned())),
        (false, _) => {
            let below = names.iter().map(|name| below(directory.as_ref(), name));
            below.collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut archive = aside(asked, move |dav| archive::Archive::of(dav, &paths, limits::ARCHIVE)).await?;
    let pieces = match asked.method {
        Method::HEAD => mpsc::channel(1).1,
        _ => flow(asked.desk, move || archive.next()),
    };
    let mut answer = respond::stream("application/zip", pieces);
    let name = segment(title.as_encoded_bytes());
    let disposition = HeaderValue::try_from(format!("attachment; filename*=UTF-8''{name}.zip"));
    answer.headers_mut().insert(header::CONTENT_DISPOSITION, disposition.map_err(|_| Refused::Failed)?);
    Ok(answer)
}

/// What is made piece by piece, on a thread of its own, as fast as it is taken.
pub(super) fn flow<P, E>(
    desk: &Rc<Desk>,
    mut next: impl FnMut() -> Result<Option<P>, E> + Send + 'static,
) -> mpsc::Receiver<Result<Bytes, BrokeOff>>
where
    P: Into<Bytes> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let (taker, pieces) = mpsc::channel(1);
    let desk = Rc::clone(desk);
    spawn_local(async move {
        loop {
            let Ok((piece, back)) = desk.transfer(move || (next(), next)).await else { break };
            next = back;
            match piece {
                Ok(Some(piece)) => {
                    if taker.send(Ok(piece.into())).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "an answer broke off");
                    break;
                }
            }
        }
        let _ = taker.send(Err(BrokeOff)).await;
    });
    pieces
}

/// A name in a directory, or below the root.
fn below(directory: Option<&RelPath>, name: &RelPath) -> Result<RelPath, Refused> {
    RelPath::below(directory, name.as_bytes()).map_err(|_| failed(&Error::TooLong))
}

/// As WebDAV reads it: with ranges and conditions.
async fn read(asked: &Asked<'_>, path: RelPath) -> Result<Answer, Refused> {
    let question = asked.of_dav(portreeve_dav::address_of(&path));
    let dav = Arc::clone(&asked.desk.dav);
    match asked.desk.look(move || dav.read(&question)).await.map_err(hangs)? {
        Ok(reading) => Ok(sent(asked, reading)),
        // These have a form of their own.
        Err(refusal)
            if matches!(refusal.status, StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE) =>
        {
            Ok(said(refusal.answer()))
        }
        Err(refusal) if refusal.status == StatusCode::METHOD_NOT_ALLOWED => Err(Refused::Conflict(
            "It is a directory: a slash at the end of the address lists it, and `zip` packs what is in it."
                .to_owned(),
        )),
        Err(refusal) => Err(refused(refusal)),
    }
}

/// What is not there is the directory in which something was to be.
fn without_directory(why: Refused) -> Refused {
    match why {
        Refused::NoFile(_) => {
            Refused::NoFile("The directory in which it is to be does not exist: make it first.".to_owned())
        }
        other => other,
    }
}

/// In the words of WebDAV.
pub(super) fn said(answer: Response<Vec<u8>>) -> Answer {
    answer.map(|body| respond::Said::Whole(Some(body.into()).filter(|body: &Bytes| !body.is_empty())))
}

/// What was opened, on its way.
pub(super) fn sent(asked: &Asked<'_>, reading: portreeve_dav::Reading) -> Answer {
    let portreeve_dav::Reading { head, file, begin, length } = reading;
    let (sender, receiver) = mpsc::channel(1);
    if length > 0 {
        spawn_local(pieces(Rc::clone(asked.desk), file, begin, begin + length, sender));
    }
    head.map(|()| respond::Said::Stream(receiver))
}

/// What stands from one place to another, piece by piece, as fast as it is taken. Should there be less, or should it fail, the answer
/// breaks off.
async fn pieces(
    desk: Rc<Desk>,
    mut file: OpenFile,
    mut offset: u64,
    end: u64,
    taker: mpsc::Sender<Result<Bytes, BrokeOff>>,
) {
    while offset < end {
        let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(limits::PIECE);
        let piece = match desk.transfer(move || (file.piece(offset, most), file)).await {
            Ok((Ok(piece), back)) if !piece.bytes.is_empty() => {
                (file, offset) = (back, piece.end());
                piece.bytes
            }
            _ => {
                let _ = taker.send(Err(BrokeOff)).await;
                return;
            }
        };
        if taker.send(Ok(piece.into())).await.is_err() {
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
    let dav = Arc::clone(&asked.desk.dav);
    let made = asked.desk.transfer(move || {
        let (root, below) = dav.changeable(&path)?;
        Ok(root.make_dir(&below, 0o777)?)
    });
    made.await.map_err(hangs)?.map_err(refused).map_err(without_directory)?;
    Ok(respond::with_status(respond::nothing(), StatusCode::CREATED))
}

async fn write<B>(asked: &Asked<'_>, path: RelPath, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let only = only(asked)?;
    let begin = move |dav: &Dav| {
        let (root, below) = dav.changeable(&path)?;
        // Said before all of it came.
        if only == Only::IfAbsent && root.status(&below).is_ok() {
            return Err(Error::Exists.into());
        }
        Ok((root.put(&below)?, Finish { mode: NewMode::Kept, only }))
    };
    let written = written(asked.desk, body, begin, |put, finish| Ok(put.finish(finish)?));
    let status = written.await?.map_err(refused).map_err(without_directory)?;
    let code = if only == Only::IfAbsent { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    let mut answer = respond::with_status(respond::nothing(), code);
    answer.headers_mut().insert(header::ETAG, etag(&status.identity));
    Ok(answer)
}

/// Writes a whole file. What is short is written in one go: each step on another thread has its price.
pub(super) async fn written<B, K, T>(
    desk: &Desk,
    body: B,
    begin: impl FnOnce(&Dav) -> Result<(Put, K), Refusal> + Send + 'static,
    finish: impl FnOnce(Put, K) -> Result<T, Refusal> + Send + 'static,
) -> Result<Result<T, Refusal>, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    K: Send + 'static,
    T: Send + 'static,
{
    let dav = Arc::clone(&desk.dav);
    if body.size_hint().exact().is_some_and(|length| length < limits::PIECE as u64) {
        let (bytes, end) = gathered(&mut Box::pin(body)).await;
        end.unwrap_or(Err(Refused::Malformed))?;
        let written = desk.transfer(move || {
            let (mut put, kept) = begin(&dav)?;
            put.write(&bytes)?;
            finish(put, kept)
        });
        return written.await.map_err(hangs);
    }
    let (put, kept) = match desk.transfer(move || begin(&dav)).await.map_err(hangs)? {
        Ok(begun) => begun,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut put = Some(Kept::of(put));
    take(desk, &mut put, body, u64::MAX).await?;
    let put = put.ok_or(Refused::Failed)?;
    // There it is taken out: should nobody come to that, it is not dropped here.
    let finished = desk.transfer(move || put.into_put().map(|put| finish(put, kept)));
    finished.await.map_err(hangs)?.ok_or(Refused::Failed)
}

/// Writes a body of `most` bytes at most as it comes. Should it break off or come too late, what came is written all the same; should
/// it not be written, `put` is empty.
async fn take<B>(desk: &Desk, put: &mut Option<Kept>, body: B, most: u64) -> Result<(), Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = Box::pin(body);
    loop {
        let (piece, end) = gathered(&mut body).await;
        let there = put.as_ref().map_or(0, Kept::written);
        if there.saturating_add(piece.len() as u64) > most {
            return Err(too_much());
        }
        let mut writing = put.take().ok_or(Refused::Failed)?;
        let written = desk.transfer(move || writing.write(&piece).map(|()| writing)).await;
        *put = Some(written.map_err(hangs)?.map_err(|error| failed(&error))?);
        if let Some(end) = end {
            return end;
        }
    }
}

fn too_much() -> Refused {
    Refused::NotUnderstood("More came than was said.".to_owned())
}

/// A piece of a body, and how it ended if it is the last one.
async fn gathered<B>(body: &mut Pin<Box<B>>) -> (Bytes, Option<Result<(), Refused>>)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut piece = BytesMut::new();
    let mut end = None;
    while piece.len() < limits::PIECE && end.is_none() {
        match timeout(limits::UPLOAD_STALL, body.frame()).await {
            Ok(Some(Ok(frame))) => piece.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Ok(None) => end = Some(Ok(())),
            Ok(Some(Err(error))) => {
                tracing::debug!(error = &*error.into() as &dyn std::error::Error, "a file broke off");
                end = Some(Err(Refused::Malformed));
            }
            Err(_) => end = Some(Err(Refused::Late)),
        }
    }
    (piece.freeze(), end)
}
