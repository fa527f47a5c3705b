//! Says who owns the server's end of a TCP connection on this node, by the kernel's own records. Before: the portal
//! has connected. After: the judgement in `portreeve-model`.
//! Invariant: an owner is named only where the records leave no doubt; whatever is missing, ambiguous or late is an
//! `Unowned` or an `Unknown`, which grants nothing. Nothing that a user's own process says is believed.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod holders;
pub mod listening;
pub mod lookup;
mod processes;

pub use listening::{Listening, listening};
pub use lookup::Lookup;
