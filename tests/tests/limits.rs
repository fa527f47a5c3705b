//! Nobody takes more than a share: limits on sizes and numbers are reached here, and what stays within them is shown to
//! pass. Waits that can be configured are in `waits.rs`; those that can't and take longest are here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portreeve_portal::limits::{REQUEST_HEAD, TLS_HANDSHAKE};
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::frames::{END_HEADERS, END_STREAM, Frames, Outcome, block, frame, kind};
use portreeve_tests::wire::http2::whole;
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::{SOON, soon, until};
use portreeve_tests::world::Secure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// From these limits' own length on, a busy machine may take so much longer.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test]
async fn large_heads_pass_and_larger_ones_do_not() {
    let rig = Rig::new(Application::ok().await).await;
    let of = |size: usize| rig.head("GET", "/", &format!("x-large: {}\r\n", "x".repeat(size)));
    let rest = of(0).len();
    assert_eq!(rig.ask(&of((64 << 10) - rest)).await.status(), 200);
    rig.app.seen.forget();
    for size in [(64 << 10) - rest + 1, 100_000, 140_000] {
        assert_eq!(rig.ask(&of(size)).await.status(), 431, "{size}");
    }
    let fields = |count: usize| rig.head("GET", "/", &"x-many: 1\r\n".repeat(count));
    assert_eq!(rig.ask(&fields(100)).await.status(), 200);
    rig.app.seen.forget();
    assert_eq!(rig.ask(&fields(200)).await.status(), 431);
    let long = format!("/{}", "x".repeat(140_000));
    let refused = rig.ask(&rig.head("GET", &long, "")).await.status();
    assert!([414, 431].contains(&refused), "{refused}");
    assert_eq!(rig.app.seen.requests().len(), 0);
}

#[tokio::test]
async fn large_heads_over_http2_too() {
    let rig = Rig::new(Application::ok().await).await;
    let mut http2 = rig.http2().await;
    let of = |size: usize| rig.request("GET", "/").header("x-large", "x".repeat(size)).body(()).unwrap();
    assert_eq!(http2.ask(of(30_000)).await.unwrap().status(), 200);
    rig.app.seen.forget();
    let refused = http2.ask(of(140_000)).await;
    assert!(refused.as_ref().map_or(true, |answer| answer.status() == 431), "{refused:?}");
    assert_eq!(rig.app.seen.requests().len(), 0);
}

/// An application that has ten thousand hints for whoever asks: they are dropped where they can't be sent at once.
#[tokio::test]
async fn interim_answers_without_end_need_no_memory() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: </{}>\r\n\r\n", "x".repeat(1000));
            let _ = caller.send(hint.repeat(10_000) + OK).await;
        }
    })
    .await;
    let rig = Rig::new(app).await;
    let before = rig.resident_kib();
    let mut http2 = rig.http2().await;
    assert_eq!(http2.ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap().status(), 200);
    assert_eq!(rig.get("/").await.status(), 200);
    let grown = rig.peak_kib().saturating_sub(before);
    assert!(grown < 5 << 10, "the portal grew by {grown} KiB");
}

async fn closes(stream: &mut Secure) {
    let mut chunk = [0; 1024];
    while matches!(stream.read(&mut chunk).await, Ok(count) if count > 0) {}
}

/// How long something took, which must be its limit.
fn assert_about(limit: Duration, took: Duration, what: &str) {
    let early = limit - Duration::from_secs(1);
    assert!((early..limit + SLACK).contains(&took), "{what}: {took:?} instead of {limit:?}");
}

/// In one test, so that they are waited for together; it begins with the first ones, as it takes longest.
#[tokio::test]
async fn a_client_who_keeps_us_waiting_is_left() {
    let rig = Rig::new(Application::ok().await).await;
    tokio::join!(
        slow_heads_and_idle_connections_end(&rig),
        http2_connections_without_a_request_end(&rig),
        slow_handshakes_end(&rig)
    );
    assert_eq!(rig.get_health().await, 200);
}

