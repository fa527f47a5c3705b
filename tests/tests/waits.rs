//! Nobody waits for ever: every wait that can be configured, or that ends within ten seconds, is reached here. They are
//! waited for together. The longer ones are in `limits.rs`; what needs a system in distress is in `scarcity.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::signal::Signal;
use portreeve_tests::wire::application::{Application, Caller, OK, Seen};
use portreeve_tests::wire::frames::{END_HEADERS, END_STREAM, Frames, block, frame, kind};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::websocket::accept;
use portreeve_tests::wire::{SOON, soon, until};
use portreeve_tests::world::Secure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// From a limit's own length on, a busy machine may take so much longer.
const SLACK: Duration = Duration::from_secs(4);

/// How long something took, which must be about its limit.
fn assert_about(least: Duration, took: Duration, what: &str) {
    let early = least.mul_f32(0.9);
    assert!((early..least + SLACK).contains(&took), "{what}: {took:?} instead of {least:?}");
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Answers everything; `/endless` without an end, `/silent` never, an upgrade with a flood.
async fn serve(mut caller: Caller, seen: Seen) {
    while let Ok(Some(request)) = caller.request().await {
        seen.note(&request);
        let is_upgrade = request.field("upgrade").is_some();
        match request.target() {
            "/silent" => drop(caller.rest().await),
            "/endless" if is_upgrade => {
                let accept = request.field("sec-websocket-key").map(accept).unwrap_or_default();
                let head =
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
                let _ = caller.send(format!("{head}sec-websocket-accept: {accept}\r\n\r\n")).await;
                while caller.send([b'x'; 64 * 1024]).await.is_ok() {}
            }
            "/endless" => {
                let _ = caller.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await;
                while caller.send([b'x'; 64 * 1024]).await.is_ok() {}
            }
            _ => drop(caller.send(OK).await),
        }
    }
}

#[tokio::test]
async fn whoever_keeps_us_waiting_is_left() {
    tokio::join!(
        slow_readers_are_cut_off(),
        a_mute_http2_peer_is_left(),
        idle_http2_connections_end(),
        idle_connections_to_applications_end(),
        an_application_that_is_silent_about_tls_is_not_waited_for(),
        a_download_without_end_is_cut_off_when_the_portal_stops(),
        whoever_speaks_plain_http_is_not_listened_to_for_long(),
    );
}

/// Sends a request for something without end, and reads nothing of it but what the kernels hold.
async fn slow_readers_are_cut_off() {
    let stall = seconds(1);
    let rig = Rig::with(Application::start(serve).await, "[limits]\nwrite_stall = \"1s\"\n").await;
    // The application's connections are counted: each is of one reader.
    let ends = |nth: usize, begun: Instant, what: &'static str| {
        let seen = &rig.app.seen;
        async move {
            until(what, SOON, || seen.connections() == nth && seen.open() == 0).await;
            assert_about(stall, begun.elapsed(), what);
        }
    };
    let mut client = rig.http1().await;
    let begun = Instant::now();
    client.send(rig.head("GET", "/endless", "")).await.unwrap();
    ends(1, begun, "an answer over HTTP/1.1").await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    client = rig.http1().await;
    let begun = Instant::now();
    client.send(rig.head("GET", "/endless", upgrade)).await.unwrap();
    ends(2, begun, "a tunnel over HTTP/1.1").await;

    // Over HTTP/2 a stream's window stands still, and the connection goes on.
    let mut http2 = rig.http2_with_windows(100_000, 1 << 20).await;
    let begun = Instant::now();
    let (answer, _sending) = http2.stream(rig.request("GET", "/endless").body(()).unwrap(), true).await;
    let mut body = soon("an answer", answer).await.unwrap().into_body();
    ends(3, begun, "an answer over HTTP/2").await;
    while let Some(Ok(_)) = body.data().await {}
    let health = rig.bare_request("GET", "/-/health").body(()).unwrap();
    assert_eq!(http2.ask(health).await.unwrap().status(), 200, "others on the connection are served");
    let connect = http::Request::builder()
        .method("CONNECT")
        .uri(format!("https://{}{}", rig.host(), rig.path("/endless")))
        .header("cookie", rig.cookie())
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let begun = Instant::now();
    let (answer, _sending) = http2.stream(connect, false).await;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    ends(4, begun, "a tunnel over HTTP/2").await;

    // Who reads slowly is no such reader.
    client = rig.http1().await;
    client.send(rig.head("GET", "/endless", "")).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(stall / 3).await;
        let mut chunk = vec![0; 4 << 20];
        soon("more of it", client.stream.read_exact(&mut chunk)).await.unwrap();
    }
}

