//! An application that never comes to the point, as fast as it can: whoever asked for it waits, and nobody else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::frames::{END_HEADERS, END_STREAM, block, frame, kind};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::world::{App, PATIENCE, Portal, text, until};

/// Bytes that are under way, so that the portal has seen many.
const MANY: usize = 16 << 20;

async fn holds_up_nobody(method: &str, head: &[u8], endless: &[u8]) {
    let portal = Portal::plain();
    let (app, client) = (App::start(|_| async { text("here") }).await, portal.sign_in().await);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = format!("/fw2/localhost:{}/", listener.local_addr().unwrap().port());
    let (sent, begin, rest) = (Arc::new(AtomicUsize::new(0)), head.to_vec(), endless.repeat(64 * 1024));
    let counted = Arc::clone(&sent);
    // On a thread of its own it is as fast as the portal.
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(&begin).unwrap();
        while let Ok(written) = stream.write(&rest) {
            counted.fetch_add(written, SeqCst);
        }
    });
    let (reader, request) = (client.clone(), client.prepare(method, &path));
    let body = if method == "POST" { "x" } else { "" };
    let request = request.map(|()| Full::from(body).boxed());
    tokio::spawn(async move {
        let mut body = reader.send(request).await.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    });
    // Chunks of a byte are slow work for an unoptimized build beside others.
    until("it is under way", 6 * PATIENCE, || async { (sent.load(SeqCst) > MANY).then_some(()) }).await;
    for _ in 0..20 {
        let answer = tokio::time::timeout(PATIENCE, client.get(&app.path("/"))).await;
        answer.expect("others are answered").assert_status(200);
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n";

#[tokio::test]
async fn compressed_blocks_without_a_byte() {
    let head =
        [HEAD.as_bytes(), b"content-encoding: gzip\r\n\r\n", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]].concat();
    holds_up_nobody("GET", &head, &[0, 0, 0, 0xff, 0xff]).await;
}

#[tokio::test]
async fn interim_answers() {
    for method in ["GET", "POST"] {
        holds_up_nobody(method, b"", b"HTTP/1.1 102 \r\n\r\n").await;
    }
}

/// The browser asks and takes nothing for as long as there are interim answers. What it takes at last is no more than what was
/// kept, on the way and in the portal, and the answer comes behind it.
#[tokio::test]
async fn interim_answers_that_a_browser_does_not_take_need_no_memory() {
    const HINTS: usize = 1200;
    let said = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&said);
    let app = Application::start(move |mut caller, _| {
        let counted = Arc::clone(&counted);
        async move {
            while let Ok(Some(_)) = caller.request().await {
                for number in 0..HINTS {
                    // None is like another, so that none is compressed to a byte.
                    let link = format!("{number}{}", "x".repeat(15_000));
                    let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: </{link}>\r\n\r\n");
                    caller.send(hint).await.unwrap();
                    // Not faster than they are passed on: what comes at once is dropped at once.
                    if number % 4 == 3 {
                        tokio::time::sleep(Duration::from_millis(8)).await;
                    }
                }
                caller.send(OK).await.unwrap();
                counted.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let rig = Rig::new(app).await;
    assert_eq!(rig.get_health().await, 200);
    let before = rig.resident_kib();
    let all_said = |times| {
        until("the application has said all", PATIENCE, move || {
            let is_said = said.load(SeqCst) == times;
            async move { is_said.then_some(()) }
        })
    };
    let mut http1 = rig.http1().await;
    http1.send(rig.head("GET", "/", "")).await.unwrap();
    let mut http2 = rig.frames().await;
    let head = block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", &rig.host()),
        (":path", &rig.path("/")),
        ("cookie", &rig.cookie()),
    ]);
    http2.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, head)).await.unwrap();
    all_said(2).await;
    let grown = rig.peak_kib().saturating_sub(before);
    println!("the portal grew by {grown} KiB");
    assert!(grown < 5 << 10, "the portal grew by {grown} KiB");
    let answer = http1.answer().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!((1..HINTS).contains(&answer.interim.len()), "{}", answer.interim.len());
    let (mut heads, mut is_over) = (0, false);
    while !is_over {
        let frame = http2.next().await.unwrap();
        assert!(frame.kind != kind::RST_STREAM && frame.kind != kind::GOAWAY, "{frame:?}");
        heads += usize::from(frame.kind == kind::HEADERS);
        is_over = frame.stream == 1 && frame.flags & END_STREAM != 0;
    }
    assert!((2..HINTS).contains(&heads), "{heads}");
}

#[tokio::test]
async fn the_size_of_a_chunk() {
    for (first, endless) in [("", "0"), ("1", " ")] {
        let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{first}");
        holds_up_nobody("GET", head.as_bytes(), endless.as_bytes()).await;
    }
}

#[tokio::test]
async fn chunks_of_a_byte() {
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n4\r\n<!--\r\n");
    holds_up_nobody("GET", head.as_bytes(), b"1\r\nx\r\n").await;
}
