//! The world around the portal: the program itself, a browser or program that asks, and applications that answer.
//!
//! Invariants: whatever is started here ends with its value, or with the test process at the latest; whatever waits
//! has a deadline; nothing outside the loopback is spoken to.

mod app;
pub mod chain;
mod client;
mod cluster;
pub mod etc;
pub mod faults;
mod foreign;
pub mod guide;
pub mod hostile;
mod link;
mod metrics;
mod people;
mod played;
mod portal;
mod process;
mod share;
pub mod site;
pub mod spawner;
pub mod testbed;
mod tls;
pub mod traffic;
pub mod units;

use std::time::{Duration, Instant};

pub use app::{App, Body, Counted, Counts, Reply, Seen, full, streaming, text};
pub use client::{Answer, Client, SESSION_COOKIE, Tunnel, WebSocket, enter};
pub use cluster::{Agent, Lan, Node, NodeApp, Portal as AgentsEnd, Rights, at, connect, in_a_network};
pub use foreign::ForeignApp;
pub use link::{Link, SendBody};
pub use metrics::{Scrape, ask as ask_metrics};
pub use people::{Person, Skip, gid, may_mount, people, skip};
pub use played::PlayedPortal;
pub use portal::{Portal, PortalOptions};
pub use process::{Finished, Running, built_if_possible, portreeve, portreeve_at, system};
pub use share::{SharedForwards, write_forward};
pub use tls::{Secure, client_config, server_config};

/// How long anything is waited for that should happen at once; generous, since a test machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives something.
///
/// # Panics
/// When it does not within `patience`; `what` says what was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
