//! A browser that takes nothing holds up nobody, and costs no memory.

use crate::world::{Browser, Process};
use serde_json::json;

#[tokio::test]
async fn much_output_and_a_browser_that_never_reads() {
    const LINES: usize = 1_500_000;
    // 75 MB, and a line at the end that shows that it is the end.
    let script = format!(
        "stty -opost -echo; echo ready; read go; \
         yes '0123456789012345678901234567890123456789012345678' | head -n {LINES}; printf 'the end'; read go"
    );
    let process = Process::of(&script).await;
    let how = || json!({"cols": 80, "rows": 24});
    let mut good = Browser::attach(process.port, &[], how()).await;
    good.until_shown("ready").await;
    // One that reads nothing from its connection, and one that reads and never says that it has shown anything.
    let unread = Browser::attach(process.port, &[], how()).await;
    let mut lazy = Browser::attach(process.port, &[], how()).await.lazy();
    let lazy = tokio::spawn(async move { lazy.until("forever", |_| false).await });
    let before = process.most_memory();
    good.type_in("\n").await;
    good.until("the end", |browser| browser.shows("the end")).await;
    assert!(good.offset >= 50 * LINES as u64);
    let after = process.most_memory();
    assert!(after < before + 40_000, "{before} kB became {after} kB");
    assert!(!lazy.is_finished());
    lazy.abort();

    // Now it reads: what has fallen out of the log it is shown as a picture.
    let mut late = unread;
    late.until_shown("the end").await;
    assert_eq!(late.offset, good.offset);
    assert!(late.seen.len() < 6_000_000);
    good.type_in("\n").await;
    good.until_exited().await;
    late.until_exited().await;
    drop((good, late));
    assert_eq!(process.code().await, 0);
}
