//! The workspace's pages and `/api/v1/`: made by the visitor's own worker, which is told who reads and how addresses look from here.
//!
//! Invariant: an application that shares the portal's origin gets none of them, and changes nothing: a script shows the page's
//! secret, a form carries it (the worker looks), a program has no origin. Of the worker's answer only named fields go out.

use std::rc::Rc;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use portreeve_model::wire::worker::{self, MAX_BODY, NodeView, Nodes, Visit};
use portreeve_model::{Scope, Secret};
use tokio::time::timeout;

use super::origins::{self, Reader};
use super::{query, shown};
use crate::answer::Answer;
use crate::authenticate::Principal;
use crate::fetch::Fetch;
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::limits;
use crate::powers::{Sent, WorkerError, Workers};
use crate::reject::Reject;
use crate::respond;
use crate::sessions::Sort;
use crate::site::Site;

const TICKET: HeaderName = HeaderName::from_static(worker::TICKET);
const VISIT: HeaderName = HeaderName::from_static(worker::VISIT);
const PAGE: HeaderName = HeaderName::from_static(worker::PAGE);

/// Files: what is written comes through as it comes.
const FILES: &str = "/api/v1/files/";
/// Files in parts.
const UPLOADS: &str = "/api/v1/uploads";

/// Where a page is told that something changed, for as long as it is open.
const EVENTS: &str = "/api/v1/events";

/// What a worker is told of a request's fields.
const SAID: [HeaderName; 3] = [header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH];

/// The same where the request is about files.
const SAID_OF_FILES: [HeaderName; 12] = [
    header::CONTENT_RANGE,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    HeaderName::from_static("depth"),
    HeaderName::from_static("destination"),
    HeaderName::from_static("if"),
    HeaderName::from_static("lock-token"),
    HeaderName::from_static("overwrite"),
    HeaderName::from_static("timeout"),
    HeaderName::from_static("x-expected-entity-length"),
];

/// What goes out of a worker's answer.
const FIELDS: [HeaderName; 14] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::ALLOW,
    header::ACCEPT_RANGES,
    header::CONTENT_RANGE,
    HeaderName::from_static("dav"),
    HeaderName::from_static("lock-token"),
    HeaderName::from_static("ms-author-via"),
    HeaderName::from_static("x-portreeve-next"),
    HeaderName::from_static("x-portreeve-end"),
];

/// Whether the worker answers this path of the portal's own origin.
pub(crate) fn is_its(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    path == "/"
        || path.starts_with("/api/v1/")
        || matches!(first, "apps" | "dav" | "files" | "jobs" | "history")
}

/// The worker's answer.
pub(crate) async fn answer(
    connection: &Rc<Connection>,
    site: &Site,
    who: &Principal,
    parts: &Parts,
    body: FrontBody,
) -> Result<Response<Answer>, Reject> {
    let session = who.session();
    let path = parts.uri.path();
    let is_first = path == "/";
    let is_dav = portreeve_worker::is_dav(path);
    let is_file = is_dav || path.starts_with(FILES);
    let is_of_files = is_file || path == FILES.trim_end_matches('/') || path.starts_with(UPLOADS);
    if is_of_files {
        who.require(Scope::Files)?;
    } else if path.starts_with("/api/") {
        who.require(Scope::Api)?;
    } else {
        who.require_person()?;
    }
    let reads = matches!(parts.method, Method::GET | Method::HEAD)
        || (is_dav && matches!(parts.method.as_str(), "OPTIONS" | "PROPFIND"));
    if is_first && !reads {
        return Err(Reject::Method("GET, HEAD"));
    }
    // A file is written as it comes.
    let writes = parts.method == Method::PUT && is_of_files;
    // What changes a tree, and the last step of a file, takes as long as the disk does.
    let patience = match is_of_files || path.starts_with("/files/") {
        true if writes => connection.room.portal.settings.load().config.limits.response_head,
        true if !reads => limits::WORKER_CHANGE,
        _ => limits::WORKER_ANSWER,
    };
    let reader = reader(site, who, parts, reads)?;
    let sort = match path {
        _ if is_of_files => Sort::File,
        EVENTS => Sort::Watcher,
        _ => Sort::Page,
    };
    let place = session.begin_own(sort).ok_or(Reject::TooMany)?;
    let room = &connection.room;
    let visit = Visit {
        user: session.user.clone(),
        origin: format!("https://{}", site.authority),
        own_origins: shown::own_origins(connection, site),
        shared_origin: shown::shared_origin(&room.portal, site),
        modes: session.modes(),
        page_secret: session.page_secret().map(Secret::new),
        reader,
    };
    let visit = serde_json::to_vec(&visit).map_err(|error| WorkerError::Question(error.into()))?;
    let visit = HeaderValue::try_from(BASE64URL_NOPAD.encode(&visit))
        .map_err(|error| WorkerError::Question(error.into()))?;
    let ticket = Workers::ticket(session)?;
    let request = || {
        let mut request = Request::new(());
        *request.method_mut() = if is_first { Method::POST } else { parts.method.clone() };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = (if is_first { worker::WORKSPACE } else { target }).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("worker"));
        for name in SAID.iter().chain(SAID_OF_FILES.iter().filter(|_| is_file)) {
            if let Some(value) = parts.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(TICKET, ticket.clone());
        headers.insert(VISIT, visit.clone());
        request
    };
    let workers = room.powers.workers();
    let (answered, kept) = if writes {
        workers.send(session, request(), body, patience).await?
    } else {
        let body = if is_first { nodes(connection, site, who, parts).await? } else { whole(body).await? };
        let asked = || request().map(|()| Sent::Whole(Some(body.clone()).filter(|body| !body.is_empty())));
        workers.ask(session, asked, reads, patience).await?
    };
    let (head, incoming) = answered.into_parts();
    // Its own pages never say these: then it is not told what it must be told.
    if matches!(head.status, StatusCode::UNAUTHORIZED | StatusCode::SWITCHING_PROTOCOLS)
        || head.status.is_informational()
    {
        return Err(WorkerError::Status(head.status).into());
    }
    let mut response =
        Response::new(Answer::of_worker(incoming, kept, Rc::clone(room), session.clone(), place));
    *response.status_mut() = head.status;
    *response.headers_mut() = going_out(head.headers, is_of_files);
    Ok(response)
}

