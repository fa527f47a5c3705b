//! Which origin a `Host` value names. Before: the request's head. After: routing.
//! Invariant: a name is ours only if it is listed or has exactly an application's form; all else is `Unknown`, so that
//! a foreign name made to resolve to us (DNS rebinding) reaches nothing.

use crate::names::{ForwardName, NodeName, NodePort, Port};

/// What a host name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostForm {
    /// The portal's own origin.
    Portal,
    /// The origin that all applications in path form share. See [`HostRules::apps_name`].
    Applications,
    /// One application's origin.
    Application {
        /// Which application.
        what: AppHost,
        /// The uid of its owner, where the name says it. See [`HostRules::tagged`].
        owner: Option<u32>,
    },
    /// Not ours: refuse.
    Unknown,
}

/// The application that a host name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AppHost {
    /// `NODE-PORT.DOMAIN` or `NODE-PORT.fh.DOMAIN`; with the owner's uid `NODE-PORT-uUID.fh.DOMAIN`.
    NodePort(NodePort),
    /// `NAME.fn.DOMAIN`; with the owner's uid `NAME-uUID.fn.DOMAIN`.
    Forward(ForwardName),
}

/// The names that are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// The portal's names without port, an IPv6 address in brackets.
    pub portal_names: Vec<String>,
    /// The name, without port, of the origin where applications are in path form, apart from the portal's own pages; empty: they
    /// share the portal's.
    pub apps_name: String,
    /// The domain that applications' names end in, such as `localhost`; empty: no application has a name.
    pub apps_domain: String,
    /// Whether an application's origin carries its owner's uid (`c1-8888-u20001.fh.DOMAIN`), so that the next user of a port does
    /// not inherit what browsers keep for an origin. A name without it then only leads to the one with it.
    pub tagged: bool,
}

impl HostRules {
    /// What this host name (without port) stands for, in any case. A trailing dot makes another origin of the same
    /// address and is therefore `Unknown`.
    #[must_use]
    pub fn classify(&self, host_without_port: &str) -> HostForm {
        let host = host_without_port.to_ascii_lowercase();
        if host.is_empty() || host.ends_with('.') {
            return HostForm::Unknown;
        }
        if self.portal_names.iter().any(|name| name.eq_ignore_ascii_case(&host)) {
            return HostForm::Portal;
        }
        if self.apps_name.eq_ignore_ascii_case(&host) {
            return HostForm::Applications;
        }
        let application = self.application(&host);
        application.map_or(HostForm::Unknown, |(what, owner)| HostForm::Application { what, owner })
    }

    /// The application of a name in lower case, and the owner that it names.
    fn application(&self, host: &str) -> Option<(AppHost, Option<u32>)> {
        let domain = self.apps_domain.to_ascii_lowercase();
        let labels = host.strip_suffix(domain.as_str()).filter(|_| !domain.is_empty())?.strip_suffix('.')?;
        // What is no host name can be no audience of a ticket either.
        NodeName::parse(host).ok()?;
        let (label, kind) = match labels.split_once('.') {
            None if !self.tagged => (labels, "fh"),
            None => return None,
            Some(both) => both,
        };
        let (name, owner) = if self.tagged { split_owner(label) } else { (label, None) };
        let what = match kind {
            "fh" => NodePort::parse_label(name).ok().map(AppHost::NodePort),
            "fn" => ForwardName::parse(name).ok().filter(ForwardName::is_host_label).map(AppHost::Forward),
            _ => None,
        };
        what.map(|what| (what, owner))
    }

    /// The application's own host name, if there is one: the name is a label of DNS, and reads back as the same.
    #[must_use]
    pub fn own_host(&self, what: &AppHost, owner: Option<u32>) -> Option<String> {
        let (name, kind) = match what {
            AppHost::NodePort(place) => (format!("{}-{}", place.node, place.port), "fh"),
            AppHost::Forward(name) => (name.to_string(), "fn"),
        };
        let owner = owner.filter(|_| self.tagged);
        let tag = owner.map(|uid| format!("-u{uid}")).unwrap_or_default();
        let kind = if kind == "fh" && !self.tagged { String::new() } else { format!(".{kind}") };
        let host = format!("{name}{tag}{kind}.{}", self.apps_domain);
        let read = self.classify(&host);
        (read == HostForm::Application { what: what.clone(), owner }).then_some(host)
    }
}

