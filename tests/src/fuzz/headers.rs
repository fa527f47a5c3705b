//! Header fields, both ways. The input is a first line of settings and one field a line, `name: value`.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use portreeve_model::{ForwardName, ForwardTarget, NodePort};
use portreeve_portal::fuzz::{self as portal, COOKIE_NAME};

/// What a peer may not have us drop by naming it in `Connection`.
const STAYS: [&str; 4] = ["host", "content-length", "cookie", "te"];
/// Fields of one hop (RFC 9110 section 7.6.1), and HTTP/2's upgrade.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// What would count for the portal's whole origin.
/// Goes before the rest of a cookie's name, in the place of `__`, where the name promises what can't be below a prefix.
const SECURE: &[u8] = b"__Secure-";
const SPEAKS_FOR_THE_ORIGIN: [&str; 5] =
    ["alt-svc", "clear-site-data", "nel", "report-to", "strict-transport-security"];

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// The names in `Connection`, read as bytes: one odd byte must not hide the rest.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let names = values(headers, "connection").into_iter().flat_map(|line| line.split(|b| *b == b','));
    names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .map(|name| name.as_str().to_owned())
        .filter(|name| !STAYS.contains(&name.as_str()))
        .collect()
}

fn is_ours(cookie_name: &[u8]) -> bool {
    cookie_name.to_ascii_lowercase().starts_with(COOKIE_NAME.to_ascii_lowercase().as_bytes())
}

