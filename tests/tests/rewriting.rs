//! An application that does not know below which path it lives: what of its answers is mapped, and what is left alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use portreeve_tests::world::{App, Portal, full, streaming, text};

const PAGE: &str = "<!doctype html><html><head><title>t</title><link rel=stylesheet href=\"/style.css\"></head>\
    <body><a href='/x?a=1&amp;b=2'>x</a><img srcset=\"/1.png 1x, /2.png 2x\"><a href=\"https://elsewhere/x\">y</a>\
    <form action=/post></form><p>/x</p></body></html>";

/// An application that answers each path with one thing.
async fn site() -> App {
    App::start(|request| async move {
        let of = |kind: &str, body: Bytes| {
            let mut reply = text("");
            *reply.body_mut() = full(body);
            reply.headers_mut().insert("content-type", kind.parse().unwrap());
            reply
        };
        match request.uri().path() {
            "/" => of("text/html; charset=utf-8", PAGE.into()),
            "/gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(PAGE.as_bytes()).unwrap();
                let mut reply = of("text/html", encoder.finish().unwrap().into());
                reply.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
                reply
            }
            "/bomb" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                let zeros = vec![b' '; 1 << 20];
                (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
                let mut reply = of("text/html", encoder.finish().unwrap().into());
                reply.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
                reply
            }
            "/style.css" => of("text/css", "a { background: url(/a.png) } @import \"/b.css\";".into()),
            "/data.json" => of("application/json", "{\"next\": \"/x\"}".into()),
            "/app.js" => of("text/javascript", "fetch('/x')".into()),
            "/strict" => {
                let mut reply = of("text/html", PAGE.into());
                let policy = "default-src 'none'; script-src 'self'; style-src 'self'";
                reply.headers_mut().insert("content-security-policy", policy.parse().unwrap());
                reply.headers_mut().insert("etag", "\"1\"".parse().unwrap());
                reply
            }
            "/away" => {
                let mut reply = text("");
                *reply.status_mut() = http::StatusCode::FOUND;
                reply.headers_mut().insert("location", "/x".parse().unwrap());
                reply.headers_mut().append("set-cookie", "__Host-csrf=1; Path=/; Secure".parse().unwrap());
                reply.headers_mut().append("link", "</style.css>; rel=preload".parse().unwrap());
                reply.headers_mut().insert("refresh", "5; url=/x".parse().unwrap());
                reply
            }
            path => text(format!(
                "{path} {}",
                request.headers().get("cookie").map_or("", |c| c.to_str().unwrap())
            )),
        }
    })
    .await
}

#[tokio::test]
async fn a_page_reads_as_if_its_application_lived_there() {
    let portal = Portal::plain();
    let app = site().await;
    let prefix = app.path("");
    let client = portal.sign_in().await;
    for path in ["/", "/gzip"] {
        let answer = client.get(&app.path(path)).await;
        answer.assert_status(200);
        assert!(answer.headers.get("content-encoding").is_none(), "{answer:?}");
        let page = answer.text();
        for part in [
            format!("<link rel=stylesheet href=\"{prefix}/style.css\">"),
            format!("<a href='{prefix}/x?a=1&amp;b=2'>"),
            format!("srcset=\"{prefix}/1.png 1x, {prefix}/2.png 2x\""),
            format!("<form action={prefix}/post>"),
            "<a href=\"https://elsewhere/x\">".to_owned(),
            "<p>/x</p>".to_owned(),
        ] {
            assert!(page.contains(&part), "{path}: {part} is missing: {page}");
        }
        // The script that maps the rest comes first, and is there for whoever asks.
        let at = page.find("<script src=\"").unwrap() + "<script src=\"".len();
        assert!(at < page.find("<title>").unwrap(), "{page}");
        let script = page[at..].split('"').next().unwrap();
        let script = portal.stranger().get(script).await;
        script.assert_status(200);
        assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    }
    let style = client.get(&app.path("/style.css")).await.text();
    assert_eq!(style, format!("a {{ background: url({prefix}/a.png) }} @import \"{prefix}/b.css\";"));
    for (path, body) in [("/data.json", "{\"next\": \"/x\"}"), ("/app.js", "fetch('/x')")] {
        let answer = client.get(&app.path(path)).await;
        assert_eq!(
            (answer.text().as_str(), answer.header("content-length")),
            (body, body.len().to_string().as_str())
        );
    }
    // Nor is anything done for a HEAD.
    let head = client.request(client.prepare("HEAD", &app.path("/")), "").await;
    head.assert_status(200);
}

