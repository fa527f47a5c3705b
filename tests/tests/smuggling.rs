//! One request must be one request, however it is framed: whatever two readers could understand in two ways is refused,
//! or reaches the application in a form that can be read in one way only.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::wire::application::Application;
use portreeve_tests::wire::frames::{END_HEADERS, END_STREAM, Frames, Outcome, block, frame, kind};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::stream::Message;
use portreeve_tests::wire::{SOON, soon, until};
use portreeve_tests::world::Secure;

/// What is hidden in each of the requests. `SMUGGLED` must never be a request at the application.
const HIDDEN: &str = "GET /SMUGGLED HTTP/1.1\r\nhost: x\r\n\r\n";

/// An application that answers every request with its own target and body, so that an answer tells whose it is. One
/// thread has one pool: whatever a request leaves behind on a connection, the next one meets.
async fn mirror() -> Rig {
    let app = Application::answering(|request| {
        let body = format!("{} {}", request.target(), request.text());
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    Rig::with(app.await, "threads = 1\n").await
}

/// The next request must get its own answer.
async fn assert_undisturbed(rig: &Rig, after: &str) {
    let next = rig.get("/after").await;
    assert_eq!((next.status(), next.text().as_str()), (200, "/after "), "after {after:?}");
}

/// Sends the request, a harmless one behind it, and another one later; sees to it that all of them are what they are.
async fn probe(rig: &Rig, request: &str, may_pass: bool) {
    let shown: String = request.chars().take(400).collect();
    rig.app.seen.forget();
    let answers = rig.raw(request.to_owned() + &rig.head("GET", "/behind", "connection: close\r\n")).await;
    for seen in rig.app.seen.requests() {
        assert!(!seen.target().contains("SMUGGLED"), "{shown:?} smuggled a request:\n{seen:#?}");
        let framings = seen.all("content-length").len() + seen.all("transfer-encoding").len();
        assert!(framings <= 1, "{shown:?} reached the application in a form with two readings:\n{seen:#?}");
    }
    let refused = answers.first().is_none_or(|answer| answer.status() == 400 || answer.status() == 501);
    if refused {
        let last = answers.last();
        assert!(answers.len() <= 1, "{shown:?} was refused, but the connection went on: {last:#?}");
        assert_eq!(rig.app.seen.requests().len(), 0, "{shown:?} was refused and forwarded");
    } else {
        assert!(may_pass, "{shown:?} was not refused: {answers:#?}\n{:#?}", rig.app.seen.requests());
    }
    for answer in &answers {
        assert!(!answer.text().contains("SMUGGLED") || answer.text().starts_with("/first"), "{answer:#?}");
    }
    assert_undisturbed(rig, &shown).await;
}

fn first(rig: &Rig, fields: &str, rest: &str) -> String {
    rig.head("POST", "/first", fields) + rest
}

#[tokio::test]
async fn two_framings_at_once() {
    let rig = mirror().await;
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    for fields in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
        "content-length: 6\r\nTransfer-Encoding: Chunked\r\n",
        "content-length: 6\r\ntransfer-encoding: identity, chunked\r\n",
        "content-length: 6\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "content-length: 6\r\ntransfer-encoding: identity\r\n",
        "content-length: 6\r\ntransfer-encoding:\r\n",
    ] {
        // RFC 9112 section 6.1: Transfer-Encoding counts, if it is passed on without Content-Length at all.
        probe(&rig, &first(&rig, fields, &chunks), fields.to_lowercase().contains("chunked")).await;
    }
}

#[tokio::test]
async fn transfer_encodings_that_only_some_understand() {
    let rig = mirror().await;
    let body = format!("0\r\n\r\n{HIDDEN}");
    for value in [
        "xchunked",
        "chunked, identity",
        "chunked, chunked",
        "identity",
        "gzip",
        "chunked;q=1",
        "\"chunked\"",
        "chunke",
        "\u{b}chunked",
        "chunked\u{b}",
        "x",
        ",",
        "chunked,",
        "chunked foo",
        "ch\u{212a}unked",
        "'chunked'",
        "chunked\0",
        "[chunked]",
    ] {
        for length in ["", "content-length: 6\r\n"] {
            let fields = format!("{length}transfer-encoding: {value}\r\n");
            // A list with empty members, or other codings before a last "chunked", can be read in one way.
            let may_pass = ["chunked,", "chunked, chunked"].contains(&value);
            probe(&rig, &first(&rig, &fields, &body), may_pass).await;
        }
    }
    for (fields, may_pass) in [
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", true),
        ("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", false),
        ("transfer-encoding:\tchunked\r\n", true),
        ("transfer-encoding:chunked\r\n", true),
        ("transfer-encoding: chunked \t \r\n", true),
        ("transfer-encoding : chunked\r\n", false),
        ("transfer-encoding\t: chunked\r\n", false),
        (" transfer-encoding: chunked\r\n", false),
        ("x: y\r\n transfer-encoding: chunked\r\n", false),
        ("transfer-encoding:\r\n chunked\r\n", false),
        ("transfer-encoding: chunked\rx: y\r\n", false),
        ("x: y\rtransfer-encoding: chunked\r\n", false),
        ("\u{0}transfer-encoding: chunked\r\n", false),
        ("transfer\u{2d}encoding\u{0}: chunked\r\n", false),
    ] {
        probe(&rig, &first(&rig, fields, &body), may_pass).await;
    }
    // What only looks like it frames nothing.
    probe(&rig, &first(&rig, "transfer_encoding: chunked\r\ncontent-length: 0\r\n", ""), true).await;
    let old = first(&rig, "transfer-encoding: chunked\r\n", &body).replacen("HTTP/1.1", "HTTP/1.0", 1);
    probe(&rig, &old, false).await;
}

#[tokio::test]
async fn lengths_that_can_be_read_in_two_ways() {
    let rig = mirror().await;
    for fields in [
        "content-length: 0\r\ncontent-length: 37\r\n",
        "content-length: 37\r\ncontent-length: 0\r\n",
        "content-length: 0, 37\r\n",
        "content-length: -1\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5.0\r\n",
        "content-length: 5e0\r\n",
        "content-length: 5 5\r\n",
        "content-length: \"5\"\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length: 99999999999999999999999999\r\n",
        "content-length: five\r\n",
        "content-length: \u{665}\r\n",
        "content-length : 5\r\n",
        "content-length: 5\rx: y\r\n",
        "content-length\0: 5\r\n",
        "content-length:\r\n 5\r\n",
    ] {
        probe(&rig, &first(&rig, fields, HIDDEN), false).await;
    }
    for fields in [
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5, 5\r\n",
        "content-length: 05\r\n",
        "content-length:\t5 \r\n",
    ] {
        probe(&rig, &first(&rig, fields, "hello"), true).await;
    }
    // What is no number at all can't be passed on as none.
    probe(&rig, &first(&rig, "content-length:\r\n", HIDDEN), false).await;
}

#[tokio::test]
async fn chunks_that_can_be_read_in_two_ways() {
    let rig = mirror().await;
    let huge = format!("5;{}\r\nhello\r\n0\r\n\r\n{HIDDEN}", "x".repeat(100_000));
    let many =
        format!("{}0\r\n\r\n", "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(1000));
    let long_trailer = format!("0\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    for body in [
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5;x\ny\r\nhello\r\n0\r\n\r\n",
        "5;x=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;x\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: y\n\r\n",
        &huge,
        &many,
        &long_trailer,
    ] {
        rig.app.seen.forget();
        let request = first(&rig, "transfer-encoding: chunked\r\n", &(body.to_owned() + HIDDEN));
        let shown: String = body.chars().take(60).collect();
        let answers = rig.raw(&request).await;
        // The head was in order, so the application may have been asked already; but whole it never is, and nobody is
        // told that it went well.
        let bad = |status: u16| !(200..300).contains(&status);
        // A bare LF ends a line for RFC 9112 section 2.2 too; trailers are not passed on unless they were announced.
        // Chunk extensions are dropped whatever is in them.
        let lenient = body.contains("x: y\n") || body.starts_with("5;x\0");
        assert!(lenient || answers.iter().all(|answer| bad(answer.status())), "{shown:?}: {answers:#?}");
        assert!(!answers.iter().any(|answer| answer.text().contains("/SMUGGLED")), "{shown:?}: {answers:#?}");
        for seen in rig.app.seen.requests() {
            assert!(!seen.target().contains("SMUGGLED"), "{shown:?}: {seen:#?}");
        }
        assert_undisturbed(&rig, &shown).await;
    }
}

#[tokio::test]
async fn what_was_chunked_is_chunked_anew() {
    let rig = mirror().await;
    let body = "5;ext=\"a;b\"\r\nhello\r\n00000\r\n\r\n";
    let answer = rig.ask(&first(&rig, "transfer-encoding: chunked\r\n", body)).await;
    assert_eq!(answer.text(), "/first hello");
    let seen = rig.app.seen.texts().concat();
    assert!(!seen.contains("ext="), "extensions end at the hop: {seen}");
}

#[tokio::test]
async fn lines_that_some_would_fold_or_split() {
    let rig = mirror().await;
    for fields in [
        "x: y\r\n folded: 1\r\n",
        "x: y\r\n\tfolded: 1\r\n",
        "x: y\nbare: 1\r\n",
        "x: y\rbare: 1\r\n",
        "x: y\r\r\n",
        "x: a\0b\r\n",
        "x : y\r\n",
        "x\t: y\r\n",
        ": y\r\n",
        "no colon\r\n",
        "x\0: y\r\n",
        "x\u{7f}: y\r\n",
        "caf\u{e9}: y\r\n",
        "x(y): z\r\n",
        "x: a\u{1}b\r\n",
        "x: a\u{7f}b\r\n",
    ] {
        // A bare LF alone ends a line for many, for RFC 9112 section 2.2 too: then it does for us, and goes on as CRLF.
        probe(&rig, &first(&rig, fields, ""), fields.contains("\nbare")).await;
    }
    for line in [
        "GET\t{} HTTP/1.1\r\n",
        "GET {}\tHTTP/1.1\r\n",
        "GET  {} HTTP/1.1\r\n",
        "GET {}  HTTP/1.1\r\n",
        "GET {} HTTP/1.1 \r\n",
        "GET {} HTTP/1.1\rx: y\r\n",
        "GET {}\0 HTTP/1.1\r\n",
        "GET {}\u{b}HTTP/1.1\r\n",
        "GET {} http/1.1\r\n",
        "GET {} HTTP/1.2\r\n",
        "GET {} HTTP/2.0\r\n",
        "GET {} HTTP/1.10\r\n",
        "GET {} HTTP/+1.1\r\n",
        "G@T {} HTTP/1.1\r\n",
        "GET {} HTTP/1.1\r\n x: y\r\n",
        "GET {}\r\n",
        "\0GET {} HTTP/1.1\r\n",
        " GET {} HTTP/1.1\r\n",
        "GET {} x HTTP/1.1\r\n",
        "GET {}#fragment HTTP/1.1\r\n",
    ] {
        let line = line.replace("{}", &rig.path("/first"));
        let request = format!("{line}host: {}\r\ncookie: {}\r\n\r\n", rig.host(), rig.cookie());
        // A fragment is nobody's business but the browser's: it may be cut off.
        probe(&rig, &request, line.contains("#fragment")).await;
    }
    // The same request in order is answered; and a whole request as another's body is a body.
    probe(&rig, &first(&rig, "content-length: 0\r\n", ""), true).await;
    probe(&rig, &first(&rig, &format!("content-length: {}\r\n", HIDDEN.len()), HIDDEN), true).await;
}

#[tokio::test]
async fn empty_lines_before_a_request_are_no_request() {
    let rig = mirror().await;
    let answers = rig.raw(format!("\r\n\r\n{}", rig.head("GET", "/first", ""))).await;
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert!([200, 400].contains(&answers[0].status()));
}

/// What remains after a body is the next request, judged by itself: without a cookie it gets nowhere.
#[tokio::test]
async fn what_follows_a_request_is_judged_by_itself() {
    let rig = mirror().await;
    let (path, host) = (rig.path("/SMUGGLED"), rig.host());
    let follows = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answers = rig.raw(first(&rig, "content-length: 5\r\n", "hello") + &follows).await;
    let statuses: Vec<u16> = answers.iter().map(Message::status).collect();
    assert_eq!(statuses, [200, 401]);
    assert_eq!(rig.app.seen.requests().len(), 1);
}

/// A body that is shorter than announced is no whole request, and its connection is not used again.
#[tokio::test]
async fn a_body_that_is_cut_off_does_not_end_well() {
    let rig = mirror().await;
    for (fields, body) in
        [("content-length: 100\r\n", "half"), ("transfer-encoding: chunked\r\n", "ff\r\nhalf")]
    {
        let mut client = rig.http1().await;
        client.send(first(&rig, fields, body)).await.unwrap();
        drop(client);
        assert_undisturbed(&rig, body).await;
    }
    // The one that is kept for the next request is whole; the others have ended.
    until("half requests are given up", SOON, || rig.app.seen.open() <= 1).await;
    let first = rig.app.seen.requests().iter().filter(|request| request.target() == "/first").count();
    assert_eq!(first, 0, "no half request was taken for a whole one");
}

fn http2_head(rig: &Rig, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (path, host, cookie) = (rig.path("/first"), rig.host(), rig.cookie());
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", host.as_bytes()),
        (b":path", path.as_bytes()),
    ];
    let pseudo = |(name, _): &(&[u8], &[u8])| name.starts_with(b":") && name != b":late";
    for (name, value) in more.iter().copied().filter(pseudo) {
        fields.retain(|(known, _)| *known != name || name == b":path" && value.starts_with(b"+"));
        fields.push((name, value.strip_prefix(b"+").unwrap_or(value)));
    }
    fields.push((b"cookie", cookie.as_bytes()));
    for (name, value) in more.iter().copied().filter(|field| !pseudo(field)) {
        fields.push(if name == b":late" { (b":path", value) } else { (name, value) });
    }
    block(&fields)
}

/// A connection on which a request's head was sent, whose fields may be anything.
async fn http2_begun(rig: &Rig, fields: &[(&[u8], &[u8])], ends: bool) -> Frames<Secure> {
    let mut frames = rig.frames().await;
    let flags = if ends { END_HEADERS | END_STREAM } else { END_HEADERS };
    frames.send(&frame(kind::HEADERS, flags, 1, http2_head(rig, fields))).await.unwrap();
    frames
}

/// HTTP/2 has no such lines; what is written into HTTP/1.1 from them would be new lines there (RFC 9113 section 8.2.1).
#[tokio::test]
async fn http2_fields_that_would_become_lines() {
    let rig = mirror().await;
    let cases: &[&[(&[u8], &[u8])]] = &[
        &[(b"x", b"a\r\ntransfer-encoding: chunked")],
        &[(b"x", b"a\nb: c")],
        &[(b"x", b"a\rb")],
        &[(b"x", b"a\0b")],
        &[(b"x\r\ny", b"a")],
        &[(b"x: y\r\nz", b"a")],
        &[(b"x y", b"a")],
        &[(b"x:", b"a")],
        &[(b"", b"a")],
        &[(b"X-Upper", b"a")],
        &[(b"connection", b"keep-alive")],
        &[(b"connection", b"close, x-forwarded-user")],
        &[(b"transfer-encoding", b"chunked")],
        &[(b"Transfer-Encoding", b"chunked")],
        &[(b"keep-alive", b"1")],
        &[(b"proxy-connection", b"close")],
        &[(b"upgrade", b"websocket")],
        &[(b"te", b"gzip")],
        &[(b"host", b"evil.example")],
        &[(b"content-length", b"5"), (b"content-length", b"0")],
        &[(b"content-length", b"-1")],
        &[(b"content-length", b"x")],
        &[(b":path", b"/fw2/x HTTP/1.1\r\nx: y")],
        &[(b":path", b"")],
        &[(b":path", b"no-slash")],
        &[(b":path", b"+/twice")],
        &[(b":late", b"/late")],
        &[(b":method", b"GET /SMUGGLED HTTP/1.1\r\nx:")],
        &[(b":method", b"GE T")],
        &[(b":method", b"")],
        &[(b":authority", b"evil.example")],
        &[(b":authority", b"localhost\r\nx: y")],
        &[(b":scheme", b"https\r\nx: y")],
        &[(b":unknown", b"x")],
        &[(b":protocol", b"websocket")],
        &[(b":status", b"200")],
    ];
    for case in cases {
        rig.app.seen.forget();
        let shown: Vec<_> =
            case.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
        let mut frames = http2_begun(&rig, case, true).await;
        let outcome = soon("an outcome", frames.outcome(1)).await;
        let refused = match outcome {
            Outcome::Answer(status) => (400..500).contains(&status),
            Outcome::Reset(_) | Outcome::Away(_) | Outcome::Closed => true,
        };
        assert!(refused, "{shown:?}: {outcome:?}\n{:#?}", rig.app.seen.requests());
        assert_eq!(rig.app.seen.requests().len(), 0, "{shown:?}");
    }
    // The same without anything bad is answered: the head that all of these begin with is in order.
    let mut frames = http2_begun(&rig, &[], true).await;
    assert_eq!(soon("an answer", frames.outcome(1)).await, Outcome::Answer(200));
    assert_undisturbed(&rig, "all of these").await;
}

/// The length that is written into HTTP/1.1 must be that of what is sent (RFC 9113 section 8.1.1).
#[tokio::test]
async fn http2_bodies_of_another_length_than_announced() {
    let rig = mirror().await;
    for (announced, body) in [
        ("5", format!("hello{HIDDEN}")),
        ("100", HIDDEN.to_owned()),
        ("0", HIDDEN.to_owned()),
        ("5", String::new()),
    ] {
        rig.app.seen.forget();
        let fields = [(&b"content-length"[..], announced.as_bytes())];
        let mut frames = http2_begun(&rig, &fields, body.is_empty()).await;
        if !body.is_empty() {
            frames.send(&frame(kind::DATA, END_STREAM, 1, body.as_bytes())).await.unwrap();
        }
        let outcome = soon("an outcome", frames.outcome(1)).await;
        let answered = matches!(outcome, Outcome::Answer(status) if status < 400);
        assert!(!answered, "{announced} for {} bytes: {outcome:?}", body.len());
        drop(frames);
        assert_undisturbed(&rig, announced).await;
        for seen in rig.app.seen.requests() {
            // A body of no bytes is complete before it turns out that there are some.
            let empty = announced == "0" && seen.target() == "/first" && seen.body.is_empty();
            assert!(empty || seen.target() == "/after", "{announced} for {} bytes: {seen:#?}", body.len());
        }
    }
}

/// Trailers over HTTP/2 must not bring pseudo fields or framing along.
#[tokio::test]
async fn http2_trailers_bring_no_framing() {
    let rig = mirror().await;
    for (name, value) in [
        (":path", "/SMUGGLED"),
        ("transfer-encoding", "chunked"),
        ("x", "a\r\nb: c"),
        ("connection", "close"),
        ("content-length", "5"),
    ] {
        rig.app.seen.forget();
        let mut frames = http2_begun(&rig, &[(b"trailer", b"x, content-length")], false).await;
        frames.send(&frame(kind::DATA, 0, 1, b"hello".as_slice())).await.unwrap();
        let trailers = block(&[(name, value)]);
        let _ = frames.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, trailers)).await;
        let outcome = soon("an outcome", frames.outcome(1)).await;
        for seen in rig.app.seen.requests() {
            assert!(seen.trailers.is_empty(), "{name}: {outcome:?} {seen:#?}");
            assert_eq!((seen.target(), seen.text().as_str()), ("/first", "hello"), "{name}");
        }
        drop(frames);
        assert_undisturbed(&rig, name).await;
    }
}
