//! What the portal counts, and the socket that says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use nix::sys::signal::Signal;
use portreeve_tests::world::{
    App, PATIENCE, Portal, PortalOptions, Scrape, ask_metrics, portreeve, text, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;

fn documentation(file: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs");
    std::fs::read_to_string(docs.join(file)).unwrap()
}

/// Waits until a sample has this value.
async fn becomes(portal: &Portal, sample: &str, value: f64) {
    until(&format!("{sample} is {value}"), PATIENCE, || async {
        ((portal.scrape().await.get(sample) - value).abs() < 0.5).then_some(())
    })
    .await;
}

#[track_caller]
fn assert_is(scrape: &Scrape, expected: &[(&str, u32)]) {
    for (sample, value) in expected {
        assert!((scrape.get(sample) - f64::from(*value)).abs() < 0.5, "{sample}: {}", scrape.get(sample));
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let portal = Portal::watched("");
    let client = portal.sign_in().await;
    let app = App::start(|request| async move {
        let _ = request.into_body().collect().await;
        text("0123456789")
    })
    .await;
    let mut link = client.link().await;
    for _ in 0..3 {
        let asked = client.ask_on(&mut link, client.prepare("GET", &app.path("/"))).await.unwrap();
        asked.assert_status(200);
    }
    let posted = client.clone().http2().post(&app.path("/"), "a=1").await;
    posted.assert_status(200);
    client.get("/fw/nobody-made-it/").await.assert_refused(404, "no-such-forward");
    client.get("/fw2/localhost:80/").await.assert_refused(403, "privileged-port");
    portal.stranger().get("/-/enter?code=wrong").await.assert_refused(403, "code-unknown");
    let gone = App::echo().await;
    let nowhere = gone.path("/");
    drop(gone);
    client.get(&nowhere).await.assert_refused(503, "not-listening");
    let mut plain = portal.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    plain.read_to_end(&mut Vec::new()).await.unwrap();
    let mut garbage = portal.tcp().await;
    garbage.write_all(&[22, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let _ = garbage.read_to_end(&mut Vec::new()).await;
    // Such a connection is closed before it is counted.
    becomes(&portal, "portreeve_tls_handshake_failures_total{reason=\"tls\"}", 1.0).await;

    let scrape = portal.scrape().await;
    assert_is(
        &scrape,
        &[
            ("portreeve_ready", 1),
            ("portreeve_connections_refused_total{reason=\"stranger\"}", 0),
            ("portreeve_tls_handshake_failures_total{reason=\"plain-http\"}", 1),
            ("portreeve_tls_handshake_failures_total{reason=\"tls\"}", 1),
            // The sign-in; three of the application's answers and one more.
            ("portreeve_http_requests_total{version=\"1.1\",status=\"3xx\"}", 1),
            ("portreeve_http_requests_total{version=\"1.1\",status=\"2xx\"}", 3),
            ("portreeve_http_requests_total{version=\"2\",status=\"2xx\"}", 1),
            ("portreeve_http_requests_total{version=\"1.1\",status=\"4xx\"}", 3),
            ("portreeve_http_requests_total{version=\"1.1\",status=\"5xx\"}", 1),
            ("portreeve_http_request_duration_seconds_count", 9),
            ("portreeve_http_requests_in_progress", 0),
            ("portreeve_refusals_total{code=\"no-such-forward\"}", 1),
            ("portreeve_refusals_total{code=\"privileged-port\"}", 1),
            ("portreeve_refusals_total{code=\"code-unknown\"}", 1),
            ("portreeve_refusals_total{code=\"not-listening\"}", 1),
            ("portreeve_refusals_total{code=\"other\"}", 0),
            ("portreeve_sign_ins_total{way=\"code\",result=\"in\"}", 1),
            ("portreeve_sign_ins_total{way=\"code\",result=\"refused\"}", 1),
            ("portreeve_sessions", 1),
            // localhost has two addresses, and what has ended listens on neither.
            ("portreeve_application_connects_total{result=\"not-listening\"}", 2),
            ("portreeve_owner_lookups_total{result=\"unowned\"}", 0),
            ("portreeve_carried_bytes_total{direction=\"to-browser\",kind=\"body\"}", 40),
            ("portreeve_carried_bytes_total{direction=\"to-application\",kind=\"body\"}", 3),
            ("portreeve_tunnels_total", 0),
        ],
    );
    let connects = scrape.get("portreeve_application_connects_total{result=\"connected\"}");
    assert!((1.0..=4.0).contains(&connects), "{connects}");
    let looked = scrape.get("portreeve_owner_lookups_total{result=\"found\"}");
    assert!((looked - connects).abs() < 0.5, "one look-up for each connection: {looked}");
    assert!((scrape.get("portreeve_owner_lookup_duration_seconds_count") - looked).abs() < 0.5);
    let pooled = |result| scrape.get(&format!("portreeve_pool_lookups_total{{result=\"{result}\"}}"));
    assert!((pooled("hit") + pooled("miss") - 5.0).abs() < 0.5 && pooled("hit") >= 2.0);
    assert!(scrape.get("portreeve_http_request_duration_seconds_sum") > 0.0);
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
        - scrape.get("process_start_time_seconds");
    assert!((0.0..600.0).contains(&age), "{age}");
    drop((link, plain, garbage));
    becomes(&portal, "portreeve_connections_open", 0.0).await;
}

#[tokio::test]
async fn tunnels_and_requests_that_end_early_are_counted_too() {
    let portal = Portal::watched("");
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let mut socket = client.websocket(&app.path("/")).await.unwrap();
    socket.send(Message::text("0123456789")).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let scrape = portal.scrape().await;
    assert_is(&scrape, &[("portreeve_tunnels_total", 1), ("portreeve_tunnels_open", 1)]);
    assert_is(&scrape, &[("portreeve_http_requests_total{version=\"1.1\",status=\"1xx\"}", 1)]);
    // The text, the frame's head, and towards the application its mask. A byte is counted once it was passed on.
    for (way, bytes) in [("to-application", 16.0), ("to-browser", 12.0)] {
        let sample = format!("portreeve_carried_bytes_total{{direction=\"{way}\",kind=\"tunnel\"}}");
        becomes(&portal, &sample, bytes).await;
    }
    drop(socket);
    becomes(&portal, "portreeve_tunnels_open", 0.0).await;

    let silent = App::start(|_| std::future::pending()).await;
    let (path, asks) = (silent.path("/"), client.clone());
    let asking = tokio::spawn(async move { asks.get(&path).await });
    becomes(&portal, "portreeve_http_requests_in_progress", 1.0).await;
    asking.abort();
    becomes(&portal, "portreeve_http_requests_in_progress", 0.0).await;
    becomes(&portal, "portreeve_http_requests_total{version=\"1.1\",status=\"none\"}", 1.0).await;
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let scrape = Portal::watched("").scrape().await;
    let guide = documentation("admin-guide.md");
    let section = guide.split("\n## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let named = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
    let documented: BTreeSet<String> = section.lines().filter_map(named).collect();
    let are_there: BTreeSet<String> = scrape.families.keys().cloned().collect();
    assert_eq!(are_there, documented);
    for (name, kind) in &scrape.families {
        let row = section.lines().find(|line| line.starts_with(&format!("| `{name}` "))).unwrap();
        assert!(row.contains(&format!("| {kind} |")), "{name} is a {kind}: {row}");
    }
    // The codes are those of the pages.
    let mut codes: BTreeSet<String> = codes_and_statuses().into_iter().map(|(code, _)| code).collect();
    codes.insert("other".to_owned());
    assert_eq!(scrape.values("portreeve_refusals_total", "code"), codes);
}

/// The table of codes: each with each of its statuses.
fn codes_and_statuses() -> BTreeSet<(String, String)> {
    let life = documentation("request-life.md");
    let table = life.split("\n## Codes").nth(1).unwrap().lines();
    let mut found = BTreeSet::new();
    for cells in
        table.filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").collect::<Vec<_>>())
    {
        for code in cells[0].split(',') {
            let code = code.trim_matches(['|', ' ', '`']);
            found.extend(cells[1].split(", ").map(|status| (code.to_owned(), status.to_owned())));
        }
    }
    found
}

#[test]
fn every_code_stands_in_a_step_with_its_status() {
    let life = documentation("request-life.md");
    let steps = life.split("\n| step |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut found = BTreeSet::new();
    for step in steps.lines() {
        let fails = step.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut code = None;
        for word in fails.split([' ', ',', ';']) {
            if let Some(named) = word.strip_prefix('`') {
                code = Some(named.trim_end_matches('`').to_owned());
            } else if word.len() == 3 && word.bytes().all(|digit| digit.is_ascii_digit()) {
                found.extend(code.clone().map(|code| (code, word.to_owned())));
            }
        }
    }
    assert_eq!(found, codes_and_statuses(), "left: the steps, right: the table of codes");
}

#[tokio::test]
async fn no_label_is_anybodys_name_and_the_number_of_series_stays() {
    let portal = Portal::watched("");
    let before: Vec<String> = portal.scrape().await.samples().map(|(name, _)| name.to_owned()).collect();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    client.get(&app.path("/some/where?token=1")).await.assert_status(200);
    client.get("/fw/some-name/").await.assert_status(404);
    let _ = client.clone().at("somewhere.example").get("/").await;
    let mut odd = client.prepare("BREW", &app.path("/"));
    odd.headers_mut().insert("x-odd", http::HeaderValue::from_static("odd"));
    client.request(odd, Bytes::new()).await.assert_status(200);
    let after: Vec<String> = portal.scrape().await.samples().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(before, after);
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    for name in [format!("\"{user}\""), "some".into(), "BREW".into(), app.port().to_string()] {
        assert!(!after.iter().any(|sample| sample.contains(&name)), "{name}");
    }
}

#[tokio::test]
async fn health_readiness_and_nothing_else() {
    let mut portal = Portal::watched("[limits]\ndrain = \"1m\"\n");
    let socket = portal.metrics_socket();
    let metadata = std::fs::symlink_metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "for its owner alone");
    for (path, said) in [("/health", "ok\n"), ("/ready", "ready\n"), ("/nodes", "[]\n")] {
        let answer = portal.watch(path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, said), "{path}");
        let head = ask_metrics(&socket, "HEAD", path).await;
        assert_eq!((head.status.as_u16(), head.text().as_str()), (200, ""), "{path}");
        let posted = ask_metrics(&socket, "POST", path).await;
        assert_eq!((posted.status.as_u16(), posted.header("allow")), (405, "GET, HEAD"), "{path}");
    }
    assert_eq!(portal.watch("/nodes").await.header("content-type"), "application/json");
    for path in ["/", "/-/health", "/metrics/", "/-/sign-in"] {
        assert_eq!(portal.watch(path).await.status, 404, "{path}");
    }

    // Draining, it is alive still, and says so, until the last tunnel has ended.
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let mut tunnel = client.websocket(&app.path("/")).await.unwrap();
    // The answer comes before the tunnel is there.
    becomes(&portal, "portreeve_tunnels_open", 1.0).await;
    portal.signal(Signal::SIGTERM);
    let refused = until("it is not ready any more", PATIENCE, || async {
        let answer = portal.watch("/ready").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((refused.status.as_u16(), refused.text().as_str()), (503, "not ready: it is draining\n"));
    assert_eq!(portal.watch("/health").await.status, 200);
    assert_is(&portal.scrape().await, &[("portreeve_ready", 0), ("portreeve_tunnels_open", 1)]);
    tunnel.close(None).await.unwrap();
    while let Some(Ok(_)) = tunnel.next().await {}
    drop(tunnel);
    assert_eq!(portal.process().wait(PATIENCE), Some(0), "{}", portal.stderr());
}

/// A scraper that is stuck, or a program that opens connections and says nothing, keeps others waiting for so long at most.
#[tokio::test]
async fn connections_to_the_metrics_socket_are_few_and_short() {
    let portal = Portal::watched("");
    let mut silent = Vec::new();
    let start = Instant::now();
    for _ in 0..16 {
        silent.push(UnixStream::connect(portal.metrics_socket()).await.unwrap());
    }
    silent[0].write_all(b"GET /metrics HT").await.unwrap();
    let mut waiting = UnixStream::connect(portal.metrics_socket()).await.unwrap();
    waiting.write_all(b"GET /health HTTP/1.1\r\nhost: metrics\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let limit = Duration::from_secs(10);
    let read = tokio::time::timeout(limit + Duration::from_secs(8), waiting.read_to_string(&mut answer));
    read.await.expect("it has its turn").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");
    assert!(
        start.elapsed() >= limit - Duration::from_secs(1),
        "all places were taken: {:?}",
        start.elapsed()
    );
    let mut rest = Vec::new();
    assert!(matches!(silent[1].read_to_end(&mut rest).await, Ok(0) | Err(_)), "the silent ones were ended");

    let mut long = UnixStream::connect(portal.metrics_socket()).await.unwrap();
    let head = format!("GET /health HTTP/1.1\r\nx-long: {}\r\n\r\n", "x".repeat(17 << 10));
    let _ = long.write_all(head.as_bytes()).await;
    let mut answer = String::new();
    let _ = long.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn the_socket_may_be_an_address_and_a_path_that_was_left_over_is_taken() {
    let options = PortalOptions { metrics: Some("127.0.0.1:0".into()), ..PortalOptions::default() };
    // Nobody can find out which port that is; but it starts.
    drop(Portal::start(options));

    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("metrics.sock");
    let with = || PortalOptions { metrics: Some(path.display().to_string()), ..PortalOptions::default() };
    // Dropped, a portal is killed.
    drop(Portal::start(with()));
    assert!(path.exists());
    let portal = Portal::start(with());
    assert_eq!(ask_metrics(&path, "GET", "/health").await.status, 200);
    let second = Portal::try_start(with()).unwrap_err();
    assert_eq!(second.status, 1);
    assert!(second.err.contains("somebody listens at"), "{second:?}");
    assert_eq!(
        ask_metrics(&path, "GET", "/health").await.status,
        200,
        "the first one's socket is still there"
    );
    drop(portal);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "something else").unwrap();
    assert_eq!(Portal::try_start(with()).unwrap_err().status, 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else", "what is no socket is left alone");
    assert_eq!(portreeve(&["up", "--metrics", "nonsense"], None).status, 2);
}
