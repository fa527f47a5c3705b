//! The access log: one record for each request, when its answer or tunnel has ended.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use http_body_util::BodyExt;
use nix::sys::signal::Signal;
use portreeve_tests::world::{App, Portal, streaming, text, until};
use tokio_tungstenite::tungstenite::Message;

const ON: &str = "[portal]\naccess_log = true\n";

/// The records so far.
fn records(portal: &Portal) -> Vec<String> {
    portal.stderr().lines().filter(|line| line.contains(" access: ")).map(str::to_owned).collect()
}

/// A field of a record, without its quotes.
fn field<'r>(record: &'r str, name: &str) -> Option<&'r str> {
    let (_, rest) = record.split_once(&format!(" {name}="))?;
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(' ').next(),
    }
}

#[track_caller]
fn assert_fields(record: &str, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(field(record, name), Some(*value), "{name} of {record}");
    }
}

/// Waits for so many records whose path is this one.
async fn about(portal: &Portal, path: &str, count: usize) -> Vec<String> {
    until(&format!("{count} record(s) of {path}"), Duration::from_secs(5), || async {
        let mut all = records(portal);
        all.retain(|record| field(record, "path") == Some(path));
        (all.len() >= count).then_some(all)
    })
    .await
}

#[tokio::test]
async fn one_record_a_request_and_no_query_in_it() {
    let portal = Portal::with_config(ON);
    let client = portal.sign_in().await;
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let entered = &about(&portal, "/-/enter", 1).await[0];
    assert_fields(entered, &[("user", "-"), ("status", "303"), ("place", "-"), ("end", "sent")]);

    let app = App::start(|_| async { text("0123456789") }).await;
    let path = app.path("/a/b%0Ac");
    client.get(&format!("{path}?token=secret")).await.assert_status(200);
    client.clone().http2().get(&format!("{path}?token=secret")).await.assert_status(200);
    let both = about(&portal, &path, 2).await;
    assert_eq!(both.len(), 2);
    let (host, place) = (client.authority(), format!("/fw2/localhost:{}", app.port()));
    for (record, protocol) in both.iter().zip(["HTTP/1.1", "HTTP/2"]) {
        assert_fields(
            record,
            &[
                ("user", &user),
                ("method", "GET"),
                ("host", &host),
                ("protocol", protocol),
                ("place", &place),
                ("status", "200"),
                ("bytes", "10"),
                ("end", "sent"),
            ],
        );
        assert!(field(record, "peer").unwrap().starts_with("127.0.0.1:"), "{record}");
        let milliseconds = |name| field(record, name).unwrap().parse::<f64>().unwrap();
        assert!(milliseconds("head_ms") > 0.0 && milliseconds("head_ms") <= milliseconds("total_ms"));
        assert!(!record.contains("secret") && !record.contains('?'), "{record}");
    }
    assert!(!portal.stderr().contains("secret"));

    // A refusal's id is that of its record.
    let refused = client.get("/fw/nobody-made-it/x").await;
    refused.assert_refused(404, "no-such-forward");
    let record = &about(&portal, "/fw/nobody-made-it/x", 1).await[0];
    assert_fields(
        record,
        &[("status", "404"), ("request", refused.header("x-request-id")), ("place", "/fw/nobody-made-it")],
    );
    portal.stranger().get("/fw/not-signed-in/").await.assert_status(401);
    let record = &about(&portal, "/fw/not-signed-in/", 1).await[0];
    assert_fields(record, &[("user", "-"), ("status", "401"), ("place", "-")]);
    client.get("/").await.assert_status(200);
    assert_fields(
        &about(&portal, "/", 1).await[0],
        &[("user", &user), ("place", "workspace"), ("end", "sent")],
    );
    let mut head = client.link().await;
    client.ask_on(&mut head, client.prepare("HEAD", &path)).await.unwrap().assert_status(200);
    let record = &about(&portal, &path, 3).await[2];
    assert_fields(record, &[("method", "HEAD"), ("bytes", "0"), ("end", "sent")]);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_and_a_request_that_gets_none() {
    let portal = Portal::with_config(ON);
    let client = portal.sign_in().await;
    let app = App::start(|request| async move {
        if request.uri().path().ends_with("/never") {
            std::future::pending::<()>().await;
        }
        let (sender, body) = streaming();
        tokio::spawn(async move {
            let _ = sender.send(Bytes::from_static(b"0123456789")).await;
            sender.closed().await;
        });
        Response::new(body)
    })
    .await;
    let of_stream = |record: &String| field(record, "path") == Some(&*app.path("/stream"));
    for (count, client) in [client.clone(), client.clone().http2()].into_iter().enumerate() {
        let mut answer = client.stream(&app.path("/stream")).await;
        let frame = answer.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap().len(), 10);
        assert_eq!(records(&portal).iter().filter(|record| of_stream(record)).count(), count, "it goes on");
        drop(answer);
        let (asks, path) = (client.clone(), app.path("/never"));
        let asking = tokio::spawn(async move { asks.get(&path).await });
        until("the request is there", Duration::from_secs(5), || async {
            let asked = app.seen().iter().filter(|seen| seen.path.ends_with("/never")).count();
            (asked > count).then_some(())
        })
        .await;
        asking.abort();
        let _ = asking.await;
    }
    for record in about(&portal, &app.path("/stream"), 2).await {
        assert_fields(&record, &[("status", "200"), ("bytes", "10"), ("end", "cut")]);
    }
    for record in about(&portal, &app.path("/never"), 2).await {
        assert_fields(&record, &[("status", "0"), ("bytes", "0"), ("end", "cut")]);
        assert_eq!(field(&record, "head_ms"), None, "{record}");
    }
}

