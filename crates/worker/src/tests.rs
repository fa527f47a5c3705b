mod world;

mod access_lists;
mod life;
mod locked;
mod requests;
mod scarcity;
