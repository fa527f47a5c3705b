//! A request whose target is known, on its way to the application and back: connected, authorized, forwarded, answered. Before: `serve`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use portreeve_model::Owner;

use crate::answer::Answer;
use crate::audit;
use crate::authenticate::{COOKIE_NAME, Principal};
use crate::authorize::{Owned, authorize, is_foreign};
use crate::connect::connect;
use crate::fetch::Fetch;
use crate::forward::{Answered, ForwardError, Sending, forward, set_line};
use crate::front::Connection;
use crate::headers::{Visit, remove_hop_by_hop, speak_to_target, towards_application};
use crate::interim::InterimSink;
use crate::limits;
use crate::mode::{self, Mode, leads_into, mode_of};
use crate::own::origins;
use crate::own::shown::{Shown, portal_origin};
use crate::portal::Settings;
use crate::record::Record;
use crate::reject::Reject;
use crate::request_body::RequestBody;
use crate::resolve::{Grant, Target};
use crate::respond::redirect;
use crate::rewrite::{
    Rewriting, appearance, cookies_towards_application, narrow_accept_encoding, towards_browser,
};
use crate::route::Place;
use crate::serve::Arrived;
use crate::sessions::InFlight;
use crate::site::{Origin, Site};
use crate::upgrade::Upgrade;

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// What such a request takes along, there and back.
pub(crate) struct Journey<'a> {
    pub(crate) connection: &'a Rc<Connection>,
    pub(crate) settings: &'a Arc<Settings>,
    pub(crate) record: &'a Record<'a>,
    pub(crate) site: &'a Site,
    pub(crate) who: &'a Principal,
    pub(crate) place: &'a Place,
    pub(crate) prefix_length: usize,
    pub(crate) target: &'a Target,
    pub(crate) fetch: Fetch,
}

/// What belongs to a request until it is answered, however often it is sent.
#[derive(Clone, Copy)]
struct OnItsWay<'a> {
    /// The path that the browser asked for, whole.
    asked: &'a PathAndQuery,
    in_flight: &'a InFlight,
    /// Where interim answers go.
    interim: &'a InterimSink,
}

