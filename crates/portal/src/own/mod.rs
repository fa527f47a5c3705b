//! What the portal answers itself: `/-/...`; and the workspace, which the visitor's worker makes (`workspace.rs`).
//!
//! | address | what |
//! | --- | --- |
//! | `/-/sign-in` | says how to sign in; takes a code by hand; on a cluster, PAM's questions and their answers |
//! | `/-/enter?code=` | takes a code: a new session, or entry to an application's own origin |
//! | `/-/listening` | what the signed-in person has listening on each node, for programs |
//! | `/-/open?host=` | hands a signed-in browser such an entry code |
//! | `/-/consent?next=` | asks whether somebody else's application may be shown beside one's own |
//! | `/-/mode?path=` | says how an application gets its paths, and why |
//! | `/-/sign-out` | ends the session everywhere |
//! | `/-/go?address=` | opens the application whose address was typed |
//! | `/-/rewrite.js` | the script that goes into applications' pages below a prefix |
//! | `/-/health` | says that the portal answers |
//! | `OPTIONS /` | says to programs that WebDAV is spoken |
//!
//! Invariant: what changes something is asked for by our own page, or by no page at all.

mod attempts;
mod consent;
mod conversation;
mod enter;
mod listening;
mod mode;
pub(crate) mod next;
mod open;
pub(crate) mod origins;
pub(crate) mod shown;
mod sign_in;
pub(crate) mod workspace;

use std::rc::Rc;
use std::sync::Arc;

pub(crate) use attempts::Attempts;
pub(crate) use enter::{gone, renewed_cookie};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
pub(crate) use sign_in::ask_to_sign_in;

use crate::answer::Answer;
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::portal::Settings;
use crate::reject::Reject;
use crate::respond;
use crate::rewrite;
use crate::route::RouteError;
use crate::site::{Origin, Site};
use crate::token;

/// Whether the portal answers this path itself. An application's own origin lends us one address only.
pub(crate) fn is_ours(site: &Site, path: &str) -> bool {
    match site.origin {
        Origin::Portal => path.starts_with("/-/"),
        Origin::Applications => path.starts_with("/-/") || path == "/",
        Origin::Application { .. } => path == "/-/enter",
    }
}

/// Whether a program asks at the root what is spoken here. Windows does, before it asks for anything below `/dav/`, and goes no further
/// where it is not told; it has no password to show by then.
pub(crate) fn asks_for_webdav(site: &Site, parts: &Parts) -> bool {
    site.origin == Origin::Portal
        && parts.method == Method::OPTIONS
        && parts.uri.path() == "/"
        && !token::is_of_a_browser(parts)
}

/// The answer, which tells nothing but what this program is.
pub(crate) fn webdav() -> Response<Answer> {
    let mut response = Response::new(Answer::from(String::new()));
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    headers.insert("dav", HeaderValue::from_static("1, 2, 3"));
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    response
}

/// Answers `/-/...`.
pub(crate) async fn answer(
    connection: &Rc<Connection>,
    settings: &Arc<Settings>,
    site: &Site,
    parts: &Parts,
    body: FrontBody,
) -> Result<Response<Answer>, Reject> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let path = parts.uri.path();
    match path {
        rewrite::SCRIPT_PATH if reads => return Ok(rewrite::script()),
        rewrite::SCRIPT_PATH => return Err(Reject::Method("GET, HEAD")),
        _ => {}
    }
    if site.origin != Origin::Portal {
        return match path {
            "/-/enter" => enter::enter_application(connection, site, parts).await,
            "/" => Ok(respond::see_other(&shown::portal_origin(&connection.room.portal, site))),
            _ => Err(RouteError::NotFound.into()),
        };
    }
    // A page that waits for an application asks with HEAD whether there is something to open.
    let waits = parts.method == Method::HEAD && matches!(path, "/-/open" | "/-/consent");
    if path != "/-/health" && !waits {
        origins::refuse_pages_of_applications(site, parts)?;
    }
    match path {
        "/-/enter" => enter::enter(connection, site, parts, body).await,
        "/-/sign-in" if reads => sign_in::page(connection, parts),
        "/-/sign-in" if parts.method == Method::POST && connection.room.portal.service.is_a_cluster() => {
            conversation::post(connection, site, parts, body).await
        }
        "/-/listening" if reads => listening::answer(connection, settings, site, parts).await,
        "/-/sign-out" => enter::sign_out(connection, settings, site, parts).await,
        "/-/open" if reads => open::open(connection, settings, site, parts).await,
        "/-/consent" => consent::consent(connection, settings, site, parts, body).await,
        "/-/mode" if reads => mode::answer(connection, settings, site, parts).await,
        "/-/go" if reads => {
            let here = !connection.room.portal.service.is_a_cluster();
            Ok(go(parts, &format!("https://{}", site.authority), here))
        }
        "/-/health" if reads => {
            let mut response = Response::new(Answer::from("ok\n".to_owned()));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            Ok(response)
        }
        "/-/sign-in" if connection.room.portal.service.is_a_cluster() => {
            Err(Reject::Method("GET, HEAD, POST"))
        }
        "/-/sign-in" | "/-/open" | "/-/go" | "/-/health" | "/-/listening" | "/-/mode" => {
            Err(Reject::Method("GET, HEAD"))
        }
        _ => Err(RouteError::NotFound.into()),
    }
}

