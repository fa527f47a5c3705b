//! An application that never comes to the point, as fast as it can: whoever asked for it waits, and nobody else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use http_body_util::{BodyExt, Full};
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
