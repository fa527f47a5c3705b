//! Changes of protocol: WebSocket over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441), any other, and those that are
//! refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use portreeve_tests::wire::application::{Application, Caller, OK, Seen};
use portreeve_tests::wire::http2::{Http2, give_back, whole};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::stream::Message;
use portreeve_tests::wire::websocket::{KEY, accept, agreement, masked};
use portreeve_tests::wire::{SOON, soon, until};
use tokio::io::AsyncWriteExt;

/// Agrees to every WebSocket, then sends back what it gets until the other side has said all.
async fn echo(mut caller: Caller, seen: Seen) {
    while let Ok(Some(request)) = caller.request().await {
        seen.note(&request);
        let Some(key) = request.field("sec-websocket-key") else {
            let _ = caller.send(OK).await;
            continue;
        };
        let _ = caller.send(agreement(key)).await;
        loop {
            match caller.some().await {
                Ok(bytes) if !bytes.is_empty() => {
                    if caller.send(bytes).await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
        let _ = caller.send("all said").await;
        let _ = caller.finish().await;
        return;
    }
}

fn opening(origin: &str) -> String {
    format!(
        "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {KEY}\r\nsec-websocket-protocol: v1\r\n{origin}"
    )
}

/// The extended CONNECT of RFC 8441.
fn extended(rig: &Rig, path: &str, protocol: &'static str) -> Request<()> {
    let mut request = rig.request("GET", path).header("sec-websocket-version", "13").body(()).unwrap();
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

async fn settled(rig: &Rig) -> Http2 {
    let mut http2 = rig.http2().await;
    // After one answer the portal's settings are known, RFC 8441's among them.
    http2.ask(rig.bare_request("GET", "/-/health").body(()).unwrap()).await.unwrap();
    assert!(http2.open.is_extended_connect_protocol_enabled());
    http2
}

#[tokio::test]
async fn over_http1_frames_of_any_size_go_both_ways() {
    let rig = Rig::new(Application::start(echo).await).await;
    let mut client = rig.http1().await;
    client
        .send(rig.head("GET", "/ws?x=1", &opening(&format!("origin: https://{}\r\n", rig.host()))))
        .await
        .unwrap();
    let answer = soon("101", client.answer()).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(
        answer.field("sec-websocket-accept"),
        Some(accept(KEY).as_str()),
        "the browser's own key was used"
    );
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert!(answer.field("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    let request = rig.app.seen.request();
    assert_eq!(request.target(), "/ws?x=1");
    assert_eq!(request.field("sec-websocket-protocol"), Some("v1"));
    assert_eq!(request.field("origin"), Some(format!("https://{}", rig.host()).as_str()));
    assert_eq!(request.field("x-forwarded-user"), Some(rig.user()));
    for size in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let frame = masked(&vec![b'x'; size]);
        let (mut reading, mut writing) = tokio::io::split(&mut client.stream);
        let expected = frame.clone();
        let both = async {
            let sends = async {
                writing.write_all(&frame).await.unwrap();
                writing.flush().await.unwrap();
            };
            let mut back = vec![0; expected.len()];
            let (_, got) = tokio::join!(sends, tokio::io::AsyncReadExt::read_exact(&mut reading, &mut back));
            got.unwrap();
            assert!(back == expected, "{size}");
        };
        soon("the frame comes back", both).await;
    }
}

#[tokio::test]
async fn bytes_sent_right_after_the_opening_are_not_lost() {
    let rig = Rig::new(Application::start(echo).await).await;
    let mut client = rig.http1().await;
    let frame = masked(b"early");
    let mut all = rig.head("GET", "/", &opening("")).into_bytes();
    all.extend(&frame);
    client.send(all).await.unwrap();
    assert_eq!(soon("101", client.answer()).await.unwrap().status(), 101);
    assert_eq!(soon("the echo", client.exactly(frame.len())).await.unwrap(), frame);
}

/// What the application sends together with its agreement belongs to the tunnel.
#[tokio::test]
async fn bytes_that_come_with_the_agreement_are_not_lost() {
    let app = Application::start(|mut caller, _| async move {
        let request = caller.request().await.unwrap().unwrap();
        caller.send(agreement(request.field("sec-websocket-key").unwrap()) + "hello").await.unwrap();
        caller.rest().await;
    })
    .await;
    let rig = Rig::new(app).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/", &opening(""))).await.unwrap();
    assert_eq!(soon("101", client.answer()).await.unwrap().status(), 101);
    assert_eq!(soon("hello", client.exactly(5)).await.unwrap(), b"hello");
}

#[tokio::test]
async fn over_http2_frames_of_any_size_go_both_ways() {
    let rig = Rig::new(Application::start(echo).await).await;
    let mut http2 = settled(&rig).await;
    let (answer, mut sending) = http2.stream(extended(&rig, "/ws", "websocket"), false).await;
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        !answer.headers().contains_key("sec-websocket-accept") && !answer.headers().contains_key("upgrade")
    );
    let request = rig.app.seen.request();
    assert_eq!((request.method(), request.target()), ("GET", "/ws"));
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-version"), Some("13"));
    let mut incoming = answer.into_body();
    for size in [1, 126, 65_536, 2_000_000] {
        let frame = masked(&vec![b'x'; size]);
        let expected = frame.clone();
        let sends = async {
            let mut rest = Bytes::from(frame);
            while !rest.is_empty() {
                sending.reserve_capacity(rest.len());
                let room = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
                sending.send_data(rest.split_to(room.min(rest.len())), false).unwrap();
            }
        };
        let takes = async {
            let mut back = Vec::new();
            while back.len() < expected.len() {
                let data = incoming.data().await.unwrap().unwrap();
                give_back(&mut incoming, data.len());
                back.extend_from_slice(&data);
            }
            assert!(back == expected, "{size}");
        };
        soon("the frame comes back", async { tokio::join!(sends, takes) }).await;
    }
    // Half-close: the browser has said all, the application still answers.
    sending.send_data(Bytes::new(), true).unwrap();
    let mut last = Vec::new();
    while let Some(data) = soon("the last word", incoming.data()).await {
        last.extend_from_slice(&data.unwrap());
    }
    assert_eq!(last, b"all said");
}

#[tokio::test]
async fn over_http2_an_agreement_to_another_key_is_refused() {
    for accept in ["sec-websocket-accept: d3JvbmcgYWNjZXB0IHZhbHVlISE=\r\n", ""] {
        let app = Application::start(move |mut caller, _| async move {
            let _ = caller.request().await;
            let _ = caller
                .send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n{accept}\r\nEVIL"
                ))
                .await;
            caller.rest().await;
        })
        .await;
        let rig = Rig::new(app).await;
        let mut http2 = settled(&rig).await;
        let (answer, _sending) = http2.stream(extended(&rig, "/", "websocket"), false).await;
        let answer = soon("the answer", answer).await;
        assert!(answer.as_ref().map_or(true, |answer| answer.status().as_u16() >= 400), "{answer:?}");
        let seen = rig.app.seen.clone();
        until("the application's connection is closed", SOON, move || seen.open() == 0).await;
    }
}

/// What the application calls the protocol that it changed to, and what it was asked for.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("websocket", "h2c"),
    ("websocket", "tcp/2"),
    ("websocket", "websocket/2"),
    ("websocket", "websocket, h2c"),
    ("websocket", "websocket\r\nupgrade: h2c"),
    ("tcp/2", "websocket"),
    ("tcp/2, tcp/3", "tcp/2, tcp/3"),
    ("websocket", ""),
];

/// Whoever asked for one protocol may not be handed another: it could carry anything.
#[tokio::test]
async fn an_agreement_to_another_protocol_is_refused() {
    let app = Application::start(|mut caller, seen| async move {
        let request = caller.request().await.unwrap().unwrap();
        seen.note(&request);
        let (_, named) = OTHER_NAMES[request.target()[1..].parse::<usize>().unwrap()];
        // All but the name is right.
        let key = request.field("sec-websocket-key").unwrap_or(KEY);
        let agreed = agreement(key).replace("upgrade: websocket", &format!("upgrade: {named}"));
        caller.send(agreed + "EVIL").await.unwrap();
        seen.note(&Message { body: caller.rest().await, ..request });
    })
    .await;
    let rig = Rig::new(app).await;
    let seen = rig.app.seen.clone();
    let nothing_was_carried = async |case: &str| {
        until(&format!("{case}: the application's connection is closed"), SOON, || seen.open() == 0).await;
        assert!(seen.requests().iter().all(|noted| noted.body.is_empty()), "{case}: {:#?}", seen.requests());
    };
    for (at, (asked, named)) in OTHER_NAMES.into_iter().enumerate() {
        let case = format!("{asked} answered with {named:?}");
        let mut client = rig.http1().await;
        let fields = opening("").replace("upgrade: websocket", &format!("upgrade: {asked}"));
        client.send(rig.head("GET", &format!("/{at}"), &fields) + "FOR THE TUNNEL").await.unwrap();
        let answer = soon("the answer", client.answer()).await.unwrap();
        assert_eq!((answer.status(), answer.error()), (502, Some("no-websocket")), "{case}: {answer:?}");
        assert_eq!(answer.field("upgrade"), None, "{case}: {answer:?}");
        assert!(!String::from_utf8_lossy(&soon("the end", client.rest()).await).contains("EVIL"), "{case}");
        nothing_was_carried(&case).await;
        if asked != "websocket" {
            continue;
        }
        let mut http2 = settled(&rig).await;
        let (answer, mut sending) = http2.stream(extended(&rig, &format!("/{at}"), "websocket"), false).await;
        let _ = sending.send_data(Bytes::from_static(b"FOR THE TUNNEL"), false);
        let answer = whole(answer).await.unwrap();
        let refused = (answer.status(), answer.field("x-portreeve-error"));
        assert_eq!(refused, (502, Some("no-websocket")), "{case}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("EVIL"), "{case}");
        nothing_was_carried(&case).await;
    }
}

#[tokio::test]
async fn half_close_goes_both_ways_over_http1() {
    // The browser closes first.
    let rig = Rig::new(Application::start(echo).await).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/", &opening(""))).await.unwrap();
    assert_eq!(soon("101", client.answer()).await.unwrap().status(), 101);
    client.send("ping").await.unwrap();
    client.finish().await.unwrap();
    assert_eq!(soon("the rest", client.rest()).await, b"pingall said");

    // The application closes first, and still hears.
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&heard);
    let app = Application::start(move |mut caller, _| {
        let noted = Arc::clone(&noted);
        async move {
            let request = caller.request().await.unwrap().unwrap();
            caller.send(agreement(request.field("sec-websocket-key").unwrap()) + "bye").await.unwrap();
            caller.finish().await.unwrap();
            let rest = caller.rest().await;
            noted.lock().unwrap().extend(rest);
        }
    })
    .await;
    let rig = Rig::new(app).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/", &opening(""))).await.unwrap();
    assert_eq!(soon("101", client.answer()).await.unwrap().status(), 101);
    assert_eq!(soon("bye", client.rest()).await, b"bye");
    client.send("still here").await.unwrap();
    client.finish().await.unwrap();
    until("the application hears the rest", SOON, || *heard.lock().unwrap() == b"still here").await;
}

/// One side says that it has said all; the other hears that at once, and can go on.
#[tokio::test]
async fn half_close_goes_both_ways_over_http2() {
    // The browser closes first.
    let app = Application::start(|mut caller, seen| async move {
        let request = caller.request().await.unwrap().unwrap();
        caller.send(agreement(request.field("sec-websocket-key").unwrap())).await.unwrap();
        // Until the browser has said all, there is no word from here.
        let heard = caller.rest().await;
        seen.note(&Message { body: heard, ..request });
        for word in ["still ", "here"] {
            caller.send(word).await.unwrap();
            soon("the browser takes it", TAKEN.notified()).await;
        }
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = settled(&rig).await;
    let (answer, mut sending) = http2.stream(extended(&rig, "/", "websocket"), false).await;
    let mut incoming = soon("the answer", answer).await.unwrap().into_body();
    sending.send_data(Bytes::from_static(b"ping"), true).unwrap();
    for word in ["still ", "here"] {
        assert_eq!(soon("a word", incoming.data()).await.unwrap().unwrap(), word);
        TAKEN.notify_one();
    }
    says_no_more(&mut incoming).await;
    assert_eq!(rig.app.seen.request().body, b"ping");
    let seen = rig.app.seen.clone();
    until("the tunnel ends", SOON, move || seen.open() == 0).await;

    // The application closes first, and still hears.
    let app = Application::start(|mut caller, seen| async move {
        let request = caller.request().await.unwrap().unwrap();
        caller.send(agreement(request.field("sec-websocket-key").unwrap()) + "bye").await.unwrap();
        caller.finish().await.unwrap();
        for word in ["still ", "here"] {
            let heard = caller.exactly(word.len()).await.unwrap();
            seen.note(&Message { body: heard, ..request.clone() });
        }
        seen.note(&Message { body: caller.rest().await, ..request });
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = settled(&rig).await;
    let (answer, mut sending) = http2.stream(extended(&rig, "/", "websocket"), false).await;
    let mut incoming = soon("the answer", answer).await.unwrap().into_body();
    assert_eq!(soon("bye", incoming.data()).await.unwrap().unwrap(), "bye");
    says_no_more(&mut incoming).await;
    for (heard, word) in ["still ", "here"].into_iter().enumerate() {
        sending.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
        until("the application hears a word", SOON, || rig.app.seen.requests().len() > heard).await;
        assert_eq!(rig.app.seen.requests()[heard].text(), word);
    }
    assert_eq!(rig.app.seen.open(), 1, "half of it is open");
    sending.send_data(Bytes::new(), true).unwrap();
    until("the application hears the end", SOON, || rig.app.seen.requests().len() == 3).await;
    assert_eq!(rig.app.seen.requests()[2].body, b"");
    let seen = rig.app.seen.clone();
    until("the tunnel ends", SOON, move || seen.open() == 0).await;
}

/// END_STREAM, and nothing before it.
async fn says_no_more(incoming: &mut h2::RecvStream) {
    while let Some(data) = soon("END_STREAM", incoming.data()).await {
        assert_eq!(data.unwrap(), "");
    }
}

static TAKEN: tokio::sync::Notify = tokio::sync::Notify::const_new();

#[tokio::test]
async fn any_other_protocol_is_carried_too() {
    let app = Application::start(|mut caller, seen| async move {
        let request = caller.request().await.unwrap().unwrap();
        seen.note(&request);
        caller
            .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tcp/2\r\n\r\n")
            .await
            .unwrap();
        let bytes = caller.exactly(6).await.unwrap();
        caller.send([b"got ", &bytes[..]].concat()).await.unwrap();
    })
    .await;
    let rig = Rig::new(app).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/", "connection: upgrade\r\nupgrade: tcp/2\r\n")).await.unwrap();
    let answer = soon("101", client.answer()).await.unwrap();
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("tcp/2")));
    client.send(b"\0\r\n\r\n\xff").await.unwrap();
    assert_eq!(soon("the echo", client.rest()).await, b"got \0\r\n\r\n\xff");
    assert_eq!(rig.app.seen.request().field("upgrade"), Some("tcp/2"));
}

/// Cleartext HTTP/2 in a tunnel would carry requests past the judgement.
#[tokio::test]
async fn h2c_is_refused() {
    let rig = Rig::new(Application::start(echo).await).await;
    for upgrade in ["h2c", "H2C", "websocket, h2c", "h2c, websocket", "websocket\r\nupgrade: h2c"] {
        let fields = format!(
            "connection: Upgrade, HTTP2-Settings\r\nupgrade: {upgrade}\r\nhttp2-settings: AAMAAABkAAQ\r\n"
        );
        let answer = rig.ask(&rig.head("GET", "/", &fields)).await;
        assert_eq!(answer.status(), 400, "{upgrade}: {answer:?}");
    }
    let mut http2 = settled(&rig).await;
    let (answer, _sending) = http2.stream(extended(&rig, "/", "h2c"), false).await;
    let answer = soon("the answer", answer).await;
    assert!(answer.as_ref().map_or(true, |answer| answer.status().as_u16() >= 400), "{answer:?}");
    assert_eq!(rig.app.seen.bytes(), 0, "{:?}", rig.app.seen.texts());
}

/// An `Upgrade` that `Connection` does not name is a remark of one hop, not a wish.
#[tokio::test]
async fn upgrade_without_connection_is_an_ordinary_request() {
    let rig = Rig::new(Application::ok().await).await;
    assert_eq!(rig.ask(&rig.head("GET", "/", "upgrade: websocket\r\n")).await.status(), 200);
    assert_eq!(rig.app.seen.request().field("upgrade"), None);
}

#[tokio::test]
async fn other_pages_open_no_tunnel() {
    let rig = Rig::new(Application::start(echo).await).await;
    let port = rig.host().rsplit(':').next().unwrap().to_owned();
    for origin in [
        "https://evil.example".to_owned(),
        "null".to_owned(),
        format!("http://{}", rig.host()),
        format!("https://localhost:{}", rig.app.port),
        format!("https://c1-8888.localhost:{port}"),
        format!("https://{}.evil.example", rig.host()),
        String::new(),
    ] {
        let answer = rig.ask(&rig.head("GET", "/", &opening(&format!("origin: {origin}\r\n")))).await;
        assert_eq!((answer.status(), answer.error()), (403, Some("cross-site")), "{origin}");
    }
    for site in ["same-site", "cross-site"] {
        let fields = format!("sec-fetch-site: {site}\r\nsec-fetch-mode: websocket\r\n");
        let answer = rig.ask(&rig.head("GET", "/", &opening(&fields))).await;
        assert_eq!(answer.status(), 403, "{site}");
    }
    let mut http2 = settled(&rig).await;
    let mut request = extended(&rig, "/", "websocket");
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    let (answer, _sending) = http2.stream(request, false).await;
    assert_eq!(soon("the answer", answer).await.unwrap().status(), 403);
    assert_eq!(rig.app.seen.bytes(), 0);
}

#[tokio::test]
async fn nobody_who_did_not_sign_in_opens_a_tunnel() {
    let rig = Rig::new(Application::start(echo).await).await;
    let head = format!("GET {} HTTP/1.1\r\nhost: {}\r\n{}\r\n", rig.path("/"), rig.host(), opening(""));
    assert_eq!(rig.ask(&head).await.status(), 401);
    let mut http2 = settled(&rig).await;
    let mut request = extended(&rig, "/", "websocket");
    request.headers_mut().remove("cookie");
    let (answer, _sending) = http2.stream(request, false).await;
    assert_eq!(soon("the answer", answer).await.unwrap().status(), 401);
    assert_eq!(rig.app.seen.bytes(), 0);
}

#[tokio::test]
async fn an_application_that_refuses_says_so_itself() {
    let app =
        Application::saying("HTTP/1.1 403 Forbidden\r\nx-why: token\r\ncontent-length: 4\r\n\r\nnope").await;
    let rig = Rig::new(app).await;
    let answer = rig.ask(&rig.head("GET", "/", &opening(""))).await;
    assert_eq!(
        (answer.status(), answer.field("x-why"), answer.text().as_str()),
        (403, Some("token"), "nope")
    );
    let mut http2 = settled(&rig).await;
    let (answer, _sending) = http2.stream(extended(&rig, "/", "websocket"), false).await;
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-why"].to_str().unwrap()), (403, "token"));
}

/// A request that asks for a tunnel and has a body as well: the body may not be taken for the next request, nor the
/// next request for the body.
#[tokio::test]
async fn an_opening_with_a_body_leaves_no_connection_out_of_step() {
    let app = Application::start(|mut caller, seen| async move {
        // Refuses at the head, as most servers do, and takes what follows as the body that was announced.
        while let Ok(Some(mut request)) = caller.head().await {
            let refused = request.field("upgrade").is_some();
            let answer: &str =
                if refused { "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno" } else { OK };
            caller.send(answer).await.unwrap();
            if caller.body(&mut request, false).await.is_err() {
                return;
            }
            seen.note(&request);
        }
    })
    .await;
    let rig = Rig::with(app, "threads = 1\n").await;
    for (method, fields, body) in [
        ("POST", "content-length: 30\r\n", "GET /smuggled HTTP/1.1\r\n\r\nxxxx"),
        ("GET", "content-length: 30\r\n", "GET /smuggled HTTP/1.1\r\n\r\nxxxx"),
        ("POST", "transfer-encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let mut client = rig.http1().await;
        let _ = client.send(rig.head(method, "/", &(opening("") + fields)) + body).await;
        let answer = soon("the answer", client.answer()).await.unwrap();
        assert!(answer.status() >= 400, "{answer:?}");
        for n in 0..3 {
            let next = rig.get(&format!("/next{n}")).await;
            assert_eq!((next.status(), next.text().as_str()), (200, "ok"), "{method} {fields}");
        }
        let requests = rig.app.seen.requests();
        let bad =
            |request: &Message| request.target().contains("smuggled") || request.text().contains("next");
        assert!(!requests.iter().any(bad), "{requests:#?}");
        rig.app.seen.forget();
    }
}

#[tokio::test]
async fn either_side_breaking_off_ends_the_other() {
    let rig = Rig::new(Application::start(echo).await).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/", &opening(""))).await.unwrap();
    assert_eq!(soon("101", client.answer()).await.unwrap().status(), 101);
    assert_eq!(rig.app.seen.open(), 1);
    drop(client);
    let seen = rig.app.seen.clone();
    until("the application's side ends", SOON, move || seen.open() == 0).await;

    let mut http2 = settled(&rig).await;
    let (answer, mut sending) = http2.stream(extended(&rig, "/", "websocket"), false).await;
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!((answer.status(), rig.app.seen.open()), (http::StatusCode::OK, 1));
    sending.send_reset(h2::Reason::CANCEL);
    let seen = rig.app.seen.clone();
    until("RST_STREAM ends the application's side", SOON, move || seen.open() == 0).await;
}

#[tokio::test]
async fn a_thousand_idle_tunnels_do_not_disturb() {
    const TUNNELS: usize = 1000;
    let rig = Rig::with(Application::start(echo).await, "[limits]\nrequests_per_session = 2000\n").await;
    let mut tunnels = Vec::with_capacity(TUNNELS);
    for _ in 0..TUNNELS {
        let mut client = rig.http1().await;
        client.send(rig.head("GET", "/", &opening(""))).await.unwrap();
        tunnels.push(client);
        if tunnels.len() % 100 == 0 {
            for client in tunnels.iter_mut().rev().take(100) {
                assert_eq!(soon("101", client.answer()).await.unwrap().status(), 101);
            }
        }
    }
    assert_eq!(rig.app.seen.open(), TUNNELS);
    let begun = std::time::Instant::now();
    assert_eq!(rig.get("/").await.status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "an ordinary request took {:?}", begun.elapsed());
    for client in tunnels.iter_mut().step_by(97) {
        client.send("ping").await.unwrap();
        assert_eq!(soon("the echo", client.exactly(4)).await.unwrap(), b"ping");
    }
    let each = rig.resident_kib() as usize / TUNNELS;
    assert!(each < 100, "{each} KiB a tunnel, all of the portal counted");
    drop(tunnels);
    let seen = rig.app.seen.clone();
    until("all tunnels end", SOON, move || seen.open() <= 2).await;
}
