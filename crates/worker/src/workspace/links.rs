//! Which address of an application the page leads to: the one where browsers keep it apart from most. In `portreeve up` that is
//! the path form, and its own host name stands beside it: a browser on another machine can't look that up.

use std::collections::BTreeMap;

use portreeve_model::wire::worker::{OwnOrigins, Visit};
use portreeve_model::{AppHost, ForwardName, NodePort, PathMode};

/// Makes links.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links<'v> {
    own_origins: Option<&'v OwnOrigins>,
    /// Before a path that begins with '/'.
    shared_origin: &'v str,
    modes: Option<&'v BTreeMap<String, PathMode>>,
    uid: u32,
}

/// A link, and what goes with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where it is opened; `None` when it can't be reached.
    pub(crate) link: Option<String>,
    /// Where else.
    pub(crate) also: Option<String>,
    /// How it gets its paths, if it was opened.
    pub(crate) paths: Option<&'static str>,
}

impl<'v> Links<'v> {
    /// For the person whose applications these are.
    pub(crate) fn new(visit: &'v Visit, uid: u32) -> Self {
        let is_origin = |text: &&str| {
            let of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
            text.strip_prefix("https://").is_some_and(|host| host.bytes().all(of_a_host))
        };
        Self {
            own_origins: visit.own_origins.as_ref(),
            shared_origin: visit.shared_origin.as_deref().filter(is_origin).unwrap_or_default(),
            modes: Some(&visit.modes),
            uid,
        }
    }

    /// To a port.
    pub(crate) fn port(&self, place: Option<&NodePort>) -> Link {
        let Some(place) = place else { return Link { link: None, also: None, paths: None } };
        self.to(&format!("/fw2/{place}"), &AppHost::NodePort(place.clone()))
    }

    /// To a forward.
    pub(crate) fn forward(&self, name: &ForwardName) -> Link {
        self.to(&format!("/fw/{name}"), &AppHost::Forward(name.clone()))
    }

    fn to(&self, prefix: &str, what: &AppHost) -> Link {
        let path = format!("{}{prefix}/", self.shared_origin);
        let own = self.own_origins.and_then(|origins| origins.address(what, self.uid));
        let is_best = self.own_origins.is_some_and(|origins| origins.tagged);
        let paths = self.modes.and_then(|modes| modes.get(prefix)).map(|mode| match mode {
            PathMode::Keep => "gets its paths whole",
            PathMode::Strip => "links are rewritten",
        });
        match own {
            Some(own) if is_best => Link { link: Some(own), also: None, paths: None },
            own => Link { link: Some(path), also: own, paths },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(origins: Option<(&str, bool)>, shared: &str, place: &str) -> (Option<String>, Option<String>) {
        let origins =
            origins.map(|(domain, tagged)| OwnOrigins { domain: domain.to_owned(), port: None, tagged });
        let links =
            Links { own_origins: origins.as_ref(), shared_origin: shared, uid: 20001, ..Links::default() };
        let Link { link, also, .. } = links.port(Some(&NodePort::parse(place).unwrap()));
        (link, also)
    }

    #[test]
    fn the_best_address() {
        let some = |text: &str| Some(text.to_owned());
        let apps = Some(("apps.example.org", true));
        for (origins, shared, place, expected) in [
            (None, "", "c1:8888", (some("/fw2/c1:8888/"), None)),
            (None, "https://apps.org", "c1:8888", (some("https://apps.org/fw2/c1:8888/"), None)),
            (apps, "", "c1:8888", (some("https://c1-8888-u20001.fh.apps.example.org/"), None)),
            (apps, "", "gpu-1:8888", (some("https://gpu-1-8888-u20001.fh.apps.example.org/"), None)),
            // No label of a host's name.
            (apps, "", "c1.cluster:8888", (some("/fw2/c1.cluster:8888/"), None)),
            (apps, "https://apps.org", "c1.a:8888", (some("https://apps.org/fw2/c1.a:8888/"), None)),
            (
                Some(("localhost", false)),
                "",
                "localhost:8888",
                (some("/fw2/localhost:8888/"), some("https://localhost-8888.localhost/")),
            ),
        ] {
            assert_eq!(link(origins, shared, place), expected, "{origins:?} {shared} {place}");
        }
    }
}
