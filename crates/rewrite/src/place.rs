//! Where an application appears to the browser, and what its references become there. Everything else in this crate
//! asks here.
//!
//! Invariant: what is mapped stays on the portal's own origin, below the application's own prefix; a reference to
//! another host is never mapped, and a mapped one is never mapped again.

use std::borrow::Cow;

use crate::reference::{Form, Found, Reading, authority, end_of_path, read, without_dots};

/// How an application wants its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whole, prefix included.
    Keep,
    /// Without the prefix; what it answers is put below the prefix again.
    Strip,
}

impl Mode {
    /// `keep` or `strip`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Strip => "strip",
        }
    }
}

/// Why a place can't be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The prefix is not a plain path, or the base is none at all: `/` first, none last; in the prefix unreserved letters, `:`,
    /// `@`, `%` and the brackets of an IPv6 address between.
    #[error("not a plain path")]
    Path,
    /// The host is not a host name or address with or without a port.
    #[error("not a host with or without a port")]
    Host,
}

/// Where an application appears.
#[derive(Debug, Clone)]
pub struct Place {
    prefix: String,
    base: String,
    mode: Mode,
    host: String,
    /// `host` in two.
    own: (String, Option<u16>),
    origins: Vec<(String, u16)>,
    cookies_of: Option<u32>,
}

/// One piece of a reference, and what stands in its place; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Splice<'a> {
    pub(crate) at: usize,
    pub(crate) skip: usize,
    pub(crate) insert: Cow<'a, [u8]>,
}

impl Splice<'_> {
    pub(crate) fn apply(&self, reference: &[u8]) -> Vec<u8> {
        let mut mapped = Vec::with_capacity(reference.len() + self.insert.len());
        mapped.extend_from_slice(reference.get(..self.at).unwrap_or_default());
        mapped.extend_from_slice(&self.insert);
        mapped.extend_from_slice(reference.get(self.at + self.skip..).unwrap_or_default());
        mapped
    }
}

/// What the document's root-relative references are relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// The application.
    Ours,
    /// Another host: `<base href="https://elsewhere/">`.
    Elsewhere,
}

impl Place {
    /// An application below `prefix` (no closing slash; empty in an origin of its own) of `https://HOST`, which
    /// believes to be below `base` (no closing slash; mostly empty) of its own origin.
    ///
    /// # Errors
    /// When a part could be read as something else where it is put: in a URL, an attribute, a string of CSS or JSON.
    pub fn new(prefix: &str, base: &str, host: &str, mode: Mode) -> Result<Self, PlaceError> {
        if !is_plain_path(prefix) || !is_base(base) {
            return Err(PlaceError::Path);
        }
        let own = authority(host.as_bytes()).ok_or(PlaceError::Host)?;
        Ok(Self {
            prefix: prefix.to_owned(),
            base: base.to_owned(),
            mode,
            host: host.to_owned(),
            own,
            origins: Vec::new(),
            cookies_of: None,
        })
    }

