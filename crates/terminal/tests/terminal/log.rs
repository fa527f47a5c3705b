//! What a browser sees that comes late, or again.

use serde_json::json;

use crate::world::{Browser, Server};

#[tokio::test]
async fn one_that_comes_again_gets_what_it_missed() {
    let server = Server::of("stty -echo; echo ready; while read word; do echo \"<$word>\"; done");
    let mut first = server.browser().await;
    first.until_shown("ready").await;
    first.type_in("one\n").await;
    first.until_shown("<one>").await;
    let (run, offset) = (first.run.clone(), first.offset);
    drop(first);

    let mut between = server.browser().await;
    between.type_in("two\n").await;
    between.until_shown("<two>").await;
    assert!(between.shows("<one>"));

    let mut again =
        Browser::attach(server.port, &[], json!({"run": run, "offset": offset, "cols": 80, "rows": 24}))
            .await;
    again.offset = offset;
    again.until("the rest", |browser| browser.seen.ends_with(b">\r\n")).await;
    assert_eq!(String::from_utf8_lossy(&again.seen), "<two>\r\n");
    assert!(again.last("snapshot").is_none());
}

#[tokio::test]
async fn another_run_or_an_offset_from_nowhere_begins_anew() {
    let server = Server::of("echo ready; cat");
    let mut first = server.browser().await;
    first.until_shown("ready").await;
    let run = first.run.clone();
    for how in [
        json!({"run": "another", "offset": 3, "cols": 80, "rows": 24}),
        json!({"run": run, "offset": 1_000_000, "cols": 80, "rows": 24}),
        json!({"run": run, "offset": u64::MAX, "cols": 80, "rows": 24}),
        json!({"cols": 80, "rows": 24}),
    ] {
        let mut again = Browser::attach(server.port, &[], how).await;
        again.until_shown("ready").await;
        assert_eq!(again.last("snapshot").unwrap()["offset"], 0);
    }
}

#[tokio::test]
async fn after_the_log_has_run_over_a_picture_shows_the_rest() {
    // A full-screen program over a shell's lines; 12 MB of it, and at the end back to what was below.
    let script = r#"
        printf 'below ä\n\033[31mred\033[0m'
        printf '\033[?1049h\033[H\033[2J\033[44mframe\033[0m\033[24;1Hbottom \342\202\254'
        i=0
        while [ $i -lt 4 ]; do
            head -c 3000000 /dev/zero | tr '\0' '\007'
            printf '\033[%d;3Hstep %d' $((i + 5)) $i
            i=$((i + 1))
        done
        printf ' ready'; read go
        printf '\033[?1049l after'
        read go
    "#;
    let server = Server::of(script);
    let mut whole = server.browser().await;
    whole.until_shown("step 3 ready").await;
    assert!(
        whole.last("snapshot").unwrap()["offset"] == 0
            && whole.said.iter().filter(|m| m["type"] == "snapshot").count() == 1
    );

    let mut late = server.browser().await;
    late.until_shown("step 3 ready").await;
    late.until("all of it", |late| late.offset == whole.offset).await;
    assert!(late.last("snapshot").unwrap()["offset"].as_u64().unwrap() > 7_000_000);
    assert!(late.shows("frame") && late.shows("bottom €"));
    assert_eq!(late.screen.screen().state_formatted(), whole.screen.screen().state_formatted());

    whole.type_in("\n").await;
    for browser in [&mut whole, &mut late] {
        browser.until_shown("after").await;
        assert!(browser.shows("below ä") && browser.shows("red") && !browser.shows("frame"));
    }
    assert_eq!(late.screen.screen().state_formatted(), whole.screen.screen().state_formatted());
}
