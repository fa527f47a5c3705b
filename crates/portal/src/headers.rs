//! Header fields, both ways: what belongs to one hop stays on it, what only we may say is said by us, and our cookies
//! stay ours.

use http::header::{self, COOKIE, HeaderMap, HeaderName, HeaderValue};
use portreeve_rewrite::cookie_pairs;

use crate::authenticate::COOKIE_NAME;
use crate::route::Place;
use crate::site::Site;
use crate::token;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");

/// Whether it is a field of one hop, also when `Connection` does not name it.
fn is_of_one_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
    )
}

/// What is said to an application about its visitor.
pub(crate) struct Visit<'a> {
    /// The browser's address.
    pub(crate) peer: &'a HeaderValue,
    /// The login name.
    pub(crate) user: &'a HeaderValue,
    /// The host as the browser sent it.
    pub(crate) host: &'a HeaderValue,
    /// The path below which the application appears; empty in an origin of its own.
    pub(crate) prefix: &'a HeaderValue,
}

/// Fields of one hop (RFC 9110 section 7.6.1), and those that `Connection` names. Returns whether the sender takes
/// trailers.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) -> bool {
    // To look at each name once is less than to look for each of these.
    let mut of_one_hop = headers.keys().filter(|name| is_of_one_hop(name));
    let Some(first) = of_one_hop.next() else { return false };
    // All that most applications say: that they keep the connection.
    if *first == header::CONNECTION && of_one_hop.next().is_none() && is_kept(headers) {
        headers.remove(header::CONNECTION);
        return false;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        // In bytes: one odd letter must not hide the names beside it.
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        // Nearly all that is ever named. It goes anyway.
        .filter(|name| !name.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // A peer may not have us drop what frames or addresses the message.
        .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::COOKIE | header::TE))
        .collect();
    for name in named {
        headers.remove(name);
    }
    let trailers = headers.get_all(header::TE).iter().any(|te| contains_token(te, "trailers"));
    while let Some(name) = headers.keys().find(|name| is_of_one_hop(name)).cloned() {
        headers.remove(name);
    }
    trailers
}

/// Whether `Connection` says that alone, once.
fn is_kept(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter();
    values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
        && values.next().is_none()
}

/// Whether a comma-separated field has this token, in any case.
pub(crate) fn contains_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|text| {
        text.split(',')
            .any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(token))
    })
}

/// Whether a request's body waits to be asked for (RFC 9110 section 10.1.1).
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether applications, or the libraries that they are built with, may take this field for something that a proxy
/// says: then only ours may reach them. Many read `_` as `-`.
fn is_for_proxies_to_say(name: &str) -> bool {
    const EXACT: [&str; 9] = [
        "forwarded",
        "remote-user",
        "remote-addr",
        "proxy",
        "x-real-ip",
        "x-remote-user",
        "x-user",
        "x-authenticated-user",
        "x-client-ip",
    ];
    const BEGINNINGS: [&str; 4] = ["x-forwarded", "x-portreeve-", "x-auth-request-", "x-original-"];
    let first = name.as_bytes().first();
    if !matches!(first, Some(b'x' | b'f' | b'r' | b'p')) {
        return false;
    }
    let same =
        |known: &str, name: &[u8]| known.bytes().zip(name).all(|(k, n)| k == *n || (k == b'-' && *n == b'_'));
    EXACT.iter().any(|known| known.len() == name.len() && same(known, name.as_bytes()))
        || BEGINNINGS.iter().any(|known| known.len() <= name.len() && same(known, name.as_bytes()))
}

/// Trailers of a request: many servers put them among the fields, so they may not say what fields may not.
pub(crate) fn trailers_towards_application(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    let pretended: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            is_for_proxies_to_say(name.as_str())
                || matches!(**name, COOKIE | header::AUTHORIZATION | header::HOST | header::CONTENT_LENGTH)
        })
        .cloned()
        .collect();
    for name in pretended {
        trailers.remove(name);
    }
}

