//! The page that says how to sign in, and the way there.

use askama::Template;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use portreeve_pages::Frame;

use super::{next, open, query};
use crate::answer::Answer;
use crate::fetch::Fetch;
use crate::front::Connection;
use crate::limits;
use crate::powers::StateDir;
use crate::reject::{Form, Reject};
use crate::respond::{self, wants_page};
use crate::site::{Origin, Site};

/// Remembers where a browser wanted to go, for a while.
pub(super) const NEXT_COOKIE: &str = "__Host-portreeve-next";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInTemplate<'a> {
    next: &'a str,
    /// On a cluster a name and a password may be typed.
    form: Form,
    user: &'a str,
    /// Why it did not work, in sentences.
    trouble: &'a [String],
}

/// The page.
pub(super) fn page(connection: &Connection, parts: &Parts) -> Result<Response<Answer>, Reject> {
    let wanted = query(parts, "next").unwrap_or_default();
    page_again(connection, &wanted, "", &[])
}

/// The page, with what was typed before and what was wrong with it.
pub(super) fn page_again(
    connection: &Connection,
    wanted: &str,
    user: &str,
    trouble: &[String],
) -> Result<Response<Answer>, Reject> {
    let wanted = next::checked(wanted).unwrap_or("/");
    let form = connection.room.portal.service.form();
    let template = SignInTemplate { next: wanted, form, user, trouble };
    let body = template.render().map_err(|error| Reject::Internal(error.into()))?;
    let frame = Frame { title: "Sign in", ..Frame::default() };
    let html = frame.around(&body).map_err(|error| Reject::Internal(error.into()))?;
    let mut response = respond::page(html);
    if let Ok(cookie) = HeaderValue::try_from(way_back(NEXT_COOKIE, &encoded(wanted))) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Sends a person's browser to sign in, by way of the portal if it is at an application's own origin. A program, or
/// something that a page loads, is not sent anywhere: `None`.
pub(crate) fn ask_to_sign_in(
    connection: &Connection,
    site: &Site,
    parts: &Parts,
) -> Option<Response<Answer>> {
    if !matches!(parts.method, Method::GET | Method::HEAD)
        || !wants_page(&parts.method, &parts.headers, Fetch::of(&parts.headers))
    {
        return None;
    }
    let wanted = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if site.origin != Origin::Portal {
        return open::send_to_portal(connection, site, wanted);
    }
    let wanted = next::checked(wanted).unwrap_or("/");
    Some(respond::see_other(&format!("/-/sign-in?next={}", encoded(wanted))))
}

/// A cookie for while a browser is on its way.
pub(super) fn way_back(name: &str, value: &str) -> String {
    let seconds = limits::WAY_BACK.as_secs();
    format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax")
}

pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
