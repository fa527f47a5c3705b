//! Which origin a request is for: the portal's own, the one that applications share, or an application's own. Before: `tls`. After: `route`.
//!
//! Invariant: a host name that is neither is refused (421). Otherwise somebody's own domain that resolves to this
//! address would be an origin of ours (DNS rebinding).

use std::rc::Rc;

use http::header::HOST;
use http::request::Parts;
use portreeve_model::{AppHost, HostForm, HostRules, Port, split_host_port};

use crate::limits;

/// The origin a request is for.
#[derive(Debug)]
pub(crate) struct Site {
    /// The host name as the browser sent it, with its port.
    pub(crate) authority: Box<str>,
    /// The same as a header value for applications.
    pub(crate) authority_header: http::HeaderValue,
    /// The host name alone, in lower case.
    pub(crate) host: Box<str>,
    /// The port, when it is not HTTPS's own.
    pub(crate) port: Option<Port>,
    /// Whose it is.
    pub(crate) origin: Origin,
}

/// Whose an origin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The portal's own pages; and applications in path form, unless they have [`Origin::Applications`].
    Portal,
    /// All applications in path form.
    Applications,
    /// One application.
    Application {
        what: AppHost,
        /// Its owner's uid, where the name says it.
        owner: Option<u32>,
    },
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    /// HTTP/1.1 needs exactly one Host, and it must agree with the request line.
    #[error("the request does not say which host it is for, or says it twice")]
    Ambiguous,
    /// A name that is not ours.
    #[error("this is not {0}")]
    Misdirected(String),
}

impl Site {
    /// The portal's own origin, for tests.
    #[cfg(test)]
    pub(crate) fn localhost() -> Self {
        Self {
            authority: "localhost".into(),
            authority_header: http::HeaderValue::from_static("localhost"),
            host: "localhost".into(),
            port: None,
            origin: Origin::Portal,
        }
    }

    /// Whose tickets count here: the `aud` claim.
    pub(crate) fn audience(&self) -> &str {
        if self.origin == Origin::Portal { "portal" } else { &self.host }
    }

    /// The application that has this origin to itself.
    pub(crate) fn application(&self) -> Option<&AppHost> {
        match &self.origin {
            Origin::Application { what, .. } => Some(what),
            Origin::Portal | Origin::Applications => None,
        }
    }

    /// The uid of that application's owner, where the name says it.
    pub(crate) fn owner(&self) -> Option<u32> {
        match self.origin {
            Origin::Application { owner, .. } => owner,
            Origin::Portal | Origin::Applications => None,
        }
    }

    /// `https://` and the authority: what a browser sends as Origin.
    pub(crate) fn is_origin(&self, origin: &str) -> bool {
        self.path_of(origin) == Some("")
    }

    /// Path and query of an address of this origin; empty for the origin alone.
    pub(crate) fn path_of<'a>(&self, address: &'a str) -> Option<&'a str> {
        let rest = address.strip_prefix("https://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        authority.eq_ignore_ascii_case(&self.authority).then_some(path)
    }
}

/// The origin that the request names; `known` is that of the request before it.
pub(crate) fn site(
    rules: &HostRules,
    known: Option<&Rc<Site>>,
    request: &Parts,
) -> Result<Rc<Site>, SiteError> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(SiteError::Ambiguous);
    }
    let header = header.map(|value| value.to_str().map_err(|_| SiteError::Ambiguous)).transpose()?;
    // HTTP/2's :authority, or the absolute form of HTTP/1.1's request line.
    let line = request.uri.authority().map(http::uri::Authority::as_str);
    let authority = match (line, header) {
        (Some(line), Some(header)) if !line.eq_ignore_ascii_case(header) => return Err(SiteError::Ambiguous),
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => return Err(SiteError::Ambiguous),
    };
    if let Some(known) = known
        && *known.authority == *authority
    {
        return Ok(Rc::clone(known));
    }
    let misdirected = || SiteError::Misdirected(authority.chars().take(limits::HOST_SHOWN).collect());
    let (host, port) = split_host_port(authority).ok_or_else(misdirected)?;
    let origin = match rules.classify(host) {
        HostForm::Portal => Origin::Portal,
        HostForm::Applications => Origin::Applications,
        HostForm::Application { what, owner } => Origin::Application { what, owner },
        HostForm::Unknown => return Err(misdirected()),
    };
    Ok(Rc::new(Site {
        authority_header: http::HeaderValue::try_from(authority).map_err(|_| misdirected())?,
        authority: authority.into(),
        host: host.to_ascii_lowercase().into_boxed_str(),
        port,
        origin,
    }))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn rules() -> HostRules {
        HostRules {
            portal_names: vec!["localhost".into(), "127.0.0.1".into()],
            apps_name: "apps.portal".into(),
            apps_domain: "localhost".into(),
            tagged: false,
        }
    }

    fn of(uri: &str, hosts: &[&str]) -> Result<Rc<Site>, SiteError> {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        site(&rules(), None, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn our_names_and_applications() {
        assert_eq!(of("/", &["LocalHost:8443"]).unwrap().origin, Origin::Portal);
        assert_eq!(of("https://127.0.0.1:8443/", &[]).unwrap().origin, Origin::Portal);
        let shared = of("/", &["apps.portal:8443"]).unwrap();
        assert_eq!((&shared.origin, shared.audience()), (&Origin::Applications, "apps.portal"));
        let app = of("/", &["c1-8888.localhost:8443"]).unwrap();
        assert_eq!(app.audience(), "c1-8888.localhost");
        assert!(app.is_origin("https://c1-8888.localhost:8443"));
        assert!(
            !app.is_origin("https://c1-8888.localhost:8444")
                && !app.is_origin("http://c1-8888.localhost:8443")
        );
    }

    #[test]
    fn foreign_double_and_missing_names_are_refused() {
        for (uri, hosts) in [
            ("/", &["evil.example"][..]),
            ("/", &["localhost.evil.example"]),
            ("/", &["localhost", "localhost"]),
            ("/", &[]),
            ("/", &["user@localhost"]),
            ("/", &["localhost."]),
            ("https://localhost/", &["evil.example"]),
        ] {
            assert!(of(uri, hosts).is_err(), "{uri} {hosts:?}");
        }
        let shown = of("/", &[&"x".repeat(limits::HOST_SHOWN + 1)]).unwrap_err();
        assert!(matches!(shown, SiteError::Misdirected(name) if name.len() == limits::HOST_SHOWN));
    }
}
