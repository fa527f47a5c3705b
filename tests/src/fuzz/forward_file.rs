//! Forward files: written by one user, followed for another.

use super::referee;
use portreeve_model::forward_file::{ForwardFile, MAX_FORWARD_FILE, parse};
use portreeve_model::{ForwardTarget, Scheme};

/// A whole forward file.
pub fn forward_file(data: &[u8]) {
    match parse(data) {
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.len() < 256 && !shown.contains(char::is_control), "{shown:?}");
        }
        Ok(ForwardFile::Disabled) => {
            assert!(data.iter().all(|b| b" \t\r\n".contains(b)), "something stands there");
        }
        Ok(ForwardFile::Target { target, .. }) => {
            assert!(data.len() <= MAX_FORWARD_FILE);
            canonical(&target);
            follows_its_rules(&target);
        }
    }
}

/// The line that we write ourselves is read as the same target, and stays as it is.
fn canonical(target: &ForwardTarget) {
    let line = target.to_line();
    let file = format!("http://other:1/\n{line}\n");
    assert!(
        matches!(parse(file.as_bytes()), Ok(ForwardFile::Target { target: again, lines_differ }) if
            again == *target && again.to_line() == line && lines_differ == (line != "http://other:1/")),
        "{line:?} does not come back"
    );
    // What is shown to others has everything but the credentials.
    let open = target.to_string();
    let without = ForwardTarget::parse(&open).unwrap_or_else(|error| panic!("{open:?}: {error}"));
    assert_eq!(without, ForwardTarget { credentials: None, ..target.clone() });
    if let Some(credentials) = &target.credentials {
        assert!(!credentials.user.contains(':'));
        let both = [&credentials.user, &credentials.password];
        assert!(!both.iter().any(|part| part.contains(char::is_control)), "{line:?}");
        let debug = format!("{:?}", credentials.clone());
        assert!(!debug.contains("password"), "{debug}");
    }
}

fn follows_its_rules(target: &ForwardTarget) {
    let path = &target.path;
    assert!(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()), "{path:?}");
    assert!(!path.contains(['?', '#', '\\', '"', '<', '>']), "{path:?}");
    let decoded = percent_decoded(path);
    assert!(!decoded.iter().any(|b| b.is_ascii_control() || *b == b'\\'), "{path:?}");
    for segment in decoded.split(|b| *b == b'/') {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b"..", "{path:?} has dots");
    }
    // The browser is sent to the path at the application's own origin: it must stay there.
    referee::stays_at_the_portal(&format!("{}/", path.trim_end_matches('/')));
    assert!(target.pin.is_none() || target.scheme == Scheme::Https);
    let url = format!("{}://{}:{}{path}", target.scheme.as_str(), target.node, target.port);
    referee::agree_on_the_place(&url, &target.node, target.port, path);
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut rest, mut decoded) = (text.as_bytes(), Vec::new());
    while let [first, after @ ..] = rest {
        rest = after;
        decoded.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("a '%' is followed by two digits");
                u8::from_str_radix(digits, 16).expect("a '%' is followed by two digits")
            }
            _ => *first,
        });
    }
    decoded
}
