//! Where a browser is sent, and for which origin a request is.

use super::names::{check_form, rules};
use super::referee;
use http::Request;
use http::header::{HOST, HeaderValue};
use portreeve_model::{HostForm, split_host_port};
use portreeve_portal::fuzz as portal;

/// Where to go after signing in; the same text typed into the workspace's field.
pub fn next(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(path) = portal::next(text) {
        assert_eq!(path, text);
        leads_to_a_place(path);
    }
    for typed in [text.to_owned(), format!("https://localhost:8443/{text}")] {
        let encoded: String = typed.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let Ok(request) = Request::get(format!("/-/go?address={encoded}")).body(()) else { continue };
        let Some(location) = portal::go(&request.into_parts().0) else { continue };
        let location = location.to_str().unwrap_or_else(|_| panic!("{location:?} is no ASCII"));
        match location.strip_prefix("/?unknown-address=") {
            // Sent back to the page that asked, with what was typed.
            Some(shown) => {
                assert!(shown.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%'), "{shown:?}")
            }
            None => leads_to_a_place(location),
        }
    }
}

fn leads_to_a_place(path: &str) {
    assert!(path.starts_with('/') && !path.starts_with("//"), "{path:?}");
    assert!(path.len() <= 4096 && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'), "{path:?}");
    let lands = referee::stays_at_the_portal(path);
    let acts = ["/-/", "/api/", "/dav/"].iter().any(|own| lands.starts_with(own));
    assert!(!acts || lands == "/-/open", "{path:?} leads to {lands:?}");
}

/// A request's origin: the request line's address on the first line, one `Host` on each that follows.
pub fn request_site(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n');
    let uri = lines.next().unwrap_or_default();
    let mut request = Request::builder().uri(uri);
    let mut hosts = Vec::new();
    for line in lines.take(4) {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        hosts.push(value.clone());
        request = request.header(HOST, value);
    }
    let Ok(request) = request.body(()) else { return };
    let parts = request.into_parts().0;
    let rules = rules();
    let Some((authority, host, application)) = portal::site(&rules, &parts) else { return };
    assert!(hosts.len() <= 1, "two hosts, and one was believed");
    for said in
        hosts.iter().filter_map(|host| host.to_str().ok()).chain(parts.uri.authority().map(|a| a.as_str()))
    {
        assert!(said.eq_ignore_ascii_case(&authority), "{said:?} is not {authority:?}");
    }
    let (name, _) = split_host_port(&authority).unwrap_or_else(|| panic!("{authority:?} is no host"));
    assert_eq!(name.to_ascii_lowercase(), host);
    let form = application.map_or(HostForm::Portal, |what| HostForm::Application { what, owner: None });
    assert_eq!(rules.classify(name), form);
    check_form(&rules, name, &form);
}