/// Takes the owner's uid off a label: `c1-8888-u20001` is `c1-8888` and 20001.
fn split_owner(label: &str) -> (&str, Option<u32>) {
    match label.rsplit_once("-u") {
        Some((name, uid)) if !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_digit()) => {
            // One spelling for one uid.
            let canonical = uid.parse().ok().filter(|number: &u32| number.to_string() == uid);
            canonical.map_or((label, None), |uid| (name, Some(uid)))
        }
        _ => (label, None),
    }
}

/// Splits a `Host` value: `h`, `h:8443`, `[::1]`, `[::1]:8443`. The host keeps its brackets. `None` for anything that
/// is neither: an empty host or port, user information, a bare IPv6 address, characters of no host name.
#[must_use]
pub fn split_host_port(value: &str) -> Option<(&str, Option<Port>)> {
    let end =
        if value.starts_with('[') { value.find(']')? + 1 } else { value.find(':').unwrap_or(value.len()) };
    let (host, rest) = value.split_at(end);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let address = |inside: &str| inside.parse::<std::net::Ipv6Addr>().is_ok();
    let well_formed = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inside) => address(inside),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(Port::parse(digits).ok()?),
        None if rest.is_empty() => None,
        None => return None,
    };
    well_formed.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> HostRules {
        HostRules {
            portal_names: vec![
                "localhost".into(),
                "127.0.0.1".into(),
                "[::1]".into(),
                "Portal.example.org".into(),
            ],
            apps_name: String::new(),
            apps_domain: "localhost".into(),
            tagged: false,
        }
    }

    #[test]
    fn the_name_that_all_applications_share() {
        let rules = HostRules { apps_name: "apps.example.org".into(), ..rules() };
        assert_eq!(rules.classify("Apps.example.ORG"), HostForm::Applications);
        for name in ["apps.example.org.", "x.apps.example.org", "apps.example"] {
            assert_eq!(rules.classify(name), HostForm::Unknown, "{name}");
        }
    }

    fn of(what: AppHost, owner: Option<u32>) -> HostForm {
        HostForm::Application { what, owner }
    }

    #[test]
    fn names_with_an_owner() {
        let rules = HostRules { apps_domain: "apps.example.org".into(), tagged: true, ..rules() };
        let node = |text| AppHost::NodePort(NodePort::parse(text).unwrap());
        let forward = |text: &str| AppHost::Forward(ForwardName::parse(text).unwrap());
        for (name, what, owner) in [
            ("c1-8888.fh.apps.example.org", node("c1:8888"), None),
            ("c1-8888-u20001.fh.apps.example.org", node("c1:8888"), Some(20001)),
            ("C1-U5-8888-U0.FH.apps.example.org", node("c1-u5:8888"), Some(0)),
            ("tb.fn.apps.example.org", forward("tb"), None),
            ("alice-tb-u20001.fn.apps.example.org", forward("alice-tb"), Some(20001)),
            ("alice-u1-u20001.fn.apps.example.org", forward("alice-u1"), Some(20001)),
            // No uid, so part of the name.
            ("tb-u.fn.apps.example.org", forward("tb-u"), None),
            ("tb-u01.fn.apps.example.org", forward("tb-u01"), None),
            ("tb-u4294967296.fn.apps.example.org", forward("tb-u4294967296"), None),
        ] {
            assert_eq!(rules.classify(name), of(what.clone(), owner), "{name}");
            assert_eq!(rules.own_host(&what, owner), Some(name.to_ascii_lowercase()), "{name}");
        }
        for name in [
            "c1-8888.apps.example.org",
            "c1-8888-u01.fh.apps.example.org",
            "c1-8888-u20001.fx.apps.example.org",
            "-u20001.fn.apps.example.org",
            "-u20001.fh.apps.example.org",
            "apps.example.org",
        ] {
            assert_eq!(rules.classify(name), HostForm::Unknown, "{name}");
        }
        // Would read as somebody's `alice`, is no label, or too long a one.
        let long = "x".repeat(60);
        for (name, owner) in [("alice-u1", None), ("Alice", None), ("a.b", Some(1)), (&long, Some(20001))] {
            assert_eq!(rules.own_host(&forward(name), owner), None, "{name}");
        }
        assert_eq!(rules.own_host(&node("10.0.0.1:80"), None), None);
        let free = HostRules { tagged: false, apps_domain: "localhost".into(), ..rules };
        assert_eq!(free.own_host(&node("c1:8888"), Some(5)).as_deref(), Some("c1-8888.localhost"));
        assert_eq!(free.own_host(&forward("tb-u1"), Some(5)).as_deref(), Some("tb-u1.fn.localhost"));
    }

    #[test]
    fn our_names() {
        for name in
            ["localhost", "LocalHost", "127.0.0.1", "[::1]", "portal.example.org", "PORTAL.EXAMPLE.ORG"]
        {
            assert_eq!(rules().classify(name), HostForm::Portal, "{name}");
        }
        let node = |text| of(AppHost::NodePort(NodePort::parse(text).unwrap()), None);
        let forward = |text| of(AppHost::Forward(ForwardName::parse(text).unwrap()), None);
        for (name, form) in [
            ("c1-8888.localhost", node("c1:8888")),
            ("C1-8888.LOCALHOST", node("c1:8888")),
            ("gpu-node-3-12001.fh.localhost", node("gpu-node-3:12001")),
            ("localhost-8000.localhost", node("localhost:8000")),
            ("alice-tb.fn.localhost", forward("alice-tb")),
            ("a_1.fn.localhost", forward("a_1")),
            ("c1-8888.fn.localhost", forward("c1-8888")),
        ] {
            assert_eq!(rules().classify(name), form, "{name}");
        }
    }

    #[test]
    fn everything_else_is_unknown() {
        for name in [
            "",
            ".",
            "localhost.",
            "c1-8888.localhost.",
            "evil.example",
            "localhost.evil.example",
            "xlocalhost",
            "evil-localhost",
            "c1-8888localhost",
            ".localhost",
            "fn.localhost",
            "fh.localhost",
            ".fn.localhost",
            ".fh.localhost",
            "c1.localhost",
            "c1-0.localhost",
            "c1-8888.fx.localhost",
            "c1-8888.fh.fh.localhost",
            "a.c1-8888.fh.localhost",
            "a.b-80.localhost",
            "127.0.0.1-80.localhost",
            "a.b.fn.localhost",
            "-a.fn.localhost",
            "a b.fn.localhost",
            "c1-8888.fh.localhost:8443",
            "127.0.0.2",
            "[::2]",
            "::1",
            "0.0.0.0",
            "127.1",
            "c1-8888.example.org",
            "portal.example.org.",
            "x.portal.example.org",
            "c1-8888.fh",
            "localhost\0",
        ] {
            assert_eq!(rules().classify(name), HostForm::Unknown, "{name:?}");
        }
        let none = HostRules {
            portal_names: vec![],
            apps_name: String::new(),
            apps_domain: String::new(),
            tagged: false,
        };
        for name in ["", "localhost", "c1-8888", "c1-8888.", "a.fn."] {
            assert_eq!(none.classify(name), HostForm::Unknown, "{name:?}");
        }
    }

    #[test]
    fn host_and_port() {
        for (value, host, port) in [
            ("h", "h", None),
            ("h:8443", "h", Some(8443)),
            ("a.b_c-d:1", "a.b_c-d", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::1]:8443", "[::1]", Some(8443)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("localhost.", "localhost.", None),
        ] {
            assert_eq!(split_host_port(value), Some((host, port.and_then(Port::new))), "{value}");
        }
        for bad in [
            "",
            ":",
            ":80",
            "h:",
            "h:0",
            "h:080",
            "h:+80",
            "h:65536",
            "h:80:80",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[]",
            "[]:80",
            "[h]:80",
            "[fe80::1%1]:80",
            "u@h",
            "h/x",
            "h x",
            "h,g",
            "h\t",
            "é",
            "h:80 ",
        ] {
            assert_eq!(split_host_port(bad), None, "{bad:?}");
        }
    }
}
