//! Which origin a request is for: the portal's own, or an application's. Before: `tls`. After: `route`.
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
    /// `None`: the portal's own origin.
    pub(crate) application: Option<AppHost>,
    /// The uid of the application's owner, where the origin says it.
    pub(crate) owner: Option<u32>,
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
            application: None,
            owner: None,
        }
    }

    /// Whose tickets count here: the `aud` claim.
    pub(crate) fn audience(&self) -> &str {
        if self.application.is_some() { &self.host } else { "portal" }
    }

    /// `https://` and the authority: what a browser sends as Origin.
    pub(crate) fn is_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("https://").is_some_and(|rest| rest.eq_ignore_ascii_case(&self.authority))
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
    let (application, owner) = match rules.classify(host) {
        HostForm::Portal => (None, None),
        HostForm::Application { what, owner } => (Some(what), owner),
        HostForm::Unknown => return Err(misdirected()),
    };
    Ok(Rc::new(Site {
        authority_header: http::HeaderValue::try_from(authority).map_err(|_| misdirected())?,
        authority: authority.into(),
        host: host.to_ascii_lowercase().into_boxed_str(),
        port,
        application,
        owner,
    }))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn rules() -> HostRules {
        HostRules {
            portal_names: vec!["localhost".into(), "127.0.0.1".into()],
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
        assert!(of("/", &["LocalHost:8443"]).unwrap().application.is_none());
        assert!(of("https://127.0.0.1:8443/", &[]).unwrap().application.is_none());
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
