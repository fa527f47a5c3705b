//! What the end-to-end tests are made of. `world` starts the real program and plays browsers and applications around
//! it; `wire` speaks HTTP byte by byte where a well-behaved library would not.

pub mod fuzz;
pub mod hostile;
pub mod wire;
pub mod world;
