//! `portreeve-agent ident2`, the program, asked byte by byte: on one machine, and between two that are network namespaces.

// In a test, a panic is the report.
#![allow(clippy::unwrap_used)]

mod alone;
mod between;
mod bursts;
mod world;
