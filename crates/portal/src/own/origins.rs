//! Which page may ask for what. Applications must not attack their neighbours: each has an origin of its own below
//! `*.localhost`, and somebody else's is not shown under the portal's own address.
//!
//! The way into an application's origin: it has no cookie yet, so the browser is sent to the portal with the hash of
//! a secret that the origin just gave it (`/-/open`); the portal hands out a code for that browser, host and session;
//! the origin takes it (`/-/enter`) and sets a cookie of its own.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response};
use portreeve_model::HostForm;

use super::sign_in::encoded;
use super::{next, query, sign_in};
use crate::answer::Answer;
use crate::authenticate::{Unauthenticated, authenticate};
use crate::front::Connection;
use crate::portal::{Portal, Settings};
use crate::reject::Reject;
use crate::respond;
use crate::route::{Place, What};
use crate::site::Site;

/// The secret of the browser that is on its way into an application's origin.
pub(super) const STATE_COOKIE: &str = "__Host-portreeve-state";

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

fn is(headers: &HeaderMap, name: &HeaderName, values: &[&str]) -> bool {
    headers.get(name).is_some_and(|value| values.iter().any(|one| value == one))
}

/// Refuses what another origin's page asks for with this visitor's cookie. `SameSite=Lax` keeps the cookie from other
/// sites' pages, but not from another port of the same host.
pub(crate) fn refuse_cross_site(site: &Site, parts: &Parts) -> Result<(), Reject> {
    let headers = &parts.headers;
    if is(headers, &FETCH_SITE, &["same-site", "cross-site"]) {
        let follows_a_link = is(headers, &FETCH_MODE, &["navigate"])
            && matches!(parts.method, Method::GET | Method::HEAD)
            && (is(headers, &FETCH_DEST, &["document"]) || !headers.contains_key(FETCH_DEST));
        if !follows_a_link {
            return Err(Reject::CrossSite);
        }
    }
    // A WebSocket is not bound by the rules for reading other origins, and a form is sent before anybody reads: only
    // the Origin tells from where.
    let opens_tunnel = headers.contains_key(header::UPGRADE) || parts.method == Method::CONNECT;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS)
        && !headers.contains_key(FETCH_SITE);
    if (opens_tunnel || changes)
        && let Some(origin) = headers.get(header::ORIGIN)
        && !origin.to_str().is_ok_and(|origin| site.is_origin(origin))
    {
        return Err(Reject::CrossSite);
    }
    Ok(())
}

/// Refuses what changes something unless our own page, or no page at all, asks for it.
pub(super) fn require_own_origin(site: &Site, parts: &Parts) -> Result<(), Reject> {
    let origin_is_ours = match parts.headers.get(header::ORIGIN) {
        Some(origin) => origin.to_str().is_ok_and(|origin| site.is_origin(origin)),
        None => true,
    };
    if !origin_is_ours || is(&parts.headers, &FETCH_SITE, &["same-site", "cross-site"]) {
        return Err(Reject::CrossSite);
    }
    Ok(())
}

/// Who reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A browser's window.
    Window,
    /// Something in a page: a script, an image, a frame.
    Page,
    /// A program.
    Program,
}

impl Reader {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get(FETCH_MODE) {
            None if headers.contains_key(FETCH_SITE) => Self::Page,
            None => Self::Program,
            Some(mode) if mode == "navigate" && is(headers, &FETCH_DEST, &["document"]) => Self::Window,
            Some(_) => Self::Page,
        }
    }
}

/// Somebody else's application under the portal's own address: a window is sent to the application's own origin, a
/// page gets nothing, a program may read.
pub(crate) fn refuse_foreign(
    connection: &Connection,
    site: &Site,
    place: &Place,
    reader: Reader,
    asked: &PathAndQuery,
) -> Result<(), Reject> {
    if site.application.is_some() || reader == Reader::Program {
        return Ok(());
    }
    if reader == Reader::Window
        && are_offered(connection, site)
        && let Some(host) = own_host(&connection.room.portal, site, &place.what)
    {
        let rest = &asked.as_str()[place.prefix.len()..];
        return Err(Reject::Elsewhere(format!("https://{host}{rest}")));
    }
    Err(foreign_here(&connection.room.portal))
}

