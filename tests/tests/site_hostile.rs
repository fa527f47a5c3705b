//! Somebody has taken the portal over: has its uid, its descriptors, its line with the broker, and runs code of their own
//! (`portreeve-test-hostile`), started by systemd with the very unit that is shipped. What they can not do, and what they can.
//!
//! | module | |
//! | --- | --- |
//! | `confined` | files, processes, the machine, code; first with what the unit alone holds, then locked up as the portal is |
//! | `connections` | a connection of their own |
//! | `tickets` | a ticket of their own, or a longer one |
//! | `people` | what a live ticket gives, to whom, and for how long |
//! | `line` | everything else that can be said to the broker |
//!
//! Nothing here signs an assertion for an application, because nobody does yet: a portal has no verb for it. Its verbs are a
//! closed list (`architecture.rs`, which wants each one's power in docs/threat-model.md).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "site_hostile/confined.rs"]
mod confined;
#[path = "site_hostile/connections.rs"]
mod connections;
#[path = "site_hostile/line.rs"]
mod line;
#[path = "site_hostile/people.rs"]
mod people;
#[path = "site_hostile/tickets.rs"]
mod tickets;
