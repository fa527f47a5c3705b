mod world;

mod life;
mod locked;
mod requests;
mod scarcity;