/// Somebody else's application is not shown under the portal's own address.
pub(crate) fn foreign_here(portal: &Portal) -> Reject {
    Reject::ForeignHere { has_origins: !portal.hosts.apps_domain.is_empty() }
}

/// Whether applications' own origins can be reached by this browser: names below `localhost` lead to its own machine.
pub(crate) fn are_offered(connection: &Connection, site: &Site) -> bool {
    let peer: IpAddr = connection.peer.ip().to_canonical();
    peer.is_loopback() && site.application.is_none() && !connection.room.portal.hosts.apps_domain.is_empty()
}

/// What follows an application's label: `.localhost:8443`.
pub(crate) fn suffix(portal: &Portal, site: &Site) -> String {
    format!(".{}{}", portal.hosts.apps_domain, port(site))
}

/// What follows the host name: `:8443`, or nothing for HTTPS's own port.
fn port(site: &Site) -> String {
    site.port.map(|port| format!(":{port}")).unwrap_or_default()
}

/// The application's own host, if its name can be one.
fn own_host(portal: &Portal, site: &Site, what: &What) -> Option<String> {
    let label = match what {
        What::Direct(direct) => format!("{}-{}", direct.node, direct.port),
        What::Forward(name) => format!("{name}.fn"),
    };
    let bare = format!("{label}.{}", portal.hosts.apps_domain);
    let is_one = matches!(portal.hosts.classify(&bare), HostForm::Application(_));
    is_one.then(|| format!("{label}{}", suffix(portal, site)))
}

/// What the portal is told of a browser's secret.
pub(super) fn state_of(secret: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, secret.as_bytes()).as_ref())
}

/// From an application's origin to the portal, which knows who is signed in.
pub(super) fn send_to_portal(connection: &Connection, site: &Site, wanted: &str) -> Option<Response<Answer>> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let secret = BASE64URL_NOPAD.encode(&random);
    let domain = &connection.room.portal.hosts.apps_domain;
    let port = port(site);
    let mut response = respond::see_other(&format!(
        "https://{domain}{port}/-/open?host={}&state={}&next={}",
        encoded(&site.host),
        state_of(&secret),
        encoded(wanted)
    ));
    let cookie = sign_in::way_back(STATE_COOKIE, &secret);
    response.headers_mut().append(header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
    Some(response)
}

/// Hands a signed-in browser the entry to an application's origin.
pub(super) async fn open(
    connection: &Connection,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    let who = match authenticate(connection, settings, site, &parts.headers).await {
        Ok(who) => who,
        Err(why @ (Unauthenticated::Full | Unauthenticated::Unavailable)) => return Err(why.into()),
        Err(why) => {
            return sign_in::ask_to_sign_in(connection, site, parts).ok_or(Reject::Unauthenticated(why));
        }
    };
    let host = query(parts, "host").unwrap_or_default();
    let browser = query(parts, "state").unwrap_or_default();
    let portal = &connection.room.portal;
    if !matches!(portal.hosts.classify(&host), HostForm::Application(_)) || browser.len() != 43 {
        return Err(Reject::BadRequest("it names no application"));
    }
    let host = host.to_ascii_lowercase();
    let code = connection.room.powers.entry(who.session(), &host, &browser).await?;
    let port = port(site);
    let wanted = query(parts, "next").unwrap_or_default();
    let wanted = next::on_this_host(&wanted).unwrap_or("/");
    Ok(respond::see_other(&format!("https://{host}{port}/-/enter?code={code}&next={}", encoded(wanted))))
}
