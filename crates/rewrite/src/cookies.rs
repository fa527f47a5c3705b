//! Cookies, both ways. Invariant: an application's cookie is sent to no other path than its own, and none has a name
//! of the portal's.
//!
//! A cookie named `__Host-x` must have the path `/` (RFC 6265bis section 4.1.3.2), so it can't be confined. Below a
//! prefix it becomes `__Secure-Host-x`, which has a path, and gets its name back on its way to the application. Names
//! that look like that already make room: `__Secure-Host-x` becomes `__Secure-Secure-Host-x`.
//!
//! An application of another user than the visitor, where it shares its origin, has cookies of its owner's: `x` is kept as
//! `u20001~x`. They are sent to that owner's applications alone, and nothing else is sent there.

use std::borrow::Cow;

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use crate::place::{Mode, Place};

/// Whether a name is one of the portal's: `ours`, or longer, in any case.
#[must_use]
pub fn is_ours(name: &[u8], ours: &str) -> bool {
    name.get(..ours.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(ours.as_bytes()))
}

/// Drops cookies of the portal's names, takes `Domain` off, confines `Path`.
pub(crate) fn towards_browser(headers: &mut HeaderMap, place: &Place, ours: &str) {
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let cookies: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter_map(|value| set_cookie(value, place, ours)).collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
}

/// Gives an application's cookies the names that it gave them. Call after the portal's own were taken out.
pub fn towards_application(headers: &mut HeaderMap, place: &Place, ours: &str) {
    if place.prefix().is_empty() {
        return;
    }
    let is_renamed = |pair: &[u8]| original(split(pair).0).is_some();
    let is_changed =
        |line: &HeaderValue| cookie_pairs(line).any(is_renamed) || line.as_bytes().contains(&b'~');
    if place.cookies_of().is_none() && !headers.get_all(COOKIE).iter().any(is_changed) {
        return;
    }
    let lines: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| {
            let pairs: Vec<Vec<u8>> = cookie_pairs(line)
                .filter_map(|pair| {
                    let (name, rest) = split(of_owner(pair, place.cookies_of())?);
                    let name = match original(name) {
                        Some(original) => Cow::Owned(original),
                        None => Cow::Borrowed(name),
                    };
                    // What a script named so that it would read like one of the portal's.
                    if is_ours(&name, ours) { None } else { Some([&name, rest].concat()) }
                })
                .collect();
            let line = pairs.join(b"; ".as_slice());
            HeaderValue::from_bytes(&line).ok().filter(|line| !line.is_empty())
        })
        .collect();
    headers.remove(COOKIE);
    for line in lines {
        headers.append(COOKIE, line);
    }
}

/// The `NAME=VALUE`s of one line of `Cookie`, without blanks around them; some may be empty. A ticket is long, and this is
/// done for each request.
pub fn cookie_pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line.as_bytes());
    std::iter::from_fn(move || {
        let line = rest?;
        let pair = match memchr::memchr(b';', line) {
            Some(end) => {
                rest = Some(&line[end + 1..]);
                &line[..end]
            }
            None => {
                rest = None;
                line
            }
        };
        Some(pair.trim_ascii())
    })
}

/// The pair as that owner's application named it; `None`: it is of another one. `owner` is `None` for the visitor's own.
fn of_owner(pair: &[u8], owner: Option<u32>) -> Option<&[u8]> {
    let at = split(pair).0.iter().position(|byte| *byte == b'~');
    let tag = at
        .and_then(|at| pair.get(..at)?.strip_prefix(b"u"))
        .filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    match (owner, tag, at) {
        (None, None, _) => Some(pair),
        (Some(owner), Some(tag), Some(at)) if owner.to_string().as_bytes() == tag => pair.get(at + 1..),
        _ => None,
    }
}

/// Name, and what follows it.
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let (name, rest) = (pair.get(..at).unwrap_or_default(), pair.get(at..).unwrap_or_default());
    (name.trim_ascii(), rest)
}

fn after<'a>(text: &'a [u8], begin: &str) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(begin.len())?;
    head.eq_ignore_ascii_case(begin.as_bytes()).then_some(rest)
}