/// Opens what was typed into the workspace's field. `ours` is the portal's own origin; `here`: a port alone is one of this
/// machine's.
pub(crate) fn go(parts: &Parts, ours: &str, here: bool) -> Response<Answer> {
    let typed = query(parts, "address").unwrap_or_default();
    respond::see_other(&place(typed.trim(), ours, here))
}

/// The path for what somebody typed: `host:port`, a port, a forward's name, or a whole address, `ours` among them.
fn place(typed: &str, ours: &str, here: bool) -> String {
    let unknown = || format!("/?unknown-address={}", sign_in::encoded(typed));
    if let Some(path) = typed.strip_prefix(ours).filter(|path| path.starts_with('/')) {
        return next::checked(path).map_or_else(unknown, str::to_owned);
    }
    let bare = typed.strip_prefix("http://").unwrap_or(typed);
    let (name, rest) = match bare.find('/') {
        Some(at) if at > 0 => bare.split_at(at),
        _ => (bare, "/"),
    };
    let prefix = if let Ok(direct) = portreeve_model::NodePort::parse(name) {
        format!("/fw2/{direct}")
    } else if let Ok(port) = portreeve_model::Port::parse(name) {
        if !here {
            return unknown();
        }
        format!("/fw2/localhost:{port}")
    } else if let Ok(forward) = portreeve_model::ForwardName::parse(name) {
        format!("/fw/{forward}")
    } else {
        return unknown();
    };
    // What an application prints that was started with the prefix as its base URL has it already.
    let rest = rest.strip_prefix(&prefix).filter(|inner| inner.starts_with('/')).unwrap_or(rest);
    let whole = format!("{prefix}{rest}");
    next::checked(&whole).map_or_else(unknown, str::to_owned)
}

/// The decoded value of a query parameter.
fn query(parts: &Parts, name: &str) -> Option<String> {
    parameter(parts.uri.query().unwrap_or_default(), name)
}

/// The decoded value of one parameter of a query or form (application/x-www-form-urlencoded).
fn parameter(encoded: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(encoded.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn what_people_type() {
        for (typed, path) in [
            ("8888", "/fw2/localhost:8888/"),
            ("localhost:8888", "/fw2/localhost:8888/"),
            ("http://localhost:8888/lab?x=1", "/fw2/localhost:8888/lab?x=1"),
            ("http://localhost:8888/fw2/localhost:8888/lab?token=1", "/fw2/localhost:8888/lab?token=1"),
            ("alice-tb", "/fw/alice-tb/"),
            ("https://portal:8443/fw/alice-tb/", "/fw/alice-tb/"),
            (
                "https://portal:8443/-/sign-out",
                "/?unknown-address=https%3A%2F%2Fportal%3A8443%2F%2D%2Fsign%2Dout",
            ),
            ("https://elsewhere/", "/?unknown-address=https%3A%2F%2Felsewhere%2F"),
            ("//evil", "/?unknown-address=%2F%2Fevil"),
            ("", "/?unknown-address="),
        ] {
            assert_eq!(place(typed, "https://portal:8443", true), path, "{typed}");
        }
        for (typed, path) in [("8888", "/?unknown-address=8888"), ("c1:8888", "/fw2/c1:8888/")] {
            assert_eq!(place(typed, "https://portal", false), path, "on a cluster: {typed}");
        }
    }
}
