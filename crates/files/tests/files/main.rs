//! What a browser may reach through a root, on real directories.

// In a test, a panic is the report.
#![allow(clippy::unwrap_used)]

mod copying;
mod kernel;
mod links;
mod listing;
mod reading;
mod removing;
mod room;
mod settings;
mod special;
mod tree;
