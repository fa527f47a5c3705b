//! What Portreeve asks of the kernel directly. The lowest crate: it knows no names, no rules and no other crate.
//! Invariant: this is the only crate in which `unsafe` may appear, and answers are the kernel's own, unjudged: what
//! could not be asked is an error, never a default.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
#[cfg(feature = "attempts")]
pub mod attempts;
pub mod cgroup;
pub mod connections;
pub mod descriptors;
pub mod host_name;
pub mod interfaces;
pub mod message;
pub mod net_namespace;
mod netfilter;
pub mod nfqueue;
pub mod peer;
pub mod privileges;
pub mod process;
pub mod quota;
pub mod raw_ip;
pub mod sandbox;
pub mod sock_diag;
pub mod socket_record;
pub mod tcp_connection;

pub use access::may_execute;
pub use cgroup::ControlGroups;
pub use connections::Connections;
pub use descriptors::{
    close_on_exec_from, inherited, is_out_of_descriptors, raise_descriptor_limit,
    with_descriptor_limit_as_before,
};
pub use host_name::host_name;
pub use interfaces::{leads_somewhere, local_addresses};
pub use net_namespace::namespace_cookie;
pub use peer::{PeerProcess, peer_uid};
pub use quota::{Quota, user_quota};
pub use raw_ip::RawIp;
pub use sandbox::Sandbox;
pub use sock_diag::SockDiag;
pub use socket_record::{Family, SocketRecord, TcpState, canonical};
pub use tcp_connection::take_connection;
