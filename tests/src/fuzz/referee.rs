//! What others make of the same bytes: browsers by the URL standard (`url`), HTTP libraries by `http`.

use portreeve_model::{NodeName, Port};
use url::{Host, Url};

/// The portal's address, against which a browser resolves what it is told.
pub(super) const PORTAL: &str = "https://portal.example:8443/";

/// Asserts that whoever understands this URL at all sees the same node and port in it as we do.
pub(super) fn agree_on_the_place(url: &str, node: &NodeName, port: Port, path: &str) {
    if let Ok(browser) = Url::parse(url) {
        match browser.host() {
            Some(Host::Domain(domain)) => {
                assert_eq!(
                    (domain, None),
                    (node.as_str(), node.as_ip()),
                    "a browser reads {url:?} otherwise"
                );
            }
            Some(Host::Ipv4(ip)) => assert_eq!(Some(ip.into()), node.as_ip(), "{url:?}"),
            Some(Host::Ipv6(ip)) => assert_eq!(Some(ip.into()), node.as_ip(), "{url:?}"),
            None => panic!("a browser sees no host in {url:?}"),
        }
        assert_eq!(browser.port_or_known_default(), Some(port.get()), "{url:?}");
        assert_eq!(browser.path(), path, "a browser normalizes the path of {url:?}");
        assert!(browser.username().is_empty() && browser.password().is_none(), "{url:?}");
    }
    if let Ok(uri) = url.parse::<http::Uri>() {
        assert_eq!(uri.host(), Some(node.as_str()), "{url:?}");
        assert_eq!(uri.port_u16(), Some(port.get()), "{url:?}");
        assert_eq!(uri.path(), path, "{url:?}");
    }
}

/// Asserts that a browser at the portal that is sent to `location` stays at the portal. Returns the path it asks for.
pub(super) fn stays_at_the_portal(location: &str) -> String {
    let portal = Url::parse(PORTAL).expect("it is a URL");
    let lands = portal.join(location).unwrap_or_else(|error| panic!("{location:?}: {error}"));
    assert_eq!(lands.origin(), portal.origin(), "{location:?} leads to {lands}");
    lands.path().to_owned()
}
