//! Which request goes where: the one place that says so. A file below for each path.
//!
//! Invariants: whether it shows the token comes first; without, nobody learns which paths there are. No answer names a
//! path but relative to the request's: where the portal shows this server is not known here.

mod assets;
mod file;
mod files;
mod page;
mod socket;

use std::rc::Rc;

use http::{Method, Request};
use hyper::body::Incoming;

use crate::access;
use crate::desk::Desk;
use crate::respond::{self, Answer, Refused};

/// Answers.
pub(crate) async fn answer(desk: &Rc<Desk>, request: Request<Incoming>) -> Answer {
    routed(desk, request).await.unwrap_or_else(Refused::answer)
}

async fn routed(desk: &Rc<Desk>, request: Request<Incoming>) -> Result<Answer, Refused> {
    let path = request.uri().path().trim_start_matches('/');
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if path.is_empty() && reads && access::shows_token(request.uri(), &desk.settings.token) {
        let name = access::cookie_name(desk.port);
        let cookie = format!("{name}={}", desk.settings.token.reveal());
        return respond::let_in(&cookie, access::is_by_tls(request.headers()));
    }
    let admitted = access::admit(request.headers(), &desk.settings, desk.port).ok_or(Refused::Token)?;
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let keeper = || admitted.keeper().ok_or(Refused::Looks);
    match (first, rest) {
        ("file", "") => file::file(&admitted, &keeper()?, desk, request).await,
        _ if !reads => Err(Refused::Method("GET, HEAD")),
        ("files", "") => files::files(&keeper()?, desk, request.uri()).await,
        ("", "") => page::page(&admitted, &desk.settings),
        ("ws", "") => socket::open(&admitted, desk, request),
        ("assets", name) => assets::asset(&admitted, name),
        _ => Err(Refused::NotFound),
    }
}
