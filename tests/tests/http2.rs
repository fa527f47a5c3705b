//! HTTP/2 through the portal: what must pass passes unchanged, what belongs to one hop or to us does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::http2::{Whole, whole};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::{SOON, soon, until};

#[tokio::test]
async fn methods_and_bodies_reach_the_application() {
    let rig = Rig::new(Application::ok().await).await;
    let mut http2 = rig.http2().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let body: &[u8] = if method == "GET" { b"" } else { b"hello" };
        let request = rig.request(method, "/x?y").body(()).unwrap();
        let answer =
            if body.is_empty() { http2.ask(request).await } else { http2.ask_with(request, body).await };
        let answer = answer.unwrap();
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]), "{method}");
        let seen = rig.app.seen.request();
        assert_eq!((seen.method(), seen.target(), seen.body.as_slice()), (method, "/x?y", body));
        assert_eq!(seen.field("host"), Some(rig.host().as_str()), ":authority becomes Host");
        rig.app.seen.forget();
    }
}

#[tokio::test]
async fn head_range_and_answers_without_a_body() {
    let app = Application::answering(|request| match request.target() {
        "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n",
        "/204" => "HTTP/1.1 204 No Content\r\nx-kept: 1\r\n\r\n",
        "/304" => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
        _ => "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-3/9\r\ncontent-length: 2\r\n\r\ncd",
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    for (method, path, status, body) in [
        ("HEAD", "/head", 200, ""),
        ("GET", "/204", 204, ""),
        ("GET", "/304", 304, ""),
        ("GET", "/206", 206, "cd"),
    ] {
        let answer =
            http2.ask(rig.request(method, path).header("range", "bytes=2-3").body(()).unwrap()).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status(), answer.body.as_slice()), (status, body.as_bytes()), "{path}");
        assert!(answer.broken.is_none());
        if method == "HEAD" {
            assert_eq!(answer.field("content-length"), Some("12345"));
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let app = Application::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    let request =
        rig.request("POST", "/").header("te", "trailers").header("trailer", "x-up").body(()).unwrap();
    let (answer, mut sending) = http2.stream(request, false).await;
    sending.send_data(Bytes::from_static(b"hi"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-up", "1".parse().unwrap());
    sending.send_trailers(trailers).unwrap();
    let answer = whole(answer).await.unwrap();
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
    let seen = rig.app.seen.request();
    assert_eq!((seen.text().as_str(), seen.trailers), ("hi", vec![("x-up".to_owned(), "1".to_owned())]));
}

#[tokio::test]
async fn trailers_say_nothing_that_fields_may_not() {
    for name in ["x-forwarded-user", "x_forwarded_user", "cookie", "remote-user"] {
        let rig = Rig::new(Application::ok().await).await;
        let mut http2 = rig.http2().await;
        let request = rig.request("POST", "/").header("trailer", name).body(()).unwrap();
        let (answer, mut sending) = http2.stream(request, false).await;
        sending.send_data(Bytes::from_static(b"hi"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert(http::HeaderName::from_static(name), "EVIL".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
        let _ = whole(answer).await;
        let seen = rig.app.seen.texts().concat();
        assert!(!seen.contains("EVIL"), "{name}: {seen}");
    }
}

#[tokio::test]
async fn only_we_say_who_is_visiting_and_hops_stay_apart() {
    let rig = Rig::new(Application::ok().await).await;
    let mut http2 = rig.http2().await;
    let mut request = rig.request("GET", "/");
    for name in
        ["x-forwarded-user", "x_forwarded_for", "x-forwarded-host", "forwarded", "remote_user", "x-real-ip"]
    {
        request = request.header(name, "EVIL");
    }
    assert_eq!(http2.ask(request.body(()).unwrap()).await.unwrap().status(), 200);
    let seen = rig.app.seen.request();
    assert_eq!(seen.field("x-forwarded-user"), Some(rig.user()));
    assert_eq!(seen.field("x-forwarded-host"), Some(rig.host().as_str()));
    assert!(!rig.app.seen.texts().concat().contains("EVIL"));
}

/// Browsers send every cookie in a field of its own over HTTP/2 (RFC 9113 section 8.2.3).
#[tokio::test]
async fn cookies_are_put_together_and_ours_stays_here() {
    let rig = Rig::new(Application::ok().await).await;
    let mut http2 = rig.http2().await;
    let request = rig.request("GET", "/").header("cookie", "a=1").header("cookie", "__Host-portreeve=EVIL");
    let request = request.header("cookie", "b=2").body(()).unwrap();
    assert_eq!(http2.ask(request).await.unwrap().status(), 200);
    let seen = rig.app.seen.request();
    assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
    let text = rig.app.seen.texts().concat();
    assert!(!text.contains("__Host-portreeve"), "{text}");
}

#[tokio::test]
async fn fields_of_one_hop_do_not_enter_http2() {
    let app = Application::saying(
        "HTTP/1.1 200 OK\r\nconnection: x-secret, keep-alive\r\nx-secret: EVIL\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nupgrade: h2c\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    )
    .await;
    let rig = Rig::new(app).await;
    let answer = rig.http2().await.ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap();
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"ok"[..]));
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "x-secret"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!(answer.head.headers().get_all("set-cookie").iter().count(), 2);
}

#[tokio::test]
async fn early_hints_pass_and_carry_links_only() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            let hints =
                "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nset-cookie: a=1\r\n\r\n";
            caller.send(hints).await.unwrap();
            // The hints must not wait for the answer: the test says when it has them.
            while request.target() == "/hinted" && seen.requests().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            caller.send(OK).await.unwrap();
        }
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    let (mut answer, _) = http2.stream(rig.request("GET", "/hinted").body(()).unwrap(), true).await;
    let hints = soon("the hints", std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
    let hints = hints.expect("hints come before the answer").unwrap();
    assert_eq!(hints.status(), 103);
    assert_eq!(hints.headers()["link"], "</style.css>; rel=preload");
    assert!(!hints.headers().contains_key("set-cookie"));
    assert_eq!(http2.ask(rig.request("GET", "/other").body(()).unwrap()).await.unwrap().status(), 200);
    assert_eq!(whole(answer).await.unwrap().body, b"ok");
}

#[tokio::test]
async fn requests_run_beside_each_other() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            // Answered only when all of them are here.
            while seen.requests().len() < 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            caller.send(OK).await.unwrap();
        }
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    let mut answers = Vec::new();
    for n in 0..50 {
        let (answer, _) = http2.stream(rig.request("POST", &format!("/{n}")).body(()).unwrap(), true).await;
        answers.push(tokio::spawn(whole(answer)));
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
}

/// An answer that is cut off ends in a reset, never in a clean end (END_STREAM).
#[tokio::test]
async fn an_answer_that_is_cut_off_looks_cut_off() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ] {
        let app = Application::start(move |mut caller, _| async move {
            if let Ok(Some(_)) = caller.request().await {
                let _ = caller.send(answer).await;
            }
        })
        .await;
        let rig = Rig::new(app).await;
        let mut http2 = rig.http2().await;
        let got = http2.ask(rig.request("GET", "/").body(()).unwrap()).await;
        assert!(got.as_ref().map_or(true, |whole: &Whole| whole.broken.is_some()), "{answer:?}: {got:?}");
        let health = rig.bare_request("GET", "/-/health").body(()).unwrap();
        assert_eq!(http2.ask(health).await.unwrap().status(), 200, "the connection goes on");
    }
}

#[tokio::test]
async fn an_application_that_asks_for_the_body_gets_it() {
    let app = Application::start(|mut caller, seen| async move {
        let mut request = caller.head().await.unwrap().unwrap();
        caller.send("HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        caller.body(&mut request, false).await.unwrap();
        seen.note(&request);
        caller.send(OK).await.unwrap();
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    let request = rig.request("PUT", "/").header("expect", "100-continue").body(()).unwrap();
    assert_eq!(http2.ask_with(request, b"hello").await.unwrap().status(), 200);
    assert_eq!(rig.app.seen.request().text(), "hello");
}

/// An application that answered before it had the whole body: its connection is in the middle of a request, and no
/// other may wait for that, nor be sent on it.
#[tokio::test]
async fn an_early_answer_does_not_hold_up_the_next_request() {
    for expect in [true, false] {
        let app = Application::start(|mut caller, seen| async move {
            while let Ok(Some(mut request)) = caller.head().await {
                seen.note(&request);
                let refused = request.target() == "/refused";
                let answer: &str = if refused {
                    "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno"
                } else {
                    OK
                };
                caller.send(answer).await.unwrap();
                if caller.body(&mut request, false).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let rig = Rig::with(app, "threads = 1\n").await;
        let mut http2 = rig.http2().await;
        let mut request = rig.request("PUT", "/refused").header("content-length", "10").body(()).unwrap();
        if expect {
            request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        }
        let (answer, mut sending) = http2.stream(request, false).await;
        if !expect {
            sending.send_data(Bytes::from_static(b"half "), false).unwrap();
        }
        assert_eq!(whole(answer).await.unwrap().status(), 417);
        // The stream stays open, and nothing more of the body comes.
        for n in 0..3 {
            let path = format!("/next{n}");
            let next = http2.ask(rig.request("GET", &path).body(()).unwrap());
            let next = tokio::time::timeout(Duration::from_secs(3), next).await;
            assert_eq!(next.expect("the next request waits for nobody").unwrap().status(), 200);
        }
        let targets: Vec<String> =
            rig.app.seen.requests().iter().map(|request| request.target().to_owned()).collect();
        assert_eq!(targets, ["/refused", "/next0", "/next1", "/next2"]);
        drop(sending);
    }
}

/// The application answers before it has the whole body, and does not care for the rest.
#[tokio::test]
async fn an_early_answer_arrives_although_the_upload_goes_on() {
    let app = Application::start(|mut caller, seen| async move {
        seen.note(&caller.head().await.unwrap().unwrap());
        caller
            .send("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
            .await
            .unwrap();
    })
    .await;
    let rig = Rig::new(app).await;
    let mut http2 = rig.http2().await;
    let (answer, mut sending) = http2.stream(rig.request("POST", "/").body(()).unwrap(), false).await;
    sending.send_data(Bytes::from_static(b"the beginning"), false).unwrap();
    let answer = whole(answer).await.unwrap();
    // An application that closes at once may take its answer back with it (RST): then the browser is told so.
    assert!([413, 502].contains(&answer.status()), "{answer:?}");
    let _ = sending.send_data(Bytes::from_static(b"the rest"), true);
    let health = rig.bare_request("GET", "/-/health").body(()).unwrap();
    assert_eq!(http2.ask(health).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            if request.target() == "/die" {
                return;
            }
            caller.send(OK).await.unwrap();
        }
    })
    .await;
    let rig = Rig::with(app, "threads = 1\n").await;
    let mut http2 = rig.http2().await;
    http2.ask(rig.request("GET", "/").body(()).unwrap()).await.unwrap();
    let answer = http2.ask(rig.request("DELETE", "/die").body(()).unwrap()).await.unwrap();
    assert_eq!((answer.status(), answer.field("x-portreeve-error")), (502, Some("broke-off")));
    assert_eq!(rig.app.seen.requests().iter().filter(|request| request.target() == "/die").count(), 1);
}

#[tokio::test]
async fn a_plain_connect_reaches_nothing() {
    let rig = Rig::new(Application::ok().await).await;
    let mut http2 = rig.http2().await;
    for authority in [rig.host(), format!("localhost:{}", rig.app.port)] {
        let request = http::Request::connect(&authority).header("cookie", rig.cookie()).body(()).unwrap();
        let answer = http2.ask(request).await;
        assert!(answer.as_ref().map_or(true, |whole| (400..500).contains(&whole.status())), "{answer:?}");
    }
    assert_eq!(rig.app.seen.bytes(), 0);
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
