//! The workspace: what a signed-in person sees. Runs under that person's uid, so that the kernel decides what it can
//! show.
//!
//! Invariant: what it says is for its own person's eyes. Nobody decides anything by it: owners, groups and forwards'
//! contents are asked for elsewhere.

mod workspace;

pub use portreeve_model::wire::worker::View;
pub use workspace::{Worker, WorkspaceError};