async fn slow_heads_and_idle_connections_end(rig: &Rig) {
    let begun = Instant::now();
    let silent = async {
        let mut client = rig.http1().await;
        closes(&mut client.stream).await;
        assert_about(REQUEST_HEAD, begun.elapsed(), "nothing sent");
    };
    let slow = async {
        let mut client = rig.http1().await;
        client.send(format!("GET {} HTTP/1.1\r\nhost: {}\r\n", rig.path("/"), rig.host())).await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(client.stream);
        let trickles = async {
            // A field a second would go on for ever.
            while writing.write_all(b"x: y\r\n").await.is_ok() && writing.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let ends = async {
            let mut chunk = [0; 1024];
            while matches!(reading.read(&mut chunk).await, Ok(count) if count > 0) {}
        };
        tokio::select! { () = trickles => {}, () = ends => {} }
        assert_about(REQUEST_HEAD, begun.elapsed(), "a head that never ends");
    };
    let idle = async {
        let mut client = rig.http1().await;
        client.send(rig.head("GET", "/", "")).await.unwrap();
        assert_eq!(soon("an answer", client.answer()).await.unwrap().status(), 200);
        closes(&mut client.stream).await;
        assert_about(REQUEST_HEAD, begun.elapsed(), "idle after an answer");
    };
    tokio::join!(silent, slow, idle);
}

async fn http2_connections_without_a_request_end(rig: &Rig) {
    let begun = Instant::now();
    let mute = async {
        let mut stream = rig.portal.tls(&[b"h2"]).await;
        closes(&mut stream).await;
        assert_about(REQUEST_HEAD, begun.elapsed(), "no preface");
    };
    let polite = async {
        let mut frames = rig.frames().await;
        while frames.next().await.is_ok() {}
        assert_about(REQUEST_HEAD, begun.elapsed(), "preface and settings only");
    };
    let half = async {
        let mut frames = rig.frames().await;
        // A header block without its end is no request.
        let head = frame(kind::HEADERS, END_STREAM, 1, block(&[(":method", "GET")]));
        // Nothing may come between the parts of a block, so the portal's settings are not acknowledged.
        frames.send(&head).await.unwrap();
        while !matches!(frames.next_unanswered().await, Ok(frame) if frame.kind == kind::GOAWAY) {
            assert!(begun.elapsed() < REQUEST_HEAD + SLACK, "half a header block is waited for without end");
        }
        assert_about(REQUEST_HEAD, begun.elapsed(), "half a header block");
    };
    tokio::join!(mute, polite, half);
}

async fn slow_handshakes_end(rig: &Rig) {
    let begun = Instant::now();
    let silent = async {
        let mut stream = rig.portal.tcp().await;
        let mut chunk = [0; 64];
        while matches!(stream.read(&mut chunk).await, Ok(count) if count > 0) {}
        assert_about(TLS_HANDSHAKE, begun.elapsed(), "nothing sent");
    };
    let slow = async {
        let (mut reading, mut writing) = tokio::io::split(rig.portal.tcp().await);
        // A record that announces 512 bytes of a ClientHello, and brings one a second.
        writing.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        let trickles = async {
            while writing.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let ends = async {
            let mut chunk = [0; 64];
            while matches!(reading.read(&mut chunk).await, Ok(count) if count > 0) {}
        };
        tokio::select! { () = trickles => {}, () = ends => {} }
        assert_about(TLS_HANDSHAKE, begun.elapsed(), "a greeting that never ends");
    };
    tokio::join!(silent, slow);
}

const STALL: &str = "[limits]\nbody_stall = \"1s\"\n";

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let app = Application::answering(|_| OK).await;
    let rig = Rig::with(app, STALL).await;
    let mut client = rig.http1().await;
    client.send(rig.head("POST", "/", "content-length: 100\r\n") + "half").await.unwrap();
    let answer = soon("an answer", client.answer()).await.unwrap();
    assert_eq!((answer.status(), answer.error()), (408, Some("body-stalled")), "{answer:?}");
    soon("the connection ends", closes(&mut client.stream)).await;

    let mut http2 = rig.http2().await;
    let (answer, mut sending) = http2.stream(rig.request("POST", "/").body(()).unwrap(), false).await;
    sending.send_data(Bytes::from_static(b"half"), false).unwrap();
    let answer = whole(answer).await.unwrap();
    assert_eq!((answer.status(), answer.field("x-portreeve-error")), (408, Some("body-stalled")));
    until("the application is told", SOON, || rig.app.seen.open() == 0).await;
    assert_eq!(rig.app.seen.requests().len(), 0, "half a body is no request");

    // Slow is not still.
    let mut client = rig.http1().await;
    client.send(rig.head("POST", "/", "content-length: 6\r\n")).await.unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        client.send("x").await.unwrap();
    }
    assert_eq!(soon("an answer", client.answer()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_application_has_its_time_to_answer() {
    let app = Application::start(|mut caller, seen| async move {
        seen.note(&caller.request().await.unwrap().unwrap());
        caller.rest().await;
    })
    .await;
    let rig = Rig::with(app, "[limits]\nresponse_head = \"1s\"\n").await;
    let answer = rig.get("/").await;
    assert_eq!((answer.status(), answer.error()), (504, Some("application-timeout")));
    until("the application is told", SOON, || rig.app.seen.open() == 0).await;
    assert_eq!(rig.app.seen.requests().len(), 1, "it is not asked again");
}

#[tokio::test]
async fn an_application_that_takes_no_connection_is_not_waited_for() {
    let rig = Rig::new(Application::ok().await).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    // Until the kernel's queue is full, and new connections get no answer at all.
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        queue.push(stream);
        assert!(queue.len() < 100);
    }
    let begun = Instant::now();
    let request = format!(
        "GET /fw2/localhost:{}/ HTTP/1.1\r\nhost: {}\r\ncookie: {}\r\n\r\n",
        address.port(),
        rig.host(),
        rig.cookie()
    );
    let mut client = rig.http1().await;
    client.send(request).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(15), client.answer()).await.unwrap().unwrap();
    assert_eq!((answer.status(), answer.error()), (504, Some("connect-timeout")), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let rig = Rig::with(Application::ok().await, "[limits]\nconnections = 3\n").await;
    // The place of the connection that signed in is free again.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(soon("a connection", rig.http1()).await);
    }
    let (tcp, waiting) = (rig.portal.tcp().await, Duration::from_secs(1));
    let connector = tokio_rustls::TlsConnector::from(portreeve_tests::world::client_config(&[b"http/1.1"]));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut fourth = Box::pin(connector.connect(name, tcp));
    assert!(
        tokio::time::timeout(waiting, fourth.as_mut()).await.is_err(),
        "a fourth connection is not served"
    );
    drop(held.pop());
    soon("the fourth has its turn", fourth).await.unwrap();
}

#[tokio::test]
async fn a_session_has_so_many_requests_at_once() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            if request.target() == "/wait" {
                caller.rest().await;
                return;
            }
            if request.field("upgrade").is_some() {
                let _ = caller
                    .send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
                    .await;
                caller.rest().await;
                return;
            }
            let _ = caller.send(OK).await;
        }
    })
    .await;
    let rig = Rig::with(app, "[limits]\nrequests_per_session = 3\n").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = rig.http1().await;
        client.send(rig.head("GET", "/wait", "")).await.unwrap();
        held.push(client);
    }
    let mut tunnel = rig.http1().await;
    tunnel.send(rig.head("GET", "/", "connection: upgrade\r\nupgrade: x\r\n")).await.unwrap();
    assert_eq!(soon("101", tunnel.answer()).await.unwrap().status(), 101);
    until("all of them are at the application", SOON, || rig.app.seen.requests().len() == 3).await;
    let answer = rig.get("/").await;
    assert_eq!((answer.status(), answer.error()), (429, Some("too-many-requests")));
    assert!(answer.field("retry-after").is_some());
    // For its own pages the portal has other places.
    let (host, cookie) = (rig.host(), rig.cookie());
    for path in ["/", "/-/listening"] {
        let own = rig.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n\r\n")).await;
        assert_eq!(own.status(), 200, "{path}");
    }
    let health = format!("GET /-/health HTTP/1.1\r\nhost: {host}\r\n\r\n");
    assert_eq!(rig.ask(&health).await.status(), 200, "others are served");
    drop(tunnel);
    until("the tunnel has ended", SOON, || rig.app.seen.open() == 2).await;
    let begun = Instant::now();
    while rig.get("/").await.status() != 200 {
        assert!(begun.elapsed() < SOON, "the place is not given back");
    }
}

