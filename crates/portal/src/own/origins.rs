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
use crate::audit;
use crate::authenticate::{COOKIE_NAME, Principal, Unauthenticated, authenticate, cookie};
use crate::authorize::authorize;
use crate::connect::connect;
use crate::front::Connection;
use crate::portal::{Portal, Settings};
use crate::reject::Reject;
use crate::resolve::resolve;
use crate::respond;
use crate::route::{Place, in_its_origin};
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

/// An application under the portal's own address, whose owner is `owner`. Somebody else's, and on a cluster any that has an origin
/// of its own: a window is sent there, a page gets nothing, a program may read.
pub(crate) fn refuse_in_path_form(
    connection: &Connection,
    site: &Site,
    place: &Place,
    reader: Reader,
    asked: &PathAndQuery,
    owner: u32,
    is_foreign: bool,
) -> Result<(), Reject> {
    let portal = &connection.room.portal;
    if site.application.is_some() || reader == Reader::Program || !(is_foreign || portal.hosts.tagged) {
        return Ok(());
    }
    let offered = are_offered(connection, site);
    let host = portal.hosts.own_host(&place.what.to_host(), Some(owner)).filter(|_| offered);
    match host {
        Some(host) if reader == Reader::Window => {
            let rest = &asked.as_str()[place.prefix.len()..];
            Err(Reject::Elsewhere(format!("https://{host}{}{rest}", port(site))))
        }
        // One's own that can have no other origin is shown here.
        None if !is_foreign => Ok(()),
        _ => Err(foreign_here(portal)),
    }
}

/// An application's origin that says another owner than the application has: a window is sent to the right one.
pub(crate) fn of_another_owner(
    portal: &Portal,
    site: &Site,
    place: &Place,
    reader: Reader,
    asked: &str,
) -> Reject {
    match portal.hosts.own_host(&place.what.to_host(), None) {
        Some(host) if reader == Reader::Window => Reject::Elsewhere(open_address(portal, site, &host, asked)),
        _ => foreign_here(portal),
    }
}

/// Where the portal finds out who owns an application, and sends on to its origin.
fn open_address(portal: &Portal, site: &Site, host: &str, wanted: &str) -> String {
    format!("{}/-/open?host={}&next={}", portal_origin(portal, site), encoded(host), encoded(wanted))
}

/// The portal's own origin, seen from an application's.
pub(crate) fn portal_origin(portal: &Portal, site: &Site) -> String {
    let hosts = &portal.hosts;
    let name = match hosts.portal_names.first() {
        Some(name) if hosts.tagged => name,
        // `*.localhost` and `localhost` lead to the same machine, whatever else it is called.
        _ => &hosts.apps_domain,
    };
    format!("https://{name}{}", port(site))
}

/// Somebody else's application is not shown under the portal's own address.
pub(crate) fn foreign_here(portal: &Portal) -> Reject {
    Reject::ForeignHere { has_origins: !portal.hosts.apps_domain.is_empty() }
}

/// Whether applications' own origins can be reached by this browser: names below `localhost` lead to its own machine.
pub(crate) fn are_offered(connection: &Connection, site: &Site) -> bool {
    let hosts = &connection.room.portal.hosts;
    let peer: IpAddr = connection.peer.ip().to_canonical();
    (hosts.tagged || peer.is_loopback()) && site.application.is_none() && !hosts.apps_domain.is_empty()
}

/// What follows an application's label: `.localhost:8443`.
pub(crate) fn suffix(portal: &Portal, site: &Site) -> String {
    format!(".{}{}", portal.hosts.apps_domain, port(site))
}

/// What follows the host name: `:8443`, or nothing for HTTPS's own port.
fn port(site: &Site) -> String {
    site.port.map(|port| format!(":{port}")).unwrap_or_default()
}

/// What the portal is told of a browser's secret.
pub(super) fn state_of(secret: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, secret.as_bytes()).as_ref())
}

/// From an application's origin to the portal, which knows who is signed in.
pub(super) fn send_to_portal(connection: &Connection, site: &Site, wanted: &str) -> Option<Response<Answer>> {
    let portal = &connection.room.portal;
    let address = open_address(portal, site, &site.host, wanted);
    if only_leads_on(portal, site) {
        return Some(respond::see_other(&address));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let secret = BASE64URL_NOPAD.encode(&random);
    let mut response = respond::see_other(&format!("{address}&state={}", state_of(&secret)));
    let cookie = sign_in::way_back(STATE_COOKIE, &secret);
    response.headers_mut().append(header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
    Some(response)
}

/// An application's host without its owner's uid, where origins have one: nobody signs in there.
pub(crate) fn only_leads_on(portal: &Portal, site: &Site) -> bool {
    portal.hosts.tagged && site.application.is_some() && site.owner.is_none()
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
    let HostForm::Application { what, owner } = portal.hosts.classify(&host) else {
        return Err(Reject::BadRequest("it names no application"));
    };
    let host = host.to_ascii_lowercase();
    let port = port(site);
    let wanted = query(parts, "next").unwrap_or_default();
    let wanted = next::on_this_host(&wanted).unwrap_or("/");
    if portal.hosts.tagged && owner.is_none() {
        let place = in_its_origin(&connection.room, &host, &what)?;
        let owner = owner_of(connection, &who, &place).await?;
        let own = portal.hosts.own_host(&what, Some(owner)).ok_or_else(|| foreign_here(portal))?;
        return Ok(respond::see_other(&format!("https://{own}{port}{wanted}")));
    }
    let ticket =
        cookie(&parts.headers, COOKIE_NAME).ok_or(Reject::Unauthenticated(Unauthenticated::NoTicket))?;
    // The hash of a secret, in base 64.
    if browser.len() != 43 {
        return Err(Reject::BadRequest("it names no browser"));
    }
    let code = connection.room.powers.entry(who.session(), ticket, &host, &browser).await?;
    Ok(respond::see_other(&format!("https://{host}{port}/-/enter?code={code}&next={}", encoded(wanted))))
}

/// Who owns an application that this person may use: found out as for any request to it, but nothing is sent.
async fn owner_of(connection: &Connection, who: &Principal, place: &Place) -> Result<u32, Reject> {
    let (room, session) = (&connection.room, who.session());
    let _in_flight = session.begin_page().ok_or(Reject::TooMany)?;
    let resolved = resolve(room, session, place).await;
    let target = resolved.inspect_err(|why| audit::unresolved(session, &place.what, why))?;
    let reached = connect(room, session, &target, false).await?;
    let owned = authorize(room, session, &target.grant, reached).await?;
    Ok(owned.owner().uid)
}
