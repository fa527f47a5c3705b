//! The broker as its neighbours see it: a spawner, portals and callers of the test's own, on real sockets.

mod codes;
mod ends;
mod frames;
mod ident2;
mod people;
mod sign_in;
mod spawner;
mod token_scopes;
mod tokens;
mod world;
