//! An answer's fields as the browser may see them.
//!
//! Invariant: no answer sets a cookie of the portal's, reaches beyond its own path, or changes how the browser treats
//! the whole origin.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::cookies;
use crate::html::values;
use crate::place::{Mode, Place};
use crate::policy::{self, Effects, Injection};
use crate::reference::{Form, Found, Reading};

/// Fields that speak for the whole origin: no application may, where it shares one.
static SPEAKS_FOR_THE_ORIGIN: [HeaderName; 6] = [
    HeaderName::from_static("clear-site-data"),
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
];

const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

/// Fields that hold one reference.
static REFERENCES: [HeaderName; 4] = [
    header::LOCATION,
    header::CONTENT_LOCATION,
    HeaderName::from_static("sourcemap"),
    HeaderName::from_static("x-sourcemap"),
];

/// Fields that hold origins.
static ORIGINS: [HeaderName; 2] =
    [header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderName::from_static("timing-allow-origin")];

static POLICIES: [HeaderName; 2] =
    [header::CONTENT_SECURITY_POLICY, header::CONTENT_SECURITY_POLICY_REPORT_ONLY];

/// How long the values of one field may be together once they are mapped, in bytes. A list of addresses of a byte each grows
/// twentyfold, and an answer's head is kept for a browser that does not take it.
const MOST: usize = 64 << 10;

/// Whether this field is looked at in an answer.
fn is_looked_at(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "set-cookie"
            | "link"
            | "refresh"
            | "service-worker-allowed"
            | "location"
            | "content-location"
            | "sourcemap"
            | "x-sourcemap"
            | "access-control-allow-origin"
            | "timing-allow-origin"
            | "content-security-policy"
            | "content-security-policy-report-only"
            | "clear-site-data"
            | "strict-transport-security"
            | "alt-svc"
            | "nel"
            | "report-to"
            | "reporting-endpoints"
    )
}

/// Makes an answer's fields fit for the browser. Fields of one hop are the caller's to remove, before.
pub(crate) fn towards_browser(
    headers: &mut HeaderMap,
    place: &Place,
    ours: &str,
    injection: Option<&Injection>,
) -> Effects {
    // Most have none: then each name costs a look, and none of these is looked for.
    if !headers.keys().any(is_looked_at) {
        return Effects::default();
    }
    if place.prefix().is_empty() {
        // Its own origin is its own, but `Alt-Svc` would lead past this portal, session cookie and all.
        headers.remove(header::ALT_SVC);
    } else {
        for name in &SPEAKS_FOR_THE_ORIGIN {
            headers.remove(name);
        }
        change(headers, &SERVICE_WORKER_ALLOWED, |scope| widest_scope(scope, place));
    }
    for name in &REFERENCES {
        change(headers, name, |text| {
            // Browsers read another host there; who writes it that way means a path, or wants nobody to notice.
            if text.starts_with(b"/\\") && place.rewrites_bodies() {
                return Some([place.prefix().as_bytes(), text].concat());
            }
            Some(place.map_field(text).unwrap_or_else(|| text.to_vec()))
        });
    }
    change(headers, &header::REFRESH, |text| {
        let mapped = values::replace(text, values::refresh(text).as_slice(), |url| place.map_field(url));
        Some(mapped.unwrap_or_else(|| text.to_vec()))
    });
    change(headers, &header::LINK, |text| Some(links(text, place)));
    for name in &ORIGINS {
        change(headers, name, |text| Some(origins(text, place)));
    }
    cookies::towards_browser(headers, place, ours);
    let mut effects = Effects::default();
    for name in &POLICIES {
        let mut ignored = Effects::default();
        let noted = if *name == POLICIES[0] { &mut effects } else { &mut ignored };
        if place.rewrites_bodies() {
            change_or(headers, name, Some("default-src 'none'"), |text| {
                let Ok(text) = std::str::from_utf8(text) else { return Some(text.to_vec()) };
                let mapped = policy::map(text, place, injection, noted);
                Some(mapped.unwrap_or_else(|| text.to_owned()).into_bytes())
            });
        }
    }
    effects
}

