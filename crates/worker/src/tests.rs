mod world;

mod life;
mod requests;
mod scarcity;
