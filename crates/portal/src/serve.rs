//! The life of one request, from top to bottom. Each step hands the next a value that only it can make.

use std::rc::Rc;
use std::sync::Arc;

use http::header;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use portreeve_model::Scope;

use crate::answer::Answer;
use crate::astray;
use crate::audit;
use crate::authenticate::{Unauthenticated, authenticate};
use crate::fetch::Fetch;
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::interim::InterimSink;
use crate::journey::Journey;
use crate::own;
use crate::own::origins;
use crate::portal::Settings;
use crate::record::{Record, Sent};
use crate::reject::Reject;
use crate::resolve::resolve;
use crate::respond::{self, Asker, redirect, reject, wants_page};
use crate::route::{Route, RouteError, route};
use crate::site::site;
use crate::token;
use crate::upgrade::Pending;

/// Answers one request, whatever it is.
pub(crate) async fn serve(
    connection: &Rc<Connection>,
    request: Request<FrontBody>,
    upgrade: Option<Pending>,
    interim: InterimSink,
) -> Response<Sent> {
    let id = connection.next_request();
    let settings = connection.room.portal.settings.load_full();
    let (parts, body) = request.into_parts();
    let record = Record::begin(connection, id, &parts, settings.config.portal.access_log);
    let fetch = Fetch::of(&parts.headers);
    let wants_page = wants_page(&parts.method, &parts.headers, fetch);
    let head_only = parts.method == Method::HEAD;
    let takes_basic = token::takes_basic(&parts);
    let form = connection.room.portal.service.form();
    let arrived = Box::new(Arrived { parts, body, fetch, upgrade, interim });
    let mut response = match answer(connection, &settings, &record, arrived).await {
        Ok(response) => response,
        Err(why) => {
            let memo = connection.memo.borrow();
            let user = memo.as_ref().map(|memo| memo.user());
            let rejected =
                reject(&why, &Asker { id, room: &connection.room, user, wants_page, takes_basic, form });
            record.refused(respond::code(&rejected));
            rejected
        }
    };
    respond::complete(&mut response, &connection.room.portal.page_policy, form);
    record.answered(if head_only { without_body(response) } else { response })
}

/// The answer to HEAD: what GET would say, without saying it. Over HTTP/2 nobody else takes the body off.
fn without_body(mut response: Response<Answer>) -> Response<Answer> {
    if let Answer::Whole(body) = response.body_mut()
        && let Some(body) = body.take()
    {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(body.len().into());
    }
    response
}

/// A request as it came. It is large, and a future keeps what it is given twice: so it goes by its address.
pub(crate) struct Arrived {
    pub(crate) parts: Parts,
    pub(crate) body: FrontBody,
    pub(crate) fetch: Fetch,
    pub(crate) upgrade: Option<Pending>,
    pub(crate) interim: InterimSink,
}

async fn answer(
    connection: &Rc<Connection>,
    settings: &Arc<Settings>,
    record: &Record<'_>,
    arrived: Box<Arrived>,
) -> Result<Response<Answer>, Reject> {
    let room = &connection.room;
    let site = {
        let mut known = connection.site.borrow_mut();
        let site = site(&room.portal.hosts, known.as_ref(), &arrived.parts)?;
        if !known.as_ref().is_some_and(|known| Rc::ptr_eq(known, &site)) {
            *known = Some(Rc::clone(&site));
        }
        site
    };
    if own::is_ours(&site, arrived.parts.uri.path()) {
        return Box::pin(own::answer(connection, settings, &site, &arrived.parts, arrived.body)).await;
    }
    if own::asks_for_webdav(&site, &arrived.parts) {
        return Ok(own::webdav());
    }
    let by_cookie = authenticate(connection, settings, &site, &arrived.parts.headers).await;
    let token = by_cookie.is_err().then(|| token::shown(&arrived.parts)).flatten();
    let who = match (by_cookie, token) {
        (Ok(who), _) => who,
        (Err(Unauthenticated::NoTicket), Some(token)) => {
            Box::pin(token::authenticate(connection, settings, token)).await?
        }
        (Err(why @ (Unauthenticated::Full | Unauthenticated::Unavailable)), _) => return Err(why.into()),
        (Err(why), _) => {
            return own::ask_to_sign_in(connection, &site, &arrived.parts)
                .ok_or(Reject::Unauthenticated(why));
        }
    };
    record.comes_from(who.session());
    origins::refuse_cross_site(&site, &arrived.parts, arrived.fetch)?;
    let route = match route(room, &site, arrived.parts.uri.path()) {
        Ok(route) => route,
        Err(error) => {
            match astray::belongs(&site, &arrived.parts).filter(|_| matches!(error, RouteError::NotFound)) {
                Some(address) => return Ok(redirect(StatusCode::TEMPORARY_REDIRECT, &address)),
                None => return Err(error.into()),
            }
        }
    };
    let mut response = match route {
        Route::Workspace => {
            record.goes_to(|| "workspace".to_owned());
            // An application's page that asks for a path from the root is led to where it belongs.
            let astray = astray::belongs(&site, &arrived.parts).filter(|_| arrived.parts.uri.path() != "/");
            match astray {
                Some(address) => redirect(StatusCode::TEMPORARY_REDIRECT, &address),
                None => {
                    Box::pin(own::workspace::answer(connection, &site, &who, &arrived.parts, arrived.body))
                        .await?
                }
            }
        }
        Route::MissingSlash => {
            let query = arrived.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            redirect(StatusCode::PERMANENT_REDIRECT, &format!("{}/{query}", arrived.parts.uri.path()))
        }
        Route::Application { place, prefix_length } => {
            record.goes_to(|| place.what.path());
            who.require(Scope::Apps)?;
            let in_flight = who.session().begin(settings.places()).ok_or(Reject::TooMany)?;
            let resolved = resolve(room, who.session(), &place).await;
            let target = resolved.inspect_err(|why| audit::unresolved(who.session(), &place.what, why))?;
            let journey = Journey {
                connection,
                settings,
                record,
                site: &site,
                who: &who,
                place: &place,
                prefix_length,
                target: &target,
                fetch: arrived.fetch,
            };
            journey.to_application(arrived, in_flight).await?
        }
    };
    if let Some(ticket) = who.old_ticket()
        && let Some(cookie) = Box::pin(own::renewed_cookie(room, &site, &who, ticket)).await
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
