//! Which page may ask for what, as far as the browser says which page it is. Applications must not attack their neighbours,
//! nor the portal's own pages.

use http::Method;
use http::header;
use http::request::Parts;

use crate::fetch::Fetch;
use crate::reject::Reject;
use crate::site::Site;

/// Refuses what another origin's page asks for with this visitor's cookie. `SameSite=Lax` keeps the cookie from other
/// sites' pages, but not from another port of the same host.
pub(crate) fn refuse_cross_site(site: &Site, parts: &Parts, fetch: Fetch) -> Result<(), Reject> {
    let headers = &parts.headers;
    if fetch.is_foreign == Some(true) {
        let follows_a_link = fetch.navigates == Some(true)
            && matches!(parts.method, Method::GET | Method::HEAD)
            && (fetch.is_document() || fetch.destination.is_none());
        if !follows_a_link {
            return Err(Reject::CrossSite);
        }
    }
    // A WebSocket is not bound by the rules for reading other origins, and a form is sent before anybody reads: only
    // the Origin tells from where.
    let opens_tunnel = headers.contains_key(header::UPGRADE) || parts.method == Method::CONNECT;
    let changes =
        !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) && fetch.is_foreign.is_none();
    if (opens_tunnel || changes)
        && let Some(origin) = headers.get(header::ORIGIN)
        && !origin.to_str().is_ok_and(|origin| site.is_origin(origin))
    {
        return Err(Reject::CrossSite);
    }
    Ok(())
}

/// Refuses what changes something unless our own page, or no page at all, asks for it.
pub(super) fn require_own_origin(site: &Site, parts: &Parts) -> Result<(), Reject> {
    let origin_is_ours = match parts.headers.get(header::ORIGIN) {
        Some(origin) => origin.to_str().is_ok_and(|origin| site.is_origin(origin)),
        None => true,
    };
    if !origin_is_ours || Fetch::of(&parts.headers).is_foreign == Some(true) {
        return Err(Reject::CrossSite);
    }
    Ok(())
}

/// Who reads the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A browser's window.
    Window,
    /// Something in a page: a script, an image, a frame.
    Page,
    /// A program.
    Program,
}

impl Reader {
    pub(crate) fn of(fetch: Fetch) -> Self {
        match fetch.navigates {
            None if fetch.is_foreign.is_some() => Self::Page,
            None => Self::Program,
            Some(true) if fetch.is_document() => Self::Window,
            Some(_) => Self::Page,
        }
    }
}

/// Refuses our own pages, and what they do, to everything but a window or a program: to a script, a frame or an image of an
/// application that shares the portal's origin. A window that such a page opens is cut off from it (COOP, `respond.rs`).
pub(super) fn refuse_pages_of_applications(site: &Site, parts: &Parts) -> Result<(), Reject> {
    let fetch = Fetch::of(&parts.headers);
    refuse_cross_site(site, parts, fetch)?;
    let by_application = match Reader::of(fetch) {
        Reader::Window => false,
        Reader::Page => true,
        // Or a browser that doesn't say what it is.
        Reader::Program => parts.headers.get(header::REFERER).is_some_and(|page| {
            let path = page.to_str().ok().and_then(|page| site.path_of(page));
            path.is_some_and(|path| path.starts_with("/fw/") || path.starts_with("/fw2/"))
        }),
    };
    if by_application { Err(Reject::ForWindows) } else { Ok(()) }
}