impl Journey<'_> {
    pub(crate) async fn to_application(
        &self,
        mut arrived: Box<Arrived>,
        in_flight: InFlight,
    ) -> Result<Response<Answer>, Reject> {
        let parts = &mut arrived.parts;
        let asked = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if self.place.prefix.is_empty() && asked.path() == "/" && !self.target.base.is_empty() {
            return Ok(redirect(StatusCode::TEMPORARY_REDIRECT, &format!("{}/", self.target.base)));
        }
        let method = parts.method.clone();
        let upgrade = Upgrade::of(parts, arrived.upgrade.take(), &arrived.body)?;
        let takes_trailers = remove_hop_by_hop(&mut parts.headers);
        towards_application(
            &mut parts.headers,
            &Visit {
                peer: &self.connection.peer_header,
                user: &self.who.session().user_header,
                host: &self.site.authority_header,
                prefix: &self.place.prefix_header,
            },
        );
        if let Some(host) = &self.target.host {
            speak_to_target(&mut parts.headers, self.site, self.place, host, self.target.tls.is_some());
        }
        if let Some(upgrade) = &upgrade {
            upgrade.announce(&mut parts.headers);
        } else if takes_trailers {
            parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(authorization) = &self.target.authorization {
            parts.headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let Arrived { mut parts, body, interim, .. } = *arrived;
        let body = if upgrade.is_some() {
            RequestBody::none()
        } else {
            RequestBody::new(
                body,
                Rc::clone(&self.connection.room),
                Arc::clone(self.who.session()),
                self.settings.config.limits.body_stall,
                self.settings.idle_seconds(),
            )
        };
        // Without a length, the library sends a body with these methods only if told how.
        if matches!(parts.method, Method::GET | Method::HEAD)
            && !body.is_none()
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
        {
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let on_its_way = OnItsWay { asked: &asked, in_flight: &in_flight, interim: &interim };
        let request = Box::new(Request::from_parts(parts, body));
        let (answered, mode) = self.exchange(request, on_its_way).await?;
        if self.reader() == origins::Reader::Window && !self.place.prefix.is_empty() {
            self.who.session().note_mode(&self.place.prefix, mode::shown(mode));
        }
        self.back(answered, mode, &method, upgrade, in_flight)
    }

    /// Who reads the answer.
    fn reader(&self) -> origins::Reader {
        origins::Reader::of(self.fetch)
    }

    /// Sends the request, and learns on the way how the application wants its paths.
    async fn exchange(
        &self,
        request: Box<Request<RequestBody>>,
        way: OnItsWay<'_>,
    ) -> Result<(Answered, Mode), Reject> {
        let below_path = self.below_its_path(way.asked);
        let mut again = below_path.as_ref().and_then(|_| repeated(&request));
        let (answered, mode) = self.send(request, way, None, &mut again).await?;
        let again = again.filter(|_| answered.response.status() == StatusCode::NOT_FOUND);
        let Some(first_mode) = mode else {
            let learned = self.learn(&answered, way.asked);
            if let Some(request) = again {
                match Box::pin(self.send(request, way, Some(Mode::Keep), &mut None)).await {
                    Ok((kept, _)) if kept.response.status() != StatusCode::NOT_FOUND => {
                        self.remember(&kept, Mode::Keep);
                        return Ok((kept, Mode::Keep));
                    }
                    // Nor is the first answer for somebody who may not have one any more.
                    Err(why) if why.is_denial() => return Err(why),
                    Ok(_) | Err(_) => {}
                }
            }
            return Ok((answered, learned));
        };
        if let (Some(below_path), Some(request)) = (below_path, again) {
            let below = OnItsWay { asked: &below_path, ..way };
            let found = Box::pin(self.send(request, below, Some(Mode::Keep), &mut None)).await;
            if found.is_ok_and(|(found, _)| found.response.status() != StatusCode::NOT_FOUND) {
                return Err(Reject::Elsewhere(format!("https://{}{below_path}", self.site.authority)));
            }
        }
        Ok((answered, first_mode))
    }

    /// In an origin of its own: where a window's path would be, were the application started for the path form.
    fn below_its_path(&self, asked: &PathAndQuery) -> Option<PathAndQuery> {
        if self.reader() != origins::Reader::Window || self.site.application().is_none() {
            return None;
        }
        let path = self.place.what.path();
        let is_new = !asked.as_str().strip_prefix(&path).is_some_and(|rest| rest.starts_with('/'));
        is_new.then(|| format!("{path}{asked}").parse().ok()).flatten()
    }

    /// What an answer to a request without the prefix says about the application.
    fn learn(&self, answered: &Answered, asked: &PathAndQuery) -> Mode {
        let response = &answered.response;
        let location = response.headers().get(header::LOCATION);
        let into_prefix =
            location.is_some_and(|location| leads_into(location.as_bytes(), &self.place.prefix));
        if into_prefix {
            self.remember(answered, Mode::Keep);
            return Mode::Keep;
        }
        let found = response.status().is_success() || response.status().is_redirection();
        if found
            || (asked.path().len() == self.prefix_length + 1 && response.status() != StatusCode::NOT_FOUND)
        {
            self.remember(answered, Mode::Strip);
        }
        Mode::Strip
    }

    fn remember(&self, answered: &Answered, mode: Mode) {
        answered.link.note_mode(&self.place.prefix, mode);
        let room = &self.connection.room;
        let listener = room.listener(&answered.link.tuple, &answered.link.owner.get());
        room.portal.modes.learn(listener, &self.place.prefix, mode);
    }

    /// The owner of an application that is not the visitor's own, where it shares its origin with others.
    fn foreign_owner(&self, grant: &Grant, owner: &Owner) -> Option<u32> {
        let foreign = self.site.application().is_none() && is_foreign(self.who.session(), grant, owner);
        foreign.then_some(owner.uid)
    }

    fn appearance(
        &self,
        mode: Mode,
        server: SocketAddr,
        foreign: Option<u32>,
    ) -> Result<Arc<portreeve_rewrite::Place>, Reject> {
        appearance(self.place, self.target, mode, self.site, server, foreign)
    }

    /// Connects, authorizes, forwards; once more on a fresh connection when nothing was sent. Returns the mode that
    /// was known, if any; if none was, `again` is the request to be made once more.
    async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        way: OnItsWay<'_>,
        forced: Option<Mode>,
        again: &mut Option<Box<Request<RequestBody>>>,
    ) -> Result<(Answered, Option<Mode>), Reject> {
        let room = &self.connection.room;
        let session = self.who.session();
        let sending = Sending {
            room,
            session,
            interim: way.interim,
            asked: self.record.begun(),
            patience: self.settings.config.limits.response_head,
            idle: self.settings.idle_seconds(),
        };
        let mut fresh = false;
        loop {
            let reached = connect(room, session, self.target, sending.asked, fresh).await?;
            let owned = authorize(room, session, &self.target.grant, reached).await?;
            if let Err(why) = self.admit(way, &owned) {
                audit::not_here(session, &self.target.grant, &why);
                return Err(why);
            }
            let known = || mode_of(room, self.place, self.target, &owned).map(|(mode, _)| mode);
            let mode = forced.or_else(known);
            if mode.is_none() && again.is_none() {
                *again = repeated(&request);
            }
            let wanted = mode.unwrap_or(Mode::Strip);
            let foreign = self.foreign_owner(owned.grant(), &owned.owner());
            let place = self.appearance(wanted, owned.tuple().server, foreign)?;
            if place.rewrites_bodies() {
                narrow_accept_encoding(request.headers_mut());
            }
            cookies_towards_application(request.headers_mut(), &place, COOKIE_NAME);
            let path = self.path(way.asked, wanted);
            let host = self.target.host.as_ref().unwrap_or(&self.site.authority_header);
            set_line(&mut request, &path, host)
                .map_err(|_| Reject::BadRequest("its address is malformed"))?;
            match forward(&sending, owned, &place, request).await {
                Ok(answered) => {
                    if let Some(mode) = mode {
                        answered.link.note_mode(&self.place.prefix, mode);
                    }
                    return Ok((answered, mode));
                }
                Err(ForwardError::NotSent(unsent)) if !fresh => {
                    request = unsent;
                    fresh = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// This person may use the application: is it shown here, and may it take one more place?
    fn admit(&self, way: OnItsWay<'_>, owned: &Owned) -> Result<(), Reject> {
        let owner = owned.owner();
        let foreign = is_foreign(self.who.session(), owned.grant(), &owner);
        let shown = Shown {
            connection: self.connection,
            site: self.site,
            session: self.who.session(),
            place: self.place,
            asked: way.asked,
            reader: self.reader(),
            for_service_worker: self.fetch.for_service_worker,
            asks: self.settings.config.portal.ask_about_foreign,
        };
        shown.refuse(owner.uid, foreign)?;
        // Others' applications may not use up what the visitor's own need.
        if foreign && !way.in_flight.take_foreign_place(self.settings.places() / limits::FOREIGN_SHARE) {
            return Err(Reject::TooMany);
        }
        Ok(())
    }

    /// The path as the application is asked for it.
    fn path<'p>(&self, asked: &'p PathAndQuery, mode: Mode) -> std::borrow::Cow<'p, str> {
        let rest = &asked.as_str()[self.prefix_length..];
        match mode {
            Mode::Keep => asked.as_str().into(),
            Mode::Strip if self.target.base.is_empty() => rest.into(),
            Mode::Strip => format!("{}{rest}", self.target.base).into(),
        }
    }

    /// The answer, or the tunnel, on its way to the browser.
    fn back(
        &self,
        answered: Answered,
        mode: Mode,
        method: &Method,
        upgrade: Option<Upgrade>,
        in_flight: InFlight,
    ) -> Result<Response<Answer>, Reject> {
        let room = &self.connection.room;
        let server = answered.link.tuple.server;
        let foreign = self.foreign_owner(&answered.basis.grant, &answered.basis.owner);
        let place = self.appearance(mode, server, foreign)?;
        if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.ok_or(Reject::NoWebSocket)?;
            return upgrade.begin(room, answered, &place, in_flight, self.record.line());
        }
        // Over HTTP/2 any success would tell the browser that its WebSocket is open.
        if upgrade.as_ref().is_some_and(Upgrade::is_http2) && answered.response.status().is_success() {
            return Err(Reject::NoWebSocket);
        }
        let Answered { response, link, basis } = answered;
        let (mut parts, incoming) = response.into_parts();
        // It was HTTP/1.1 here; what it becomes is for the browser's connection to say.
        parts.version = http::Version::default();
        parts.extensions = http::Extensions::new();
        let rewriter =
            towards_browser(&mut parts.headers, &place, method, self.fetch.destination(), parts.status)?;
        if let Some(owner) = foreign {
            let asks = self.settings.config.portal.ask_about_foreign;
            let is_shown = asks && self.who.session().consented(&self.place.what, owner);
            confine(&mut parts.headers, is_shown);
        }
        if self.site.owner().is_some() || self.site.origin == Origin::Applications {
            frame_only_here(&mut parts.headers, &portal_origin(&room.portal, self.site));
        }
        let rewriting = rewriter.map(Rewriting::new);
        let body = Answer::carried(incoming, rewriting, Some(link), Rc::clone(room), basis, in_flight);
        Ok(Response::from_parts(parts, body))
    }
}

/// The same once more, if it may be asked twice, and can be.
fn repeated(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    if !request.body().is_none() || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let mut again = Box::new(Request::new(RequestBody::none()));
    *again.method_mut() = request.method().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// An application in an origin of its own is shown in frames of its own pages and of the portal's: no other application's page
/// has the visitor click where it wants.
fn frame_only_here(headers: &mut HeaderMap, portal: &str) {
    if let Ok(policy) = HeaderValue::try_from(format!("frame-ancestors 'self' {portal}")) {
        headers.append(header::CONTENT_SECURITY_POLICY, policy);
    }
}

/// Somebody else's application in an origin that it shares. Unless its visitor wants to see it there (`is_shown`), it is
/// answered to programs only; should a browser show it all the same, it gets no origin to act from. If they do, windows that
/// it opens are still cut off from it.
fn confine(headers: &mut HeaderMap, is_shown: bool) {
    if is_shown {
        headers.remove(CROSS_ORIGIN_OPENER_POLICY);
    } else {
        headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
}
