//! `/dav/PATH`: WebDAV. What it means is `portreeve-dav`'s to say; here its threads and bodies are.
//!
//! Invariant: no thread waits for a client; what changes something comes from a program, or from our own page.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use hyper::body::Body;
use portreeve_dav::Dav;

use super::Asked;
use super::files::{flow, hangs, said, sent, written};
use crate::body::whole;
use crate::respond::{Answer, Refused, Said};
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
    let question = asked.of_dav(path.to_owned());
    if !matches!(asked.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PROPFIND") {
        may_change(&asked.visit, None)?;
    }
    let dav = Arc::clone(&asked.desk.dav);
    match asked.method {
        Method::GET | Method::HEAD => {
            let read = asked.desk.look(move || dav.read(&question)).await.map_err(hangs)?;
            Ok(read.map_or_else(|refusal| said(refusal.answer()), |reading| sent(asked, reading)))
        }
        Method::PUT => {
            let begin = move |dav: &Dav| dav.write(&question);
            let done = written(asked.desk, body, begin, |put, writing| writing.finish(put)).await?;
            Ok(said(done.unwrap_or_else(|refusal| refusal.answer())))
        }
        _ => {
            let body = whole(body, portreeve_dav::limits::XML).await?;
            // To copy, move or remove a tree takes as long as it takes.
            let is_long = matches!(asked.method.as_str(), "COPY" | "MOVE" | "DELETE");
            let act = move || dav.answer(&question, &body);
            let done = if is_long { asked.desk.at_length(act).await } else { asked.desk.look(act).await };
            let done = done.map_err(hangs)?;
            Ok(match done {
                portreeve_dav::Answer::Whole(answer) => said(answer),
                portreeve_dav::Answer::Listing(head, mut listing) => {
                    let dav = Arc::clone(&asked.desk.dav);
                    let entries = flow(asked.desk, move || listing.next(&dav));
                    head.map(|()| Said::Stream(entries))
                }
            })
        }
    }
}
