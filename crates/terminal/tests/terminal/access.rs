//! Who is let in, and who is not.

use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;

use crate::world::{Browser, Server, TOKEN, asked, request};

/// The whole answer to a request without a body.
async fn get(port: u16, path: &str, fields: &str) -> String {
    asked(port, &format!("GET {path} HTTP/1.1\r\nhost: c1:9\r\n{fields}connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn the_link_lets_in_by_a_cookie() {
    let server = Server::of("cat");
    let cookie = format!("portreeve-terminal-{}={TOKEN}", server.port);
    let answer = get(server.port, &format!("/?token={TOKEN}"), "").await;
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    assert!(answer.contains("\r\nlocation: ./\r\n"), "{answer}");
    assert!(
        answer.contains(&format!("\r\nset-cookie: {cookie}; HttpOnly; SameSite=Strict; Path=/\r\n")),
        "{answer}"
    );
    let by_tls = get(server.port, &format!("/?token={TOKEN}"), "x-forwarded-proto: https\r\n").await;
    assert!(by_tls.contains(&format!("{cookie}; HttpOnly; SameSite=Strict; Path=/; Secure\r\n")), "{by_tls}");

    for fields in [format!("cookie: {cookie}\r\n"), format!("authorization: Bearer {TOKEN}\r\n")] {
        let page = get(server.port, "/", &fields).await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(page.contains("<title>a test"), "{page}");
        assert!(
            page.contains("cache-control: no-store\r\n") && page.contains("frame-ancestors 'self'"),
            "{page}"
        );
        assert!(
            page.contains("x-content-type-options: nosniff\r\n")
                && page.contains("referrer-policy: no-referrer\r\n")
        );
        assert!(!page.contains(TOKEN));
        let mut files = 0;
        for address in page.split('"').filter(|word| word.starts_with("assets/")) {
            let file = get(server.port, &format!("/{address}"), &fields).await;
            assert!(file.starts_with("HTTP/1.1 200 ") && file.contains("immutable"), "{address}");
            files += 1;
        }
        assert!(files >= 8);
        assert!(
            !page.contains("src=\"/")
                && !page.contains("href=\"/")
                && !page.contains("src=\"http")
                && !page.contains("href=\"http"),
            "{page}"
        );
    }
    server.stop.stop();
    server.ended().await;
}

#[tokio::test]
async fn without_the_token_nobody_learns_anything() {
    let server = Server::of("cat");
    let other = format!("cookie: portreeve-terminal-{}={}\r\n", server.port, "x".repeat(TOKEN.len()));
    for path in ["/", "/ws", "/assets/terminal.js", "/nothing", "/?token=", "/?token=0123456789abcdef"] {
        for fields in ["", other.as_str(), "authorization: Bearer x\r\n"] {
            let answer = get(server.port, path, fields).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path} {fields}: {answer}");
            assert!(answer.contains("from your workspace") && !answer.contains("set-cookie"), "{answer}");
        }
    }
    let known = format!("authorization: token {TOKEN}\r\n");
    for (request, status) in [
        (
            format!("POST / HTTP/1.1\r\nhost: c1\r\n{known}content-length: 0\r\nconnection: close\r\n\r\n"),
            405,
        ),
        (
            format!(
                "POST /?token={TOKEN} HTTP/1.1\r\nhost: c1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ),
            403,
        ),
        (format!("GET /nothing HTTP/1.1\r\nhost: c1\r\n{known}connection: close\r\n\r\n"), 404),
        (format!("GET /assets/../terminal.js HTTP/1.1\r\nhost: c1\r\n{known}connection: close\r\n\r\n"), 404),
        (format!("GET /ws HTTP/1.1\r\nhost: c1\r\n{known}connection: close\r\n\r\n"), 426),
    ] {
        let answer = asked(server.port, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    server.stop.stop();
    server.ended().await;
}

#[tokio::test]
async fn only_our_own_page_opens_the_web_socket() {
    let server = Server::of("cat");
    let port = server.port;
    let refused = |result: Result<_, Error>| match result {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        Err(other) => panic!("{other}"),
        Ok(()) => panic!("let in"),
    };
    for fields in [
        [("origin", "http://evil.example"), ("x-a", "")],
        [("origin", "null"), ("x-a", "")],
        [("origin", "http://127.0.0.1:1"), ("x-a", "")],
        [("x-forwarded-host", "portal.example"), ("x-a", "")],
        [("cookie", "portreeve-terminal-1=0123456789abcdef0123456789abcdef"), ("x-a", "")],
        [("cookie", "x=y"), ("authorization", "token x")],
    ] {
        refused(Browser::connect(port, &fields).await.map(drop));
    }
    let cookie = format!("portreeve-terminal-{port}={TOKEN}");
    refused(connect_async(request(port, &[("cookie", &cookie)])).await.map(drop));
    let authorization = format!("token {TOKEN}");
    assert!(connect_async(request(port, &[("authorization", &authorization)])).await.is_ok());
    let behind = [("x-forwarded-host", "Portal.example:8443"), ("origin", "https://portal.example:8443")];
    assert!(Browser::connect(port, &behind).await.is_ok());
    server.stop.stop();
    server.ended().await;
}
