//! The workspace: what a signed-in person sees. Runs under that person's uid, so that the kernel decides what it can
//! show. In `portreeve up` [`Worker`] is called; on a cluster the program `portreeve-worker` serves the portal.
//!
//! | file | what it does |
//! | --- | --- |
//! | `process` | the program's life: the control channel, connections, leaving |
//! | `control` | what the broker says |
//! | `connection` | HTTP/1.1 on one connection of the portal's |
//! | `ticket` | whose request this is |
//! | `routes` | which request goes where; a file below it for each |
//! | `body` | a request's body in JSON, bounded |
//! | `respond` | answers, and which refusal has which status |
//! | `workspace` | the first page |
//!
//! Invariant: what it says is for its own person's eyes. Nobody decides anything by it: owners, groups and forwards'
//! contents are asked for elsewhere.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod connection;
mod control;
mod limits;
pub mod process;
mod respond;
mod routes;
mod stall;
mod ticket;
mod workspace;

#[cfg(test)]
mod tests;

/// A door to the page of a view, for the fuzz target only.
#[doc(hidden)]
pub mod fuzz {
    /// The page of a view with nodes, for a person without forwards.
    #[must_use]
    pub fn page(view: &crate::View) -> Option<String> {
        let forwards = portreeve_broker::Forwards::in_dir("/nonexistent".into());
        crate::workspace::page_of_nodes(view, 20001, view.nodes.as_ref()?, &forwards, Ok(Vec::new())).ok()
    }
}

pub use portreeve_model::wire::worker::View;
pub use workspace::{Look, Worker, WorkspaceError};