/// A request's fields as the application may see them. Call after [`remove_hop_by_hop`].
pub(crate) fn towards_application(headers: &mut HeaderMap, visit: &Visit<'_>) {
    let pretended: Vec<HeaderName> =
        headers.keys().filter(|name| is_for_proxies_to_say(name.as_str())).cloned().collect();
    for name in pretended {
        headers.remove(name);
    }
    keep_our_cookies(headers);
    token::keep_from_application(headers);
    headers.insert(X_FORWARDED_FOR, visit.peer.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(X_FORWARDED_HOST, visit.host.clone());
    headers.insert(X_FORWARDED_USER, visit.user.clone());
    if !visit.prefix.is_empty() {
        headers.insert(X_FORWARDED_PREFIX, visit.prefix.clone());
    }
}

/// Has the fields that name the page's origin name the application's own instead: for one that is told its own host
/// (`host`), and compares.
pub(crate) fn speak_to_target(
    headers: &mut HeaderMap,
    site: &Site,
    place: &Place,
    host: &HeaderValue,
    by_tls: bool,
) {
    let scheme = if by_tls { "https://" } else { "http://" };
    let Ok(host) = host.to_str() else { return };
    for name in [header::ORIGIN, header::REFERER] {
        let Some(path) = headers.get(&name).and_then(|value| site.path_of(value.to_str().ok()?)) else {
            continue;
        };
        let below = path.strip_prefix(&*place.prefix).filter(|rest| rest.starts_with('/'));
        if let Ok(value) = HeaderValue::try_from(format!("{scheme}{host}{}", below.unwrap_or(path))) {
            headers.insert(name, value);
        }
    }
}

/// A cookie's name is ours: an application neither gets nor sets it.
fn is_our_cookie(name: &[u8]) -> bool {
    portreeve_rewrite::is_our_cookie(name, COOKIE_NAME)
}

/// Takes our cookies out of the request. What remains goes in one line: HTTP/2 may have split it (RFC 9113 section
/// 8.2.3).
fn keep_our_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(COOKIE) {
        return;
    }
    let mut kept: Vec<u8> = Vec::new();
    for line in headers.get_all(COOKIE) {
        for pair in cookie_pairs(line) {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            if !pair.is_empty() && !is_our_cookie(name) {
                if !kept.is_empty() {
                    kept.extend_from_slice(b"; ");
                }
                kept.extend_from_slice(pair);
            }
        }
    }
    match HeaderValue::from_bytes(&kept) {
        Ok(value) if !kept.is_empty() => {
            headers.insert(COOKIE, value);
        }
        _ => {
            headers.remove(COOKIE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn visit(headers: &mut HeaderMap) {
        let visit = Visit {
            peer: &HeaderValue::from_static("192.0.2.7"),
            user: &HeaderValue::from_static("alice"),
            host: &HeaderValue::from_static("portal:8443"),
            prefix: &HeaderValue::from_static("/fw/tb"),
        };
        towards_application(headers, &visit);
    }

    #[test]
    fn what_connection_names_goes_and_what_frames_the_message_stays() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "host"),
            ("x-secret", "1"),
            ("host", "h"),
            ("te", "trailers;q=1, gzip"),
            ("keep-alive", "timeout=5"),
            ("accept", "*/*"),
        ]);
        assert!(remove_hop_by_hop(&mut headers));
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "accept"]);
        let mut kept = map(&[("connection", "Keep-Alive"), ("accept", "*/*")]);
        assert!(!remove_hop_by_hop(&mut kept));
        assert_eq!(kept, map(&[("accept", "*/*")]));
        let mut named_after =
            map(&[("connection", "keep-alive"), ("connection", "x-secret"), ("x-secret", "1")]);
        remove_hop_by_hop(&mut named_after);
        assert!(named_after.is_empty());
    }

    #[test]
    fn nobody_else_says_who_is_visiting() {
        let mut headers = map(&[
            ("x-forwarded-user", "root"),
            ("x_forwarded_user", "root"),
            ("X-Forwarded_For", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("remote_user", "root"),
            ("x-real-ip", "10.0.0.1"),
            ("x-frame-test", "kept"),
        ]);
        visit(&mut headers);
        assert_eq!(headers.get_all("x-forwarded-user").iter().collect::<Vec<_>>(), ["alice"]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-prefix"], "/fw/tb");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-frame-test"], "kept");
        assert!(!format!("{headers:?}").contains("root") && !format!("{headers:?}").contains("10.0.0.1"));
    }

    #[test]
    fn our_cookies_stay_here_in_any_case_and_line() {
        let mut headers = map(&[
            ("cookie", "a=1; __Host-portreeve=SECRET; b=2"),
            ("cookie", "__HOST-PORTREEVE-next=SECRET"),
            ("cookie", "c=__Host-portreeve"),
        ]);
        visit(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=__Host-portreeve"]);
        let mut headers = map(&[("cookie", "__Host-portreeve=SECRET")]);
        visit(&mut headers);
        assert!(!headers.contains_key("cookie"));
    }
}
