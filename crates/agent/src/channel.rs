//! The channel between an agent and a portal, as far as both ends have it in common: the keys and the frames.

pub mod frames;
pub mod tls;

pub use frames::{FrameError, FrameReader, queue_frame, write_queue};
pub use tls::{Identity, KeyError};
