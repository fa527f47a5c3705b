//! Browsers that say what no page would.

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Browser, Server};

#[tokio::test]
async fn what_makes_no_sense_ends_the_conversation() {
    let server = Server::of("echo ready; cat");
    for bad in [
        json!({"type": "shell"}).to_string(),
        json!({"type": "ack", "bytes": -1}).to_string(),
        json!({"type": "ack", "bytes": 1_000_000}).to_string(),
        json!({"type": "ack", "bytes": "7"}).to_string(),
        json!({"type": "attach", "cols": 80, "rows": 24}).to_string(),
        json!({"type": "resize", "cols": 1e300, "rows": 24}).to_string(),
        "[".repeat(10_000),
        "no JSON".to_owned(),
        String::new(),
    ] {
        let mut browser = server.browser().await;
        browser.until_shown("ready").await;
        browser.socket.send(Message::text(bad.clone())).await.unwrap();
        let (code, reason) = browser.until_closed().await;
        assert_eq!(code, 1008, "{bad}");
        assert!(!reason.is_empty() && browser.last("error").is_some());
    }
    for bad in [Message::text("x".repeat(1_000_000)), Message::binary(vec![b'x'; 1_000_000])] {
        let mut browser = server.browser().await;
        browser.until_shown("ready").await;
        let _ = browser.socket.send(bad).await;
        // The rest of the message is not taken: the connection may be gone before the goodbye is read.
        while browser.closed.is_none() && browser.socket.send(Message::Ping("".into())).await.is_ok() {
            browser.until("an end", |_| true).await;
        }
    }
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
}

#[tokio::test]
async fn the_first_message_is_attach() {
    let server = Server::of("echo ready; cat");
    for bad in [
        Message::text(json!({"type": "take"}).to_string()),
        Message::text(json!({"type": "attach", "offset": -1, "cols": 80, "rows": 24}).to_string()),
        Message::text(
            json!({"type": "attach", "client": "x".repeat(100), "cols": 80, "rows": 24}).to_string(),
        ),
        Message::binary("typed"),
    ] {
        let mut browser = Browser::connect(server.port, &[]).await.unwrap();
        browser.socket.send(bad).await.unwrap();
        assert_eq!(browser.until_closed().await.0, 1008);
    }
}

#[tokio::test]
async fn no_size_is_too_strange() {
    let server = Server::of("stty -echo; echo ready; while read line; do stty size; done");
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
    for (asked, is) in [((1_000_000_000_000_i64, 70_000), "500 1000"), ((-3, 0), "1 2"), ((80, 24), "24 80")]
    {
        browser.say(json!({"type": "resize", "cols": asked.0, "rows": asked.1})).await;
        let (rows, cols) = is.split_once(' ').unwrap();
        let size = json!({"type": "size", "cols": cols.parse::<u16>().unwrap(), "rows": rows.parse::<u16>().unwrap()});
        // What is typed may overtake it.
        browser.until(is, |browser| browser.last("size") == Some(&size)).await;
        browser.type_in("\n").await;
        browser.until(is, |browser| String::from_utf8_lossy(&browser.seen).contains(is)).await;
    }
}

#[tokio::test]
async fn only_so_many_look() {
    let server = Server::of("echo ready; cat");
    let mut all = Vec::new();
    for _ in 0..32 {
        let mut browser = server.browser().await;
        browser.until_shown("ready").await;
        all.push(browser);
    }
    assert_eq!(server.browser().await.until_closed().await.0, 1013);
    all.pop();
    // Its place is free once the server has seen it go.
    let mut browser = server.browser().await;
    while browser.socket.send(Message::Ping("".into())).await.is_ok() && !browser.shows("ready") {
        browser.until("heard", |browser| browser.shows("ready") || browser.last("error").is_some()).await;
        if browser.last("error").is_some() {
            browser = server.browser().await;
        }
    }
    assert!(browser.shows("ready"));
}