/// Trailers of an answer may not do what its fields may not. Fields of one hop are the caller's to remove, before.
pub fn trailers_towards_browser(trailers: &mut HeaderMap) {
    for name in &SPEAKS_FOR_THE_ORIGIN {
        trailers.remove(name);
    }
    for name in [
        header::SET_COOKIE,
        header::LOCATION,
        header::REFRESH,
        header::LINK,
        header::CONTENT_LENGTH,
        header::CONTENT_SECURITY_POLICY,
        SERVICE_WORKER_ALLOWED,
    ] {
        trailers.remove(name);
    }
}

/// An interim answer's `Link` fields, as the browser must see them.
pub fn links_towards_browser(headers: &mut HeaderMap, place: &Place) {
    change(headers, &header::LINK, |text| Some(links(text, place)));
}

/// Maps each value of a field, or drops it. What stays as it is costs a look. Of what grows beyond [`MOST`] nothing is said.
fn change(headers: &mut HeaderMap, name: &HeaderName, map: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
    change_or(headers, name, None, map);
}

/// The same, with something else in the place of what grows beyond [`MOST`].
fn change_or(
    headers: &mut HeaderMap,
    name: &HeaderName,
    too_long: Option<&'static str>,
    mut map: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) {
    if !headers.contains_key(name) {
        return;
    }
    let mut room = MOST;
    let values: Vec<HeaderValue> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| {
            let mapped = map(value.as_bytes())?;
            if mapped == value.as_bytes() {
                return Some(value.clone());
            }
            room = room.saturating_sub(mapped.len());
            if room == 0 {
                return too_long.map(HeaderValue::from_static);
            }
            HeaderValue::from_bytes(&mapped).ok()
        })
        .collect();
    headers.remove(name);
    for value in values {
        headers.append(name, value);
    }
}

/// `Service-Worker-Allowed`: the widest scope that a service worker may have is the application's own.
fn widest_scope(scope: &[u8], place: &Place) -> Option<Vec<u8>> {
    let mapped = place.map_field(scope);
    let scope = mapped.as_deref().unwrap_or(scope);
    let text = std::str::from_utf8(scope).ok()?.trim();
    // What browsers decode or skip could lead out again.
    if text.contains("..") || text.contains(['%', '\\', '\t']) {
        return None;
    }
    match place.read(text.as_bytes()) {
        Reading::Relative => Some(text.as_bytes().to_vec()),
        Reading::Ours(found) if found.form == Form::Root => {
            let rest = text.strip_prefix(place.prefix())?;
            rest.starts_with('/').then(|| text.as_bytes().to_vec())
        }
        Reading::Ours(_) | Reading::Elsewhere => None,
    }
}

/// `Link` (RFC 8288 section 3): the targets, and the image candidates of what is to be loaded before.
fn links(text: &[u8], place: &Place) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        let end = |from: usize, last: u8| {
            let rest = text.get(from..).unwrap_or_default();
            rest.iter().position(|byte| *byte == last).map_or(text.len(), |length| from + length)
        };
        match byte {
            b'<' => {
                let close = end(at, b'>');
                pieces.push(at..close);
                at = close;
            }
            b'"' => {
                let name = text.get(..at - 1).unwrap_or_default().trim_ascii_end();
                let name = name.strip_suffix(b"=").unwrap_or(name).trim_ascii_end();
                let is_srcset = name.len() >= 11
                    && name
                        .get(name.len() - 11..)
                        .is_some_and(|name| name.eq_ignore_ascii_case(b"imagesrcset"));
                let start = at;
                while let Some(byte) = text.get(at) {
                    match byte {
                        b'\\' => at += 2,
                        b'"' => break,
                        _ => at += 1,
                    }
                }
                let close = at.min(text.len());
                if is_srcset {
                    let urls = values::srcset(text.get(start..close).unwrap_or_default());
                    pieces.extend(urls.into_iter().map(|url| start + url.start..start + url.end));
                }
                at = close + 1;
            }
            _ => {}
        }
    }
    let mapped = values::replace(text, &pieces, |url| place.map_field(url)).unwrap_or_else(|| text.to_vec());
    if place.rewrites_bodies() { without_integrity(mapped) } else { mapped }
}

