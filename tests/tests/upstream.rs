//! The connections to an application: used again, replaced when they are closed, and never out of step; and what an
//! application says that is no answer, or half of one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use portreeve_tests::over_both;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::stream::Message;
use portreeve_tests::wire::visitor::{Upload, Version};
use portreeve_tests::wire::{SOON, soon, until};

over_both![
    applications_that_close_to_end_their_answer,
    a_request_that_was_sent_is_not_sent_again,
    what_is_no_answer_is_told_as_such,
    an_answer_that_is_cut_off_looks_cut_off,
    a_protocol_change_that_nobody_asked_for_is_refused,
    an_early_answer_does_not_hold_up_the_next_request,
    an_early_answer_arrives_although_the_upload_goes_on,
];

/// An application that closes after one answer: the one that has the path's number.
async fn closing(answers: &[&str]) -> Application {
    let answers: Arc<[String]> = answers.iter().map(|&answer| answer.to_owned()).collect();
    Application::start(move |mut caller, seen| {
        let answers = Arc::clone(&answers);
        async move {
            if let Ok(Some(request)) = caller.request().await {
                seen.note(&request);
                let number: usize = request.target()[1..].parse().unwrap();
                let _ = caller.send(&answers[number]).await;
            }
        }
    })
    .await
}

async fn applications_that_close_to_end_their_answer(version: Version) {
    let answers = [
        "HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello",
    ];
    let rig = Rig::new(closing(&answers).await).await;
    for (number, answer) in answers.iter().enumerate() {
        rig.app.seen.forget();
        let mut visitor = rig.visitor(version).await;
        for _ in 0..3 {
            let got = visitor.ask("GET", &format!("/{number}"), "").await;
            assert_eq!((got.status(), got.text().as_str(), got.complete), (200, "hello", true), "{answer:?}");
        }
        assert_eq!(rig.app.seen.requests().len(), 3, "{answer:?}");
    }
}

#[tokio::test]
async fn connections_to_the_application_are_used_again() {
    let rig = Rig::with(Application::ok().await, "threads = 1\n").await;
    for _ in 0..10 {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    assert_eq!(rig.app.seen.connections(), 1);
    assert_eq!(rig.app.seen.requests().len(), 10);
}

/// An application that closes a connection when it has been idle for a moment: no request may fail for it.
#[tokio::test]
async fn connections_that_the_application_closed_are_replaced() {
    let rig = Rig::with(closing(&[OK]).await, "threads = 1\n").await;
    for n in 0..20 {
        let answer = rig.ask(&(rig.head("POST", "/0", "content-length: 2\r\n") + "hi")).await;
        assert_eq!(answer.status(), 200, "request {n}: {answer:?}");
    }
    assert_eq!(rig.app.seen.requests().len(), 20);
}

#[tokio::test]
async fn an_application_that_closes_idle_connections_after_a_moment() {
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Ok(Some(request))) =
            tokio::time::timeout(Duration::from_millis(30), caller.request()).await
        {
            seen.note(&request);
            caller.send(OK).await.unwrap();
        }
    })
    .await;
    let rig = Rig::with(app, "threads = 1\n").await;
    let mut client = rig.http1().await;
    for n in 0..40 {
        // Around the moment at which the application closes: time is what this is about.
        tokio::time::sleep(Duration::from_micros(28_000 + n * 100)).await;
        client.send(rig.head("GET", "/", "")).await.unwrap();
        let answer = soon("an answer", client.answer()).await.unwrap();
        // Sent and lost in the same instant: then it may not be sent again, and is told.
        let lost = answer.status() == 502 && answer.error() == Some("broke-off");
        assert!(answer.status() == 200 || lost, "{answer:?}");
    }
    let seen = rig.app.seen.clone();
    until("all connections are closed", SOON, move || seen.open() == 0).await;
}

/// The application took the request and died of it: whether it did something can't be known, so it is not sent again.
async fn a_request_that_was_sent_is_not_sent_again(version: Version) {
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
    let mut visitor = rig.visitor(version).await;
    for (method, body) in [("POST", "hi"), ("GET", "hi"), ("DELETE", ""), ("GET", "")] {
        let first = visitor.ask("GET", "/", "").await;
        assert_eq!(first.status(), 200, "so that there is a connection to use again");
        rig.app.seen.forget();
        let answer = match body {
            "" => visitor.ask(method, "/die", "").await,
            _ => visitor.ask_with(method, "/die", "", body).await,
        };
        assert_eq!((answer.status(), answer.error()), (502, Some("broke-off")), "{method} {body}");
        assert_eq!(rig.app.seen.request().target(), "/die", "{method} {body}");
    }
}

