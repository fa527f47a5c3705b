//! `/dav/PATH`: WebDAV. What it means is `portreeve-dav`'s to say; here its threads and bodies are.
//!
//! Invariant: no thread waits for a client; what changes something comes from a program, or from our own page.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use hyper::body::Body;
use portreeve_dav::Listing;
pub(super) use portreeve_dav::PREFIX;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::Asked;
use super::files::{hangs, said as refused, sent, take};
use crate::body::whole;
use crate::desk::Desk;
use crate::respond::{Answer, BrokeOff, Refused, Said};
use crate::visit::may_change;

/// Answers. An error of ours is told as one of a program's.
pub(super) async fn answer<B>(asked: &Asked<'_>, path: &str, body: B) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    answered(asked, path, body).await.unwrap_or_else(Refused::answer)
}

async fn answered<B>(asked: &Asked<'_>, path: &str, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let question = portreeve_dav::Asked {
        method: asked.method.clone(),
        path: path.to_owned(),
        headers: asked.headers.clone(),
        origin: asked.visit.origin.clone(),
    };
    if !matches!(asked.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PROPFIND") {
        may_change(&asked.visit, None)?;
    }
    let dav = Arc::clone(&asked.desk.dav);
    match asked.method {
        Method::GET | Method::HEAD => {
            let read = asked.desk.transfer(move || dav.read(&question)).await.map_err(hangs)?;
            Ok(read.map_or_else(refused, |reading| sent(asked, reading)))
        }
        Method::PUT => {
            let begun = asked.desk.transfer(move || dav.write(&question)).await.map_err(hangs)?;
            let (put, writing) = match begun {
                Ok(begun) => begun,
                Err(refusal) => return Ok(refused(refusal)),
            };
            let mut put = Some(put);
            take(asked.desk, &mut put, body, u64::MAX).await?;
            let put = put.ok_or(Refused::Failed)?;
            let done = asked.desk.transfer(move || writing.finish(put)).await.map_err(hangs)?;
            Ok(done.map_or_else(refused, said))
        }
        _ => {
            let body = whole(body, portreeve_dav::limits::XML).await?;
            // To copy, move or remove a tree takes as long as it takes.
            let is_long = matches!(asked.method.as_str(), "COPY" | "MOVE" | "DELETE");
            let act = move || dav.answer(&question, &body);
            let done = if is_long { asked.desk.at_length(act).await } else { asked.desk.transfer(act).await };
            let done = done.map_err(hangs)?;
            Ok(match done {
                portreeve_dav::Answer::Whole(answer) => said(answer),
                portreeve_dav::Answer::Listing(head, listing) => {
                    let (sender, receiver) = mpsc::channel(1);
                    spawn_local(entries(Rc::clone(asked.desk), listing, sender));
                    head.map(|()| Said::Stream(receiver))
                }
            })
        }
    }
}

fn said(answer: Response<Vec<u8>>) -> Answer {
    answer.map(|body| Said::Whole(Some(body.into()).filter(|body: &Bytes| !body.is_empty())))
}

/// A listing, piece by piece, as fast as it is taken.
async fn entries(desk: Rc<Desk>, mut listing: Box<Listing>, taker: mpsc::Sender<Result<Bytes, BrokeOff>>) {
    loop {
        let dav = Arc::clone(&desk.dav);
        let piece = match desk.transfer(move || (listing.next(&dav), listing)).await {
            Ok((Ok(None), _)) => return,
            Ok((Ok(Some(piece)), back)) => {
                listing = back;
                Ok(piece.into())
            }
            Ok((Err(_), _)) | Err(_) => {
                let _ = taker.send(Err(BrokeOff)).await;
                return;
            }
        };
        if taker.send(piece).await.is_err() {
            return;
        }
    }
}
