//! Doors to this crate's parsers of foreign bytes, for the fuzz targets. No interface: nothing else may call them.
//!
//! What the targets hold these functions to, whatever the bytes:
//! - none of them panics;
//! - [`next`] and [`go`] yield paths on this portal: they begin with '/', not with `//`, and a browser that resolves
//!   them against the portal's address stays there;
//! - towards an application no field that speaks for a proxy comes from the browser, `X-Forwarded-User` is ours and
//!   stands there once, and no cookie of ours is left, while all other fields and cookies arrive as they were;
//! - towards a browser no cookie has a name of ours (nor, nameless, a value that reads so), each is confined to its
//!   application's path, and a `Location` on the portal's own host never turns into one that leads to another;
//! - a PROXY header that is taken says what its bytes say, about TCP from an address that is not this machine's loopback;
//! - a ticket verifies only if it is, byte for byte, one that was signed.

use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use portreeve_model::{AppHost, Claims, HostRules};

use crate::mode::Mode;

/// Every cookie whose name begins with this is ours.
pub const COOKIE_NAME: &str = crate::authenticate::COOKIE_NAME;

/// Where a browser may be sent after it signed in.
#[must_use]
pub fn next(wanted: &str) -> Option<&str> {
    crate::own::next::checked(wanted)
}

/// Where `/-/go` sends the browser; `None` when it is refused.
#[must_use]
pub fn go(parts: &Parts) -> Option<HeaderValue> {
    crate::own::go(parts, "https://localhost:8443", true).headers().get(header::LOCATION).cloned()
}

/// The value of the first cookie of this name.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    crate::authenticate::cookie(headers, name)
}

/// The origin a request is for: authority, host name, and the application if it is one's own.
#[must_use]
pub fn site(rules: &HostRules, parts: &Parts) -> Option<(String, String, Option<AppHost>)> {
    let site = crate::site::site(rules, None, parts).ok()?;
    Some((site.authority.to_string(), site.host.to_string(), site.application().cloned()))
}

/// What a ticket says, if it is genuine. `public` is an Ed25519 key as RFC 8032 encodes it.
#[must_use]
pub fn ticket(text: &str, public: &[u8], key_id: &str, audience: &str, now: i64) -> Option<Claims> {
    portreeve_broker::Verifier::new([(key_id, public)]).verify(text, audience, now)
}

/// Whom a PROXY header speaks for: both ends of the connection, or `Some(None)` for nobody; `None` when it is refused.
#[must_use]
pub fn proxied(header: &[u8]) -> Option<Option<(SocketAddr, SocketAddr)>> {
    match crate::proxied::behind(header).ok()? {
        crate::proxied::Behind::Nobody => Some(None),
        crate::proxied::Behind::Browser(tuple) => Some(Some((tuple.client, tuple.server))),
    }
}

/// Takes the fields of one hop out. Returns whether the sender takes trailers.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> bool {
    crate::headers::remove_hop_by_hop(headers)
}

/// A request's fields as the application may see them. Call after [`remove_hop_by_hop`].
pub fn towards_application(
    headers: &mut HeaderMap,
    peer: &HeaderValue,
    user: &HeaderValue,
    host: &HeaderValue,
    prefix: &HeaderValue,
) {
    crate::headers::towards_application(headers, &crate::headers::Visit { peer, user, host, prefix });
}

/// An answer's fields as the browser may see them. `keeps_prefix`: the application wants its paths whole.
pub fn towards_browser(headers: &mut HeaderMap, prefix: &str, base: &str, keeps_prefix: bool, host: &str) {
    let mode = if keeps_prefix { Mode::Keep } else { Mode::Strip };
    let Ok(place) = portreeve_rewrite::Place::new(prefix, base, host, mode) else { return };
    let (method, destination) = (http::Method::GET, crate::rewrite::Destination::Document);
    let _ =
        crate::rewrite::towards_browser(headers, &place.into(), &method, destination, http::StatusCode::OK);
}

/// Whether a `Location` leads into the prefix.
#[must_use]
pub fn leads_into(location: &[u8], prefix: &str) -> bool {
    crate::mode::leads_into(location, prefix)
}

/// A request's trailers as the application may see them.
pub fn trailers_towards_application(trailers: &mut HeaderMap) {
    crate::headers::trailers_towards_application(trailers);
}

/// An answer's trailers as the browser may see them.
pub fn trailers_towards_browser(trailers: &mut HeaderMap) {
    crate::rewrite::trailers_towards_browser(trailers);
}