#[tokio::test]
async fn a_tunnel_has_its_record_when_it_ends() {
    let portal = Portal::with_config(ON);
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let mut socket = client.websocket(&app.path("/socket?token=secret")).await.unwrap();
    socket.send(Message::text("0123456789")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    assert!(!portal.stderr().contains("/socket"), "it goes on");
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    let record = &about(&portal, &app.path("/socket"), 1).await[0];
    assert_fields(record, &[("status", "101"), ("method", "GET")]);
    assert!(matches!(field(record, "end"), Some("closed" | "cut")), "{record}");
    // What was echoed, and the frame that closes.
    assert!(field(record, "bytes").unwrap().parse::<u32>().unwrap() >= 12, "{record}");
    assert!(!record.contains("secret"));
}

#[tokio::test]
async fn long_paths_are_shortened() {
    let portal = Portal::with_config(ON);
    let client = portal.sign_in().await;
    client.get(&format!("/fw/x/{}", "a".repeat(2000))).await.assert_status(404);
    let record = portal.logged(&[" access: ", "/fw/x/a"]).await;
    assert_eq!(field(&record, "path").unwrap().len(), 1024 + "...".len());
}

#[tokio::test]
async fn it_is_off_unless_the_configuration_wants_it() {
    let portal = Portal::with_config("");
    let client = portal.sign_in().await;
    let mut link = client.link().await;
    for (reload, config, expected) in [(false, "", 0), (true, ON, 1), (true, "", 1)] {
        if reload {
            let before = portal.stderr().matches("certificate reloaded").count();
            std::fs::write(portal.config_file(), config).unwrap();
            portal.signal(Signal::SIGHUP);
            until("the configuration is read again", Duration::from_secs(5), || async {
                (portal.stderr().matches("certificate reloaded").count() > before).then_some(())
            })
            .await;
        }
        let path = "/fw/nobody-made-it/";
        let refused = client.ask_on(&mut link, client.prepare("GET", path)).await.unwrap();
        // The record of a request comes after that of its refusal, and both before the answer.
        portal.logged(&["refused", refused.header("x-request-id")]).await;
        client.ask_on(&mut link, client.prepare("GET", "/-/health")).await.unwrap();
        let all = records(&portal);
        let of_it = all.iter().filter(|record| field(record, "path") == Some(path)).count();
        assert_eq!(of_it, expected, "{config:?}: {all:?}");
    }
}
