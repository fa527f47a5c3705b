//! In `portreeve up`: the one machine that there is.

use std::io;

use portreeve_model::wire::agent::Row;

/// What a uid has listening on this machine. Blocks.
pub type Look = fn(uid: u32) -> io::Result<Vec<Row>>;

/// It.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) look: Look,
}