    /// Authorities that mean the application itself, such as `c1:12001` or `localhost:12001`; without a port, 80 is
    /// meant. One that can't be read is left out.
    #[must_use]
    pub fn with_origins<'a>(mut self, authorities: impl IntoIterator<Item = &'a str>) -> Self {
        let read = authorities.into_iter().filter_map(|one| authority(one.as_bytes()));
        self.origins.extend(read.map(|(host, port)| (host, port.unwrap_or(80))));
        self
    }

    /// Names its cookies after this uid, its owner's, where it shares an origin with applications of others: so none of them
    /// reaches the next owner of the same path.
    #[must_use]
    pub fn with_cookies_of(mut self, owner: Option<u32>) -> Self {
        self.cookies_of = owner;
        self
    }

    /// See [`Place::with_cookies_of`].
    #[must_use]
    pub fn cookies_of(&self) -> Option<u32> {
        self.cookies_of
    }

    /// The path below which it appears; empty in an origin of its own.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path at the application that the prefix stands for.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The host as the browser sent it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How the application wants its paths.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The application's own authorities, with their ports.
    pub(crate) fn origins(&self) -> impl Iterator<Item = String> {
        self.origins.iter().map(|(host, port)| format!("{host}:{port}"))
    }

    /// Whether bodies need rewriting at all: below a prefix of which the application doesn't know.
    #[must_use]
    pub fn rewrites_bodies(&self) -> bool {
        self.mode == Mode::Strip && !self.prefix.is_empty()
    }

    /// A reference as it stands in a document, as it must read for the browser; `None` when it is right already.
    #[must_use]
    pub fn map(&self, reference: &str) -> Option<String> {
        String::from_utf8(self.splice(reference.as_bytes(), Base::Ours)?.apply(reference.as_bytes())).ok()
    }

    /// The same in bytes of any encoding that has ASCII in it, without a copy.
    pub(crate) fn splice(&self, reference: &[u8], base: Base) -> Option<Splice<'_>> {
        if !self.rewrites_bodies() {
            return None;
        }
        let Reading::Ours(found) = self.read(reference) else { return None };
        if base == Base::Elsewhere && found.form == Form::Root {
            return None;
        }
        self.below_prefix(reference, found)
    }

    /// What kind of reference it is.
    pub(crate) fn read(&self, reference: &[u8]) -> Reading {
        read(reference, |host, port, secure| self.is_ours(host, port, secure))
    }

    /// Whether an authority means the application. `secure` is unknown where the reference names no scheme.
    fn is_ours(&self, host: &str, port: Option<u16>, secure: Option<bool>) -> bool {
        let (own, own_port) = &self.own;
        let is_the_portal = host == own
            && match (own_port, port) {
                (None, None) => true,
                // The application may believe that it is asked over HTTP.
                (None, Some(given)) => given == 443 || (given == 80 && secure != Some(true)),
                (Some(own), None) => *own == if secure == Some(false) { 80 } else { 443 },
                (Some(own), Some(given)) => *own == given,
            };
        if is_the_portal {
            return true;
        }
        // Also where both are on one machine, and differ by the port alone.
        let port = port.unwrap_or(if secure == Some(true) { 443 } else { 80 });
        self.origins.iter().any(|(known, known_port)| known == host && *known_port == port)
    }

    fn below_prefix(&self, reference: &[u8], found: Found) -> Option<Splice<'_>> {
        let rest = reference.get(found.path..)?;
        let end = end_of_path(rest);
        let straight = without_dots(rest.get(..end)?);
        let path = straight.as_deref().unwrap_or(rest.get(..end)?);
        let origin = match found.form {
            Form::Root => String::new(),
            Form::Network => format!("//{}", self.host),
            Form::Absolute { socket: false } => format!("https://{}", self.host),
            Form::Absolute { socket: true } => format!("wss://{}", self.host),
        };
        let is_below = cut(path, &self.prefix).is_some();
        let (middle, kept) = match cut(path, &self.base) {
            _ if is_below => ("", path),
            Some(kept) => (self.prefix.as_str(), kept),
            None => (self.prefix.as_str(), path),
        };
        let (slash, kept) = match kept.first() {
            Some(b'/') => ("", kept),
            Some(b'\\') => ("/", kept.get(1..)?),
            _ if is_below => ("", kept),
            _ => ("/", kept),
        };
        let insert = match (&straight, origin.is_empty() && slash.is_empty()) {
            (None, true) => Cow::Borrowed(middle.as_bytes()),
            (None, false) => Cow::Owned([origin.as_str(), middle, slash].concat().into_bytes()),
            (Some(_), _) => {
                Cow::Owned([origin.as_bytes(), middle.as_bytes(), slash.as_bytes(), kept].concat())
            }
        };
        let skip = match straight {
            None => found.path.checked_sub(found.start)? + (path.len() - kept.len()),
            Some(_) => found.path.checked_sub(found.start)? + end,
        };
        let replaced = reference.get(found.start..found.start + skip)?;
        (*replaced != *insert).then_some(Splice { at: found.start, skip, insert })
    }

    /// An absolute URL of the application, or a path of its own, for a header field: as a path where that can't be
    /// taken for another host. `None` when it is right already.
    pub(crate) fn map_field(&self, reference: &[u8]) -> Option<Vec<u8>> {
        let Reading::Ours(found) = self.read(reference) else { return None };
        let had_origin = found.form != Form::Root;
        let path = reference.get(found.path..)?;
        let mapped = if self.rewrites_bodies() {
            let as_path = Found { form: Form::Root, ..found };
            match self.below_prefix(reference, as_path) {
                Some(splice) => splice.apply(reference),
                None if had_origin => path.to_vec(),
                None => return None,
            }
        } else if had_origin {
            if path.first().is_some_and(|first| matches!(first, b'/' | b'\\')) {
                path.to_vec()
            } else {
                [b"/", path].concat()
            }
        } else {
            return None;
        };
        // Browsers drop tabs and read `\` as `/`: without its origin, `//evil` would name another host.
        let mut letters = mapped.iter().filter(|letter| !matches!(letter, b'\t' | b'\r' | b'\n'));
        if matches!(letters.next(), Some(b'/' | b'\\')) && matches!(letters.next(), Some(b'/' | b'\\')) {
            return Some([b"https://", self.host.as_bytes(), &mapped].concat());
        }
        (mapped != reference).then_some(mapped)
    }
}

