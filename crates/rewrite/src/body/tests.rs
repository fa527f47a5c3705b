use std::sync::Arc;

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::Mode;

fn place() -> Arc<Place> {
    Arc::new(Place::new("/fw/tb", "", "portal", Mode::Strip).unwrap().with_origins(["c1:12001"]))
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

struct Asked {
    place: Arc<Place>,
    method: Method,
    destination: Destination,
    status: StatusCode,
    injection: Rc<Injection>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            place: place(),
            method: Method::GET,
            destination: Destination::Document,
            status: StatusCode::OK,
            injection: Rc::new(Injection { src: "/-/rewrite.js".into(), integrity: None, nonce: "N".into() }),
        }
    }
}

impl Asked {
    fn rewriter(&self, headers: &mut HeaderMap) -> Option<Rewriter> {
        towards_browser(
            headers,
            &Exchange {
                place: &self.place,
                method: &self.method,
                destination: self.destination,
                status: self.status,
                injection: Some(&self.injection),
                our_cookie: "__Host-portreeve",
            },
        )
    }
}

fn run(mut rewriter: Rewriter, body: &[u8], size: usize) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    for mut piece in body.chunks(size.max(1)) {
        while !piece.is_empty() {
            let before = out.len();
            let taken = rewriter.push(piece, &mut out)?;
            assert!(taken > 0 && out.len() - before < ENOUGH + (8 << 20));
            piece = &piece[taken..];
        }
    }
    rewriter.finish(&mut out);
    Ok(out)
}

fn answered(asked: &Asked, kind: &str, body: &[u8]) -> Option<String> {
    let rewriter = asked.rewriter(&mut fields(&[("content-type", kind)]))?;
    Some(String::from_utf8_lossy(&run(rewriter, body, 5).unwrap()).into_owned())
}

#[test]
fn bodies_are_rewritten_by_their_type() {
    let fetched = Asked { destination: Destination::Script, ..Asked::default() };
    for (kind, body, expected) in [
        ("text/html", "<a href=/x>", Some("<a href=/fw/tb/x>")),
        ("Text/HTML; charset=utf-8", "<a href=/x>", Some("<a href=/fw/tb/x>")),
        ("text/html", " {\"html\":\"<a href=\\\"/x\\\">\"}", Some(" {\"html\":\"<a href=\\\"/x\\\">\"}")),
        ("application/xhtml+xml", "<a href='/x'/>", Some("<a href='/fw/tb/x'/>")),
        ("text/css", "a{b:url(/x)}", Some("a{b:url(/fw/tb/x)}")),
        ("image/svg+xml", "<svg><use href='/x'/></svg>", Some("<svg><use href='/fw/tb/x'/></svg>")),
        ("application/manifest+json", "{\"scope\":\"/\"}", Some("{\"scope\":\"/fw/tb/\"}")),
        ("application/manifest+json", "{\"scope\": \"x\"}", Some("{\"scope\": \"x\"}")),
        ("application/json", "{\"scope\":\"/\"}", None),
        ("text/javascript", "import '/x'", None),
        ("text/plain", "<a href=/x>", None),
        ("text/html; charset=utf-16le", "<a href=/x>", None),
        ("text/html", "\u{feff}<a href=/x>", Some("\u{feff}<a href=/fw/tb/x>")),
        ("text/html", "", Some("")),
        ("text/html", "<", Some("<")),
    ] {
        assert_eq!(answered(&fetched, kind, body.as_bytes()).as_deref(), expected, "{kind} {body}");
    }
    assert!(
        answered(&Asked::default(), "text/html", b"<p>")
            .unwrap()
            .starts_with("<script src=\"/-/rewrite.js\"")
    );
}

#[test]
fn two_byte_letters_pass() {
    for body in [b"\xff\xfe<\0a\0".as_slice(), b"\xfe\xff\0<\0a", b"<\0a\0 \0", b"\0<\0a"] {
        let rewriter = Asked::default().rewriter(&mut fields(&[("content-type", "text/html")])).unwrap();
        assert_eq!(run(rewriter, body, 1).unwrap(), body);
    }
}

#[test]
fn what_has_no_body_or_is_no_page_costs_nothing() {
    let kind = [
        ("content-type", "text/html"),
        ("content-length", "7"),
        ("etag", "\"x\""),
        ("accept-ranges", "bytes"),
    ];
    let untouched = |asked: Asked, more: &[(&'static str, &str)]| {
        let mut headers = fields(&kind);
        headers.extend(fields(more));
        assert!(asked.rewriter(&mut headers).is_none(), "{more:?}");
        assert_eq!(headers["content-length"], "7");
        assert_eq!(headers["accept-ranges"], "bytes");
    };
    untouched(Asked { method: Method::HEAD, ..Asked::default() }, &[]);
    for status in [204, 205, 206, 304] {
        untouched(Asked { status: StatusCode::from_u16(status).unwrap(), ..Asked::default() }, &[]);
    }
    untouched(Asked { destination: Destination::Part, ..Asked::default() }, &[]);
    untouched(Asked::default(), &[("content-disposition", "Attachment; filename=x")]);
    untouched(Asked::default(), &[("content-encoding", "compress")]);
    let keep = Arc::new(Place::new("/fw/tb", "", "portal", Mode::Keep).unwrap());
    untouched(Asked { place: keep, ..Asked::default() }, &[]);
    let own = Arc::new(Place::new("", "", "portal", Mode::Strip).unwrap());
    untouched(Asked { place: own, ..Asked::default() }, &[]);
}

#[test]
fn fields_that_speak_of_the_body_go() {
    let mut headers = fields(&[
        ("content-type", "text/html"),
        ("content-length", "7"),
        ("content-encoding", "gzip"),
        ("content-md5", "x"),
        ("digest", "x"),
        ("repr-digest", "x"),
        ("accept-ranges", "bytes"),
        ("etag", "\"x\""),
        ("vary", "Cookie"),
        ("cache-control", "no-store"),
    ]);
    assert!(Asked::default().rewriter(&mut headers).is_some());
    let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["cache-control", "content-type", "etag", "vary"]);
    assert_eq!(headers["etag"], "W/\"x\"");
    assert_eq!(headers.get_all("vary").iter().collect::<Vec<_>>(), ["Cookie", "Sec-Fetch-Dest"]);
}