/// A request whose answer never comes keeps the connection from being idle.
async fn ask_in_vain(rig: &Rig) -> Frames<Secure> {
    let mut frames = rig.frames().await;
    let head = block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", &rig.host()),
        (":path", &rig.path("/silent")),
        ("cookie", &rig.cookie()),
    ]);
    frames.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, head)).await.unwrap();
    frames
}

async fn a_mute_http2_peer_is_left() {
    let rig = Rig::with(Application::start(serve).await, "[limits]\nhttp2_ping = \"2s\"\n").await;
    let begun = Instant::now();
    let mute = async {
        let mut frames = ask_in_vain(&rig).await;
        while frames.next_unanswered().await.is_ok() {}
        assert_about(seconds(2 + 2), begun.elapsed(), "an unanswered ping");
    };
    let polite = async {
        let mut frames = ask_in_vain(&rig).await;
        let mut pings = 0;
        while pings < 3 {
            pings += usize::from(soon("a ping", frames.next()).await.unwrap().kind == kind::PING);
        }
    };
    tokio::join!(mute, polite);
}

async fn idle_http2_connections_end() {
    let rig = Rig::with(Application::start(serve).await, "[limits]\nidle_connection = \"1h\"\n").await;
    let mut earlier = rig.http2().await;
    earlier.ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap();
    std::fs::write(rig.portal.config_file(), "[limits]\nidle_connection = \"2s\"\n").unwrap();
    rig.portal.signal(Signal::SIGHUP);
    rig.portal.logged(&["reloaded"]).await;
    let begun = Instant::now();
    let idle = async {
        let mut http2 = rig.http2().await;
        http2.ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap();
        let _ = soon("the end", http2.end()).await;
        assert_about(seconds(2), begun.elapsed(), "idle after an answer");
    };
    // Somebody who stays although told to go: GOODBYE.
    let stubborn = async {
        let mut frames = rig.frames().await;
        while !matches!(frames.next().await, Ok(frame) if frame.kind == kind::GOAWAY) {}
        assert_about(seconds(2), begun.elapsed(), "told to go");
        // The last ping asks whether the news has arrived.
        while frames.next_unanswered().await.is_ok() {}
        assert_about(seconds(2 + 5), begun.elapsed(), "staying all the same");
    };
    let busy = async {
        let mut frames = ask_in_vain(&rig).await;
        let away = async { while !matches!(frames.next().await, Ok(frame) if frame.kind == kind::GOAWAY) {} };
        assert!(tokio::time::timeout(seconds(6), away).await.is_err(), "somebody who waits is not idle");
    };
    tokio::join!(idle, stubborn, busy);
    let health = rig.bare_request("GET", "/-/health").body(()).unwrap();
    let answer = earlier.ask(health).await.expect("a connection keeps the limits that it began with");
    assert_eq!(answer.status(), 200);
}

async fn idle_connections_to_applications_end() {
    let config = "threads = 1\n[limits]\npool_idle = \"1s\"\n";
    let rig = Rig::with(Application::start(serve).await, config).await;
    let seen = &rig.app.seen;
    for _ in 0..3 {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    assert_eq!((seen.connections(), seen.open()), (1, 1), "one, used again");
    let begun = Instant::now();
    until("it is closed", SOON, || seen.open() == 0).await;
    assert_about(seconds(1), begun.elapsed(), "an idle connection to an application");
    assert_eq!(rig.get("/").await.status(), 200);
}

/// UPSTREAM_TLS.
async fn an_application_that_is_silent_about_tls_is_not_waited_for() {
    let silent = Application::start(|mut caller, _| async move { drop(caller.rest().await) }).await;
    let rig = Rig::new(silent).await;
    let target = format!("https://localhost:{}/", rig.app.port);
    let added = rig.portal.command(&["forward", "add", "mute", &target]);
    assert_eq!(added.status, 0, "{added:?}");
    let begun = Instant::now();
    let mut client = rig.http1().await;
    let (host, cookie) = (rig.host(), rig.cookie());
    client.send(format!("GET /fw/mute/ HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n\r\n")).await.unwrap();
    let answer = tokio::time::timeout(seconds(15), client.answer()).await.unwrap().unwrap();
    assert_eq!((answer.status(), answer.error()), (502, Some("application-tls")), "{answer:?}");
    assert_about(seconds(10), begun.elapsed(), "no TLS greeting");
    until("the application is left", SOON, || rig.app.seen.open() == 0).await;
}

async fn a_download_without_end_is_cut_off_when_the_portal_stops() {
    let app = Application::start(serve).await;
    let mut rig = Rig::with(app, "[limits]\ndrain = \"1h\"\n").await;
    // What is in force when it is told to stop counts.
    std::fs::write(rig.portal.config_file(), "[limits]\ndrain = \"2s\"\n").unwrap();
    rig.portal.signal(Signal::SIGHUP);
    rig.portal.logged(&["reloaded"]).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/endless", "")).await.unwrap();
    assert_eq!(client.head().await.unwrap().unwrap().status(), 200);
    let begun = Instant::now();
    rig.portal.signal(Signal::SIGTERM);
    let mut chunk = vec![0; 1 << 20];
    // It is served until then.
    while matches!(soon("more of it", client.stream.read(&mut chunk)).await, Ok(1..)) {}
    assert_about(seconds(2), begun.elapsed(), "a download while draining");
    until("it ends", SLACK, || !rig.portal.process().is_running()).await;
    assert_eq!(rig.portal.process().wait(SLACK), Some(0), "{}", rig.portal.stderr());
}

/// LINGER: one who goes on and on is answered all the same, and then not listened to for ever.
async fn whoever_speaks_plain_http_is_not_listened_to_for_long() {
    let rig = Rig::new(Application::ok().await).await;
    let (mut reading, mut writing) = tokio::io::split(rig.portal.tcp().await);
    let begun = Instant::now();
    let talks = async {
        while writing.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_about(seconds(1), begun.elapsed(), "talking on and on");
    };
    let reads = async {
        let mut said = Vec::new();
        let _ = reading.read_to_end(&mut said).await;
        assert!(said.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&said));
    };
    soon("both ends", async { tokio::join!(talks, reads) }).await;
}