/// The name that can be confined, of one that can't, or that would be taken for it.
fn confined(name: &[u8]) -> Option<Vec<u8>> {
    let taken = after(name, "__Secure-")
        .is_some_and(|rest| after(rest, "Host-").is_some() || after(rest, "Secure-").is_some());
    (taken || after(name, "__Host-").is_some())
        .then(|| [b"__Secure-", name.get(2..).unwrap_or_default()].concat())
}

/// The way back.
fn original(name: &[u8]) -> Option<Vec<u8>> {
    let rest = name.strip_prefix(b"__Secure-")?;
    (after(rest, "Host-").is_some() || after(rest, "Secure-").is_some()).then(|| [b"__", rest].concat())
}

fn set_cookie(value: &HeaderValue, place: &Place, ours: &str) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    let mut parts = bytes.split(|byte| *byte == b';');
    let pair = parts.next()?;
    let name = pair.split(|byte| *byte == b'=').next()?.trim_ascii();
    // A cookie without a name is sent back as its value alone, which could read like one of ours.
    let nameless = pair.trim_ascii().strip_prefix(b"=").unwrap_or_default().trim_ascii();
    if is_ours(name, ours) || (name.is_empty() && is_ours(nameless, ours)) {
        return None;
    }
    let mut kept = match (place.prefix().is_empty(), confined(name)) {
        (false, Some(name)) => [&name, split(pair).1].concat(),
        _ => pair.to_vec(),
    };
    if let Some(owner) = place.cookies_of() {
        if name.is_empty() {
            return None;
        }
        kept = [format!("u{owner}~").as_bytes(), kept.trim_ascii_start()].concat();
    } else if !place.prefix().is_empty() && of_owner(&kept, None).is_none() {
        return None;
    }
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
    kept.extend_from_slice(&cookie_path(path.unwrap_or_default(), place)?);
    HeaderValue::from_bytes(&kept).ok()
}

