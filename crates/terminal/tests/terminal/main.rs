//! The server with real programs on real pseudoterminals, and browsers that the tests play.

mod access;
mod hostile;
mod life;
mod log;
mod slow;
mod typing;
mod viewers;
mod world;
