//! An application's answer as the browser may see it. Before: `forward`. After: `answer`. What is mapped to what is
//! `portreeve_rewrite`'s business; here is what it must know, and the body's way through it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
pub(crate) use portreeve_rewrite::{BodyError, Destination, Mode, Rewriter};
use portreeve_rewrite::{Exchange, Injection, SCRIPT};
pub(crate) use portreeve_rewrite::{cookies_towards_application, narrow_accept_encoding};

use crate::answer::Answer;
use crate::authenticate::COOKIE_NAME;
use crate::headers::remove_hop_by_hop;
use crate::reject::Reject;
use crate::resolve::Target;
use crate::route::Place;
use crate::site::Site;

/// Where pages find the script that maps what their own scripts make.
pub(crate) const SCRIPT_PATH: &str = "/-/rewrite.js";

/// The script's address, which changes with it, and its hash.
static SCRIPT_TAG: LazyLock<(String, String)> = LazyLock::new(|| {
    let hash = digest(&SHA256, SCRIPT.as_bytes());
    let short: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    (format!("{SCRIPT_PATH}?{short}"), format!("sha256-{}", STANDARD.encode(hash.as_ref())))
});

/// The script itself. It is the same for everybody and holds no secret.
pub(crate) fn script() -> Response<Answer> {
    let mut response = Response::new(Answer::from(SCRIPT.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Where an application appears: made once, and then remembered with its place for as long as nothing changes. `foreign`: the
/// owner of one that is not the visitor's own, where it shares its origin.
pub(crate) fn appearance(
    place: &Place,
    target: &Target,
    mode: Mode,
    site: &Site,
    server: SocketAddr,
    foreign: Option<u32>,
) -> Result<Arc<portreeve_rewrite::Place>, Reject> {
    let base = &*target.base;
    let mut remembered = place.appearance.borrow_mut();
    if let Some((of, known)) = &*remembered
        && *of == server
        && known.host() == &*site.authority
        && known.base() == base
        && known.mode() == mode
        && known.cookies_of() == foreign
    {
        return Ok(Arc::clone(known));
    }
    let port = server.port();
    let mut origins = vec![
        server.to_string(),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
    ];
    origins.push(target.authority.to_string());
    let made = portreeve_rewrite::Place::new(&place.prefix, base, &site.authority, mode)
        .map_err(|error| Reject::Internal(error.into()))?
        .with_origins(origins.iter().map(String::as_str))
        .with_cookies_of(foreign);
    Ok(Arc::clone(&remembered.insert((server, Arc::new(made))).1))
}

/// Makes an answer's fields fit for the browser. Returns what its body must go through, if anything.
pub(crate) fn towards_browser(
    headers: &mut HeaderMap,
    place: &Arc<portreeve_rewrite::Place>,
    method: &Method,
    destination: Destination,
    status: StatusCode,
) -> Result<Option<Rewriter>, Reject> {
    remove_hop_by_hop(headers);
    let injection = match place.rewrites_bodies() && is_page(headers) {
        true => Some(Rc::new(injection()?)),
        false => None,
    };
    let exchange = Exchange {
        place,
        method,
        destination,
        status,
        injection: injection.as_ref(),
        our_cookie: COOKIE_NAME,
    };
    Ok(portreeve_rewrite::towards_browser(headers, &exchange))
}

/// An interim answer's `Link` fields as the browser must see them, and nothing else of it.
pub(crate) fn links_of(interim: &HeaderMap, place: &portreeve_rewrite::Place) -> HeaderMap {
    let mut links = HeaderMap::new();
    for link in interim.get_all(header::LINK) {
        links.append(header::LINK, link.clone());
    }
    portreeve_rewrite::links_towards_browser(&mut links, place);
    links
}

/// Trailers of an answer may not do what its fields may not.
pub(crate) fn trailers_towards_browser(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    portreeve_rewrite::trailers_towards_browser(trailers);
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| {
        ["text/html", "application/xhtml+xml"].iter().any(|page| {
            kind.get(..page.len()).is_some_and(|start| start.eq_ignore_ascii_case(page.as_bytes()))
        })
    })
}

fn injection() -> Result<Injection, Reject> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Reject::Internal(error.into()))?;
    let (src, integrity) = SCRIPT_TAG.clone();
    Ok(Injection { src, integrity: Some(integrity), nonce: STANDARD.encode(nonce) })
}

/// A body on its way through.
pub(crate) struct Rewriting {
    rewriter: Option<Rewriter>,
    /// What came and was not taken yet.
    rest: Bytes,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// What of a body can go now.
pub(crate) enum Step {
    /// This.
    Data(Bytes),
    /// Nothing, before more comes.
    More,
    /// All has gone; these trailers follow.
    End(Option<HeaderMap>),
}

impl Rewriting {
    pub(crate) fn new(rewriter: Rewriter) -> Box<Self> {
        Box::new(Self { rewriter: Some(rewriter), rest: Bytes::new(), trailers: None, ended: false })
    }

    /// More of the body came. Only after [`Step::More`].
    pub(crate) fn take(&mut self, data: Bytes) {
        self.rest = data;
    }

    /// The body is complete.
    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) {
        self.ended = true;
        self.trailers = trailers;
    }

    /// Whether all has gone.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.rewriter.is_none() && self.trailers.is_none()
    }

    pub(crate) fn step(&mut self) -> Result<Step, BodyError> {
        let mut out = Vec::new();
        if let Some(rewriter) = &mut self.rewriter {
            let taken = rewriter.push(&self.rest, &mut out)?;
            self.rest.advance(taken);
        }
        if self.rest.is_empty()
            && self.ended
            && let Some(rewriter) = self.rewriter.take()
        {
            rewriter.finish(&mut out);
        }
        Ok(match (out.is_empty(), self.ended) {
            (false, _) => Step::Data(out.into()),
            (true, false) => Step::More,
            (true, true) => Step::End(self.trailers.take()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Route, route};

    #[test]
    fn a_forward_that_leads_elsewhere_now_appears_anew() {
        let (_state, room) = crate::room::tests::room();
        let site = Site::localhost();
        let Ok(Route::Application { place, .. }) = route(&room, &site, "/fw/tb/") else { panic!() };
        let target = Target {
            addresses: Vec::new(),
            tls: None,
            base: "".into(),
            authority: "c1:8888".into(),
            mode: None,
            host: None,
            authorization: None,
            grant: Rc::new(crate::resolve::Grant::Direct(
                portreeve_model::NodePort::parse("c1:8888").unwrap(),
            )),
        };
        let of = |port: u16, foreign| {
            appearance(&place, &target, Mode::Strip, &site, ([127, 0, 0, 1], port).into(), foreign).unwrap()
        };
        let at = |port| of(port, None);
        let (first, again) = (at(8001), at(8001));
        assert!(Arc::ptr_eq(&first, &again));
        let second = at(8002);
        let mapped = Some("https://localhost/fw/tb/x".to_owned());
        for (appears, own, other) in [(first, 8001, 8002), (second, 8002, 8001)] {
            assert_eq!(appears.map(&format!("http://localhost:{own}/x")), mapped);
            assert_eq!(appears.map(&format!("http://localhost:{other}/x")), None);
            assert_eq!(appears.map("http://c1:8888/x"), mapped, "by the name that the forward has for it");
        }
        // To another visitor it may be somebody else's.
        assert_eq!((at(8002).cookies_of(), of(8002, Some(7)).cookies_of()), (None, Some(7)));
    }
}
