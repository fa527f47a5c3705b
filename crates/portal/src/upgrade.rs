//! Changes of protocol: WebSocket over HTTP/1.1 (RFC 6455) and over HTTP/2 (RFC 8441), and whatever else a browser
//! asks for with `Upgrade`. Towards the application it is always HTTP/1.1.
//!
//! Invariant: an upgrade that the browser did not ask for, or one to cleartext HTTP/2 (which would carry requests past
//! the judgement), does not happen.

use std::rc::Rc;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::flows::Flow;
use crate::forward::Answered;
use crate::front_body::{FrontBody, StreamIo};
use crate::headers::contains_token;
use crate::limits;
use crate::record::{End, Line};
use crate::reject::Reject;
use crate::rewrite::{Destination, towards_browser};
use crate::room::Room;
use crate::sessions::InFlight;
use crate::tunnel::{self, Ended};

/// The browser's connection, once our answer has gone out.
pub(crate) enum Pending {
    Http1(OnUpgrade),
    Http2(oneshot::Receiver<StreamIo>),
}

/// A browser's half of a tunnel.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Pending {
    async fn ready(self) -> Result<Box<dyn Stream>, Box<dyn std::error::Error>> {
        Ok(match self {
            Self::Http1(upgrade) => Box::new(TokioIo::new(upgrade.await?)),
            Self::Http2(stream) => Box::new(stream.await?),
        })
    }
}

/// A protocol change that the browser asked for.
pub(crate) struct Upgrade {
    browser: Pending,
    protocol: HeaderValue,
    /// Over HTTP/2: the key that we made up for the application, and what it must answer to it.
    http2: Option<Handshake>,
}

struct Handshake {
    key: String,
    accept: String,
}

/// Whether the request asks for another protocol.
pub(crate) fn is_wanted(request: &Request<Incoming>) -> bool {
    request.method() == Method::CONNECT
        || (request.headers().contains_key(header::UPGRADE)
            && request
                .headers()
                .get_all(header::CONNECTION)
                .iter()
                .any(|value| contains_token(value, "upgrade")))
}

impl Upgrade {
    /// What the request asks for, which becomes a GET if it came over HTTP/2.
    ///
    /// One with a body is refused: an application that declines the change at its head would take what comes next on
    /// the connection, somebody's next request, for the rest of that body.
    pub(crate) fn of(
        parts: &mut Parts,
        browser: Option<Pending>,
        body: &FrontBody,
    ) -> Result<Option<Self>, Reject> {
        let Some(browser) = browser else { return Ok(None) };
        if parts.method == Method::CONNECT {
            let Some(protocol) = parts.extensions.remove::<Protocol>() else {
                return Err(Reject::Method("GET, HEAD, POST"));
            };
            // Only a WebSocket's handshake proves that the application agreed (RFC 8441 section 3).
            if !protocol.as_str().eq_ignore_ascii_case("websocket") {
                return Err(Reject::UnknownProtocol);
            }
            let protocol = HeaderValue::from_str(protocol.as_str())
                .map_err(|_| Reject::BadRequest("its protocol is malformed"))?;
            parts.method = Method::GET;
            let http2 = Some(Handshake::new()?);
            return Ok(Some(Self { browser, protocol, http2 }));
        }
        let Some(protocol) = parts.headers.get(header::UPGRADE).cloned() else { return Ok(None) };
        if !body.is_end_stream() || parts.headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(Reject::BadRequest("a change of protocol can't be asked for with a body"));
        }
        if contains_token(&protocol, "h2c") || parts.headers.get_all(header::UPGRADE).iter().count() > 1 {
            return Err(Reject::BadRequest("this change of protocol is not offered"));
        }
        Ok(Some(Self { browser, protocol, http2: None }))
    }

    /// The browser's half will be an HTTP/2 stream.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Asks the application for it. Call when the fields of the browser's hop are gone.
    pub(crate) fn announce(&self, headers: &mut HeaderMap) {
        for name in [header::CONTENT_LENGTH, header::TRAILER, header::EXPECT] {
            headers.remove(name);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
        if let Some(handshake) = &self.http2
            && let Ok(key) = HeaderValue::from_str(&handshake.key)
        {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
    }

    /// The protocol that the application names: one of those that were asked for, and no other beside it, which could
    /// carry anything.
    fn agreed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut named = headers.get_all(header::UPGRADE).iter();
        let (Some(agreed), None) = (named.next(), named.next()) else { return None };
        let name = agreed.to_str().ok()?.trim();
        let mut asked = self.protocol.to_str().ok()?.split(',');
        asked.any(|asked| name.eq_ignore_ascii_case(asked.trim())).then(|| agreed.clone())
    }

    /// The answer that agrees, and the tunnel that follows it.
    pub(crate) fn begin(
        self,
        room: &Rc<Room>,
        answered: Answered,
        place: &Arc<portreeve_rewrite::Place>,
        in_flight: InFlight,
        line: Option<Rc<Line>>,
    ) -> Result<Response<Answer>, Reject> {
        let Answered { mut response, mut link, basis } = answered;
        link.let_go(&room.tasks);
        let application = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        let agreed = self.agreed(&parts.headers).ok_or(Reject::NoWebSocket)?;
        towards_browser(&mut parts.headers, place, &http::Method::GET, Destination::Script, parts.status)?;
        let mut reply = Response::new(Answer::empty());
        if let Some(handshake) = &self.http2 {
            const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;
            if parts.headers.remove(ACCEPT).is_none_or(|accept| accept != handshake.accept) {
                return Err(Reject::NoWebSocket);
            }
            *reply.status_mut() = StatusCode::OK;
        } else {
            *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(header::UPGRADE, agreed);
        }
        *reply.headers_mut() = parts.headers;
        let flow = Flow::enter(room, basis);
        let portal = Arc::clone(&room.portal);
        let browser = self.browser;
        room.tasks.spawn_local(async move {
            // The connection to the application and the request's place are held for as long as the tunnel.
            let _held = (link, in_flight);
            let both =
                async { tokio::try_join!(browser.ready(), async { application.await.map_err(Into::into) }) };
            let Ok(Ok((browser, application))) = tokio::time::timeout(limits::UPGRADE, both).await else {
                return;
            };
            // From here on it is the tunnel's end that counts, not that of the answer without a body before it.
            let ended = |end| line.iter().for_each(|line| line.ended(end));
            ended(End::Cut);
            let _open = flow.tunnel();
            let carried = tunnel::carry(browser, TokioIo::new(application), &flow, line.as_deref());
            tokio::select! {
                end = carried => match end {
                    Ended::Closed => ended(End::Closed),
                    Ended::Withdrawn => tracing::debug!("a tunnel was ended"),
                    Ended::Broken(error) => tracing::debug!(%error, "a tunnel broke off"),
                },
                () = portal.stopping.wait() => {}
            }
        });
        Ok(reply)
    }
}

impl Handshake {
    fn new() -> Result<Self, Reject> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| Reject::Internal(error.into()))?;
        let key = STANDARD.encode(nonce);
        // RFC 6455 section 4.2.2: SHA-1 of the key and a fixed text. It is no secret, only proof of the protocol.
        let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Ok(Self { key, accept: STANDARD.encode(digest) })
    }
}
