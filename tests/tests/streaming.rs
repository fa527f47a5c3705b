//! Bytes pass as they come, no faster than they are taken, and stop when nobody is there any more; the portal's memory
//! stays the same whatever the size.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::http2::give_back;
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::{SOON, soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

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

#[tokio::test]
async fn events_arrive_one_by_one_over_http1() {
    let (app, next) = events().await;
    let rig = Rig::new(app).await;
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/events", "accept: text/event-stream\r\n")).await.unwrap();
    let head = soon("the head", client.head()).await.unwrap().unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let mut got = String::new();
    for n in 0..5 {
        let event = format!("data: {n}\n\n");
        while !got.contains(&event) {
            got += &String::from_utf8(soon("an event", client.some()).await.unwrap()).unwrap();
        }
        assert!(!got.contains(&format!("data: {}\n", n + 1)));
        next.notify_one();
    }
}

#[tokio::test]
async fn events_arrive_one_by_one_over_http2() {
    let (app, next) = events().await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    let (answer, _) = http2.stream(rig.request("GET", "/events").body(()).unwrap(), true).await;
    let mut body = soon("the head", answer).await.unwrap().into_body();
    for n in 0..5 {
        let data = soon("an event", body.data()).await.unwrap().unwrap();
        assert_eq!(data, format!("data: {n}\n\n"));
        give_back(&mut body, data.len());
        next.notify_one();
    }
    while let Some(data) = soon("the end", body.data()).await {
        assert_eq!(data.unwrap(), "", "nothing follows");
    }
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

#[tokio::test]
async fn a_large_download_needs_no_memory_over_http1() {
    let (app, _) = endless().await;
    let rig = Rig::new(app).await;
    rig.get("/1000").await;
    let before = rig.peak_kib();
    let mut client = rig.http1().await;
    client.send(rig.head("GET", &format!("/{LARGE}"), "")).await.unwrap();
    let head = soon("the head", client.head()).await.unwrap().unwrap();
    assert_eq!(head.field("content-length"), Some(LARGE.to_string().as_str()));
    let mut got = client.some().await.unwrap().len() as u64;
    let mut chunk = vec![0; 256 * 1024];
    while got < LARGE {
        let count = soon("some of it", client.stream.read(&mut chunk)).await.unwrap();
        assert!(count > 0, "it ends after {got} bytes");
        got += count as u64;
    }
    let grown = rig.peak_kib() - before;
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
}

#[tokio::test]
async fn a_large_download_needs_no_memory_over_http2() {
    let (app, _) = endless().await;
    let rig = Rig::new(app).await;
    rig.get("/1000").await;
    let before = rig.peak_kib();
    let mut http2 = rig.http2().await;
    let (answer, _) = http2.stream(rig.request("GET", &format!("/{LARGE}")).body(()).unwrap(), true).await;
    let mut body = soon("the head", answer).await.unwrap().into_body();
    let mut got = 0;
    while let Some(data) = soon("some of it", body.data()).await {
        let data = data.unwrap();
        got += data.len() as u64;
        give_back(&mut body, data.len());
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

#[tokio::test]
async fn a_large_upload_needs_no_memory_over_http1() {
    let rig = Rig::new(sink().await).await;
    let before = rig.peak_kib();
    let mut client = rig.http1().await;
    client.send(rig.head("PUT", "/", &format!("content-length: {LARGE}\r\n"))).await.unwrap();
    let chunk = vec![b'x'; 256 * 1024];
    for _ in 0..LARGE / chunk.len() as u64 {
        soon("some of it", client.stream.write_all(&chunk)).await.unwrap();
    }
    client.stream.flush().await.unwrap();
    assert_eq!(soon("the answer", client.answer()).await.unwrap().text(), LARGE.to_string());
    let grown = rig.peak_kib() - before;
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
}

#[tokio::test]
async fn a_large_upload_needs_no_memory_over_http2() {
    let rig = Rig::new(sink().await).await;
    let before = rig.peak_kib();
    let mut http2 = rig.http2().await;
    let request = rig.request("PUT", "/").header("content-length", LARGE).body(()).unwrap();
    let (answer, mut sending) = http2.stream(request, false).await;
    let chunk = Bytes::from(vec![b'x'; 256 * 1024]);
    let mut rest = LARGE;
    while rest > 0 {
        sending.reserve_capacity(chunk.len());
        let room = soon("room", std::future::poll_fn(|cx| sending.poll_capacity(cx))).await.unwrap().unwrap();
        let now = room.min(chunk.len()).min(usize::try_from(rest).unwrap());
        rest -= now as u64;
        sending.send_data(chunk.slice(..now), rest == 0).unwrap();
    }
    let answer = portreeve_tests::wire::http2::whole(answer).await.unwrap();
    assert_eq!(answer.body, LARGE.to_string().into_bytes());
    let grown = rig.peak_kib() - before;
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
}

/// Waits until a counter stands still.
async fn settled(counter: &AtomicU64) -> u64 {
    let begun = Instant::now();
    let mut last = (counter.load(SeqCst), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = counter.load(SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > Duration::from_millis(500) {
            return now;
        }
        assert!(begun.elapsed() < SOON, "it never stands still: {now}");
    }
}

/// Kernel buffers on both sides of the portal, and what it keeps itself.
const IN_BETWEEN: u64 = 32 << 20;

#[tokio::test]
async fn a_reader_who_does_not_read_holds_the_application_back() {
    let (app, sent) = endless().await;
    let rig = Rig::new(app).await;
    let before = rig.resident_kib();
    let mut client = rig.http1().await;
    client.send(rig.head("GET", "/", "")).await.unwrap();
    until("it begins", SOON, || sent.load(SeqCst) > 0).await;
    let stood = settled(&sent).await;
    assert!(stood < IN_BETWEEN, "{stood} bytes were taken for somebody who reads nothing");
    let grown = rig.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
    let mut chunk = vec![0; 1 << 20];
    let mut got = 0;
    while got <= stood {
        got += soon("it goes on", client.stream.read(&mut chunk)).await.unwrap() as u64;
    }
}

#[tokio::test]
async fn a_stream_without_window_holds_the_application_back() {
    let (app, sent) = endless().await;
    let rig = Rig::new(app).await;
    let before = rig.resident_kib();
    let mut http2 = rig.http2().await;
    let (answer, _) = http2.stream(rig.request("GET", "/").body(()).unwrap(), true).await;
    let mut body = soon("the head", answer).await.unwrap().into_body();
    let stood = settled(&sent).await;
    assert!(stood < IN_BETWEEN, "{stood} bytes were taken for somebody who reads nothing");
    let grown = rig.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
    let mut got = 0;
    while got <= stood {
        let data = soon("it goes on", body.data()).await.unwrap().unwrap();
        got += data.len() as u64;
        give_back(&mut body, data.len());
    }
}

#[tokio::test]
async fn an_application_that_does_not_read_holds_the_browser_back() {
    let app = Application::start(|mut caller, seen| async move {
        seen.note(&caller.head().await.unwrap().unwrap());
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::new(app).await;
    let before = rig.resident_kib();
    let mut client = rig.http1().await;
    client.send(rig.head("PUT", "/", &format!("content-length: {}\r\n", 10 * LARGE))).await.unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let chunk = vec![b'x'; 64 * 1024];
        while client.stream.write_all(&chunk).await.is_ok() {
            counted.fetch_add(chunk.len() as u64, SeqCst);
        }
    });
    until("it begins", SOON, || sent.load(SeqCst) > 0).await;
    let stood = settled(&sent).await;
    assert!(stood < IN_BETWEEN, "{stood} bytes were taken for an application that reads nothing");
    let grown = rig.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the portal grew by {grown} KiB");
    sending.abort();
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

#[tokio::test]
async fn an_upload_arrives_as_it_is_sent() {
    let app = Application::start(|mut caller, seen| async move {
        let mut request = caller.head().await.unwrap().unwrap();
        caller.body(&mut request, false).await.unwrap();
        seen.note(&request);
        caller.send(OK).await.unwrap();
    })
    .await;
    let rig = Rig::new(app).await;
    let mut client = rig.http1().await;
    client.send(rig.head("POST", "/", "transfer-encoding: chunked\r\n")).await.unwrap();
    for n in 0..5 {
        client.send(format!("6\r\npart-{n}\r\n")).await.unwrap();
        until("the part is there", SOON, || rig.app.seen.texts().concat().contains(&format!("part-{n}")))
            .await;
    }
    client.send("0\r\n\r\n").await.unwrap();
    assert_eq!(soon("the answer", client.answer()).await.unwrap().status(), 200);

    rig.app.seen.forget();
    let mut http2 = rig.http2().await;
    let (answer, mut sending) = http2.stream(rig.request("POST", "/").body(()).unwrap(), false).await;
    for n in 5..10 {
        sending.send_data(Bytes::from(format!("part-{n}")), n == 9).unwrap();
        until("the part is there", SOON, || rig.app.seen.texts().concat().contains(&format!("part-{n}")))
            .await;
    }
    assert_eq!(soon("the answer", answer).await.unwrap().status(), 200);
    assert_eq!(rig.app.seen.request().text(), "part-5part-6part-7part-8part-9");
}

/// Both ways at once, as some protocols over one request do.
#[tokio::test]
async fn an_answer_may_begin_before_the_request_ends() {
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
    let mut http2 = rig.http2().await;
    let (answer, mut sending) = http2.stream(rig.request("POST", "/").body(()).unwrap(), false).await;
    let mut body = soon("the head", answer).await.unwrap().into_body();
    for part in ["ping", "pong", "pang"] {
        sending.send_data(Bytes::from_static(part.as_bytes()), false).unwrap();
        let data = soon("the echo", body.data()).await.unwrap().unwrap();
        assert_eq!(data, part);
        give_back(&mut body, data.len());
    }
}
