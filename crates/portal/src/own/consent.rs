//! `/-/consent`: somebody else's application beside the visitor's own ones, where it can have no origin of its own. The page
//! names its owner and the risk; what is answered holds for this application, owner and session.
//!
//! Invariant: nothing but a person at this page answers it. Applications that share the origin can neither read it (only
//! windows may, which are cut off from who opened them) nor guess the secret that is in it.

use std::rc::Rc;

use askama::Template;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use portreeve_pages::Frame;

use super::enter::read_form;
use super::open::{reach, visitor};
use super::shown::{portal_origin, shared_origin};
use super::sign_in::encoded;
use super::{next, origins, parameter, query};
use crate::answer::Answer;
use crate::audit;
use crate::authorize::is_foreign;
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::portal::{Portal, Settings};
use crate::reject::Reject;
use crate::resolve::Grant;
use crate::respond;
use crate::route::{Place, Route, RouteError, route};
use crate::site::Site;

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentTemplate<'a> {
    place: &'a str,
    owner: &'a str,
    /// Whose forward leads there, if that is somebody else.
    forward_owner: Option<&'a str>,
    /// Whether the portal's own pages are at the same origin.
    beside_portal: bool,
    next: &'a str,
    uid: u32,
    secret: &'a str,
}

/// Where a visitor of `wanted`, a path with an application's prefix, is asked.
pub(super) fn address(portal: &Portal, site: &Site, wanted: &str) -> String {
    format!("{}/-/consent?next={}", portal_origin(portal, site), encoded(wanted))
}

/// The page, and its answer.
pub(super) async fn consent(
    connection: &Rc<Connection>,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
    body: FrontBody,
) -> Result<Response<Answer>, Reject> {
    let room = &connection.room;
    if !settings.config.portal.ask_about_foreign {
        return Err(RouteError::NotFound.into());
    }
    let form = match parts.method {
        Method::GET | Method::HEAD => None,
        Method::POST => {
            origins::require_own_origin(site, parts)?;
            let form = read_form(body).await?;
            Some(String::from_utf8(form.into()).map_err(|_| Reject::BadRequest("the form is not UTF-8"))?)
        }
        _ => return Err(Reject::Method("GET, HEAD, POST")),
    };
    let who = match visitor(connection, settings, site, parts).await? {
        Ok(who) => who,
        Err(asked) => return Ok(asked),
    };
    who.require_person()?;
    let session = who.session();
    let said = |name| match &form {
        Some(form) => parameter(form, name),
        None => query(parts, name),
    };
    let wanted = said("next").unwrap_or_default();
    let wanted = next::checked(&wanted).ok_or(Reject::BadRequest("it names no application"))?;
    let path = wanted.split(['?', '#']).next().unwrap_or_default();
    let Route::Application { place, .. } = route(room, site, path)? else {
        return Err(Reject::BadRequest("it names no application"));
    };
    let found = reach(room, &who, &place).await?;
    let (owner, grant) = (found.owned.owner(), &found.target.grant);
    let origin = shared_origin(&room.portal, site);
    let there = format!("{}{wanted}", origin.as_deref().unwrap_or_default());
    if !is_foreign(session, grant, &owner) || session.consented(&place.what, owner.uid) {
        return Ok(respond::see_other(&there));
    }
    if form.is_some() {
        // Another owner may have the port by now, or the portal was started anew: then the page is shown again.
        let meant = said("uid").and_then(|uid| uid.parse().ok());
        if meant == Some(owner.uid) && said("secret").as_deref() == session.page_secret().as_deref() {
            session.consent(place.what.clone(), owner.uid);
            audit::consented(session, grant, owner.uid);
            return Ok(respond::see_other(&there));
        }
    }
    let html =
        page(connection, &place, grant, owner.uid, session.page_secret(), origin.is_none(), wanted).await?;
    let mut response = respond::page(html);
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    Ok(response)
}

async fn page(
    connection: &Connection,
    place: &Place,
    grant: &Grant,
    uid: u32,
    secret: Option<String>,
    beside_portal: bool,
    wanted: &str,
) -> Result<String, Reject> {
    let forward_uid = match grant {
        Grant::Forward { stat, .. } if stat.uid != uid => Some(stat.uid),
        Grant::Forward { .. } | Grant::Direct(_) => None,
    };
    let owner = name(connection, uid).await;
    let forward_owner = match forward_uid {
        Some(uid) => Some(name(connection, uid).await),
        None => None,
    };
    let internal = |error: Box<dyn std::error::Error>| Reject::Internal(error);
    let template = ConsentTemplate {
        place: &place.what.path(),
        owner: &owner,
        forward_owner: forward_owner.as_deref(),
        beside_portal,
        next: wanted,
        uid,
        secret: &secret.ok_or_else(|| internal("no random numbers can be had".into()))?,
    };
    let body = template.render().map_err(|error| internal(error.into()))?;
    let frame = Frame { title: "Somebody else's application", ..Frame::default() };
    frame.around(&body).map_err(|error| internal(error.into()))
}

async fn name(connection: &Connection, uid: u32) -> String {
    let login = connection.room.powers.login(uid).await;
    login.map_or_else(|| format!("the user with uid {uid}"), |login| login.user)
}