/// What goes out of the fields that a worker's answer has, with what keeps it from being more than it is.
fn going_out(mut said: HeaderMap, is_of_files: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in FIELDS {
        if let Some(value) = said.remove(&name) {
            headers.insert(name, value);
        }
    }
    // Nothing of a user's file is a page of ours, whatever the worker calls it, and it leads nowhere.
    if is_of_files {
        headers.remove(header::LOCATION);
    }
    let is_page = !is_of_files
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_page {
        respond::guard(&mut headers);
    } else {
        respond::guard_data(&mut headers);
    }
    headers
}

/// Who reads it, if they may.
fn reader(site: &Site, who: &Principal, parts: &Parts, reads: bool) -> Result<worker::Reader, Reject> {
    let headers = &parts.headers;
    let shows_secret = match (headers.get(&PAGE), who.session().page_secret()) {
        (Some(shown), Some(secret)) => shown == secret.as_str(),
        _ => false,
    };
    if shows_secret {
        origins::require_own_origin(site, parts)?;
        return Ok(worker::Reader::Script);
    }
    origins::refuse_pages_of_applications(site, parts)?;
    let fetch = Fetch::of(headers);
    match Reader::of(fetch) {
        Reader::Window => {
            if !reads {
                origins::require_own_origin(site, parts)?;
            }
            Ok(worker::Reader::Window)
        }
        Reader::Page => Err(Reject::ForWindows),
        // A browser that does not say what it is says at least its origin with what changes something; it may be an application's
        // page, and needs a form of ours.
        Reader::Program if !reads && (headers.contains_key(header::ORIGIN) || fetch.is_foreign.is_some()) => {
            Ok(worker::Reader::Window)
        }
        Reader::Program if respond::wants_page(&parts.method, headers, fetch) => Ok(worker::Reader::Window),
        Reader::Program => Ok(worker::Reader::Program),
    }
}

async fn whole(body: FrontBody) -> Result<Bytes, Reject> {
    // What is announced is refused before it comes.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Reject::TooLarge);
    }
    match timeout(limits::REQUEST_HEAD, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Reject::TooLarge),
        Ok(Err(_)) => Err(Reject::BadRequest("its body was cut off")),
        Err(_) => Err(Reject::Late),
    }
}

