//! WebDAV over real directories, without a network: what a request is answered with, and what is there afterwards.

// In a test, a panic is the report.
#![allow(clippy::unwrap_used)]

mod changes;
mod files;
mod locking;
mod properties;
mod world;
