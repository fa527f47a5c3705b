//! An application's answer as the browser may see it. Before: `forward`. After: `respond`.
//!
//! Invariant: no answer sets a cookie of ours, reaches beyond its own path, or changes how the browser treats the
//! whole origin.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::headers::{is_our_cookie, remove_hop_by_hop};
use crate::mode::Mode;

/// Fields that speak for the whole origin: no application may, where it shares one.
const SPEAKS_FOR_THE_ORIGIN: [HeaderName; 6] = [
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("strict-transport-security"),
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("service-worker-allowed"),
];

/// How the application appears to the browser.
pub(crate) struct View<'a> {
    /// The path below which it appears, without closing slash; empty in an origin of its own.
    pub(crate) prefix: &'a str,
    /// The path at the application that the prefix stands for, without closing slash.
    pub(crate) base: &'a str,
    /// Whether it wants the prefix.
    pub(crate) mode: Mode,
    /// The host as the browser sent it: where the application believes to be.
    pub(crate) host: &'a str,
}

/// Makes an answer's fields fit for the browser.
pub(crate) fn towards_browser(headers: &mut HeaderMap, view: &View<'_>) {
    remove_hop_by_hop(headers);
    if view.prefix.is_empty() {
        // Its own origin is its own, but `Alt-Svc` would lead past this portal, session cookie and all.
        headers.remove(&SPEAKS_FOR_THE_ORIGIN[2]);
    } else {
        for name in &SPEAKS_FOR_THE_ORIGIN {
            headers.remove(name);
        }
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        if let Some(mapped) = headers.get(&name).and_then(|value| location(value, view)) {
            headers.insert(name, mapped);
        }
    }
    if headers.contains_key(header::SET_COOKIE) {
        set_cookies(headers, view);
    }
}

/// Trailers of an answer may not do what its fields may not.
pub(crate) fn trailers_towards_browser(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    for name in &SPEAKS_FOR_THE_ORIGIN {
        trailers.remove(name);
    }
    for name in [header::SET_COOKIE, header::LOCATION, header::CONTENT_LENGTH] {
        trailers.remove(name);
    }
}

/// The address as the browser must see it; `None` when it is right already.
fn location(value: &HeaderValue, view: &View<'_>) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let after_scheme = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let (path, had_origin) = match after_scheme {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            if !rest[..end].eq_ignore_ascii_case(view.host) {
                return None;
            }
            (&rest[end..], true)
        }
        None if text.starts_with('/') && !text.starts_with("//") => (text, false),
        None => return None,
    };
    let mapped = match view.mode {
        Mode::Strip => format!("{}{}", view.prefix, below(path, view.base)),
        Mode::Keep if had_origin => path.to_owned(),
        Mode::Keep => return None,
    };
    let mapped = if mapped.starts_with('/') { mapped } else { format!("/{mapped}") };
    // Browsers drop tabs and read `\` as `/`: without its origin, `//evil` would name another host.
    let mut letters = mapped.chars().filter(|letter| !matches!(letter, '\t' | '\r' | '\n'));
    if letters.next() == Some('/') && matches!(letters.next(), Some('/' | '\\')) {
        return HeaderValue::try_from(format!("https://{}{mapped}", view.host)).ok();
    }
    HeaderValue::try_from(mapped).ok()
}

/// The part of an application's path that stands below `base`; the whole path if it is elsewhere.
fn below<'a>(path: &'a str, base: &str) -> &'a str {
    match path.strip_prefix(base) {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => rest,
        _ => path,
    }
}

