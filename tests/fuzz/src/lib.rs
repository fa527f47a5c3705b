//! The targets' bodies, built for libFuzzer. They stand with the tests, which replay the committed inputs.

#[path = "../../src/fuzz.rs"]
mod fuzz;

pub use fuzz::*;