/// LINGER again. However much somebody still sends whose request was refused early, the refusal arrives, and the
/// connection ends in order: closed with something unread, it would be reset, and on a real network the answer lost.
#[tokio::test]
async fn an_early_refusal_is_always_seen() {
    let rig = Rig::new(Application::ok().await).await;
    let host = rig.host();
    let large = format!("x-large: {}\r\n", "x".repeat(70_000));
    let upload =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 900000\r\n\r\n");
    for (status, head) in [
        (431, rig.head("GET", "/", &large)),
        (431, rig.head("GET", "/", &"x-many: 1\r\n".repeat(200))),
        (400, "no request at all\r\n\r\n".to_owned()),
        (401, upload(&rig.path("/"))),
        (405, upload("/-/health")),
        (421, upload("/").replace(&host, "elsewhere.example")),
    ] {
        let mut client = rig.http1().await;
        client.send(&head).await.unwrap_or_else(|error| panic!("{status}: the head: {error}"));
        // It is read when it is there, but the rest of what was begun is sent all the same.
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let rest = client.send([b'x'; 50_000]).await;
            rest.unwrap_or_else(|error| panic!("{status}: the rest: {error}"));
        }
        let answer = soon("an answer", client.answer()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{status}: no answer: {error}"));
        assert!(answer.status() == status && answer.complete, "{answer:?}");
        let mut rest = Vec::new();
        let end = soon("the end", client.stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "{status}: {end:?}");
    }
    // Somebody who never stops sending is not listened to for ever.
    let mut client = rig.http1().await;
    let begun = Instant::now();
    while client.send(&large).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() < seconds(1) + SLACK, "it is listened to without end");
    }
    assert_eq!(rig.app.seen.bytes(), 0);
}

/// POOL_PER_TARGET, by HTTP/2 connections with more requests at once.
#[tokio::test]
async fn so_many_connections_to_an_application_are_kept() {
    const KEPT: usize = 256;
    const EACH: usize = 136;
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            until("all are there", SOON, || seen.requests().len() >= KEPT + 16).await;
            let _ = caller.send(OK).await;
        }
    })
    .await;
    let rig = Rig::with(app, "threads = 1\n").await;
    let mut visitors = [rig.http2().await, rig.http2().await];
    let mut answers = Vec::new();
    for http2 in &mut visitors {
        for _ in 0..EACH {
            answers.push(http2.stream(rig.request("GET", "/").body(()).unwrap(), true).await.0);
        }
    }
    for answer in answers {
        let mut body = soon("an answer", answer).await.unwrap().into_body();
        while let Some(Ok(data)) = body.data().await {
            let _: Bytes = data;
        }
    }
    assert_eq!(rig.app.seen.connections(), KEPT + 16);
    until("the others are closed", SOON, || rig.app.seen.open() == KEPT).await;
    assert_eq!(visitors[0].ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap().status(), 200);
    assert_eq!(rig.app.seen.connections(), KEPT + 16, "one of them was used");
}