/// Drops cookies of our names, takes `Domain` off, and confines `Path`.
fn set_cookies(headers: &mut HeaderMap, view: &View<'_>) {
    let cookies: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().filter_map(|value| set_cookie(value, view)).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn set_cookie(value: &HeaderValue, view: &View<'_>) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    let mut parts = bytes.split(|byte| *byte == b';');
    let pair = parts.next()?;
    let name = pair.split(|byte| *byte == b'=').next()?.trim_ascii();
    // A cookie without a name is sent back as its value alone, which could read like one of ours.
    let nameless = pair.trim_ascii().strip_prefix(b"=").unwrap_or_default().trim_ascii();
    if is_our_cookie(name) || (name.is_empty() && is_our_cookie(nameless)) {
        return None;
    }
    let mut kept = pair.to_vec();
    let mut path = None;
    for attribute in parts {
        let key = attribute.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if key.eq_ignore_ascii_case(b"path") {
            // The last one counts (RFC 6265 section 5.2).
            path = attribute.splitn(2, |byte| *byte == b'=').nth(1).map(<[u8]>::trim_ascii);
        } else if !key.eq_ignore_ascii_case(b"domain") {
            kept.push(b';');
            kept.extend_from_slice(attribute);
        }
    }
    kept.extend_from_slice(b"; Path=");
    kept.extend_from_slice(&cookie_path(path.unwrap_or_default(), view)?);
    HeaderValue::from_bytes(&kept).ok()
}

/// The path that a cookie is confined to.
fn cookie_path(path: &[u8], view: &View<'_>) -> Option<Vec<u8>> {
    let path = std::str::from_utf8(path).ok()?;
    if view.prefix.is_empty() {
        return Some(if path.starts_with('/') { path.as_bytes().to_vec() } else { b"/".to_vec() });
    }
    let confined = match view.mode {
        Mode::Keep if path.strip_prefix(view.prefix).is_some_and(|r| r.is_empty() || r.starts_with('/')) => {
            path.to_owned()
        }
        Mode::Strip if path.starts_with('/') => format!("{}{}", view.prefix, below(path, view.base)),
        // No path, the whole origin, or somebody else's part of it.
        _ => format!("{}/", view.prefix),
    };
    // `/fw/tb/../other` would not be confined in the eyes of every browser.
    Some(if confined.contains("..") { format!("{}/", view.prefix) } else { confined }.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(mode: Mode) -> View<'static> {
        View { prefix: "/fw/tb", base: "", mode, host: "localhost:8443" }
    }

    fn one(name: &'static str, value: &str, view: &View<'_>) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        towards_browser(&mut headers, view);
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn locations() {
        for (from, strip, keep) in [
            ("/dir/", "/fw/tb/dir/", "/dir/"),
            ("dir/", "dir/", "dir/"),
            ("http://localhost:8443/dir/", "/fw/tb/dir/", "/dir/"),
            ("https://LOCALHOST:8443", "/fw/tb", "/"),
            ("http://elsewhere/dir/", "http://elsewhere/dir/", "http://elsewhere/dir/"),
            ("//elsewhere/", "//elsewhere/", "//elsewhere/"),
            ("https://localhost:8443//evil", "/fw/tb//evil", "https://localhost:8443//evil"),
            ("https://localhost:8443/\\evil", "/fw/tb/\\evil", "https://localhost:8443/\\evil"),
            ("https://localhost:8443/\t/evil", "/fw/tb/\t/evil", "https://localhost:8443/\t/evil"),
        ] {
            assert_eq!(one("location", from, &view(Mode::Strip)).as_deref(), Some(strip), "strip {from}");
            assert_eq!(one("location", from, &view(Mode::Keep)).as_deref(), Some(keep), "keep {from}");
        }
        let based = View { base: "/app", ..view(Mode::Strip) };
        assert_eq!(one("location", "/app/x", &based).as_deref(), Some("/fw/tb/x"));
        let own = View { prefix: "", ..view(Mode::Strip) };
        assert_eq!(one("location", "/x", &own).as_deref(), Some("/x"));
    }

    #[test]
    fn cookies_are_confined_and_ours_are_not_set() {
        for (from, expected) in [
            ("a=1", Some("a=1; Path=/fw/tb/")),
            ("a=1; Path=/; HttpOnly", Some("a=1; HttpOnly; Path=/fw/tb/")),
            ("a=1; path=/x; Domain=localhost", Some("a=1; Path=/fw/tb/x")),
            ("a=1; Path=/../x", Some("a=1; Path=/fw/tb/")),
            ("__Host-portreeve=x; Path=/", None),
            ("__host-Portreeve-next=x", None),
            ("=__Host-portreeve=x", None),
            ("= __Host-portreeve=x", None),
            (" __Host-portreeve =x", None),
        ] {
            assert_eq!(one("set-cookie", from, &view(Mode::Strip)).as_deref(), expected, "{from}");
        }
        assert_eq!(
            one("set-cookie", "a=1; Path=/fw/tb/x", &view(Mode::Keep)).as_deref(),
            Some("a=1; Path=/fw/tb/x")
        );
        assert_eq!(
            one("set-cookie", "a=1; Path=/fw/tb2", &view(Mode::Keep)).as_deref(),
            Some("a=1; Path=/fw/tb/")
        );
    }

    #[test]
    fn nobody_speaks_for_the_whole_origin() {
        for name in SPEAKS_FOR_THE_ORIGIN {
            let mut headers = HeaderMap::new();
            headers.insert(name.clone(), HeaderValue::from_static("x"));
            towards_browser(&mut headers, &view(Mode::Strip));
            assert!(headers.is_empty(), "{name}");
        }
        assert_eq!(one("alt-svc", "h3=\":9\"", &View { prefix: "", ..view(Mode::Strip) }), None);
    }
}
