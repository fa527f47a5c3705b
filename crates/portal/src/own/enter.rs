//! Takes codes, hands out session cookies, and ends sessions.

use std::rc::Rc;
use std::time::Instant;

use askama::Template;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;
use portreeve_broker::CodeError;
use portreeve_model::{Audience, SignIn};
use portreeve_pages::Frame;

use super::open::{STATE_COOKIE, state_of};
use super::sign_in::NEXT_COOKIE;
use super::{next, origins, parameter, query};
use crate::answer::Answer;
use crate::audit;
use crate::authenticate::{COOKIE_NAME, Principal, Unauthenticated, admit, authenticate, cookie};
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::limits;
use crate::portal::{Settings, now};
use crate::powers::{PowerError, SignedIn};
use crate::reject::Reject;
use crate::respond;
use crate::room::Room;
use crate::site::Site;

/// Shows that a user signed in with this browser before: strangers' wrong tries don't slow it.
pub(super) const MARK_COOKIE: &str = "__Host-portreeve-mark";

/// Signs in with a code: from the printed address (GET), or typed into the sign-in page (POST).
pub(super) async fn enter(
    connection: &Rc<Connection>,
    site: &Site,
    parts: &Parts,
    body: FrontBody,
) -> Result<Response<Answer>, Reject> {
    let (code, wanted) = match parts.method {
        // Somebody else may have sent the address: on a cluster a person sees first whom it signs in.
        Method::GET if connection.room.portal.service.is_a_cluster() => return ask(connection, parts).await,
        Method::GET => (query(parts, "code"), query(parts, "next")),
        Method::POST => {
            origins::require_own_origin(site, parts)?;
            let form = read_form(body).await?;
            let text = std::str::from_utf8(&form).map_err(|_| Reject::BadRequest("the form is not UTF-8"))?;
            (parameter(text, "code"), parameter(text, "next"))
        }
        // A program that looks before it follows must not use the code up.
        Method::HEAD => return Ok(Response::new(Answer::empty())),
        _ => return Err(Reject::Method("GET, HEAD, POST")),
    };
    // A browser that loads the address ahead of its person must not use the code up either.
    let ahead = ["sec-purpose", "purpose", "x-moz"]
        .iter()
        .any(|name| parts.headers.get(*name).is_some_and(|value| value.as_bytes().starts_with(b"prefetch")));
    if ahead {
        return Err(Reject::BadRequest("a sign-in address is not loaded ahead"));
    }
    let typed = code.unwrap_or_default();
    let entered = connection.room.powers.enter(code_in(&typed), connection.peer.ip()).await;
    let tally = &connection.room.tally;
    let signed_in = counted(connection, entered).inspect_err(|_| tally.sign_in_refused(SignIn::Code))?;
    let wanted = wanted_in(parts, wanted);
    let mut response = respond::see_other(next::checked(&wanted).unwrap_or("/"));
    let_in(connection, &signed_in, response.headers_mut())?;
    Ok(response)
}

/// The whole address may be pasted where a code is asked for.
fn code_in(typed: &str) -> &str {
    typed.rsplit_once("code=").map_or(typed, |(_, code)| code).trim()
}

/// Where the browser wanted to go before it was sent to sign in: as the form says, or as it remembers itself.
pub(super) fn wanted_in(parts: &Parts, said: Option<String>) -> String {
    let remembered = cookie(&parts.headers, NEXT_COOKIE)
        .map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned());
    said.filter(|wanted| wanted != "/").or(remembered).unwrap_or_default()
}

/// A session begins: the portal knows it, the audit log has it, and the browser gets its cookies.
pub(super) fn let_in(
    connection: &Connection,
    signed_in: &SignedIn,
    headers: &mut HeaderMap,
) -> Result<(), Reject> {
    let SignedIn { claims, ticket, groups, mark } = signed_in;
    admit(&connection.room, claims, ticket, groups, now())?;
    connection.room.tally.signed_in(claims.how);
    audit::session("sign-in", Some(claims.sub.as_str()), Some(claims.sid.as_str()), connection.peer);
    headers.append(header::SET_COOKIE, session_cookie(ticket, claims.exp - now())?);
    headers.append(header::SET_COOKIE, gone(NEXT_COOKIE));
    if let Some(mark) = mark {
        let seconds = limits::MARK.as_secs().cast_signed();
        headers.append(header::SET_COOKIE, secret_cookie(MARK_COOKIE, mark.reveal(), seconds)?);
    }
    Ok(())
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmTemplate<'a> {
    user: &'a str,
    code: &'a str,
    next: &'a str,
}

