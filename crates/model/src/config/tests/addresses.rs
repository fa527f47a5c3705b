//! The portal's addresses, and those of applications.

use super::*;

#[test]
fn the_origin_that_applications_share() {
    let with = |url: &str, rest: &str| format!("[portal]\nurl = {url:?}\n{rest}");
    for (url, apps_url, checked) in [
        ("https://portal.example.org", "https://APPS.example.org/", "https://apps.example.org"),
        ("https://portal.example.org:443", "https://apps.example.org", "https://apps.example.org"),
        ("https://portal.org:8443", "https://apps.org:8443", "https://apps.org:8443"),
    ] {
        let config = parse(&with(url, &format!("apps_url = {apps_url:?}")), "-").unwrap();
        assert_eq!(config.portal.apps_url.as_deref(), Some(checked));
    }
    assert_eq!(parse(&with("https://portal.org", "apps_url = ''"), "-").unwrap().portal.apps_url, None);
    for (text, expected) in [
        (
            "[portal]\napps_url = 'https://apps.org'".to_owned(),
            "p.toml:2: portal.apps_url: there is no portal.url beside it; write portal.url, too",
        ),
        (
            with("https://portal.org", "apps_url = 'https://Portal.org'"),
            "p.toml:3: portal.apps_url: this is a name of the portal itself; give applications a name that is used for nothing else",
        ),
        (
            with("https://portal.org", "apps_url = 'https://p2.org'\nnames = ['P2.org']"),
            "p.toml:3: portal.apps_url: this is a name of the portal itself; give applications a name that is used for nothing else",
        ),
        (
            with("https://portal.org", "apps_url = 'https://apps.org:8443'"),
            "p.toml:3: portal.apps_url: the port is not that of portal.url; write the same port: one listener answers for both",
        ),
        (
            with("https://portal.org", "apps_url = 'apps.org'"),
            "p.toml:3: portal.apps_url: this is no address; write \"https://HOST\" or \"https://HOST:PORT\"",
        ),
        (
            with("https://portal.org", "foreign_applications = 'allow'"),
            "p.toml:3: portal.foreign_applications: \"allow\" is not known; write \"refuse\" or \"ask\"",
        ),
    ] {
        assert_eq!(problems(&text), [expected], "{text}");
    }
    for (written, asks) in [("ask", true), ("refuse", false)] {
        let config = parse(&format!("[portal]\nforeign_applications = {written:?}"), "-").unwrap();
        assert_eq!(config.portal.ask_about_foreign, asks);
    }
}

#[test]
fn the_portals_address() {
    for (written, checked) in [
        ("https://portal.example.org", "https://portal.example.org"),
        ("https://portal.example.org/", "https://portal.example.org"),
        ("HTTPS://PORTAL.Example.Org:8443/", "https://portal.example.org:8443"),
        ("https://portal.example.org:443", "https://portal.example.org"),
        ("https://[FD00::1]:8443", "https://[fd00::1]:8443"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://login_1", "https://login_1"),
    ] {
        let config = parse(&format!("[portal]\nurl = {written:?}"), "-").unwrap();
        assert_eq!(config.portal.url.as_deref(), Some(checked), "{written}");
    }
    assert_eq!(parse("[portal]\nurl = ''", "-").unwrap().portal.url, None);
    for (bad, why) in [
        ("portal.example.org", "this is no address"),
        ("http://portal.example.org", "the portal speaks https only"),
        ("://portal.example.org", "the portal speaks https only"),
        ("https://", "this is no host and port"),
        ("https:///", "this is no host and port"),
        ("https://portal.example.org//", "only a host and a port may stand here"),
        ("https://portal.example.org/portal", "only a host and a port may stand here"),
        ("https://portal.example.org?x", "only a host and a port may stand here"),
        ("https://portal.example.org#x", "only a host and a port may stand here"),
        ("https://user@portal.example.org", "only a host and a port may stand here"),
        ("https://user:secret@portal.example.org:443", "only a host and a port may stand here"),
        ("https://portal.example.org:", "this is no host and port"),
        ("https://portal.example.org:0", "this is no host and port"),
        ("https://portal.example.org:65536", "this is no host and port"),
        ("https://fd00::1", "this is no host and port"),
        ("https://portal example", "this is no host and port"),
        ("https://portal.example.org.", "\"portal.example.org.\" is no host's name"),
        ("https://127.1", "\"127.1\" is no host's name"),
        ("https://0.0.0.0", "\"0.0.0.0\" is no host's name"),
        ("https://[::]", "\"[::]\" is no host's name"),
    ] {
        let expected =
            format!("p.toml:2: portal.url: {why}; write \"https://HOST\" or \"https://HOST:PORT\"");
        assert_eq!(problems(&format!("[portal]\nurl = {bad:?}")), [expected], "{bad}");
    }
}

#[test]
fn the_portals_other_names() {
    for (bad, why) in [
        ("", "this is no host's name; write it as in \"portal.example.org\""),
        ("https://portal", "this is no host's name; write it as in \"portal.example.org\""),
        ("fd00::1", "this is no host's name; write it as in \"portal.example.org\""),
        ("*.example.org", "this is no host's name; write it as in \"portal.example.org\""),
        ("portal.", "\"portal.\" is no host's name; write it as in \"portal.example.org\""),
        ("portal:443", "a port where only a host's name belongs; leave the port out"),
    ] {
        let found = problems(&format!("[portal]\nnames = [{bad:?}]"));
        assert_eq!(found, [format!("p.toml:2: portal.names: {why}")], "{bad}");
    }
}