/// The path that a cookie is confined to.
fn cookie_path(path: &[u8], place: &Place) -> Option<Vec<u8>> {
    let path = std::str::from_utf8(path).ok()?;
    let prefix = place.prefix();
    if prefix.is_empty() {
        return Some(if path.starts_with('/') { path.as_bytes().to_vec() } else { b"/".to_vec() });
    }
    let is_below =
        |head: &str| path.strip_prefix(head).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let confined = match place.mode() {
        _ if is_below(prefix) => path.to_owned(),
        Mode::Strip if path.starts_with('/') => {
            let rest = if place.base().is_empty() || !is_below(place.base()) {
                path
            } else {
                path.get(place.base().len()..).unwrap_or_default()
            };
            format!("{prefix}{rest}")
        }
        // No path, the whole origin, or somebody else's part of it.
        _ => format!("{prefix}/"),
    };
    // `/fw/tb/../other` would not be confined in the eyes of every browser.
    Some(if confined.contains("..") { format!("{prefix}/") } else { confined }.into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = "__Host-portreeve";

    fn place(mode: Mode) -> Place {
        Place::new("/fw/tb", "", "localhost:8443", mode).unwrap()
    }

    fn set(value: &str, place: &Place) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_str(value).unwrap());
        towards_browser(&mut headers, place, OURS);
        headers.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
    }

    fn sent(value: &str, place: &Place) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(value).unwrap());
        towards_application(&mut headers, place, OURS);
        headers[COOKIE].to_str().unwrap().to_owned()
    }

    #[test]
    fn cookies_are_confined_and_ours_are_not_set() {
        for (from, expected) in [
            ("a=1", Some("a=1; Path=/fw/tb/")),
            ("a=1; Path=/; HttpOnly", Some("a=1; HttpOnly; Path=/fw/tb/")),
            ("a=1; path=/x; Domain=localhost", Some("a=1; Path=/fw/tb/x")),
            ("a=1; Path=/../x", Some("a=1; Path=/fw/tb/")),
            ("a=1; Path=/fw/tb/x", Some("a=1; Path=/fw/tb/x")),
            ("__Host-portreeve=x; Path=/", None),
            ("__host-Portreeve-next=x", None),
            ("=__Host-portreeve=x", None),
            ("= __Host-portreeve=x", None),
            (" __Host-portreeve =x", None),
            ("__Host-sid=1; Secure; Path=/", Some("__Secure-Host-sid=1; Secure; Path=/fw/tb/")),
            ("__Secure-a=1; Secure", Some("__Secure-a=1; Secure; Path=/fw/tb/")),
            ("__Secure-Host-a=1; Secure", Some("__Secure-Secure-Host-a=1; Secure; Path=/fw/tb/")),
        ] {
            assert_eq!(set(from, &place(Mode::Strip)).as_deref(), expected, "{from}");
        }
        let keep = place(Mode::Keep);
        assert_eq!(set("a=1; Path=/fw/tb/x", &keep).as_deref(), Some("a=1; Path=/fw/tb/x"));
        assert_eq!(set("a=1; Path=/fw/tb2", &keep).as_deref(), Some("a=1; Path=/fw/tb/"));
        let own = Place::new("", "", "a.fn.portal", Mode::Keep).unwrap();
        assert_eq!(set("__Host-a=1; Path=/", &own).as_deref(), Some("__Host-a=1; Path=/"));
        let based = Place::new("/fw/tb", "/app", "portal", Mode::Strip).unwrap();
        assert_eq!(set("a=1; Path=/app", &based).as_deref(), Some("a=1; Path=/fw/tb"));
        assert_eq!(set("a=1; Path=/apple", &based).as_deref(), Some("a=1; Path=/fw/tb/apple"));
    }

    #[test]
    fn the_application_gets_its_own_names_back() {
        let strip = place(Mode::Strip);
        for (from, to) in [
            ("a=1; b=2", "a=1; b=2"),
            ("a=1;__Secure-Host-sid=2;c", "a=1; __Host-sid=2; c"),
            ("__Secure-Secure-Host-a=1; __Secure-b=2", "__Secure-Host-a=1; __Secure-b=2"),
            // Made by a script: it may not read like one of the portal's.
            ("__Secure-Host-portreeve=1; a=1", "a=1"),
            // Of somebody else's application, which had this path before.
            ("u20001~sid=1; a=1; u~b=2; x~c=3", "a=1; u~b=2; x~c=3"),
        ] {
            assert_eq!(sent(from, &strip), to);
        }
        let own = Place::new("", "", "a.fn.portal", Mode::Keep).unwrap();
        assert_eq!(sent("__Secure-Host-a=1", &own), "__Secure-Host-a=1");
    }

    #[test]
    fn cookies_of_others_applications_are_their_owners() {
        let alices = place(Mode::Strip).with_cookies_of(Some(20001));
        for (from, expected) in [
            ("a=1; Path=/x", Some("u20001~a=1; Path=/fw/tb/x")),
            (" __Host-sid=1; Secure; Path=/", Some("u20001~__Secure-Host-sid=1; Secure; Path=/fw/tb/")),
            ("u20002~a=1", Some("u20001~u20002~a=1; Path=/fw/tb/")),
            ("=nameless", None),
            ("__Host-portreeve=x", None),
        ] {
            assert_eq!(set(from, &alices).as_deref(), expected, "{from}");
        }
        assert_eq!(set("u20001~a=1", &place(Mode::Strip)), None, "own ones don't pretend");
        let line = "a=own; u20001~a=1; u20002~a=2; u20001~__Secure-Host-sid=3; u020001~b=4";
        assert_eq!(sent(line, &alices), "a=1; __Host-sid=3");
        for line in ["a=own", "u20001~__Host-portreeve=1", "u20001~__Secure-Host-portreeve=1"] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_static(line));
            towards_application(&mut headers, &alices, OURS);
            assert!(!headers.contains_key(COOKIE), "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_way_back_leads_back(name in "(__)?(Host-|host-|Secure-|SECURE-){0,3}[a-z]{0,3}") {
            let there = confined(name.as_bytes()).unwrap_or_else(|| name.clone().into_bytes());
            prop_assert!(after(&there, "__Host-").is_none());
            let back = original(&there).unwrap_or_else(|| there.clone());
            prop_assert_eq!(String::from_utf8(back).unwrap(), name);
        }
    }
}