/// Takes `integrity` off the links to stylesheets, whose bodies are rewritten.
fn without_integrity(links: Vec<u8>) -> Vec<u8> {
    let has = |text: &[u8], word: &[u8]| text.windows(word.len()).any(|at| at.eq_ignore_ascii_case(word));
    if !has(&links, b"integrity") {
        return links;
    }
    let kept: Vec<Vec<u8>> = parts(&links, b',')
        .map(|link| {
            let is_style = parts(link, b';').skip(1).any(|parameter| {
                let mut pair = parameter.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
                let (name, value) = (pair.next().unwrap_or_default(), pair.next().unwrap_or_default());
                (name.eq_ignore_ascii_case(b"as") && has(value, b"style"))
                    || (name.eq_ignore_ascii_case(b"rel") && has(value, b"stylesheet"))
            });
            let is_kept = |parameter: &&[u8]| {
                let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
                !is_style || !name.eq_ignore_ascii_case(b"integrity")
            };
            parts(link, b';').filter(is_kept).collect::<Vec<_>>().join(b";".as_slice())
        })
        .collect();
    kept.join(b",".as_slice())
}

/// The parts between separators that stand neither in quotes nor in `<...>`.
fn parts(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    text.split(move |byte| {
        let was_escaped = escaped;
        escaped = quoted && !was_escaped && *byte == b'\\';
        match byte {
            b'"' if !bracketed && !was_escaped => quoted = !quoted,
            b'<' if !quoted => bracketed = true,
            b'>' if !quoted => bracketed = false,
            _ => {}
        }
        *byte == separator && !quoted && !bracketed
    })
}