#[test]
fn the_policy_lets_ours_into_documents_only() {
    let policy = |asked: Asked, kind: &str| {
        let mut headers = fields(&[("content-type", kind), ("content-security-policy", "script-src 'self'")]);
        let _ = asked.rewriter(&mut headers);
        headers.get("content-security-policy").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(policy(Asked::default(), "text/html").as_deref(), Some("script-src 'self' 'nonce-N'"));
    assert_eq!(policy(Asked::default(), "text/css").as_deref(), Some("script-src 'self'"));
    let fetched = Asked { destination: Destination::Script, ..Asked::default() };
    assert_eq!(policy(fetched, "text/html").as_deref(), Some("script-src 'self'"));
    // The page that the browser keeps has an older nonce.
    let again = Asked { status: StatusCode::NOT_MODIFIED, ..Asked::default() };
    assert_eq!(policy(again, "text/html"), None);
}

#[test]
fn workers_get_the_script_before_their_own() {
    let asked = Asked { destination: Destination::Worker, ..Asked::default() };
    let text = answered(&asked, "text/javascript", b"work()").unwrap();
    assert!(text.contains("\"prefix\":\"/fw/tb\"") && text.ends_with("\nwork()"));
    assert_eq!(answered(&asked, "text/html", b"<a href=/x>"), None);
}

#[test]
fn coded_bodies_are_decoded_and_the_first_byte_leaves_before_the_last_arrives() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut headers = fields(&[("content-type", "text/html"), ("content-encoding", "gzip")]);
    let asked = Asked { destination: Destination::Script, ..Asked::default() };
    let mut rewriter = asked.rewriter(&mut headers).unwrap();
    encoder.write_all(b"<a href=/x>and then").unwrap();
    encoder.flush().unwrap();
    let mut out = Vec::new();
    assert_eq!(rewriter.push(encoder.get_ref(), &mut out).unwrap(), encoder.get_ref().len());
    assert_eq!(out, b"<a href=/fw/tb/x>and then");
    let sent = encoder.get_ref().len();
    encoder.write_all(b"<a href=/y>").unwrap();
    let whole = encoder.finish().unwrap();
    rewriter.push(&whole[sent..], &mut out).unwrap();
    rewriter.finish(&mut out);
    assert_eq!(out, b"<a href=/fw/tb/x>and then<a href=/fw/tb/y>");
}

#[test]
fn bombs_and_nonsense_break_the_answer_off() {
    let coded = |body: &[u8]| {
        let mut headers = fields(&[("content-type", "text/html"), ("content-encoding", "gzip")]);
        run(Asked::default().rewriter(&mut headers).unwrap(), body, 4096)
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..40 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    assert!(matches!(coded(&encoder.finish().unwrap()), Err(BodyError::Coding(CodingError::Inflates))));
    assert!(matches!(coded(b"<p>not gzip at all</p>"), Err(BodyError::Coding(CodingError::Malformed))));
}

#[test]
fn a_long_manifest_passes() {
    let long = format!("{{\"scope\":\"/\",\"x\":\"{}\"}}", "x".repeat(manifest::LONGEST));
    let rewriter =
        Asked::default().rewriter(&mut fields(&[("content-type", "application/manifest+json")])).unwrap();
    assert!(run(rewriter, long.as_bytes(), 60_000).unwrap() == long.as_bytes());
}

#[test]
fn destinations() {
    for (field, expected) in [
        ("document", Destination::Document),
        ("iframe", Destination::Document),
        ("empty", Destination::Script),
        ("sharedworker", Destination::Worker),
        ("serviceworker", Destination::Worker),
        ("style", Destination::Style),
        ("image", Destination::Part),
        ("script", Destination::Part),
        ("manifest", Destination::Unknown),
    ] {
        assert_eq!(Destination::named(field.as_bytes()), expected, "{field}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_pieces(body in prop::collection::vec(any::<u8>(), 0..600), size in 1_usize..64) {
        for kind in ["text/html", "text/css", "image/svg+xml", "application/manifest+json"] {
            for coding in ["identity", "gzip", "br", "zstd", "deflate"] {
                let run = |size| {
                    let mut headers = fields(&[("content-type", kind), ("content-encoding", coding)]);
                    run(Asked::default().rewriter(&mut headers).unwrap(), &body, size)
                };
                if let (Ok(cut), Ok(whole)) = (run(size), run(usize::MAX)) {
                    prop_assert!(cut == whole, "{} {}", kind, coding);
                }
            }
        }
    }
}
