//! Names as they stand in paths, host names and tickets.

use super::referee;
use portreeve_model::{
    AppHost, Audience, ForwardName, HostForm, HostRules, NodeName, NodePort, Port, SessionId, UserName,
    split_host_port,
};
use std::path::{Component, Path};

/// A name of each kind.
pub fn names(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<16>() {
        let id = SessionId::from_bytes(*bytes);
        assert_eq!(SessionId::parse(id.as_str()).as_ref(), Ok(&id));
        assert_eq!(bits_of(id.as_str()), u128::from_be_bytes(*bytes));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    users_and_forwards(text);
    if let Ok(node) = NodeName::parse(text) {
        check_node(&node);
        // One node, one spelling.
        assert!(node.as_str().eq_ignore_ascii_case(text) || node.as_ip().is_some(), "{text:?} became {node}");
    }
    if let Ok(port) = Port::parse(text) {
        assert_eq!(port.to_string(), text);
        assert_eq!(Port::new(port.get()), Some(port));
    }
    if let Ok(place) = NodePort::parse(text) {
        check_node(&place.node);
        assert_eq!(NodePort::parse(&place.to_string()), Ok(place.clone()), "{text:?}");
        let url = format!("http://{place}/");
        referee::agree_on_the_place(&url, &place.node, place.port, "/");
    }
    if let Ok(place) = NodePort::parse_label(text) {
        check_node(&place.node);
        assert_eq!(place.node.as_ip(), None, "{text:?}");
        assert_eq!(NodePort::parse_label(&format!("{}-{}", place.node, place.port)), Ok(place));
    }
    if let Ok(id) = SessionId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert_eq!(
            SessionId::from_bytes(bits_of(text).to_be_bytes()),
            id,
            "{text:?} is not its id's only text"
        );
    }
    if let Ok(audience) = Audience::parse(text) {
        assert_eq!(audience.as_str(), text);
        assert_eq!(audience == Audience::Portal, text == "portal");
    }
}

fn users_and_forwards(text: &str) {
    for name in [
        UserName::parse(text).ok().map(|name| name.to_string()),
        ForwardName::parse(text).ok().map(|name| name.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert_eq!(name, text);
        assert!(matches!(name.len(), 1..=64) && !name.starts_with('-'), "{name:?}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b)), "{name:?}");
        let mut parts = Path::new(&name).components();
        assert!(matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)), "{name:?}");
        let json = serde_json::to_string(&name).expect("text has a JSON form");
        assert_eq!(serde_json::from_str::<UserName>(&json).map(|user| user.to_string()).ok(), Some(name));
    }
    if let Ok(name) = ForwardName::parse(text) {
        assert!(name.as_str().len() <= 63 && !name.as_str().starts_with('.') && !text.contains('@'));
    }
}

fn check_node(node: &NodeName) {
    let text = node.as_str();
    assert_eq!(NodeName::parse(text).as_ref(), Ok(node), "{text:?} is not canonical");
    assert!(text.len() <= 253 && !text.bytes().any(|b| b.is_ascii_uppercase()), "{text:?}");
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-[:]".contains(&b)), "{text:?}");
    if let Some(ip) = node.as_ip() {
        assert_eq!(ip, ip.to_canonical(), "{text:?}");
        assert!(!ip.is_unspecified() && !ip.is_multicast(), "{text:?}");
        assert_eq!(NodeName::from_ip(ip).as_ref(), Ok(node));
    }
    let port = Port::new(1024).expect("it is not 0");
    referee::agree_on_the_place(&format!("http://{text}:1024/"), node, port, "/");
}

fn bits_of(text: &str) -> u128 {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sextet = |b: u8| ALPHABET.iter().position(|&a| a == b).expect("base64url") as u128;
    let (last, first) = text.as_bytes().split_last().expect("22 characters");
    assert_eq!(first.len(), 21);
    first.iter().fold(0, |bits, &b| bits << 6 | sextet(b)) << 2 | sextet(*last) >> 4
}

/// A `Host` value.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rules = rules();
    let whole = rules.classify(text);
    check_form(&rules, text, &whole);
    let Some((name, port)) = split_host_port(text) else { return };
    match port {
        None => assert_eq!(name, text),
        Some(port) => assert_eq!(format!("{name}:{port}"), text),
    }
    assert_eq!(split_host_port(name), Some((name, None)));
    let form = rules.classify(name);
    check_form(&rules, name, &form);
    // Some labels that begin with `xn--` are none for browsers.
    if form != HostForm::Unknown
        && let Ok(url) = url::Url::parse(&format!("https://{text}/"))
    {
        assert_eq!(url.host_str(), Some(name.to_ascii_lowercase().as_str()), "{text:?}");
    }
}

pub(super) fn rules() -> HostRules {
    HostRules {
        portal_names: ["localhost", "127.0.0.1", "[::1]", "portal.example"].map(str::to_owned).to_vec(),
        apps_name: "apps.portal".to_owned(),
        apps_domain: "localhost".to_owned(),
        tagged: false,
    }
}

pub(super) fn check_form(rules: &HostRules, name: &str, form: &HostForm) {
    let lower = name.to_ascii_lowercase();
    assert_eq!(rules.classify(&lower), *form, "{name:?} has another meaning in lower case");
    assert_eq!(rules.classify(&name.to_ascii_uppercase()), *form, "{name:?}");
    assert_eq!(*form == HostForm::Portal, rules.portal_names.contains(&lower), "{name:?}");
    let HostForm::Application { what: application, owner: None } = form else { return };
    let names = match application {
        AppHost::NodePort(place) => {
            let label = format!("{}-{}", place.node, place.port);
            [format!("{label}.localhost"), format!("{label}.fh.localhost")]
        }
        AppHost::Forward(forward) => [format!("{forward}.fn.localhost"), String::new()],
    };
    assert!(names.contains(&lower), "{name:?} is taken for {names:?}");
    // An origin whose tickets could not name it could be opened, but never entered.
    assert!(matches!(Audience::parse(&lower), Ok(Audience::Application(_))), "{name:?} is no audience");
}
