//! Bodies on their way through `portreeve_rewrite`: the same in one piece and in many, and nothing but references changes.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use portreeve_rewrite::{Destination, Exchange, Injection, Mode, Place, Rewriter, towards_browser};

const PREFIX: &str = "/fw2/c1:12001";
const KINDS: [(&str, Option<&str>); 7] = [
    ("text/html", None),
    ("text/html; charset=shift_jis", None),
    ("application/xhtml+xml", None),
    ("text/css", None),
    ("image/svg+xml", None),
    ("application/manifest+json", None),
    ("text/html", Some("gzip")),
];

fn rewriter((kind, coding): (&'static str, Option<&'static str>), injects: bool) -> Rewriter {
    let place = Place::new(PREFIX, "", "portal.example", Mode::Strip).map(|p| p.with_origins(["c1:12001"]));
    let place = Arc::new(place.unwrap_or_else(|error| panic!("{error}")));
    let injection =
        Rc::new(Injection { src: "/-/rewrite.js".to_owned(), integrity: None, nonce: "bm9uY2U".to_owned() });
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let exchange = Exchange {
        place: &place,
        method: &Method::GET,
        destination: Destination::Document,
        status: StatusCode::OK,
        injection: injects.then_some(&injection),
        our_cookie: "__Host-portreeve",
    };
    towards_browser(&mut headers, &exchange).unwrap_or_else(|| panic!("{kind} is not rewritten"))
}

/// What comes out; `None` when it breaks off.
fn through(mut rewriter: Rewriter, pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let taken = rewriter.push(rest, &mut out).ok()?;
            assert!(taken <= rest.len() && (taken > 0 || rest.is_empty()), "it takes nothing");
            rest = &rest[taken..];
        }
    }
    rewriter.finish(&mut out);
    Some(out)
}

/// A body. First byte: its kind; second: how it is cut; then the body.
pub fn rewriting(data: &[u8]) {
    let [kind, cut, body @ ..] = data else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let whole = through(rewriter(kind, true), std::iter::once(body));
    let size = usize::from(*cut % 17) + 1;
    let cut = through(rewriter(kind, true), body.chunks(size));
    assert_eq!(whole, cut, "in pieces of {size} it is another one");
    // What is not a reference to the application stays: without a slash there is none.
    let plain = through(rewriter(kind, false), std::iter::once(body));
    let has_none = !body.contains(&b'/') && !body.contains(&b'\\') && !body.contains(&b'&');
    if kind.1.is_none() && has_none && kind.0.starts_with("text/") {
        assert_eq!(plain.as_deref(), Some(body), "something that is no reference was changed");
    }
}
