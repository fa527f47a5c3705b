//! What Portreeve asks of the kernel directly. The lowest crate: it knows no names, no rules and no other crate.
//! Invariant: this is the only crate in which `unsafe` may appear, and answers are the kernel's own, unjudged: what
//! could not be asked is an error, never a default.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cgroup;
pub mod descriptors;
pub mod host_name;
pub mod interfaces;
pub mod peer;
pub mod sock_diag;
pub mod socket_record;

pub use cgroup::ControlGroups;
pub use descriptors::{is_out_of_descriptors, raise_descriptor_limit};
pub use host_name::host_name;
pub use interfaces::{leads_somewhere, local_addresses};
pub use peer::peer_uid;
pub use sock_diag::SockDiag;
pub use socket_record::{Family, SocketRecord, TcpState, canonical};
