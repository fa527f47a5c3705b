//! The way into an origin that applications have: it has no cookie yet, so the browser is sent to the portal with the hash of
//! a secret that the origin just gave it (`/-/open`); the portal hands out a code for that browser, host and session; the
//! origin takes it (`/-/enter`) and sets a cookie of its own.

use std::rc::Rc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use http::Response;
use http::header::{self, HeaderValue};
use http::request::Parts;
use portreeve_model::HostForm;
use tokio::time::Instant;

use super::shown::{foreign_here, port, portal_origin};
use super::sign_in::{self, encoded};
use super::{next, query};
use crate::answer::Answer;
use crate::audit;
use crate::authenticate::{COOKIE_NAME, Principal, Unauthenticated, authenticate, cookie};
use crate::authorize::{Owned, authorize};
use crate::connect::connect;
use crate::front::Connection;
use crate::portal::{Portal, Settings};
use crate::reject::Reject;
use crate::resolve::{Target, resolve};
use crate::respond;
use crate::room::Room;
use crate::route::{Place, in_its_origin};
use crate::sessions::{OwnInFlight, Sort};
use crate::site::{Origin, Site};

/// The secret of the browser that is on its way into an application's origin.
pub(super) const STATE_COOKIE: &str = "__Host-portreeve-state";

/// Where the portal finds out who owns an application, and sends on to its origin.
pub(super) fn address(portal: &Portal, site: &Site, host: &str, wanted: &str) -> String {
    format!("{}/-/open?host={}&next={}", portal_origin(portal, site), encoded(host), encoded(wanted))
}

/// What the portal is told of a browser's secret.
pub(super) fn state_of(secret: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, secret.as_bytes()).as_ref())
}

/// From an application's origin to the portal, which knows who is signed in.
pub(super) fn send_to_portal(connection: &Connection, site: &Site, wanted: &str) -> Option<Response<Answer>> {
    let portal = &connection.room.portal;
    let portals = address(portal, site, &site.host, wanted);
    if only_leads_on(portal, site) {
        return Some(respond::see_other(&portals));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let secret = BASE64URL_NOPAD.encode(&random);
    let mut response = respond::see_other(&format!("{portals}&state={}", state_of(&secret)));
    let cookie = sign_in::way_back(STATE_COOKIE, &secret);
    response.headers_mut().append(header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
    Some(response)
}

/// An application's host without its owner's uid, where origins have one: nobody signs in there.
pub(crate) fn only_leads_on(portal: &Portal, site: &Site) -> bool {
    portal.hosts.tagged && matches!(site.origin, Origin::Application { owner: None, .. })
}

/// Hands a signed-in browser the entry to an application's origin.
pub(super) async fn open(
    connection: &Connection,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    let who = match visitor(connection, settings, site, parts).await? {
        Ok(who) => who,
        Err(asked) => return Ok(asked),
    };
    let host = query(parts, "host").unwrap_or_default();
    let browser = query(parts, "state").unwrap_or_default();
    let portal = &connection.room.portal;
    let host_of = portal.hosts.classify(&host);
    if !matches!(host_of, HostForm::Application { .. } | HostForm::Applications) {
        return Err(Reject::BadRequest("it names no application"));
    }
    let host = host.to_ascii_lowercase();
    let port = port(site);
    let wanted = query(parts, "next").unwrap_or_default();
    let wanted = next::on_this_host(&wanted).unwrap_or("/");
    if let HostForm::Application { what, owner: None } = &host_of
        && portal.hosts.tagged
    {
        let place = in_its_origin(&connection.room, &host, what)?;
        let owner = reach(&connection.room, &who, &place).await?.owned.owner().uid;
        let own = portal.hosts.own_host(what, Some(owner)).ok_or_else(|| foreign_here(portal))?;
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

/// Who is signed in at the portal; or the answer that has them sign in.
pub(super) async fn visitor(
    connection: &Connection,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
) -> Result<Result<Principal, Response<Answer>>, Reject> {
    match authenticate(connection, settings, site, &parts.headers).await {
        Ok(who) => Ok(Ok(who)),
        Err(why @ (Unauthenticated::Full | Unauthenticated::Unavailable)) => Err(why.into()),
        Err(why) => {
            sign_in::ask_to_sign_in(connection, site, parts).map(Err).ok_or(Reject::Unauthenticated(why))
        }
    }
}

/// An application that a person may use.
pub(super) struct InReach {
    pub(super) target: Rc<Target>,
    /// Nothing is sent over it.
    pub(super) owned: Owned,
    _in_flight: OwnInFlight,
}

/// Connects to an application and finds out whose it is, as for any request to it; but nothing is sent.
pub(super) async fn reach(room: &Room, who: &Principal, place: &Place) -> Result<InReach, Reject> {
    let session = who.session();
    let in_flight = session.begin_own(Sort::Page).ok_or(Reject::TooMany)?;
    let resolved = resolve(room, session, place).await;
    let target = resolved.inspect_err(|why| audit::unresolved(session, &place.what, why))?;
    let reached = connect(room, session, &target, Instant::now(), false).await?;
    let owned = authorize(room, session, &target.grant, reached).await?;
    Ok(InReach { target, owned, _in_flight: in_flight })
}
