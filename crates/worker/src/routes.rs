//! Which request goes where: the one place that says so. A file below for each group of addresses.
//!
//! | address | file |
//! | --- | --- |
//! | `POST /workspace` | `workspace`: the first page; the portal says in the body what listens on the nodes |
//! | `/apps/NAME` | `apps`: an application's form |
//! | `/jobs`, `/jobs/ID`, `/jobs/ID/open`, `/jobs/ID/output` | `jobs`: the queue, one job |
//! | `/history` | `history`: all that ever were |
//! | `/history/shared`, `/history/shared/ID` | `shared`: what others show |
//! | `/api/v1/...` | `api`: the same for programs |
//! | `/api/v1/files/PATH` | `files`: reads, lists and writes |
//! | `/api/v1/uploads` | `files/uploads`: a file in parts |
//! | `/files/PATH` | `files/page`: the page *Files* |
//! | `/dav/PATH` | `dav`: WebDAV |
//! | `/api/v1/events` | `events`: told when something changes |
//!
//! Invariant: whose request it is comes first; without a good ticket nobody learns which paths there are.

mod api;
mod apps;
mod dav;
mod events;
mod files;
mod history;
mod jobs;
mod shared;
mod workspace;

pub(crate) use files::{Snapshot, Uploads};
pub(crate) use jobs::word;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use hyper::body::Body;
use portreeve_jobs::EntryId;
use portreeve_model::NodePort;
use portreeve_model::wire::worker::{Visit, WORKSPACE};

use std::rc::Rc;

use crate::body;
use crate::desk::Desk;
use crate::respond::{Answer, Refused};
use crate::ticket::{self, Holder};
use crate::visit;
use crate::workspace::links::Links;

/// A request, as far as it is known without its body.
pub(crate) struct Asked<'d> {
    pub(crate) desk: &'d Rc<Desk>,
    pub(crate) visit: Visit,
    pub(crate) method: Method,
    pub(crate) query: String,
    /// It says that its body is JSON, or says nothing.
    pub(crate) sends_json: bool,
    /// All that it says beside its body.
    pub(crate) headers: HeaderMap,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
}

impl Asked<'_> {
    /// The same, asked of WebDAV.
    fn of_dav(&self, path: String) -> portreeve_dav::Asked {
        portreeve_dav::Asked {
            method: self.method.clone(),
            path,
            headers: self.headers.clone(),
            origin: self.visit.origin.clone(),
        }
    }
}

/// Answers.
pub(crate) async fn answer<B>(desk: &Rc<Desk>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let holder = {
        let (keys, ended) = (desk.keys.borrow(), desk.ended.borrow());
        ticket::holder(&mut parts.headers, keys.as_ref(), &ended, desk.uid, (desk.clock)())
    };
    let Some(holder) = holder else { return Refused::Ticket.answer() };
    let visit = match visit::take(&mut parts.headers, &holder) {
        Ok(visit) => visit,
        Err(why) => return why.answer(),
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let field = |name| {
        let value = parts.headers.get(name);
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let asked = Asked {
        desk,
        visit,
        sends_json: field(header::CONTENT_TYPE).is_none_or(|kind| is_json(&kind)),
        if_match: field(header::IF_MATCH),
        if_none_match: field(header::IF_NONE_MATCH),
        method: parts.method,
        headers: parts.headers,
        query,
    };
    let path = parts.uri.path();
    if portreeve_dav::is_address(path) {
        return dav::answer(&asked, path, body).await;
    }
    let is_api = path.starts_with("/api/");
    match routed(&asked, path, &holder, body).await {
        Ok(answer) => answer,
        Err(why) if is_api => why.answer(),
        Err(why) => why.shown(&asked.visit),
    }
}

async fn routed<B>(asked: &Asked<'_>, path: &str, holder: &Holder, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(rest) = path.strip_prefix("/api/v1/") {
        // Whether a token is good for that was the portal's to judge.
        return api::answer(asked, rest, body).await;
    }
    // Pages are for browsers.
    if !holder.is_a_person() {
        return Err(Refused::Ticket);
    }
    if let Some(address) = path.strip_prefix("/files/") {
        return match asked.method {
            Method::GET | Method::HEAD => files::page::show(asked, address).await,
            Method::POST => files::page::act(asked, address, body::form(body).await?).await,
            _ => Err(Refused::Method { allowed: "GET, HEAD, POST" }),
        };
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (&segments[..], &asked.method) {
        _ if path == WORKSPACE && asked.method == Method::POST => {
            workspace::page(asked, body::json(body).await?).await
        }
        _ if path == WORKSPACE => Err(Refused::Method { allowed: "POST" }),
        (["files"], &Method::GET | &Method::HEAD) => files::page::home(asked),
        (["apps", name], &Method::GET | &Method::HEAD) => apps::form(asked, name).await,
        (["apps", name], &Method::POST) => apps::start(asked, name, body::form(body).await?).await,
        (["jobs"], &Method::GET | &Method::HEAD) => jobs::queue(asked).await,
        (["jobs"], &Method::POST) => jobs::cancel_in_slurm(asked, body::form(body).await?).await,
        (["jobs", id], &Method::GET | &Method::HEAD) => jobs::page(asked, &parsed(id)?).await,
        (["jobs", id], &Method::POST) => jobs::change(asked, &parsed(id)?, body::form(body).await?).await,
        (["jobs", id, "open"], &Method::GET | &Method::HEAD) => jobs::open(asked, &parsed(id)?).await,
        (["jobs", id, "output"], &Method::GET | &Method::HEAD) => jobs::output(asked, &parsed(id)?).await,
        (["history"], &Method::GET | &Method::HEAD) => history::page(asked).await,
        (["history", "shared"], &Method::GET | &Method::HEAD) => shared::list(asked).await,
        (["history", "shared", id], &Method::GET | &Method::HEAD) => shared::page(asked, &parsed(id)?).await,
        (["history", "shared", id, "output"], &Method::GET | &Method::HEAD) => {
            shared::output(asked, &parsed(id)?).await
        }
        (["apps", _] | ["jobs"] | ["jobs", _], _) => Err(Refused::Method { allowed: "GET, HEAD, POST" }),
        (["jobs", _, "open" | "output"] | ["history", ..], _) => {
            Err(Refused::Method { allowed: "GET, HEAD" })
        }
        _ => Err(Refused::NotFound),
    }
}

fn is_json(kind: &str) -> bool {
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn parsed(id: &str) -> Result<EntryId, Refused> {
    EntryId::parse(id).ok_or(Refused::NotFound)
}

/// The address of a port on a node, with a slash at its end, as it looks from there.
pub(crate) fn address(visit: &Visit, uid: u32, node: &str, port: u16) -> Option<String> {
    let place = NodePort::parse(&format!("{node}:{port}")).ok()?;
    Links::new(visit, uid).port(Some(&place)).link
}

impl Asked<'_> {
    /// What stands in our own pages' forms and scripts; empty: there is none.
    pub(crate) fn page_secret(&self) -> String {
        self.visit.page_secret.as_ref().map(|secret| secret.reveal().to_owned()).unwrap_or_default()
    }

    /// The decoded value of a parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.said(name).filter(|value| !value.is_empty())
    }

    /// All values of a parameter of the query.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// The same, also if it is empty.
    pub(crate) fn said(&self, name: &str) -> Option<String> {
        let found = form_urlencoded::parse(self.query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    }
}