/// Fields by which a proxy says who is visiting, however their dashes are written.
fn speaks_for_a_proxy(name: &str) -> bool {
    let name = name.replace('_', "-");
    ["x-forwarded", "x-portreeve-", "x-auth-request-", "x-original-"].iter().any(|b| name.starts_with(b))
        || [
            "forwarded",
            "remote-user",
            "remote-addr",
            "proxy",
            "x-real-ip",
            "x-remote-user",
            "x-user",
            "x-authenticated-user",
            "x-client-ip",
        ]
        .contains(&name.as_str())
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn name_of(pair: &[u8]) -> &[u8] {
    pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii()
}

/// A browser's request, on its way to an application. First line: the prefix, or nothing.
pub fn request_headers(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n');
    let prefix = prefix(lines.next().unwrap_or_default());
    let asked = fields(lines);
    our_cookie(&asked);
    request_trailers(&asked);

    let mut headers = asked.clone();
    let takes_trailers = portal::remove_hop_by_hop(&mut headers);
    let says_so = |te: &[u8]| te.to_ascii_lowercase().windows(8).any(|word| word == b"trailers");
    assert!(!takes_trailers || values(&asked, "te").into_iter().any(says_so));
    let peer = HeaderValue::from_static("192.0.2.7");
    let prefix_header = HeaderValue::from_str(&prefix).expect("a prefix is ASCII");
    let fixed = http::HeaderValue::from_static;
    let (user, host) = (fixed("alice"), fixed("portal.example:8443"));
    portal::towards_application(&mut headers, &peer, &user, &host, &prefix_header);

    assert_eq!(values(&headers, "x-forwarded-user"), [b"alice"]);
    assert_eq!(values(&headers, "x-forwarded-for"), [b"192.0.2.7"]);
    assert_eq!(values(&headers, "x-forwarded-proto"), [b"https"]);
    assert_eq!(values(&headers, "x-forwarded-host"), [b"portal.example:8443"]);
    let expected: &[&[u8]] = if prefix.is_empty() { &[] } else { &[prefix.as_bytes()] };
    assert_eq!(values(&headers, "x-forwarded-prefix"), expected);

    let ours = ["user", "for", "proto", "host", "prefix"].map(|last| format!("x-forwarded-{last}"));
    let named = named_by_connection(&asked);
    for name in headers.keys().map(HeaderName::as_str) {
        if ours.iter().any(|our| our == name) {
            continue;
        }
        assert!(!HOP_BY_HOP.contains(&name), "{name} went further");
        assert!(!named.iter().any(|named| named == name), "{name} was named by Connection and went further");
        assert!(!speaks_for_a_proxy(name), "{name} came from the browser");
        assert!(asked.contains_key(name), "{name} came from nowhere");
    }
    // Everything else arrives as it was.
    for name in asked.keys().map(HeaderName::as_str) {
        let goes = HOP_BY_HOP.contains(&name)
            || named.iter().any(|named| named == name)
            || speaks_for_a_proxy(name)
            || name == "cookie";
        assert!(goes || values(&asked, name) == values(&headers, name), "{name} changed");
    }
    let sent = values(&asked, "cookie");
    let theirs: Vec<&[u8]> =
        sent.into_iter().flat_map(pairs).filter(|pair| !is_ours(name_of(pair))).collect();
    let arrived = values(&headers, "cookie");
    assert!(arrived.len() <= 1, "{arrived:?}");
    assert_eq!(arrived.into_iter().flat_map(pairs).collect::<Vec<_>>(), theirs);
    assert_eq!(portal::cookie(&headers, COOKIE_NAME), None);
}

/// Servers put trailers among the fields: they may say no more than those.
fn request_trailers(sent: &HeaderMap) {
    let mut trailers = sent.clone();
    portal::trailers_towards_application(&mut trailers);
    let named = named_by_connection(sent);
    for name in sent.keys().map(HeaderName::as_str) {
        let goes = HOP_BY_HOP.contains(&name)
            || named.iter().any(|named| named == name)
            || speaks_for_a_proxy(name)
            || ["cookie", "authorization", "host", "content-length"].contains(&name);
        let arrived = values(&trailers, name);
        assert!(if goes { arrived.is_empty() } else { arrived == values(sent, name) }, "trailer {name}");
    }
}

/// The cookie that we find is one that stands there, by its whole name.
fn our_cookie(headers: &HeaderMap) {
    let found = portal::cookie(headers, COOKIE_NAME);
    let start = format!("{COOKIE_NAME}=");
    let expected = values(headers, "cookie")
        .into_iter()
        .flat_map(pairs)
        .filter_map(|pair| pair.strip_prefix(start.as_bytes()))
        .find_map(|value| std::str::from_utf8(value).ok());
    assert_eq!(found, expected);
}

/// An application's answer, on its way to a browser. First line: `PREFIX BASE MODE`; a '-' or anything odd for none.
pub fn response_headers(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n');
    let mut settings = lines.next().unwrap_or_default().split(|b| *b == b' ');
    let prefix = prefix(settings.next().unwrap_or_default());
    let base = base(settings.next().unwrap_or_default());
    // In an origin of its own an application always gets its paths whole.
    let keeps_prefix = prefix.is_empty() || settings.next() == Some(b"keep");
    let answered = fields(lines);
    let mut headers = answered.clone();
    let host = "portal.example:8443";
    portal::towards_browser(&mut headers, &prefix, &base, keeps_prefix, host);

    let named = named_by_connection(&answered);
    let mut trailers = answered.clone();
    portal::trailers_towards_browser(&mut trailers);
    for name in trailers.keys().map(HeaderName::as_str) {
        let goes = HOP_BY_HOP.contains(&name)
            || SPEAKS_FOR_THE_ORIGIN.contains(&name)
            || name == "service-worker-allowed";
        let sets = ["set-cookie", "location", "content-length"].contains(&name);
        assert!(!goes && !sets, "trailer {name}");
    }
    for name in headers.keys().map(HeaderName::as_str) {
        assert!(!HOP_BY_HOP.contains(&name), "{name} went further");
        assert!(!named.iter().any(|named| named == name), "{name} was named by Connection and went further");
        assert!(answered.contains_key(name) || name == "vary", "{name} came from nowhere");
        let speaks = SPEAKS_FOR_THE_ORIGIN.contains(&name);
        assert!(name != "alt-svc" && (prefix.is_empty() || !speaks), "{name}");
    }
    for scope in values(&headers, "service-worker-allowed") {
        // As a browser reads it: from where its script is.
        let script = format!("https://{host}{prefix}/sw.js");
        let read = url::Url::parse(&script).ok().and_then(|script| script.join(&lossy(scope)).ok());
        let Some(read) = read else { continue };
        let own = format!("https://{host}{prefix}/");
        assert!(prefix.is_empty() || read.as_str().starts_with(&own), "a service worker for {read}");
    }
    for name in ["location", "content-location"] {
        let before = values(&answered, name);
        for value in values(&headers, name) {
            location(value, &before, &prefix, keeps_prefix);
        }
    }
    let before = values(&answered, "set-cookie");
    let after = values(&headers, "set-cookie");
    assert!(after.len() <= before.len());
    // They come in their order, with name and value untouched, but for what a name may promise of the whole host.
    let is_same = |old: &[u8], new: &[u8]| {
        // Browsers take blanks off on both sides.
        let name_and_value = |pair: &[u8]| {
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (pair[..at].trim_ascii().to_vec(), pair[at..].to_vec())
        };
        let ((old_name, old_value), (new_name, new_value)) = (name_and_value(old), name_and_value(new));
        let is_renamed = !prefix.is_empty()
            && new_name.get(..SECURE.len()).is_some_and(|start| start.eq_ignore_ascii_case(SECURE))
            && old_name.get(2..) == new_name.get(SECURE.len()..)
            && old_value == new_value;
        old == new || is_renamed
    };
    let mut left = before.into_iter();
    for cookie in after {
        let pair = cookie.split(|b| *b == b';').next();
        let pair = pair.unwrap_or_default();
        let is_there = |old: &[u8]| is_same(old.split(|b| *b == b';').next().unwrap_or_default(), pair);
        assert!(left.any(is_there), "{}", lossy(cookie));
        set_cookie(cookie, &prefix);
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn location(value: &[u8], before: &[&[u8]], prefix: &str, keeps_prefix: bool) {
    let text = lossy(value);
    if !before.contains(&value) {
        // What we wrote leads to a path on the portal's own host, as a browser reads it.
        let lands = super::referee::stays_at_the_portal(&text);
        let below = lands.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let climbs = text.to_ascii_lowercase().replace("%2e", ".").contains("..");
        assert!(keeps_prefix || below || climbs, "{text:?} leads out of {prefix:?}");
    } else if !keeps_prefix && before.len() == 1 && text.is_ascii() && !text.contains('\t') {
        let is_path = text.starts_with('/') && !text.starts_with("//");
        assert!(!is_path || text.starts_with(prefix), "{text:?} was left outside of {prefix:?}");
    }
    let into = portal::leads_into(value, prefix);
    assert!(!into || text.contains(prefix), "{text:?}");
}

/// As a browser reads it (draft-ietf-httpbis-rfc6265bis, "The Set-Cookie Header Field").
fn set_cookie(cookie: &[u8], prefix: &str) {
    let text = lossy(cookie);
    let mut parts = cookie.split(|b| *b == b';');
    let pair = parts.next().unwrap_or_default();
    let (name, value) = match pair.iter().position(|b| *b == b'=') {
        Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
        None => (&b""[..], pair.trim_ascii()),
    };
    assert!(!is_ours(name), "{text:?} sets a cookie of ours");
    assert!(!name.is_empty() || !is_ours(value), "{text:?} comes back as a cookie of ours");
    let attribute = |part: &[u8]| {
        let (key, value) = match part.iter().position(|b| *b == b'=') {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &b""[..]),
        };
        (lossy(key.trim_ascii()).to_ascii_lowercase(), lossy(value.trim_ascii()))
    };
    let attributes: Vec<(String, String)> = parts.map(attribute).collect();
    assert!(!attributes.iter().any(|(key, _)| key == "domain"), "{text:?}");
    let paths: Vec<&str> =
        attributes.iter().filter(|(key, _)| key == "path").map(|(_, value)| value.as_str()).collect();
    let [path] = paths[..] else { panic!("{text:?} has not one path") };
    let below = path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    let Some(below) = below else { panic!("{text:?} is not confined to {prefix:?}") };
    assert!(path.starts_with('/') && (prefix.is_empty() || !below.contains("..")), "{text:?}");
}

/// A prefix that the portal could have made: `/fw/NAME`, `/fw2/NODE:PORT`, or none.
fn prefix(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let direct = text.strip_prefix("/fw2/").is_some_and(|place| NodePort::parse(place).is_ok());
    let forward = text.strip_prefix("/fw/").is_some_and(|name| ForwardName::parse(name).is_ok());
    if direct || forward { text.to_owned() } else { String::new() }
}

/// A base that a forward file could have given.
fn base(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let target = ForwardTarget::parse(&format!("http://c1:8888{text}"));
    target.map(|target| target.path.trim_end_matches('/').to_owned()).unwrap_or_default()
}
