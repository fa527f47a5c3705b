//! What is typed reaches the program, whole.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;

use crate::world::{Server, settings};

#[tokio::test]
async fn a_key_comes_back() {
    let server = Server::of("stty -echo; echo ready; read word; echo \"<$word>\"");
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
    browser.type_in("hällo 😀\n").await;
    browser.until_shown("<hällo 😀>").await;
    browser.until_exited().await;
    assert_eq!(browser.last("exited").unwrap()["code"], 0);
    drop(browser);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_character_may_come_in_two_messages() {
    let server = Server::of("stty -echo; echo ready; read word; echo \"<$word>\"");
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
    let text = "ä😀\n".as_bytes();
    for byte in text {
        browser.type_in([*byte]).await;
    }
    browser.until_shown("<ä😀>").await;
}

#[tokio::test]
async fn the_program_sees_the_writers_size() {
    let server = Server::of("while read line; do stty size; done");
    let mut browser = server.browser().await;
    browser.type_in("\n").await;
    browser.until_shown("24 80").await;
    browser.say(json!({"type": "resize", "cols": 132, "rows": 50})).await;
    browser.until("the size", |browser| browser.screen.screen().size() == (50, 132)).await;
    browser.type_in("\n").await;
    browser.until_shown("50 132").await;
    browser.type_in("\u{4}").await;
    browser.until_exited().await;
}

#[tokio::test]
async fn the_program_has_a_terminals_environment() {
    let mut settings = settings("echo $TERM,$COLORTERM,$ADDED,$HOME; pwd; tty");
    settings.environment.push(("ADDED".into(), "yes".into()));
    settings.directory = Some("/".into());
    let server = Server::with(settings);
    let mut browser = server.browser().await;
    browser.until_exited().await;
    let home = std::env::var("HOME").unwrap_or_default();
    assert!(
        browser.shows(&format!("xterm-256color,truecolor,yes,{home}\n/\n/dev/pts/")),
        "{:?}",
        browser.seen
    );
}

#[tokio::test]
async fn a_large_paste_loses_nothing() {
    const SIZE: usize = 5_000_000;
    let server = Server::of(&format!("stty raw -echo; echo ready; head -c {SIZE} | sha256sum; stty sane"));
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
    let pasted: Vec<u8> = (0..SIZE).map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap()).collect();
    for piece in pasted.chunks(32 * 1024) {
        browser.type_in(piece).await;
    }
    let hash = data_encoding::HEXLOWER.encode(digest(&SHA256, &pasted).as_ref());
    browser.until_shown(&hash).await;
}

#[tokio::test]
async fn a_program_that_reads_nothing_blocks_nobody() {
    let server = Server::of("stty raw -echo; echo ready; exec sleep 1000");
    let mut browser = server.browser().await;
    browser.until_shown("ready").await;
    let pasting = tokio::spawn(async move {
        // More than waits anywhere: this does not end.
        for _ in 0..10_000 {
            browser.type_in([b'x'; 32 * 1024]).await;
        }
    });
    let mut other = server.browser().await;
    other.until_shown("ready").await;
    assert!(!pasting.is_finished());
    pasting.abort();
    server.stop.stop();
    other.until_exited().await;
    assert_eq!(other.last("exited").unwrap()["signal"], 1);
}
