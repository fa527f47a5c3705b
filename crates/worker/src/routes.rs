//! Which request goes where: the one place that says so. A file below for each path.
//!
//! Invariant: whose request it is comes first; without a good ticket nobody learns which paths there are.

mod workspace;

use bytes::Bytes;
use http::{Method, Request};
use hyper::body::Body;
use portreeve_model::wire::worker::WORKSPACE;

use crate::process::Desk;
use crate::respond::{Answer, Refused};
use crate::ticket;

/// Answers.
pub(crate) async fn answer<B>(desk: &Desk, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    routed(desk, request).await.unwrap_or_else(Refused::answer)
}

async fn routed<B>(desk: &Desk, request: Request<B>) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let holder = {
        let (keys, ended) = (desk.keys.borrow(), desk.ended.borrow());
        ticket::holder(&mut parts.headers, keys.as_ref(), &ended, desk.uid, (desk.clock)())
    };
    let holder = holder.ok_or(Refused::Ticket)?;
    match (parts.uri.path(), &parts.method) {
        (WORKSPACE, &Method::POST) => workspace::page(desk, &holder, body).await,
        (WORKSPACE, _) => Err(Refused::Method { allowed: "POST" }),
        _ => Err(Refused::NotFound),
    }
}
