//! Takes codes, hands out session cookies, and ends sessions.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;
use portreeve_broker::CodeError;
use portreeve_model::{Audience, SignIn};

use super::origins::{STATE_COOKIE, state_of};
use super::sign_in::NEXT_COOKIE;
use super::{next, origins, parameter, query};
use crate::answer::Answer;
use crate::audit;
use crate::authenticate::{COOKIE_NAME, Principal, Unauthenticated, authenticate, cookie};
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::limits;
use crate::portal::{Settings, now};
use crate::powers::{PowerError, SignedIn};
use crate::reject::Reject;
use crate::respond;
use crate::room::Room;
use crate::site::Site;

/// Signs in with a code: from the printed address (GET), or typed into the sign-in page (POST).
pub(super) async fn enter(
    connection: &Rc<Connection>,
    site: &Site,
    parts: &Parts,
    body: FrontBody,
) -> Result<Response<Answer>, Reject> {
    let (code, wanted) = match parts.method {
        Method::GET => (query(parts, "code"), query(parts, "next")),
        Method::POST => {
            origins::require_own_origin(site, parts)?;
            let form = read_form(body).await?;
            let text = std::str::from_utf8(&form).map_err(|_| Reject::BadRequest("the form is not UTF-8"))?;
            (parameter(text, "code"), parameter(text, "next"))
        }
        // A program that looks before it follows must not use the code up.
        Method::HEAD => return Ok(Response::new(Answer::empty())),
        _ => return Err(Reject::Method),
    };
    // A browser that loads the address ahead of its person must not use the code up either.
    let ahead = ["sec-purpose", "purpose", "x-moz"]
        .iter()
        .any(|name| parts.headers.get(*name).is_some_and(|value| value.as_bytes().starts_with(b"prefetch")));
    if ahead {
        return Err(Reject::BadRequest("a sign-in address is not loaded ahead"));
    }
    let typed = code.unwrap_or_default();
    // The whole address may be pasted where a code is asked for.
    let code = typed.rsplit_once("code=").map_or(typed.as_str(), |(_, code)| code).trim();
    let entered = connection.room.powers.enter(code, connection.peer.ip()).await;
    let tally = &connection.room.tally;
    let entered = counted(connection, entered).inspect_err(|_| tally.sign_in_refused(SignIn::Code));
    let SignedIn { claims, ticket, groups } = entered?;
    let sessions = &connection.room.portal.sessions;
    sessions.admit(&claims, &groups, now()).ok_or(Reject::Unauthenticated(Unauthenticated::Full))?;
    tally.signed_in(claims.how);
    audit::session("sign-in", Some(claims.sub.as_str()), Some(claims.sid.as_str()), connection.peer);
    let remembered = cookie(&parts.headers, NEXT_COOKIE)
        .map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned());
    let wanted = wanted.filter(|wanted| wanted != "/").or(remembered).unwrap_or_default();
    let mut response = respond::see_other(next::checked(&wanted).unwrap_or("/"));
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, session_cookie(&ticket, claims.exp - now())?);
    headers.append(header::SET_COOKIE, gone(NEXT_COOKIE));
    Ok(response)
}

/// Enters an application's own origin with a code that this browser's session asked for.
pub(super) async fn enter_application(
    connection: &Connection,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    if parts.method != Method::GET {
        return Err(Reject::Method);
    }
    let code = query(parts, "code").unwrap_or_default();
    let secret = cookie(&parts.headers, STATE_COOKIE).map(state_of);
    let entered = match secret {
        Some(browser) => connection.room.powers.take_entry(&code, &site.host, &browser).await,
        None => Err(CodeError::Unknown.into()),
    };
    let SignedIn { claims, ticket, .. } = counted(connection, entered)?;
    let wanted = query(parts, "next").unwrap_or_default();
    let wanted = next::on_this_host(&wanted).unwrap_or("/");
    let mut response = respond::see_other(wanted);
    let headers = response.headers_mut();
    headers.append(header::SET_COOKIE, session_cookie(&ticket, claims.exp - now())?);
    headers.append(header::SET_COOKIE, gone(STATE_COOKIE));
    Ok(response)
}

/// What a code gave; a refused one is counted against its address. A genuine code is never made to wait: others' wrong
/// ones must not lock its owner out.
fn counted(connection: &Connection, entered: Result<SignedIn, PowerError>) -> Result<SignedIn, Reject> {
    let error = match entered {
        Err(PowerError::Code(error)) => error,
        other => return Ok(other?),
    };
    let attempts = &connection.room.portal.attempts;
    let (address, tried) = (connection.peer.ip(), Instant::now());
    if !attempts.may_try(address, tried) {
        return Err(Reject::TooManyCodes);
    }
    attempts.failed(address, tried);
    audit::session("code-refused", None, None, connection.peer);
    Err(error.into())
}

/// Ends the session: its cookies, its tunnels, everywhere. In force at once, also when it can't be written down; then
/// its person is told.
pub(super) async fn sign_out(
    connection: &Connection,
    settings: &Settings,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    if !matches!(parts.method, Method::GET | Method::POST) {
        return Err(Reject::Method);
    }
    origins::require_own_origin(site, parts)?;
    if let Ok(who) = authenticate(connection, settings, site, &parts.headers).await {
        let session = who.session();
        session.end();
        let kept = connection.room.powers.sign_out(session).await;
        audit::session("sign-out", Some(session.user.as_str()), Some(session.id.as_str()), connection.peer);
        kept.map_err(Reject::SignOutNotKept)?;
    }
    let mut response = respond::see_other("/-/sign-in");
    response.headers_mut().append(header::SET_COOKIE, gone(COOKIE_NAME));
    Ok(response)
}

/// A younger ticket for a session in use; `None` when it can't be had, which hurts nobody yet.
pub(crate) async fn renewed_cookie(room: &Room, site: &Site, who: &Principal) -> Option<HeaderValue> {
    let session = who.session();
    let audience = Audience::parse(site.audience()).ok()?;
    let SignedIn { claims, ticket, .. } = room.powers.renew(session, audience).await.ok()?;
    session_cookie(&ticket, claims.exp - now()).ok()
}

fn session_cookie(ticket: &str, seconds: i64) -> Result<HeaderValue, Reject> {
    let text = format!("{COOKIE_NAME}={ticket}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let mut value = HeaderValue::try_from(text).map_err(|error| Reject::Internal(error.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn gone(name: &'static str) -> HeaderValue {
    HeaderValue::try_from(format!("{name}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

async fn read_form(body: FrontBody) -> Result<Bytes, Reject> {
    let read = tokio::time::timeout(limits::REQUEST_HEAD, Limited::new(body, limits::FORM_BYTES).collect());
    match read.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) => Err(Reject::BadRequest("the form is too large or was cut off")),
        Err(_) => Err(Reject::BadRequest("the form took too long")),
    }
}