/// Origins that are the application's become the browser's.
fn origins(text: &[u8], place: &Place) -> Vec<u8> {
    if place.mode() == Mode::Keep && place.prefix().is_empty() {
        return text.to_vec();
    }
    let browsers = [b"https://", place.host().as_bytes()].concat();
    let mapped: Vec<&[u8]> = text
        .split(|byte| *byte == b',')
        .map(|one| match place.read(one.trim_ascii()) {
            Reading::Ours(Found { form: Form::Absolute { .. }, .. }) => browsers.as_slice(),
            _ => one,
        })
        .collect();
    mapped.join(b",".as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "__Host-portreeve";

    fn place(mode: Mode) -> Place {
        Place::new("/fw/tb", "", "localhost:8443", mode).unwrap().with_origins(["c1:12001"])
    }

    fn one(name: &str, value: &str, place: &Place) -> Option<String> {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(&name, HeaderValue::from_str(value).unwrap());
        towards_browser(&mut headers, place, OURS, None);
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_is_changed_is_looked_at() {
        let others = [header::SET_COOKIE, header::LINK, header::REFRESH, SERVICE_WORKER_ALLOWED];
        for name in
            others.iter().chain(&SPEAKS_FOR_THE_ORIGIN).chain(&REFERENCES).chain(&ORIGINS).chain(&POLICIES)
        {
            assert!(is_looked_at(name), "{name}");
        }
        assert!(!is_looked_at(&header::CONTENT_TYPE));
    }

    #[test]
    fn what_grows_without_measure_is_not_said_and_no_policy_gets_weaker_by_it() {
        let place = place(Mode::Strip);
        let links = "</>,".repeat(16_000);
        assert_eq!(one("link", &links, &place), None);
        let some = "</>,".repeat(100);
        assert_eq!(one("link", &some, &place).unwrap(), "</fw/tb/>,".repeat(100));
        let policy = format!("script-src 'none'; report-uri {}", "/ ".repeat(16_000));
        let policy = one("content-security-policy", &policy, &place).unwrap();
        assert!(policy == "default-src 'none'", "{} bytes", policy.len());
        let mut headers = HeaderMap::new();
        for _ in 0..10 {
            headers.append(header::LINK, HeaderValue::from_str(&"</>,".repeat(1_000)).unwrap());
        }
        links_towards_browser(&mut headers, &place);
        assert_eq!(headers.get_all(header::LINK).iter().count(), 6, "together they are no longer");
    }

    #[test]
    fn locations() {
        for (from, strip, keep) in [
            ("/dir/", "/fw/tb/dir/", "/dir/"),
            ("dir/", "dir/", "dir/"),
            ("http://localhost:8443/dir/", "/fw/tb/dir/", "/dir/"),
            ("https://localhost:8443/dir/", "/fw/tb/dir/", "/dir/"),
            ("http://c1:12001/dir/?q", "/fw/tb/dir/?q", "/dir/?q"),
            ("https://LOCALHOST:8443", "/fw/tb/", "/"),
            ("/fw/tb/dir", "/fw/tb/dir", "/fw/tb/dir"),
            ("http://c1:12001/fw/tb/dir", "/fw/tb/dir", "/fw/tb/dir"),
            ("http://elsewhere/dir/", "http://elsewhere/dir/", "http://elsewhere/dir/"),
            ("//elsewhere/", "//elsewhere/", "//elsewhere/"),
            ("/\\elsewhere/", "/fw/tb/\\elsewhere/", "/\\elsewhere/"),
            ("https://localhost:8443//evil", "/fw/tb//evil", "https://localhost:8443//evil"),
            ("https://localhost:8443/\\evil", "/fw/tb/\\evil", "https://localhost:8443/\\evil"),
            ("https://localhost:8443/\t/evil", "/fw/tb/\t/evil", "https://localhost:8443/\t/evil"),
            ("https://localhost:8443/..//evil", "/fw/tb//evil", "/..//evil"),
        ] {
            assert_eq!(one("location", from, &place(Mode::Strip)).as_deref(), Some(strip), "strip {from}");
            assert_eq!(one("location", from, &place(Mode::Keep)).as_deref(), Some(keep), "keep {from}");
        }
        let based = Place::new("/fw/tb", "/app", "localhost:8443", Mode::Strip).unwrap();
        assert_eq!(one("location", "/app/x", &based).as_deref(), Some("/fw/tb/x"));
        let own = Place::new("", "", "localhost:8443", Mode::Strip).unwrap();
        assert_eq!(one("location", "/x", &own).as_deref(), Some("/x"));
    }

    #[test]
    fn other_fields_that_hold_references() {
        for (name, from, to) in [
            ("content-location", "/x", "/fw/tb/x"),
            ("sourcemap", "/x.map", "/fw/tb/x.map"),
            ("x-sourcemap", "x.map", "x.map"),
            ("refresh", "5; url=/x", "5; url=/fw/tb/x"),
            ("refresh", "5; url='http://elsewhere/x'", "5; url='http://elsewhere/x'"),
            ("refresh", "5", "5"),
            ("link", "</x>; rel=preload", "</fw/tb/x>; rel=preload"),
            (
                "link",
                "</a>; title=\"<b>, \\\" <c>\"; rel=\"x y\",<http://c1:12001/d>;rel=y, <//e/f>",
                "</fw/tb/a>; title=\"<b>, \\\" <c>\"; rel=\"x y\",</fw/tb/d>;rel=y, <//e/f>",
            ),
            ("link", "<x>; imagesrcset=\"/a 1x, b 2x\"", "<x>; imagesrcset=\"/fw/tb/a 1x, b 2x\""),
            (
                "link",
                "</a,;.css>; rel=\"Preload\"; integrity=\"sha256-x,;\"; as=style, </b.js>;rel=modulepreload;integrity=y,<c>;rel=stylesheet;Integrity=z",
                "</fw/tb/a,;.css>; rel=\"Preload\"; as=style, </fw/tb/b.js>;rel=modulepreload;integrity=y,<c>;rel=stylesheet",
            ),
            ("link", "<", "<"),
            ("link", "</x", "</fw/tb/x"),
            ("link", "x=\"\\", "x=\"\\"),
            ("access-control-allow-origin", "http://c1:12001", "https://localhost:8443"),
            ("access-control-allow-origin", "http://c1:12002", "http://c1:12002"),
            ("access-control-allow-origin", "*", "*"),
            ("access-control-allow-origin", "null", "null"),
            ("content-security-policy", "img-src http://c1:12001", "img-src https://localhost:8443"),
            ("content-security-policy-report-only", "report-uri /r", "report-uri /fw/tb/r"),
            ("content-security-policy", "default-src 'self'", "default-src 'self'"),
        ] {
            assert_eq!(one(name, from, &place(Mode::Strip)).as_deref(), Some(to), "{name}: {from}");
        }
        for (name, value) in [
            ("refresh", "5; url=/x"),
            ("link", "</x>; rel=preload"),
            ("content-security-policy", "img-src http://c1:12001"),
        ] {
            assert_eq!(one(name, value, &place(Mode::Keep)).as_deref(), Some(value), "{name}: {value}");
        }
    }

    #[test]
    fn several_fields_stay_several() {
        let mut headers = HeaderMap::new();
        headers.append(header::LINK, HeaderValue::from_static("</a>"));
        headers.append(header::LINK, HeaderValue::from_static("</b>"));
        towards_browser(&mut headers, &place(Mode::Strip), OURS, None);
        assert_eq!(headers.get_all(header::LINK).iter().collect::<Vec<_>>(), ["</fw/tb/a>", "</fw/tb/b>"]);
    }

    #[test]
    fn a_service_worker_may_have_the_applications_own_scope_at_most() {
        let name = "service-worker-allowed";
        for (from, strip, keep) in [
            ("/", Some("/fw/tb/"), None),
            ("/x/", Some("/fw/tb/x/"), None),
            ("/fw/tb/x", Some("/fw/tb/x"), Some("/fw/tb/x")),
            ("./", Some("./"), Some("./")),
            ("../", None, None),
            ("/fw/tb/../", Some("/fw/tb/fw/"), None),
            ("/fw/tb/%2e%2e/", Some("/fw/tb/fw/"), None),
            ("/fw/tb2/", Some("/fw/tb/fw/tb2/"), None),
            ("https://elsewhere/", None, None),
            ("//elsewhere/", None, None),
        ] {
            assert_eq!(one(name, from, &place(Mode::Strip)).as_deref(), strip, "strip {from}");
            assert_eq!(one(name, from, &place(Mode::Keep)).as_deref(), keep, "keep {from}");
        }
        let own = Place::new("", "", "h", Mode::Keep).unwrap();
        assert_eq!(one(name, "/", &own).as_deref(), Some("/"));
    }

    #[test]
    fn nobody_speaks_for_the_whole_origin() {
        for name in &SPEAKS_FOR_THE_ORIGIN {
            for mode in [Mode::Strip, Mode::Keep] {
                assert_eq!(one(name.as_str(), "x", &place(mode)), None, "{name}");
            }
            let mut trailers = HeaderMap::new();
            trailers.insert(name, HeaderValue::from_static("x"));
            trailers_towards_browser(&mut trailers);
            assert!(trailers.is_empty());
        }
        let own = Place::new("", "", "h", Mode::Keep).unwrap();
        assert_eq!(one("alt-svc", "h3=\":9\"", &own), None);
        assert_eq!(one("strict-transport-security", "max-age=1", &own).as_deref(), Some("max-age=1"));
    }
}
