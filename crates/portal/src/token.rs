//! Access tokens of programs. Beside `authenticate`, which takes cookies: a request without one may show a token as bearer
//! (RFC 6750), below `/dav/` also as the password of Basic (RFC 7617), which is all that many WebDAV clients can.
//!
//! Invariants: the broker says whose token it is; what it allows is asked with [`Principal::require`]. A token never reaches an
//! application. Basic is for programs: a browser, which would send it by itself wherever a page leads it, is refused.

use std::rc::Rc;
use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use portreeve_model::{Secret, TOKEN_PREFIX};

use crate::audit;
use crate::authenticate::{Known, Principal, Unauthenticated, admit, authenticate as by_ticket};
use crate::front::Connection;
use crate::limits;

use crate::portal::{Settings, now};
use crate::powers::{PowerError, SignedIn};
use crate::reject::Reject;
use crate::site::Site;

/// The token that a request shows; `None` when there is none of ours.
pub(crate) fn shown(parts: &Parts) -> Option<Secret> {
    let mut all = parts.headers.get_all(AUTHORIZATION).iter();
    let only = all.next().filter(|_| all.next().is_none())?;
    let (scheme, token) = token_of(only)?;
    let may = match scheme {
        Scheme::Bearer => true,
        Scheme::Basic => takes_basic(parts),
    };
    may.then_some(token)
}

/// Whether Basic is a way in for this request: WebDAV, and no browser.
pub(crate) fn takes_basic(parts: &Parts) -> bool {
    portreeve_worker::is_dav(parts.uri.path()) && !is_of_a_browser(parts)
}

/// Whether a browser asks for a page of its.
pub(crate) fn is_of_a_browser(parts: &Parts) -> bool {
    parts.headers.keys().any(|name| name == ORIGIN || name.as_str().starts_with("sec-fetch-"))
}

enum Scheme {
    Bearer,
    Basic,
}

fn token_of(value: &HeaderValue) -> Option<(Scheme, Secret)> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let (scheme, token) = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => (Scheme::Bearer, rest.trim().to_owned()),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            (Scheme::Basic, pair.split_once(':')?.1.to_owned())
        }
        _ => return None,
    };
    token.starts_with(TOKEN_PREFIX).then(|| (scheme, Secret::new(token)))
}

/// Takes our tokens out of what goes to an application; its own it may have.
pub(crate) fn keep_from_application(headers: &mut HeaderMap) {
    if headers.get_all(AUTHORIZATION).iter().any(|value| token_of(value).is_some()) {
        headers.remove(AUTHORIZATION);
    }
}

/// Whose the ticket in the request's cookie is; without one, the token that it shows.
pub(crate) async fn ticket_or_token(
    connection: &Rc<Connection>,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
) -> Result<Principal, Reject> {
    match (by_ticket(connection, settings, site, &parts.headers).await, shown(parts)) {
        (Err(Unauthenticated::NoTicket), Some(token)) => authenticate(connection, settings, token).await,
        (who, _) => Ok(who?),
    }
}

/// Whose token it is.
pub(crate) async fn authenticate(
    connection: &Rc<Connection>,
    settings: &Settings,
    token: Secret,
) -> Result<Principal, Reject> {
    let room = &connection.room;
    if !room.portal.service.knows_who_is_over() {
        return Err(Unauthenticated::Unavailable.into());
    }
    let (now, key_epoch) = (now(), room.portal.service.key_epoch());
    // No audience begins with a blank: no ticket has this key.
    let key = format!(" {}", token.reveal()).into_boxed_str();
    let remembered = room.tickets.borrow_mut().get(&key).cloned();
    let idle = settings.idle_seconds();
    // Whether its account may be used is asked again from time to time; and one that ended may be good again, when its
    // account is.
    let is_good = |known: &Known| {
        known.is_of(key_epoch) && known.is_younger(now, limits::TOKEN_FRESH) && known.is_live(now, idle)
    };
    let known = match remembered.filter(is_good) {
        Some(known) => known,
        None => {
            let SignedIn { claims, ticket, groups, .. } = ask(connection, token).await?;
            let session = admit(room, &claims, &ticket, &groups, now)?;
            let known = Known::new(session, claims.iat, key_epoch);
            room.tickets.borrow_mut().put(key, known.clone());
            known
        }
    };
    Ok(known.principal(now, idle)?)
}

async fn ask(connection: &Connection, token: Secret) -> Result<SignedIn, Reject> {
    let attempts = &connection.room.portal.attempts;
    let (address, tried) = (connection.peer.ip(), Instant::now());
    let error = match connection.room.powers.token(token, address).await {
        Err(PowerError::Token(error)) => error,
        other => return Ok(other?),
    };
    // A genuine one is never made to wait: others' wrong ones must not lock its owner out.
    if !attempts.may_try(address, tried) {
        return Err(Reject::TooManyCodes);
    }
    attempts.failed(address, tried);
    connection.room.note_refusal(|| audit::session("token-refused", None, None, connection.peer));
    Err(Reject::Token(error))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(path: &str, fields: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::get(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        shown(&request.body(()).unwrap().into_parts().0).map(|token| token.reveal().to_owned())
    }

    #[test]
    fn where_a_token_counts() {
        let basic = format!("Basic {}", STANDARD.encode("alice:ptr_x"));
        for (path, fields, counts) in [
            ("/fw2/c1:1/", &[("authorization", "Bearer ptr_x")][..], true),
            ("/fw2/c1:1/", &[("authorization", "bEARER ptr_x")], true),
            ("/fw2/c1:1/", &[("authorization", "Bearer x")], false),
            ("/fw2/c1:1/", &[("authorization", "Token ptr_x")], false),
            ("/fw2/c1:1/", &[("authorization", "Bearer ptr_x"), ("authorization", "Bearer ptr_y")], false),
            ("/fw2/c1:1/", &[("authorization", &basic)], false),
            ("/dav/", &[("authorization", &basic)], true),
            ("/davx", &[("authorization", &basic)], false),
            ("/dav/", &[("authorization", &basic), ("origin", "https://x")], false),
            ("/dav/", &[("authorization", &basic), ("sec-fetch-site", "none")], false),
            ("/dav/", &[("authorization", "Basic ====")], false),
            ("/dav/", &[], false),
        ] {
            assert_eq!(of(path, fields).is_some(), counts, "{path} {fields:?}");
        }
    }

    #[test]
    fn it_never_reaches_an_application_and_what_is_the_applications_own_does() {
        let basic = format!("Basic {}", STANDARD.encode("alice:ptr_x"));
        for (value, stays) in
            [("Bearer ptr_x", false), (basic.as_str(), false), ("Bearer own", true), ("token ptr", true)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            keep_from_application(&mut headers);
            assert_eq!(headers.contains_key(AUTHORIZATION), stays, "{value}");
        }
    }
}