/// What follows `head` in a path, where a segment ends with it.
fn cut<'a>(path: &'a [u8], head: &str) -> Option<&'a [u8]> {
    if head.is_empty() {
        return None;
    }
    let rest = path.strip_prefix(head.as_bytes())?;
    (rest.is_empty() || matches!(rest.first(), Some(b'/' | b'\\'))).then_some(rest)
}

/// Safe wherever it is put: in a URL, an attribute, CSS, JSON, a header field.
/// Whatever can be a path (RFC 3986 section 3.3): it is taken off, and put nowhere but into an attribute of our script's.
fn is_base(path: &str) -> bool {
    let of_a_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~:@%!$&'()*+,;=".contains(&byte);
    path.is_empty() || (path.starts_with('/') && !path.ends_with('/') && path.bytes().all(of_a_path))
}

fn is_plain_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~:@%[]".contains(&byte);
    path.is_empty()
        || (path.starts_with('/')
            && !path.ends_with('/')
            && !path.contains("//")
            && !path.split('/').any(|segment| matches!(segment, "." | ".."))
            && path.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::new("/fw/tb", "", "portal:8443", Mode::Strip)
            .unwrap()
            .with_origins(["c1:12001", "localhost:12001"])
    }

    #[test]
    fn references_of_the_application_are_mapped() {
        for (from, to) in [
            ("/", "/fw/tb/"),
            ("/x", "/fw/tb/x"),
            ("/x?a=/y#/z", "/fw/tb/x?a=/y#/z"),
            (" \u{1}/x ", " \u{1}/fw/tb/x "),
            ("\t/\nx", "\t/fw/tb/\nx"),
            ("\\x", "/fw/tb/x"),
            ("/?q", "/fw/tb/?q"),
            ("/#top", "/fw/tb/#top"),
            ("//portal:8443/x", "//portal:8443/fw/tb/x"),
            ("//PORTAL:8443", "//portal:8443/fw/tb/"),
            ("//c1:12001/x", "//portal:8443/fw/tb/x"),
            ("/\\c1:12001/x", "//portal:8443/fw/tb/x"),
            ("///c1:12001/x", "//portal:8443/fw/tb/x"),
            ("http://c1:12001/x", "https://portal:8443/fw/tb/x"),
            ("HTTP://C1:12001", "https://portal:8443/fw/tb/"),
            ("http://c1:12001?q", "https://portal:8443/fw/tb/?q"),
            ("http:c1:12001/x", "https://portal:8443/fw/tb/x"),
            ("ht\ntp://c1\t:12001/x", "https://portal:8443/fw/tb/x"),
            ("https://localhost:12001/x", "https://portal:8443/fw/tb/x"),
            ("ws://c1:12001/x", "wss://portal:8443/fw/tb/x"),
            ("wss://portal:8443/x", "wss://portal:8443/fw/tb/x"),
            ("https://portal:8443/x", "https://portal:8443/fw/tb/x"),
            ("http://portal:8443/x", "https://portal:8443/fw/tb/x"),
            ("https:/x", "/fw/tb/x"),
            ("http://c1:12001/fw/tb/x", "https://portal:8443/fw/tb/x"),
            ("https://portal:8443//evil", "https://portal:8443/fw/tb//evil"),
            ("https://portal:8443/\\evil", "https://portal:8443/fw/tb/\\evil"),
            ("/../x", "/fw/tb/x"),
            ("/a/%2E./../x/./y?../z", "/fw/tb/x/y?../z"),
            ("/.\t./x", "/fw/tb/x"),
            ("/fw/tb/../x", "/fw/tb/fw/x"),
            ("/.well-known/x", "/fw/tb/.well-known/x"),
            ("/fw/tb2/x", "/fw/tb/fw/tb2/x"),
            ("/ä", "/fw/tb/ä"),
        ] {
            let mapped = place().map(from);
            assert_eq!(mapped.as_deref(), Some(to), "{from:?}");
            assert_eq!(place().map(to), None, "twice {from:?}");
        }
    }

    #[test]
    fn all_others_stay() {
        for reference in [
            "",
            " ",
            "x",
            "./x",
            "../x",
            "?q",
            "#f",
            "#/x",
            "x:y",
            "data:text/html,/x",
            "blob:http://c1:12001/x",
            "javascript:location='/x'",
            "mailto:a@c1",
            "about:blank",
            "//evil",
            "//evil/x",
            "/\\evil",
            "\\\\evil",
            "/\t/evil",
            "/\n\\evil",
            "\\/evil/x",
            "http://evil/x",
            "http:///evil",
            "https:evil",
            "https:x/y",
            "http:/x",
            "http://c1",
            "http://c1:12002/x",
            "https://portal/x",
            "http://c1:12001@evil/x",
            "http://user@c1:12001/x",
            "http://c1:12001.evil/x",
            "http://evil#http://c1:12001/",
            "http:",
            "http://",
            "//",
            "/\\",
            "///",
            "http://c1:99999999/",
            "http://c1:x/",
            "ftp://c1:12001/x",
            "/fw/tb",
            "/fw/tb/",
            "/fw/tb/x",
            "/fw/tb?q",
            "https://portal:8443/fw/tb/x",
            "{{ url }}",
        ] {
            assert_eq!(place().map(reference), None, "{reference:?}");
        }
    }

    #[test]
    fn the_base_is_what_the_prefix_stands_for() {
        let six = Place::new("/fw2/[fd00::1]:80", "", "portal", Mode::Strip).unwrap();
        assert_eq!(six.map("/x").as_deref(), Some("/fw2/[fd00::1]:80/x"));
        assert_eq!(six.map("/fw2/[fd00::1]:80/x"), None);
        let odd = Place::new("/fw/tb", "/a//b;c='&", "portal", Mode::Strip).unwrap();
        assert_eq!(odd.map("/a//b;c='&/x").as_deref(), Some("/fw/tb/x"));
        let based = Place::new("/fw/tb", "/app", "portal", Mode::Strip).unwrap();
        for (from, to) in [
            ("/app/x", "/fw/tb/x"),
            ("/app", "/fw/tb/"),
            ("/app?q", "/fw/tb/?q"),
            ("/apple", "/fw/tb/apple"),
            ("/x", "/fw/tb/x"),
            ("http://portal/app/x", "https://portal/fw/tb/x"),
            ("https://portal:443/app/x", "https://portal/fw/tb/x"),
        ] {
            assert_eq!(based.map(from).as_deref(), Some(to), "{from:?}");
        }
    }

    #[test]
    fn with_another_base_only_absolute_ones_are_ours() {
        assert_eq!(place().splice(b"/x", Base::Elsewhere), None);
        assert!(place().splice(b"http://c1:12001/x", Base::Elsewhere).is_some());
    }

    #[test]
    fn nothing_is_mapped_in_an_origin_of_its_own_or_when_the_prefix_is_known() {
        assert_eq!(Place::new("", "", "portal", Mode::Strip).unwrap().map("/x"), None);
        assert_eq!(Place::new("/fw/tb", "", "portal", Mode::Keep).unwrap().map("/x"), None);
    }

    #[test]
    fn a_place_is_safe_to_write_anywhere() {
        for prefix in
            ["x", "/x/", "/x\"", "/x<", "/x y", "//x", "/x//y", "/x'", "/x)", "/x\\", "/..", "/ä", "/x&y"]
        {
            assert_eq!(Place::new(prefix, "", "h", Mode::Strip).err(), Some(PlaceError::Path), "{prefix}");
        }
        for host in ["", "a b", "a/b", "a@b", "a\"", "a:b", "a'b", "[::1", "ä"] {
            assert_eq!(Place::new("/x", "", host, Mode::Strip).err(), Some(PlaceError::Host), "{host}");
        }
        for host in ["a", "a.b:1", "[::1]:80", "[::1]", "127.0.0.1", "a_b"] {
            assert!(Place::new("/fw2/c1:12001", "", host, Mode::Strip).is_ok(), "{host}");
        }
    }
}
