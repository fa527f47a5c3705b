//! Where a browser wanted to go before it was sent to sign in.
//!
//! Invariant: a path on this portal, nothing else. No other host (open redirect), no scheme, and nothing of our own
//! that does something, except handing out the entry to an application's origin.

use crate::limits;

/// The path, if it stays on the host that it is read on.
pub(super) fn on_this_host(next: &str) -> Option<&str> {
    let inside = next.starts_with('/')
        && !next.starts_with("//")
        && next.len() <= limits::NEXT_BYTES
        // Browsers read a backslash as a slash, and drop tabs and newlines.
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    inside.then_some(next)
}

/// The path, if it is one that a browser may be sent to on the portal.
pub(crate) fn checked(next: &str) -> Option<&str> {
    let next = on_this_host(next)?;
    let path = next.split(['?', '#']).next().unwrap_or_default();
    let dotted = path.split('/').any(|segment| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    });
    let ours = ["/-/", "/api/", "/dav/"].iter().any(|own| path.starts_with(own)) && path != "/-/open";
    (!dotted && !ours).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_portal() {
        for good in ["/", "/fw2/localhost:8888/lab?x=/y", "/fw/a-b/", "/-/open?host=x.localhost"] {
            assert_eq!(checked(good), Some(good));
        }
        for bad in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "evil",
            "/-/sign-out",
            "/api/v1/x",
            "/dav/x",
            "/fw/../-/sign-out",
            "/fw/%2E%2e/-/sign-out",
            "/ä",
        ] {
            assert_eq!(checked(bad), None, "{bad:?}");
        }
        for (length, expected) in [(limits::NEXT_BYTES, true), (limits::NEXT_BYTES + 1, false)] {
            assert_eq!(checked(&format!("{:x<length$}", "/")).is_some(), expected, "{length}");
        }
    }
}
