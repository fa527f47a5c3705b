//! The workspace: what a signed-in person sees. Runs under that person's uid, so that the kernel decides what it can
//! show. In `portreeve up` it is a thread ([`Local`]); on a cluster the program `portreeve-worker` serves the portal.
//!
//! | file | what it does |
//! | --- | --- |
//! | `process` | the program's life: the control channel, connections, leaving |
//! | `control` | what the broker says |
//! | `connection` | HTTP/1.1 on one connection of the portal's |
//! | `ticket` | whose request this is |
//! | `local` | the same on a thread of `portreeve up` |
//! | `desk` | what all requests share |
//! | `visit` | who reads the answer, and whether it may change something |
//! | `routes` | which request goes where; a file below it for each group of addresses |
//! | `body` | a request's body, bounded |
//! | `respond` | answers, and which refusal has which status |
//! | `workspace` | the first page |
//! | `jobs` | what can be started, what is going on, and what was |
//! | `said` | the shapes of what is said of jobs, for pages and programs |
//!
//! Invariant: what it says is for its own person's eyes. Nobody decides anything by it: owners, groups and forwards'
//! contents are asked for elsewhere.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod connection;
mod control;
mod desk;
mod jobs;
mod limits;
pub mod local;
pub mod process;
mod respond;
mod routes;
mod said;
mod stall;
mod ticket;
mod visit;
mod workspace;

#[cfg(test)]
mod tests;

/// A door to the page of what listens, for the fuzz target only.
#[doc(hidden)]
pub mod fuzz {
    use portreeve_model::wire::worker::{Nodes, Visit};

    /// The part of the first page that shows what listens on nodes, for a person without forwards; `None` without nodes.
    #[must_use]
    pub fn page(visit: &Visit, nodes: &Nodes) -> Option<String> {
        crate::workspace::page_of_nodes(visit, nodes)
    }
}

pub use limits::CONNECTIONS;
pub use local::Local;
/// Whether a path is one of WebDAV's.
pub use portreeve_dav::is_address as is_dav;
pub use portreeve_jobs::Person;
pub use workspace::here::Look;
