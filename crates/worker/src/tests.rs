mod world;

mod life;
mod requests;