/// Whom a sign-in address signs in, and a button. Nothing is used up.
async fn ask(connection: &Connection, parts: &Parts) -> Result<Response<Answer>, Reject> {
    let typed = query(parts, "code").unwrap_or_default();
    let code = code_in(&typed);
    let user = counted(connection, connection.room.powers.look(code).await)?;
    let wanted = wanted_in(parts, query(parts, "next"));
    let template = ConfirmTemplate {
        user: user.as_ref().map_or("", |user| user.as_str()),
        code,
        next: next::checked(&wanted).unwrap_or("/"),
    };
    let body = template.render().map_err(|error| Reject::Internal(error.into()))?;
    let frame = Frame { title: "Sign in", ..Frame::default() };
    Ok(respond::page(frame.around(&body).map_err(|error| Reject::Internal(error.into()))?))
}

/// Enters an application's own origin with a code that this browser's session asked for.
pub(super) async fn enter_application(
    connection: &Connection,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    if parts.method != Method::GET {
        return Err(Reject::Method("GET"));
    }
    let code = query(parts, "code").unwrap_or_default();
    let secret = cookie(&parts.headers, STATE_COOKIE).map(state_of);
    let entered = match secret {
        Some(browser) => connection.room.powers.take_entry(&code, &site.host, &browser).await,
        None => Err(CodeError::Unknown.into()),
    };
    let SignedIn { claims, ticket, groups, .. } = counted(connection, entered)?;
    admit(&connection.room, &claims, &ticket, &groups, now())?;
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
fn counted<T>(connection: &Connection, entered: Result<T, PowerError>) -> Result<T, Reject> {
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
    connection.room.note_refusal(|| audit::session("code-refused", None, None, connection.peer));
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
        return Err(Reject::Method("GET, POST"));
    }
    origins::require_own_origin(site, parts)?;
    match authenticate(connection, settings, site, &parts.headers).await {
        Ok(who) => {
            let session = who.session();
            session.end();
            let kept = connection.room.powers.sign_out(session).await;
            audit::session(
                "sign-out",
                Some(session.user.as_str()),
                Some(session.id.as_str()),
                connection.peer,
            );
            kept.map_err(Reject::SignOutNotKept)?;
        }
        // There is nothing to end.
        Err(Unauthenticated::NoTicket | Unauthenticated::Over) => {}
        // The session lives on, and whoever takes the cookie away says otherwise.
        Err(why @ (Unauthenticated::Unavailable | Unauthenticated::Full)) => return Err(why.into()),
    }
    let mut response = respond::see_other("/-/sign-in");
    response.headers_mut().append(header::SET_COOKIE, gone(COOKIE_NAME));
    Ok(response)
}

/// A younger ticket for a session in use; `None` when it can't be had, which hurts nobody yet.
pub(crate) async fn renewed_cookie(
    room: &Room,
    site: &Site,
    who: &Principal,
    ticket: &str,
) -> Option<HeaderValue> {
    let session = who.session();
    let audience = Audience::parse(site.audience()).ok()?;
    let SignedIn { claims, ticket, .. } = room.powers.renew(session, audience, ticket).await.ok()?;
    session_cookie(&ticket, claims.exp - now()).ok()
}

fn session_cookie(ticket: &str, seconds: i64) -> Result<HeaderValue, Reject> {
    secret_cookie(COOKIE_NAME, ticket, seconds)
}

fn secret_cookie(name: &str, secret: &str, seconds: i64) -> Result<HeaderValue, Reject> {
    let text = format!("{name}={secret}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let mut value = HeaderValue::try_from(text).map_err(|error| Reject::Internal(error.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn gone(name: &'static str) -> HeaderValue {
    HeaderValue::try_from(format!("{name}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(super) async fn read_form(body: FrontBody) -> Result<Bytes, Reject> {
    let read = tokio::time::timeout(limits::REQUEST_HEAD, Limited::new(body, limits::FORM_BYTES).collect());
    match read.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) => Err(Reject::BadRequest("the form is too large or was cut off")),
        Err(_) => Err(Reject::Late),
    }
}
