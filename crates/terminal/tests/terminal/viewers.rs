//! Several browsers: all see the same, one types.

use serde_json::json;

use crate::world::{Browser, Server, settings};

const ECHO: &str = "stty -echo; echo ready; while read word; do echo \"<$word>\"; stty size; done";

#[tokio::test]
async fn one_types_until_another_takes_over() {
    let server = Server::of(ECHO);
    let mut first = server.browser().await;
    first.until("the writer", Browser::types).await;
    let mut second = Browser::attach(server.port, &[], json!({"cols": 100, "rows": 30})).await;
    second.until_shown("ready").await;
    let told = second.last("writer").unwrap();
    assert_eq!(*told, json!({"type": "writer", "you": false, "may": true, "other": true}));
    assert_eq!(second.screen.screen().size(), (24, 80));

    second.type_in("nobody hears this\n").await;
    second.say(json!({"type": "resize", "cols": 120, "rows": 40})).await;
    first.type_in("first\n").await;
    for browser in [&mut first, &mut second] {
        browser.until_shown("<first>\n24 80").await;
        assert!(!browser.shows("nobody"));
    }

    second.say(json!({"type": "take"})).await;
    second.until("the writer", Browser::types).await;
    first.until("no more the writer", |browser| !browser.types()).await;
    second.type_in("second\n").await;
    first.type_in("too late\n").await;
    for browser in [&mut first, &mut second] {
        browser.until_shown("<second>\n40 120").await;
        assert_eq!(browser.screen.screen().size(), (40, 120));
        assert!(!browser.shows("late"));
    }
}

#[tokio::test]
async fn when_the_writer_has_left_whoever_types_is_it() {
    let server = Server::of(ECHO);
    let mut first = server.browser().await;
    first.until("the writer", Browser::types).await;
    let mut second = server.browser().await;
    second.until("told", |browser| browser.last("writer").is_some()).await;
    drop(first);
    second.until("alone", |browser| browser.last("writer").unwrap()["other"] == false).await;
    assert!(!second.types());
    second.type_in("mine\n").await;
    second.until_shown("<mine>").await;
    assert!(second.types());
}

#[tokio::test]
async fn whoever_comes_again_types_again() {
    let server = Server::of(ECHO);
    let how = |client: &str| json!({"client": client, "cols": 80, "rows": 24});
    let mut dead = Browser::attach(server.port, &[], how("a")).await;
    dead.until("the writer", Browser::types).await;
    let mut other = Browser::attach(server.port, &[], how("b")).await;
    other.until("told", |browser| browser.last("writer").is_some()).await;
    assert!(!other.types());
    // The first connection is still open, as one is whose network has gone.
    let mut again = Browser::attach(server.port, &[], how("a")).await;
    again.until("the writer", Browser::types).await;
}

#[tokio::test]
async fn somebody_else_only_looks() {
    let server = Server::of(ECHO);
    let mut guest = server.browser_of("bob").await;
    guest.until_shown("ready").await;
    assert_eq!(guest.last("writer").unwrap()["may"], false);
    guest.say(json!({"type": "take"})).await;
    guest.type_in("from bob\n").await;
    guest.say(json!({"type": "resize", "cols": 99, "rows": 9})).await;

    let mut owner = server.browser_of("alice").await;
    owner.until("the writer", Browser::types).await;
    owner.type_in("from alice\n").await;
    for browser in [&mut owner, &mut guest] {
        browser.until_shown("<from alice>\n24 80").await;
        assert!(!browser.shows("bob"));
    }
    assert!(!guest.types());
}

#[tokio::test]
async fn somebody_else_types_if_they_may() {
    let mut settings = settings(ECHO);
    settings.others_may_type = true;
    let server = Server::with(settings);
    let mut guest = server.browser_of("bob").await;
    guest.until("the writer", Browser::types).await;
    guest.type_in("from bob\n").await;
    guest.until_shown("<from bob>").await;
}