fn head_of_request(rig: &Rig) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", &rig.host()),
        (":path", &rig.path("/")),
        ("cookie", &rig.cookie()),
    ])
}

/// Reads until the other side has had enough, or for a while.
async fn verdict(frames: &mut Frames<Secure>) -> Outcome {
    tokio::time::timeout(SOON, frames.outcome(u32::MAX)).await.unwrap_or(Outcome::Answer(0))
}

/// CVE-2023-44487.
#[tokio::test]
async fn streams_that_are_opened_and_reset_in_a_hurry_end_the_connection() {
    let app = Application::start(|mut caller, _| async move {
        caller.rest().await;
    })
    .await;
    let rig = Rig::new(app).await;
    let mut frames = rig.frames().await;
    let head = head_of_request(&rig);
    let mut sent = 0;
    for burst in 0..100_u32 {
        let mut bytes = Vec::new();
        for n in 0..100 {
            let stream = (burst * 100 + n) * 2 + 1;
            bytes.extend(frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, head.clone()).bytes());
            bytes.extend(frame(kind::RST_STREAM, 0, stream, 8_u32.to_be_bytes()).bytes());
        }
        if frames.0.send(bytes).await.is_err() {
            break;
        }
        sent += 100;
    }
    let outcome = verdict(&mut frames).await;
    assert!(matches!(outcome, Outcome::Away(_) | Outcome::Closed), "{outcome:?} after {sent} streams");
    assert!(
        rig.app.seen.connections() < 1000,
        "{} connections to the application",
        rig.app.seen.connections()
    );
    assert_eq!(rig.get_health().await, 200);
    until("nothing is left at the application", SOON, || rig.app.seen.open() == 0).await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let app = Application::start(|mut caller, _| async move {
        caller.rest().await;
    })
    .await;
    let rig = Rig::new(app).await;
    let mut frames = rig.frames().await;
    let head = head_of_request(&rig);
    // Slowly enough that none of them waits to be looked at.
    for n in 0..205_u32 {
        frames.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, n * 2 + 1, head.clone())).await.unwrap();
        if n % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let outcome = soon("an outcome", frames.outcome(204 * 2 + 1)).await;
    assert!(matches!(outcome, Outcome::Reset(7) | Outcome::Away(_)), "{outcome:?}");
    assert!(rig.app.seen.connections() <= 200, "{}", rig.app.seen.connections());
}

