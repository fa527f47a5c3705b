//! How much load: so many connections, for so long.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::figures::{Figures, Seen};

/// On the command line.
#[derive(clap::Args)]
pub(crate) struct Effort {
    /// At once
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// For so many seconds: what has begun by then is carried to its end
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Effort {
    /// Runs so many of `connection` side by side, each of which goes on until the moment that it is told. One that fails is a
    /// problem of the whole.
    pub(crate) async fn spend(
        self,
        connection: impl AsyncFn(&RefCell<Seen>, Instant) -> anyhow::Result<()>,
    ) -> Figures {
        let seen = RefCell::new(Seen::begin());
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let all = (0..self.connections).map(|_| connection(&seen, until));
        for ended in join_all(all).await {
            if let Err(error) = ended {
                seen.borrow_mut().problem(&error);
            }
        }
        seen.into_inner().figures()
    }
}
