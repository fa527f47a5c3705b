//! What the processes say to each other. One file for each channel; docs/adr/0014 has the picture.
//! Invariant: every channel has a closed list of verbs. An unknown verb, an unknown field, or anything after the value is an
//! error, which ends the channel.

pub mod agent;
pub mod broker;
pub mod control;
pub mod dialer;
pub mod firewall;
mod frame;
pub mod ident2;
pub mod pam;
pub mod spawner;
pub mod worker;

pub use control::{ControlReply, ControlRequest, SessionRow, TokenRow};
pub use frame::{MAX_FRAME, WireError, decode, encode, encode_bare, frame_length};