#[tokio::test]
async fn fields_and_policies_follow() {
    let portal = Portal::plain();
    let app = site().await;
    let prefix = app.path("");
    let mut client = portal.sign_in().await;
    let answer = client.get(&app.path("/away")).await;
    assert_eq!(answer.location(), format!("{prefix}/x"));
    assert_eq!(answer.header("link"), format!("<{prefix}/style.css>; rel=preload"));
    assert_eq!(answer.header("refresh"), format!("5; url={prefix}/x"));
    // A cookie that would be for the whole origin is confined, and comes back under its own name.
    let cookie = answer.header("set-cookie");
    assert!(!cookie.starts_with("__Host-") && cookie.contains(&format!("Path={prefix}/")), "{cookie}");
    client.take_cookies(&answer);
    assert_eq!(client.get(&app.path("/cookies")).await.text(), "/cookies __Host-csrf=1");

    let answer = client.get(&app.path("/strict")).await;
    let policy = answer.header("content-security-policy");
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(answer.text().contains(&format!("nonce=\"{nonce}\"")), "{policy}: {}", answer.text());
    assert_eq!(answer.header("etag"), "W/\"1\"");
    assert_ne!(
        client.get(&app.path("/strict")).await.header("content-security-policy"),
        policy,
        "it is random"
    );
}

#[tokio::test]
async fn what_inflates_beyond_measure_is_broken_off() {
    let portal = Portal::plain();
    let app = site().await;
    let client = portal.sign_in().await;
    client.get(&app.path("/")).await.assert_status(200);
    let answer = client.stream(&app.path("/bomb")).await;
    assert!(answer.into_body().collect().await.is_err(), "64 MiB of nothing were let through");
    client.get(&app.path("/")).await.assert_status(200);
}

#[tokio::test]
async fn the_first_byte_leaves_before_the_last_arrives() {
    let portal = Portal::plain();
    let app = App::start(|_| async move {
        let (sender, body) = streaming();
        tokio::spawn(async move {
            sender.send("<html><head></head><body><a href=/first>".into()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(sender);
        });
        let mut reply = text("");
        *reply.body_mut() = body;
        reply.headers_mut().insert("content-type", "text/html".parse().unwrap());
        reply
    })
    .await;
    let client = portal.sign_in().await;
    let mut body = client.stream(&app.path("/")).await.into_body();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(&format!("href={}", app.path("/first"))) {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap();
        seen.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
    }
}

#[tokio::test]
async fn what_strays_to_the_portals_root_is_led_back() {
    let portal = Portal::plain();
    let app = site().await;
    let client = portal.sign_in().await;
    let page = client.clone().with("referer", &format!("{}{}", client.origin(), app.path("/")));
    for (method, path) in [("GET", "/data.json?x"), ("POST", "/post")] {
        let answer = page.request(page.prepare(method, path), "").await;
        assert_eq!((answer.status.as_u16(), answer.location()), (307, app.path(path).as_str()));
    }
    // Not into what is ours, not for a stranger, and not for another site's page.
    page.get("/-/nothing").await.assert_refused(403, "for-windows");
    page.get("/api/v1/jobs").await.assert_refused(403, "for-windows");
    page.get("/dav/x").await.assert_refused(403, "for-windows");
    assert_eq!(page.get("/api/v2/jobs").await.status, 404);
    assert_eq!(client.get("/data.json").await.status, 404);
    let other = client.clone().with("referer", &format!("https://elsewhere{}", app.path("/")));
    assert_eq!(other.get("/data.json").await.status, 404);
    let stranger = portal.stranger().with("referer", &format!("{}{}", client.origin(), app.path("/")));
    stranger.get("/data.json").await.assert_refused(401, "not-signed-in");
}