/// A header block that never ends, in frames each of which is in order (CVE-2024-27316).
#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let rig = Rig::new(Application::ok().await).await;
    let before = rig.resident_kib();
    for empty in [false, true] {
        let mut frames = rig.frames().await;
        frames.send(&frame(kind::HEADERS, END_STREAM, 1, block(&[(":method", "GET")]))).await.unwrap();
        let more = if empty { Vec::new() } else { block(&[("x-more", "y".repeat(8000))]) };
        let more = frame(kind::CONTINUATION, 0, 1, more).bytes();
        let mut sent = 0_usize;
        // Nobody needs more than a few; a hundred thousand is what an attack sends.
        let flood = async {
            while sent < 100_000 && frames.0.send(more.repeat(10)).await.is_ok() {
                sent += 10;
            }
        };
        let _ = tokio::time::timeout(SOON, flood).await;
        let outcome = verdict(&mut frames).await;
        assert!(matches!(outcome, Outcome::Away(_) | Outcome::Closed), "{outcome:?} after {sent} frames");
        assert!(sent < 100_000, "it took {sent} frames");
    }
    let grown = rig.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "the portal grew by {grown} KiB");
    assert_eq!(rig.app.seen.bytes(), 0);
    assert_eq!(rig.get_health().await, 200);
}

/// Questions that must be answered, from somebody who does not take the answers.
#[tokio::test]
async fn floods_of_pings_and_settings_need_no_memory() {
    let rig = Rig::new(Application::ok().await).await;
    let before = rig.resident_kib();
    for flood in [frame(kind::PING, 0, 0, [0; 8]), frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 255, 255])] {
        let mut frames = rig.frames().await;
        let many = flood.bytes().repeat(1000);
        let sends = async {
            for _ in 0..500 {
                if frames.0.send(&many).await.is_err() {
                    return;
                }
            }
        };
        // It may be cut off, or not be read any further; both are an end of it.
        let _ = tokio::time::timeout(Duration::from_secs(3), sends).await;
        let grown = rig.resident_kib().saturating_sub(before);
        assert!(grown < 32 << 10, "the portal grew by {grown} KiB");
        assert_eq!(rig.get_health().await, 200, "others are served meanwhile");
    }
}

/// A table of compressed fields that unpacks into far more than was sent.
#[tokio::test]
async fn fields_that_unpack_into_more_than_the_limit_are_refused() {
    let rig = Rig::new(Application::ok().await).await;
    let mut frames = rig.frames().await;
    let mut head = head_of_request(&rig);
    // A literal that enters the table (RFC 7541 section 6.2.1), then a thousand references to it, one byte each.
    head.push(0x40);
    head.extend(&block(&[("x-bomb", "b".repeat(3000))])[1..]);
    head.extend([0xbe; 1000]);
    frames.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, head)).await.unwrap();
    let outcome = soon("an outcome", frames.outcome(1)).await;
    assert!(!matches!(outcome, Outcome::Answer(200)), "{outcome:?}");
    assert_eq!(rig.app.seen.bytes(), 0);
}

#[tokio::test]
async fn forms_of_our_own_are_small() {
    let rig = Rig::new(Application::ok().await).await;
    let body = format!("code={}", "x".repeat(100_000));
    let request = format!(
        "POST /-/enter HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        rig.host(),
        body.len()
    );
    assert_eq!(rig.ask(&request).await.status(), 400);
}
