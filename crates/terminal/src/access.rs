//! Who may look, and who may type. Before: `connection`. After: `routes`, which give nothing without an [`Admitted`].
//!
//! Invariants: only here is an `Admitted` made, of a request that shows the token. A page of another origin can't open a
//! WebSocket here, whatever cookies its browser sends along.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::settings::{Settings, Token};

/// The user whose request it is, says the portal.
const USER: HeaderName = HeaderName::from_static("x-forwarded-user");
/// The authority that the browser sees, says the portal.
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How the browser came, says the portal.
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request that showed the token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// In a header field that no other site can make a browser send.
    by_authorization: bool,
    may_type: bool,
}

/// Proof that somebody asks who may type, and so do whatever the user may: fetch files and send them.
#[derive(Debug)]
pub(crate) struct Keeper(());

impl Admitted {
    pub(crate) fn may_type(&self) -> bool {
        self.may_type
    }

    pub(crate) fn keeper(&self) -> Option<Keeper> {
        self.may_type.then_some(Keeper(()))
    }

    /// Whether what acts (a WebSocket, an upload) comes from a page of ours, or from a program that knows the token.
    pub(crate) fn may_converse(&self, headers: &HeaderMap) -> bool {
        match headers.get(header::ORIGIN) {
            None => self.by_authorization,
            Some(origin) => is_own(origin, headers).unwrap_or(false),
        }
    }
}

/// The name of the cookie that holds the token. Cookies know no ports: two terminals on one host would take each other's.
pub(crate) fn cookie_name(port: u16) -> String {
    format!("portreeve-terminal-{port}")
}

/// Whether the request is let in.
pub(crate) fn admit(headers: &HeaderMap, settings: &Settings, port: u16) -> Option<Admitted> {
    let by_authorization = authorization(headers).is_some_and(|shown| settings.token.is(shown));
    (by_authorization || has_cookie(headers, &settings.token, port)).then(|| Admitted {
        by_authorization,
        may_type: settings.others_may_type || is_owner(headers, settings),
    })
}

/// Whether the address shows the token: the link that was made for it.
pub(crate) fn shows_token(uri: &Uri, token: &Token) -> bool {
    let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(|pair| pair.strip_prefix("token=")).any(|shown| token.is(shown.as_bytes()))
}

/// Whether the browser's connection is encrypted, so that its cookie need never be sent over another one.
pub(crate) fn is_by_tls(headers: &HeaderMap) -> bool {
    headers.get(PROTO).is_some_and(|proto| proto == "https")
}

fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, shown) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let known = ["token", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    known.then(|| shown.trim().as_bytes())
}