async fn what_is_no_answer_is_told_as_such(version: Version) {
    // The library reads ahead, so that its limit is one of order of magnitude.
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(300_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-many: 1\r\n".repeat(200));
    let answers = [
        "garbage\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        // The last lengths that 64 bits hold, which a program may have other uses for, and the first that they do not.
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551614\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
        "",
        &long,
        &many,
    ];
    let rig = Rig::new(closing(&answers).await).await;
    for (number, answer) in answers.iter().enumerate() {
        rig.app.seen.forget();
        let got = rig.visitor(version).await.ask("GET", &format!("/{number}"), "").await;
        let shown: String = answer.chars().take(60).collect();
        assert_eq!((got.status(), got.error()), (502, Some("broke-off")), "{shown:?}: {got:?}");
        assert_eq!(rig.app.seen.requests().len(), 1, "{shown:?}");
    }
}

/// Anybody who reads must be able to tell half an answer from a whole one: over HTTP/2 the stream ends in a reset, never
/// in END_STREAM, and the connection goes on.
async fn an_answer_that_is_cut_off_looks_cut_off(version: Version) {
    let answers = [
        OK,
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551613\r\n\r\nhalf",
    ];
    let rig = Rig::new(closing(&answers).await).await;
    for (number, answer) in answers.iter().enumerate().skip(1) {
        let mut visitor = rig.visitor(version).await;
        let got = visitor.send("GET", &format!("/{number}"), "", Upload::Nothing).await.answer().await;
        if let Ok(got) = got {
            assert!(!got.complete, "{answer:?}: {got:?}");
            assert!(got.text().is_empty() || got.text() == "half", "{got:?}");
        }
        if version == Version::Http2 {
            assert_eq!(visitor.ask("GET", "/0", "").await.text(), "ok", "after {answer:?}");
        }
    }
}

/// Bytes after an answer belong to no request of anybody's.
#[tokio::test]
async fn what_follows_an_answer_unasked_is_never_the_answer_to_the_next_request() {
    let unasked = format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL");
    let app = Application::saying(unasked).await;
    let rig = Rig::with(app, "threads = 1\n").await;
    for n in 0..10 {
        let answer = rig.get("/").await;
        assert_eq!(answer.text(), "ok", "request {n}");
    }
}

async fn a_protocol_change_that_nobody_asked_for_is_refused(version: Version) {
    let app = Application::saying(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nEVIL",
    )
    .await;
    let rig = Rig::new(app).await;
    let answer = rig.visitor(version).await.ask("GET", "/", "").await;
    assert!(answer.status() >= 400, "{answer:?}");
    assert!(!answer.text().contains("EVIL"));
}

/// An application that answered before it had the whole body: its connection is in the middle of a request, and no
/// other may wait for that, nor be sent on it.
async fn an_early_answer_does_not_hold_up_the_next_request(version: Version) {
    for expect in [true, false] {
        let app = Application::start(|mut caller, seen| async move {
            while let Ok(Some(mut request)) = caller.head().await {
                seen.note(&request);
                let refused = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno";
                let answer = if request.target() == "/refused" { refused } else { OK };
                caller.send(answer).await.unwrap();
                if caller.body(&mut request, false).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let rig = Rig::with(app, "threads = 1\n").await;
        let mut visitor = rig.visitor(version).await;
        let fields = if expect { "expect: 100-continue\r\n" } else { "" };
        let mut exchange = visitor.send("PUT", "/refused", fields, Upload::Length(10)).await;
        if !expect {
            exchange.upload("half ").await.unwrap();
        }
        assert_eq!(exchange.head().await.unwrap().status(), 417);
        assert_eq!(exchange.piece().await.unwrap().unwrap(), b"no");
        // Nothing more of the body comes, and nobody has said that it will not.
        let mut next = rig.visitor(version).await;
        for n in 0..3 {
            let answer = next.ask("GET", &format!("/next{n}"), "").await;
            assert_eq!(answer.status(), 200, "the next request waits for nobody");
        }
        let seen = rig.app.seen.requests();
        let targets: Vec<&str> = seen.iter().map(Message::target).collect();
        assert_eq!(targets, ["/refused", "/next0", "/next1", "/next2"]);
        drop(exchange);
    }
}

/// The application answers before it has the whole body, and does not care for the rest.
async fn an_early_answer_arrives_although_the_upload_goes_on(version: Version) {
    let app = Application::start(|mut caller, seen| async move {
        seen.note(&caller.head().await.unwrap().unwrap());
        let refused = "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
        caller.send(refused).await.unwrap();
    })
    .await;
    let rig = Rig::new(app).await;
    let mut visitor = rig.visitor(version).await;
    let mut exchange = visitor.send("POST", "/", "", Upload::Unknown).await;
    exchange.upload("the beginning").await.unwrap();
    let answer = exchange.head().await.unwrap();
    // An application that closes at once may take its answer back with it (RST): then the browser is told so.
    assert!([413, 502].contains(&answer.status()), "{answer:?}");
    let _ = exchange.upload("the rest").await;
    let _ = exchange.finish("").await;
    if version == Version::Http2 {
        let next = visitor.ask("GET", "/", "").await;
        assert!([413, 502].contains(&next.status()), "the connection goes on: {next:?}");
    }
    assert_eq!(rig.get_health().await, 200);
}