/// What the first page shows beside what the worker knows.
async fn nodes(
    connection: &Connection,
    site: &Site,
    who: &Principal,
    parts: &Parts,
) -> Result<Bytes, Reject> {
    let portal = &connection.room.portal;
    let mut shown = Nodes {
        own_port: site.port.map(portreeve_model::Port::get),
        not_understood: query(parts, "unknown-address"),
        nodes: None,
    };
    if portal.service.is_a_cluster() {
        let found: Vec<NodeView> = connection.room.powers.nodes_view(who.session().uid).await.to_vec();
        shown.nodes = Some(found);
    }
    let text = |shown: &Nodes| serde_json::to_vec(shown).map_err(|error| WorkerError::Question(error.into()));
    let mut json = text(&shown)?;
    // Somebody with so much listening sees the first nodes.
    while json.len() > MAX_BODY
        && let Some(nodes) = shown.nodes.as_mut().filter(|nodes| !nodes.is_empty())
    {
        nodes.truncate(nodes.len() / 2);
        json = text(&shown)?;
    }
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::powers::StateDir;
    use crate::reject::Form;

    /// What a browser gets of an answer in which a worker says all that it should not.
    fn seen(kind: Option<&'static str>, is_of_files: bool, form: Form) -> Vec<(String, String)> {
        let mut said = HeaderMap::new();
        for (name, value) in [
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-origin", "https://elsewhere.example"),
            ("alt-svc", "h3=\"elsewhere.example:443\""),
            ("cache-control", "public, max-age=31536000"),
            ("clear-site-data", "\"*\""),
            ("content-disposition", "inline"),
            ("content-encoding", "gzip"),
            ("content-security-policy", "script-src * 'unsafe-inline'"),
            ("cross-origin-opener-policy", "unsafe-none"),
            ("etag", "\"1\""),
            ("link", "<https://elsewhere.example/x.css>; rel=stylesheet"),
            ("location", "https://elsewhere.example/"),
            ("referrer-policy", "unsafe-url"),
            ("refresh", "0; url=https://elsewhere.example/"),
            ("service-worker-allowed", "/"),
            ("set-cookie", "__Host-portreeve=stolen; Path=/; Secure"),
            ("set-cookie", "other=1"),
            ("strict-transport-security", "max-age=0"),
            ("www-authenticate", "Basic"),
            ("x-content-type-options", "none"),
            ("x-frame-options", "ALLOWALL"),
            ("x-portreeve-error", "made-up"),
        ] {
            said.append(name, HeaderValue::from_static(value));
        }
        if let Some(kind) = kind {
            said.append(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            said.append(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        }
        let mut response = Response::new(Answer::empty());
        *response.headers_mut() = going_out(said, is_of_files);
        respond::complete(&mut response, &HeaderValue::from_static("the policy of pages"), form);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut seen: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        seen.sort();
        seen
    }

    /// These, and those that every answer has, in their order.
    fn with(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let always = [
            ("cache-control", "no-store"),
            ("content-disposition", "inline"),
            ("cross-origin-opener-policy", "same-origin"),
            ("etag", "\"1\""),
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
        ];
        let mut all: Vec<_> =
            always.iter().chain(fields).map(|(name, value)| ((*name).into(), (*value).into())).collect();
        all.sort();
        all
    }

    const SANDBOX: (&str, &str) = ("content-security-policy", "default-src 'none'; sandbox");
    const ELSEWHERE: (&str, &str) = ("location", "https://elsewhere.example/");

    #[test]
    fn of_a_file_only_named_fields_go_out_and_it_is_no_page() {
        for kind in ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "image/svg+xml"] {
            let expected = with(&[SANDBOX, ("content-type", kind)]);
            assert_eq!(seen(Some(kind), true, Form::Up(StateDir::Usual)), expected, "{kind}");
            let expected =
                with(&[SANDBOX, ("content-type", kind), ("strict-transport-security", "max-age=31536000")]);
            assert_eq!(seen(Some(kind), true, Form::Cluster), expected, "{kind}");
        }
        assert_eq!(seen(None, true, Form::Up(StateDir::Usual)), with(&[SANDBOX]));
    }

    #[test]
    fn a_page_of_the_workers_has_the_policy_of_pages_and_all_else_a_sandbox() {
        let page = with(&[
            ("content-security-policy", "the policy of pages"),
            ("content-type", "text/html; charset=utf-8"),
            ELSEWHERE,
            ("x-frame-options", "DENY"),
        ]);
        assert_eq!(seen(Some("text/html;charset=utf-7"), false, Form::Up(StateDir::Usual)), page);
        for kind in ["TEXT/HTML", "application/xhtml+xml", "text/plain"] {
            let expected = with(&[SANDBOX, ("content-type", kind), ELSEWHERE]);
            assert_eq!(seen(Some(kind), false, Form::Up(StateDir::Usual)), expected, "{kind}");
        }
        assert_eq!(seen(None, false, Form::Up(StateDir::Usual)), with(&[SANDBOX, ELSEWHERE]));
    }
}
