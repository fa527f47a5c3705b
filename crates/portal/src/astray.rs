//! A request at the portal's root that belongs to an application: a page below a prefix has asked for a path from the root, in a way
//! that nothing has mapped. Its Referer says which page. Before: `route`, which found nothing.
//!
//! Invariant: nobody is led to the portal's own paths, to another origin, or by a page of another origin.

use http::header::{self, HeaderName};
use http::request::Parts;

use crate::site::Site;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// First segments of paths that are the portal's, now or one day.
const OURS: [&str; 5] = ["-", "api", "dav", "fw", "fw2"];

/// Where the request belongs.
pub(crate) fn belongs(site: &Site, parts: &Parts) -> Option<String> {
    let asked = parts.uri.path_and_query()?.as_str();
    let first = asked.strip_prefix('/')?.split(['/', '?']).next()?;
    let is_of_this_origin = parts.headers.get(&FETCH_SITE).is_none_or(|site| site == "same-origin");
    if site.application().is_some() || OURS.contains(&first) || !is_of_this_origin {
        return None;
    }
    let path = site.path_of(parts.headers.get(header::REFERER)?.to_str().ok()?)?;
    let mut segments = path.split('/').skip(1);
    let (kind, name) = (segments.next()?, segments.next()?);
    let is_application = matches!(kind, "fw" | "fw2") && !name.is_empty() && segments.next().is_some();
    is_application.then(|| format!("/{kind}/{name}{asked}"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn led(path: &str, referer: &str, fetch_site: &str) -> Option<String> {
        let mut request = Request::get(path).header(header::REFERER, referer);
        if !fetch_site.is_empty() {
            request = request.header(FETCH_SITE, fetch_site);
        }
        belongs(&Site::localhost(), &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_page_below_a_prefix_is_told_where_its_path_is() {
        let page = "https://localhost/fw2/c1:12001/docs/";
        for (path, referer, expected) in [
            ("/style.css", page, "/fw2/c1:12001/style.css"),
            ("/a/b?c=/d", "https://LOCALHOST/fw/tb/", "/fw/tb/a/b?c=/d"),
            ("//evil/x", page, "/fw2/c1:12001//evil/x"),
            ("/apiary", page, "/fw2/c1:12001/apiary"),
        ] {
            for fetch_site in ["", "same-origin"] {
                assert_eq!(led(path, referer, fetch_site).as_deref(), Some(expected), "{path} {referer}");
            }
        }
    }

    #[test]
    fn nobody_is_led_astray() {
        let page = "https://localhost/fw2/c1:12001/";
        for path in ["/-/sign-out", "/-", "/api/v1/files", "/api?x", "/dav/", "/fw/other/", "/fw2/c2:1/"] {
            assert_eq!(led(path, page, ""), None, "{path}");
        }
        for referer in [
            "https://elsewhere/fw2/c1:12001/",
            "https://localhost.evil/fw2/c1:12001/",
            "http://localhost/fw2/c1:12001/",
            "https://localhost",
            "https://localhost/",
            "https://localhost/fw2/",
            "https://localhost/fw2/c1:12001",
            "https://localhost/fw3/c1:12001/",
            "https://localhost//fw/c1/",
            "",
        ] {
            assert_eq!(led("/x", referer, ""), None, "{referer}");
        }
        for fetch_site in ["cross-site", "same-site", "none"] {
            assert_eq!(led("/x", page, fetch_site), None, "{fetch_site}");
        }
    }
}
