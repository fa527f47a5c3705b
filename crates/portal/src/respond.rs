//! The one place where an error becomes a status and a page. The person sees what happened, what to do, and a request
//! id; the log has the cause under the same id. Browsers get HTML, programs JSON.

use askama::Template;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use portreeve_model::HostRules;
use portreeve_pages::{CONTENT_SECURITY_POLICY, Frame, policy};

use crate::answer::Answer;
use crate::authenticate::COOKIE_NAME;
use crate::chain::chain;
use crate::fetch::Fetch;
use crate::front::RequestId;
use crate::limits;
use crate::own::gone;
use crate::reject::{Form, Reject, Text};
use crate::room::Room;

/// Who asked, as far as the form of the answer depends on it.
pub(crate) struct Asker<'a> {
    pub(crate) id: RequestId,
    pub(crate) room: &'a Room,
    pub(crate) user: Option<&'a str>,
    /// A person in front of a browser, rather than a program.
    pub(crate) wants_page: bool,
    /// A program that is asked for a name and a token, as WebDAV's are.
    pub(crate) takes_basic: bool,
    /// Whose portal was asked.
    pub(crate) form: Form,
}

/// Whether a person will see the answer: navigations say so, and older browsers prefer HTML.
pub(crate) fn wants_page(method: &Method, headers: &HeaderMap, fetch: Fetch) -> bool {
    match fetch.navigates {
        Some(navigates) => navigates,
        None => {
            matches!(*method, Method::GET | Method::HEAD | Method::POST)
                && headers
                    .get(header::ACCEPT)
                    .is_some_and(|accept| accept.to_str().is_ok_and(|a| a.contains("text/html")))
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorTemplate<'a> {
    text: &'a Text,
}

/// RFC 7617.
const BASIC: &str =
    "Basic realm=\"Portreeve: your name, and an access token as the password\", charset=\"UTF-8\"";
const ERROR: HeaderName = HeaderName::from_static("x-portreeve-error");
/// A page that opened ours is cut off from it, also one of an application at the same origin, which has no such policy.
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The answer that says why.
pub(crate) fn reject(reject: &Reject, asker: &Asker<'_>) -> Response<Answer> {
    if let Reject::Elsewhere(address) = reject {
        return see_other(address);
    }
    if matches!(reject, Reject::NoServiceWorker) {
        return no_service_worker();
    }
    let said = reject.text(asker.form);
    let status = said.status;
    // The page asks again by itself; nobody has to look into it.
    let waits = said.code == "not-listening";
    let id = asker.id.to_string();
    let write = || {
        let (status, code) = (status.as_u16(), said.code);
        // What the client sent is in it.
        let error = chain(reject);
        if said.status.is_server_error() && !waits {
            tracing::warn!(request = id, status, code, error = %error, "refused");
        } else {
            tracing::info!(request = id, status, code, error = %error, "refused");
        }
    };
    match asker.user {
        Some(_) => write(),
        None => asker.room.note_refusal(write),
    }
    let mut response = if asker.wants_page {
        let footnote = format!("Request {id} · {}", said.code);
        let frame = Frame {
            title: said.title,
            user: asker.user,
            waits,
            footnote: Some(&footnote),
            ..Frame::default()
        };
        match (ErrorTemplate { text: &said }).render().and_then(|body| frame.around(&body)) {
            Ok(html) => page(html),
            Err(_) => Response::new(Answer::empty()),
        }
    } else {
        let remedy = if waits { "Try again in a moment." } else { &said.todo };
        let body = serde_json::json!({
            "error": said.code, "title": said.title, "detail": said.what, "remedy": remedy, "request_id": id,
        });
        data(&body)
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    protect(headers);
    headers.insert(ERROR, HeaderValue::from_static(said.code));
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    if matches!(reject, Reject::SignOutNotKept(_)) {
        headers.append(header::SET_COOKIE, gone(COOKIE_NAME));
    }
    if let Reject::Method(allowed) = reject {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            let way = if asker.takes_basic { BASIC } else { "Portreeve-Session" };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(way));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = if let Reject::Wait(seconds) = reject { *seconds } else { 10 };
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        _ => {}
    }
    response
}

/// The code on an answer that [`reject`] made; empty when it refuses nothing.
pub(crate) fn code(rejected: &Response<Answer>) -> &str {
    rejected.headers().get(ERROR).and_then(|code| code.to_str().ok()).unwrap_or_default()
}

/// A page of ours.
pub(crate) fn page(html: String) -> Response<Answer> {
    let mut response = Response::new(Answer::from(html));
    guard(response.headers_mut());
    response
}

/// What a page of ours carries.
pub(crate) fn guard(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::try_from(CONTENT_SECURITY_POLICY.as_str()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    protect(headers);
}

/// The same for what is no page: should a window show it, whoever opened the window can't read it, and it runs nothing.
pub(crate) fn guard_data(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    protect(headers);
}

/// An answer for programs. Should a window show it, whoever opened the window can't read it.
pub(crate) fn data(value: &serde_json::Value) -> Response<Answer> {
    let mut response = Response::new(Answer::from(format!("{value}\n")));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    protect(headers);
    response
}

/// A service worker that takes the place of whichever one the browser has at this address, and goes.
fn no_service_worker() -> Response<Answer> {
    const SCRIPT: &str = "self.addEventListener('install', () => self.skipWaiting());\n\
        self.addEventListener('activate', () => self.registration.unregister());\n";
    let mut response = Response::new(Answer::from(SCRIPT.to_owned()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    protect(headers);
    response
}

/// Sends the browser elsewhere, with GET.
pub(crate) fn see_other(location: &str) -> Response<Answer> {
    redirect(StatusCode::SEE_OTHER, location)
}

/// Sends the browser elsewhere.
pub(crate) fn redirect(status: StatusCode, location: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    match HeaderValue::try_from(location) {
        Ok(location) => {
            *response.status_mut() = status;
            response.headers_mut().insert(header::LOCATION, location);
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    protect(response.headers_mut());
    response
}

/// The `Content-Security-Policy` of our pages. Whoever signs in by a form may be on the way to an application's origin.
pub(crate) fn page_policy(hosts: &HostRules) -> HeaderValue {
    let mut origins = Vec::new();
    if !hosts.apps_name.is_empty() {
        origins.push(format!("https://{}:*", hosts.apps_name));
    }
    for kind in if hosts.tagged { &["fh.", "fn."][..] } else { &[""] } {
        if !hosts.apps_domain.is_empty() {
            origins.push(format!("https://*.{kind}{}:*", hosts.apps_domain));
        }
    }
    HeaderValue::try_from(policy(&origins.join(" ")))
        .unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// What all answers of our own get before they go out; an application's are taken these fields off (`rewrite.rs`).
///
/// On a cluster, the browser is told to come by HTTPS alone, and to let nobody click past a certificate that it does not know:
/// users may open ports under the portal's name. Not in `up`, whose name is `localhost`, and whose certificate nobody vouches for.
pub(crate) fn complete(response: &mut Response<Answer>, page_policy: &HeaderValue, form: Form) {
    if matches!(response.body(), Answer::Carried(_)) {
        return;
    }
    // By what was put on it here, not by its type, which a worker may have said.
    let is_page = response
        .headers()
        .get(header::CONTENT_SECURITY_POLICY)
        .is_some_and(|policy| policy.as_bytes() == CONTENT_SECURITY_POLICY.as_bytes());
    if is_page {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page_policy.clone());
    }
    if form == Form::Cluster
        && let Ok(value) = HeaderValue::try_from(format!("max-age={}", limits::HTTPS_ONLY.as_secs()))
    {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
}

/// What every answer of our own carries.
pub(crate) fn protect(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::powers::StateDir;

    #[test]
    fn a_cluster_insists_on_https_and_up_does_not() {
        for (form, said) in [(Form::Cluster, Some("max-age=31536000")), (Form::Up(StateDir::Usual), None)] {
            for mut response in [page(String::new()), see_other("/"), Response::new(Answer::empty())] {
                complete(&mut response, &HeaderValue::from_static("x"), form);
                let found = response.headers().get_all(header::STRICT_TRANSPORT_SECURITY).iter();
                assert_eq!(found.collect::<Vec<_>>(), said.iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn forms_lead_to_applications_origins_and_nowhere_else() {
        let of = |apps_name: &str, apps_domain: &str, tagged| {
            let portal_names = vec!["portal.org".to_owned()];
            let hosts = HostRules {
                portal_names,
                apps_name: apps_name.into(),
                apps_domain: apps_domain.into(),
                tagged,
            };
            let policy = page_policy(&hosts).to_str().unwrap().to_owned();
            policy.split("form-action ").nth(1).unwrap().split(';').next().unwrap().to_owned()
        };
        assert_eq!(of("", "", true), "'self'");
        assert_eq!(of("", "localhost", false), "'self' https://*.localhost:*");
        assert_eq!(
            of("apps.org", "a.org", true),
            "'self' https://apps.org:* https://*.fh.a.org:* https://*.fn.a.org:*"
        );
        let mut ours = page(String::new());
        complete(&mut ours, &HeaderValue::from_static("x"), Form::Up(StateDir::Usual));
        assert_eq!(ours.headers()[header::CONTENT_SECURITY_POLICY], "x");
    }
}
