//! What the suites about HTTP itself are made of. Both ends are under the test's control to the byte: applications
//! that note what reached them, clients that can send what no library would.
//!
//! | file | what |
//! | --- | --- |
//! | `rig.rs` | a portal, a signed-in visitor, and the application between which everything happens |
//! | `application.rs` | the application |
//! | `visitor.rs` | a visitor of either version, for what holds for both |
//! | `stream.rs` | HTTP/1.1 messages over any stream, on either end |
//! | `http2.rs` | an HTTP/2 client by the library |
//! | `frames.rs` | an HTTP/2 client by hand |
//! | `websocket.rs` | WebSocket handshakes and frames |

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends there, and its trace says where")]

pub mod application;
pub mod frames;
pub mod http2;
pub mod rig;
pub mod stream;
pub mod visitor;
pub mod websocket;

use std::time::Duration;

/// How long anything may take that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits for what should happen at once.
///
/// # Panics
/// When it does not.
pub async fn soon<T>(what: &str, doing: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, doing).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within `limit`.
pub async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
