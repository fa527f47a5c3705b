//! Bytes pass as they come, no faster than they are taken, and stop when nobody is there any more; the portal's memory
//! stays the same whatever the size.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portreeve_tests::over_both;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::visitor::{Upload, Version};
use portreeve_tests::wire::{SOON, soon, until};
use tokio::sync::Notify;

over_both![
    events_arrive_one_by_one,
    a_large_download_needs_no_memory,
    a_large_upload_needs_no_memory,
    a_reader_who_does_not_read_holds_the_application_back,
    an_application_that_does_not_read_holds_the_browser_back,
    an_upload_arrives_as_it_is_sent,
    an_answer_may_begin_before_the_request_ends,
];

const LARGE: u64 = 200 << 20;
/// What the portal may grow by while something large passes through it, in KiB.
const GROWTH: u64 = 16 << 10;

/// An application that sends one event, and the next only when it is told to.
async fn events() -> (Application, Arc<Notify>) {
    let next = Arc::new(Notify::new());
    let told = Arc::clone(&next);
    let app = Application::start(move |mut caller, seen| {
        let told = Arc::clone(&told);
        async move {
            while let Ok(Some(request)) = caller.request().await {
                seen.note(&request);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                caller.send(head).await.unwrap();
                for n in 0..5 {
                    if caller.send(format!("9\r\ndata: {n}\n\n\r\n")).await.is_err() {
                        return;
                    }
                    told.notified().await;
                }
                caller.send("0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    (app, next)
}

async fn events_arrive_one_by_one(version: Version) {
    let (app, next) = events().await;
    let rig = Rig::new(app).await;
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("GET", "/events", "accept: text/event-stream\r\n", Upload::Nothing).await;
    let head = exchange.head().await.unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    for n in 0..5 {
        let event = format!("data: {n}\n\n");
        let mut got = Vec::new();
        while got.len() < event.len() {
            got.extend(exchange.piece().await.unwrap().expect("the answer goes on"));
        }
        assert_eq!(String::from_utf8(got).unwrap(), event);
        next.notify_one();
    }
    assert_eq!(exchange.piece().await.unwrap(), None, "nothing follows");
}

/// Sends without end, and counts what was taken.
async fn endless() -> (Application, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let app = Application::start(move |mut caller, seen| {
        let counted = Arc::clone(&counted);
        async move {
            let Ok(Some(request)) = caller.request().await else { return };
            seen.note(&request);
            let limit: u64 = request.target().trim_start_matches('/').parse().unwrap_or(1 << 50);
            let _ = caller.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {limit}\r\n\r\n")).await;
            let chunk = vec![b'x'; 64 * 1024];
            let mut rest = limit;
            while rest > 0 {
                let now = rest.min(chunk.len() as u64);
                if caller.send(&chunk[..now as usize]).await.is_err() {
                    return;
                }
                rest -= now;
                counted.fetch_add(now, SeqCst);
            }
        }
    })
    .await;
    (app, sent)
}

async fn a_large_download_needs_no_memory(version: Version) {
    let (app, _) = endless().await;
    let rig = Rig::new(app).await;
    rig.get("/1000").await;
    let before = rig.peak_kib();
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("GET", &format!("/{LARGE}"), "", Upload::Nothing).await;
    let head = exchange.head().await.unwrap();
    assert_eq!(head.field("content-length"), Some(LARGE.to_string().as_str()));
    let mut got = 0;
    while let Some(piece) = exchange.piece().await.unwrap() {
        got += piece.len() as u64;
    }
    assert_eq!(got, LARGE);
    let grown = rig.peak_kib() - before;
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
}

/// Takes a body of any size without keeping it, and answers with its length.
async fn sink() -> Application {
    Application::start(|mut caller, seen| async move {
        let Ok(Some(request)) = caller.head().await else { return };
        seen.note(&request);
        let length: u64 = request.field("content-length").unwrap().parse().unwrap();
        let mut got = 0;
        while got < length {
            match caller.some().await {
                Ok(bytes) if !bytes.is_empty() => got += bytes.len() as u64,
                _ => return,
            }
        }
        let body = got.to_string();
        let _ = caller.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    })
    .await
}

async fn a_large_upload_needs_no_memory(version: Version) {
    let rig = Rig::new(sink().await).await;
    let before = rig.peak_kib();
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("PUT", "/", "", Upload::Length(LARGE)).await;
    let piece = vec![b'x'; 256 * 1024];
    for _ in 0..LARGE / piece.len() as u64 {
        soon("room for a piece", exchange.upload(&piece)).await.unwrap();
    }
    exchange.finish("").await.unwrap();
    assert_eq!(exchange.answer().await.unwrap().text(), LARGE.to_string());
    let grown = rig.peak_kib() - before;
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
}

/// Waits until a counter that moved stands still. That it does so for half a second is what is waited for.
async fn settled(counter: &AtomicU64) -> u64 {
    let mut last = (0, Instant::now());
    until("it moves and stands still", SOON, || {
        let now = counter.load(SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_millis(500)
    })
    .await;
    last.0
}

/// Kernel buffers on both sides of the portal, and what it keeps itself.
const IN_BETWEEN: u64 = 32 << 20;

/// Over HTTP/2 the stream's window is used up.
async fn a_reader_who_does_not_read_holds_the_application_back(version: Version) {
    let (app, sent) = endless().await;
    let rig = Rig::new(app).await;
    let before = rig.resident_kib();
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("GET", "/", "", Upload::Nothing).await;
    exchange.head().await.unwrap();
    let stood = settled(&sent).await;
    assert!(stood < IN_BETWEEN, "{stood} bytes were taken for somebody who reads nothing");
    let grown = rig.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
    let mut got = 0;
    while got <= stood {
        got += exchange.piece().await.unwrap().expect("it goes on").len() as u64;
    }
}

async fn an_application_that_does_not_read_holds_the_browser_back(version: Version) {
    let app = Application::start(|mut caller, seen| async move {
        seen.note(&caller.head().await.unwrap().unwrap());
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::new(app).await;
    let before = rig.resident_kib();
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("PUT", "/", "", Upload::Length(10 * LARGE)).await;
    let sent = AtomicU64::new(0);
    let sending = async {
        let piece = vec![b'x'; 64 * 1024];
        while exchange.upload(&piece).await.is_ok() {
            sent.fetch_add(piece.len() as u64, SeqCst);
        }
    };
    let stood = tokio::select! {
        () = sending => panic!("the portal takes no more"),
        stood = settled(&sent) => stood,
    };
    assert!(stood < IN_BETWEEN, "{stood} bytes were taken for an application that reads nothing");
    let grown = rig.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
}

/// One reader who takes nothing must not hold up the others on the same connection.
#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_block_the_others() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            if request.target() == "/endless" {
                let _ = caller.send("HTTP/1.1 200 OK\r\n\r\n").await;
                while caller.send(vec![b'x'; 64 * 1024]).await.is_ok() {}
                return;
            }
            caller.send(OK).await.unwrap();
        }
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2_with_windows(64 * 1024, 8 << 20).await;
    let (stuck, _) = http2.stream(rig.request("GET", "/endless").body(()).unwrap(), true).await;
    let stuck = soon("the head", stuck).await.unwrap();
    for _ in 0..5 {
        let answer = http2.ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap();
        assert_eq!(answer.body, b"ok");
    }
    drop(stuck);
    drop(http2);
    let seen = rig.app.seen.clone();
    until("the endless answer is cancelled", SOON, move || seen.requests().len() == 6 && seen.open() <= 1)
        .await;
}

/// Never answers, and says when its visitor has left.
async fn silent(head: &'static str) -> Application {
    Application::start(move |mut caller, seen| async move {
        let Ok(Some(request)) = caller.request().await else { return };
        if request.target() == "/quick" {
            let _ = caller.send(OK).await;
            return;
        }
        seen.note(&request);
        let _ = caller.send(head).await;
        caller.rest().await;
    })
    .await
}

const STARTED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
const LEAVES: Duration = Duration::from_secs(1);

#[tokio::test]
async fn who_closes_an_http1_connection_cancels_upstream() {
    for head in ["", STARTED] {
        let rig = Rig::new(silent(head).await).await;
        let mut client = rig.http1().await;
        client.send(rig.head("GET", "/", "")).await.unwrap();
        if head.is_empty() {
            until("the request is there", SOON, || rig.app.seen.requests().len() == 1).await;
        } else {
            soon("the answer begins", client.head()).await.unwrap();
        }
        assert_eq!(rig.app.seen.open(), 1);
        drop(client);
        until("the application is told", LEAVES, || rig.app.seen.open() == 0).await;
    }
}

#[tokio::test]
async fn who_resets_an_http2_stream_cancels_upstream() {
    for head in ["", STARTED] {
        let rig = Rig::new(silent(head).await).await;
        let mut http2 = rig.http2().await;
        let (answer, mut sending) = http2.stream(rig.request("GET", "/").body(()).unwrap(), false).await;
        // GET without END_STREAM, so that the stream can be reset from here; its body ends right away.
        sending.send_data(Bytes::new(), true).unwrap();
        let mut begun = None;
        if head.is_empty() {
            until("the request is there", SOON, || rig.app.seen.requests().len() == 1).await;
        } else {
            begun = Some(soon("the answer begins", answer).await.unwrap());
        }
        assert_eq!(rig.app.seen.open(), 1);
        sending.send_reset(h2::Reason::CANCEL);
        until("the application is told", LEAVES, || rig.app.seen.open() == 0).await;
        let quick = http2.ask(rig.request("GET", "/quick").body(()).unwrap()).await.unwrap();
        assert_eq!(quick.status(), 200, "the others on the connection go on");
        drop(begun);
    }
}

#[tokio::test]
async fn who_leaves_in_the_middle_of_an_upload_cancels_upstream() {
    let rig = Rig::new(silent("").await).await;
    let mut client = rig.http1().await;
    client.send(rig.head("PUT", "/", "content-length: 1000\r\n") + "half").await.unwrap();
    until("the application has a part", SOON, || rig.app.seen.bytes() > 0).await;
    drop(client);
    until("the application is told", LEAVES, || rig.app.seen.open() == 0).await;
    assert_eq!(rig.app.seen.requests().len(), 0, "half a body is no request");
}

async fn an_upload_arrives_as_it_is_sent(version: Version) {
    let rig = Rig::new(Application::ok().await).await;
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("POST", "/", "", Upload::Unknown).await;
    let parts: Vec<String> = (0..5).map(|n| format!("part-{n}")).collect();
    for part in &parts {
        exchange.upload(part).await.unwrap();
        until("the part is there", SOON, || rig.app.seen.texts().concat().contains(part)).await;
    }
    exchange.finish("").await.unwrap();
    assert_eq!(exchange.answer().await.unwrap().status(), 200);
    assert_eq!(rig.app.seen.request().text(), parts.concat());
}

/// Both ways at once, as some protocols over one request do.
async fn an_answer_may_begin_before_the_request_ends(version: Version) {
    let app = Application::start(|mut caller, seen| async move {
        let request = caller.head().await.unwrap().unwrap();
        seen.note(&request);
        caller.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..3 {
            // A chunk of four bytes, with its framing.
            let chunk = caller.exactly(9).await.unwrap();
            caller.send(chunk).await.unwrap();
        }
        caller.send("0\r\n\r\n").await.unwrap();
        caller.rest().await;
    })
    .await;
    let rig = Rig::new(app).await;
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("POST", "/", "", Upload::Unknown).await;
    exchange.head().await.unwrap();
    for part in ["ping", "pong", "pang"] {
        exchange.upload(part).await.unwrap();
        assert_eq!(exchange.piece().await.unwrap().as_deref(), Some(part.as_bytes()));
    }
}