fn has_cookie(headers: &HeaderMap, token: &Token, port: u16) -> bool {
    let name = cookie_name(port);
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let cookies =
        fields.flat_map(|field| field.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.filter(|(of, _)| *of == name).any(|(_, shown)| token.is(shown.as_bytes()))
}

/// Without the portal in between nobody is named: whoever knows the token is the owner.
fn is_owner(headers: &HeaderMap, settings: &Settings) -> bool {
    let mut named = headers.get_all(USER).iter();
    match (named.next(), named.next()) {
        (None, _) => true,
        (Some(user), None) => {
            settings.owner.as_ref().is_some_and(|owner| user.as_bytes() == owner.as_bytes())
        }
        _ => false,
    }
}

fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> Option<bool> {
    let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
    let ours = headers.get(&HOST).or_else(|| headers.get(header::HOST))?.to_str().ok()?;
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let bare = |authority: &str| {
        let lower = authority.trim().to_ascii_lowercase();
        lower.strip_suffix(default).map_or(lower.clone(), str::to_owned)
    };
    Some(bare(authority) == bare(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn settings() -> Settings {
        let token = Token::parse(TOKEN).unwrap();
        let mut settings = Settings::new(Vec::new(), ([127, 0, 0, 1], 0).into(), token);
        settings.owner = Some("alice".to_owned());
        settings
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_token_lets_in_and_nothing_else() {
        let admitted = |name, value: &str| admit(&headers(&[(name, value)]), &settings(), 5).is_some();
        for good in [
            format!("portreeve-terminal-5={TOKEN}"),
            format!("a=b;portreeve-terminal-5={TOKEN} ; c=d"),
            format!("portreeve-terminal-5=old; portreeve-terminal-5={TOKEN}"),
        ] {
            assert!(admitted("cookie", &good), "{good}");
        }
        for bad in [
            "portreeve-terminal-5=",
            "portreeve-terminal-5",
            "portreeve-terminal-5=0123456789abcdeF",
            "portreeve-terminal-5=0123456789abcdef0",
            "portreeve-terminal-6=0123456789abcdef",
            "x=0123456789abcdef",
        ] {
            assert!(!admitted("cookie", bad), "{bad}");
        }
        for (value, good) in [
            (format!("token {TOKEN}"), true),
            (format!("Bearer {TOKEN}"), true),
            (format!("bearer  {TOKEN}"), true),
            (format!("Basic {TOKEN}"), false),
            (TOKEN.to_owned(), false),
            ("token ".to_owned(), false),
        ] {
            assert_eq!(admitted("authorization", &value), good, "{value}");
        }
        assert!(admit(&HeaderMap::new(), &settings(), 5).is_none());
    }

    #[test]
    fn only_the_link_shows_the_token() {
        let shown = |uri: &'static str| shows_token(&Uri::from_static(uri), &Token::parse(TOKEN).unwrap());
        assert!(shown("/?token=0123456789abcdef") && shown("/?a=b&token=0123456789abcdef"));
        assert!(
            !shown("/")
                && !shown("/?token=")
                && !shown("/?token=0123456789abcdeX")
                && !shown("/?xtoken=0123456789abcdef")
        );
    }

    #[test]
    fn a_web_socket_is_opened_by_our_own_page() {
        let by = |by_authorization| Admitted { by_authorization, may_type: true };
        for (fields, good) in [
            (vec![("host", "c1:9"), ("origin", "http://c1:9")], true),
            (vec![("host", "c1:9"), ("origin", "http://C1:9")], true),
            (vec![("host", "c1:9"), ("x-forwarded-host", "p.org"), ("origin", "https://p.org")], true),
            (vec![("x-forwarded-host", "p.org:443"), ("origin", "https://p.org")], true),
            (vec![("x-forwarded-host", "p.org:8443"), ("origin", "https://p.org")], false),
            (vec![("host", "c1:9"), ("x-forwarded-host", "p.org"), ("origin", "http://c1:9")], false),
            (vec![("host", "c1:9"), ("origin", "http://c1:8")], false),
            (vec![("host", "c1:9"), ("origin", "http://evil.org")], false),
            (vec![("host", "c1:9"), ("origin", "null")], false),
            (vec![("origin", "http://c1:9")], false),
        ] {
            assert_eq!(by(false).may_converse(&headers(&fields)), good, "{fields:?}");
            assert_eq!(by(true).may_converse(&headers(&fields)), good, "{fields:?}");
        }
        let silent = headers(&[("host", "c1:9")]);
        assert!(by(true).may_converse(&silent) && !by(false).may_converse(&silent));
    }

    #[test]
    fn others_look_and_do_not_type() {
        let types = |settings: &Settings, users: &[&'static str]| {
            let mut fields = headers(&[("authorization", "token 0123456789abcdef")]);
            for user in users {
                fields.append(USER, HeaderValue::from_static(user));
            }
            admit(&fields, settings, 5).unwrap().may_type()
        };
        let mut settings = settings();
        assert!(types(&settings, &[]) && types(&settings, &["alice"]));
        assert!(!types(&settings, &["bob"]) && !types(&settings, &["Alice"]));
        assert!(!types(&settings, &["alice", "bob"]) && !types(&settings, &[""]));
        settings.owner = None;
        assert!(types(&settings, &[]) && !types(&settings, &["alice"]));
        settings.others_may_type = true;
        assert!(types(&settings, &["bob"]));
    }
}
