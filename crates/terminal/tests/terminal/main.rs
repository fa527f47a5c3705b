//! The server with real programs on real pseudoterminals, and browsers that the tests play.

// In a test, a panic is the report; here everything is one.
#![allow(clippy::unwrap_used)]

mod access;
mod files;
mod hostile;
mod life;
mod log;
mod slow;
mod typing;
mod viewers;
mod world;
