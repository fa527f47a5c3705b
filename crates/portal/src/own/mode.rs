//! `/-/mode?path=`: how an application below a prefix gets its paths, and why, for whoever wonders about its links.

use std::rc::Rc;

use http::Response;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use serde_json::json;

use super::open::reach;
use super::query;
use crate::answer::Answer;
use crate::front::Connection;
use crate::mode::{Why, mode_of};
use crate::portal::Settings;
use crate::reject::Reject;
use crate::respond;
use crate::route::{Route, route};
use crate::site::Site;
use crate::token;

const MODE: HeaderName = HeaderName::from_static("x-portreeve-mode");

/// The answer: a field, and the same as JSON with its reason.
pub(super) async fn answer(
    connection: &Rc<Connection>,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    let who = token::ticket_or_token(connection, settings, site, parts).await?;
    who.require(portreeve_model::Scope::Apps)?;
    let path = query(parts, "path").unwrap_or_default();
    let room = &connection.room;
    let Ok(Route::Application { place, .. }) = route(room, site, &path) else {
        return Err(Reject::BadRequest("path is not that of an application: /fw/NAME/ or /fw2/NODE:PORT/"));
    };
    let found = reach(room, &who, &place).await?;
    let (mode, why) = match mode_of(room, &place, &found.target, &found.owned) {
        Some((mode, why)) => (mode.as_str(), why),
        None => ("unknown", Why::NotYet),
    };
    let body = json!({ "path": &*place.prefix, "mode": mode, "reason": why.text() });
    let mut response = respond::data(&body);
    response.headers_mut().insert(MODE, HeaderValue::from_static(mode));
    Ok(response)
}
