//! What the portal counts, and the socket that says so: beside the request's life, for whoever runs the portal.
//!
//! Invariant: no label is a name, a path or a host, so the number of series is fixed; and no request writes where another
//! thread writes. Each serving thread has a block of counters of its own, which a scrape adds up.
//!
//! | file | |
//! | --- | --- |
//! | `labels.rs` | the closed sets that labels are from |
//! | `codes.rs` | the codes of refusals, which are one of them |
//! | `block.rs` | one thread's counters |
//! | `tally.rs` | how the thread writes them |
//! | `exposition.rs` | all of them as Prometheus's text format |
//! | `endpoint.rs` | the socket: `/metrics`, `/health`, `/ready`, `/nodes` |
//! | `nodes.rs` | how it stands with the nodes' agents |

mod block;
mod codes;
mod endpoint;
mod exposition;
mod labels;
mod nodes;
mod tally;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

pub use endpoint::MetricsSocket;
pub(crate) use endpoint::serve;
pub(crate) use labels::{Direction, HandshakeFailure, Kind, Turned};
pub(crate) use tally::Tally;

use block::Block;

/// Everything that is counted.
pub(crate) struct Metrics {
    blocks: Mutex<Vec<Arc<Block>>>,
    accept_failures: AtomicU64,
    most_connections: AtomicUsize,
    started: SystemTime,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            blocks: Mutex::default(),
            accept_failures: AtomicU64::new(0),
            most_connections: AtomicUsize::new(0),
            started: SystemTime::now(),
        }
    }
}

impl Metrics {
    /// Counters for one more thread.
    pub(crate) fn tally(&self) -> Tally {
        let block = Arc::new(Block::default());
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&block));
        Tally::new(block)
    }

    /// A connection could not be accepted. Not a serving thread's to count.
    pub(crate) fn accept_failed(&self) {
        self.accept_failures.fetch_add(1, Relaxed);
    }

    /// How many connections are taken at once, to the end of the process.
    pub(crate) fn takes_at_most(&self, connections: usize) {
        self.most_connections.store(connections, Relaxed);
    }

    fn blocks(&self) -> Vec<Arc<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
