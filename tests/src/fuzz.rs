//! What is asserted of every parser of foreign bytes: one function a target. The fuzz targets in `fuzz/` call these
//! with bytes that libFuzzer makes, `tests/corpora.rs` with the committed ones.
//! Invariant: a function returns for any bytes whatever, or it has found a bug.
//!
//! This file and its folder are compiled twice, here and in the fuzz crate: no `crate::` paths to elsewhere.

#[path = "fuzz/agents.rs"]
mod agents;
#[path = "fuzz/channels.rs"]
mod channels;
#[path = "fuzz/config.rs"]
mod config;
#[path = "fuzz/firewall.rs"]
mod firewall;
#[path = "fuzz/forward_file.rs"]
mod forward_file;
#[path = "fuzz/headers.rs"]
mod headers;
#[path = "fuzz/ident2.rs"]
mod ident2;
#[path = "fuzz/kernel.rs"]
mod kernel;
#[path = "fuzz/messages.rs"]
mod messages;
#[path = "fuzz/names.rs"]
mod names;
#[path = "fuzz/paths.rs"]
mod paths;
#[path = "fuzz/proxied.rs"]
mod proxied;
#[path = "fuzz/referee.rs"]
mod referee;
#[path = "fuzz/rewriting.rs"]
mod rewriting;
#[path = "fuzz/webdav.rs"]
mod webdav;
#[path = "fuzz/workspace.rs"]
mod workspace;

pub use agents::node_map;
pub use channels::{agent_messages, broker_messages, dialer_messages, pam_messages, spawner_messages};
pub use config::config;
pub use firewall::{firewall_messages, firewall_packets};
pub use forward_file::forward_file;
pub use headers::{request_headers, response_headers};
pub use ident2::ident2_messages;
pub use kernel::{proc_status, sock_diag};
pub use messages::{claims, control_frame, ticket};
pub use names::{host, names};
pub use paths::{next, request_site};
pub use proxied::proxy_header;
pub use rewriting::rewriting;
pub use webdav::webdav;
pub use workspace::worker_messages;

/// A target's body.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder below `fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("agent_messages", agent_messages),
    ("broker_messages", broker_messages),
    ("claims", claims),
    ("config", config),
    ("control_frame", control_frame),
    ("dialer_messages", dialer_messages),
    ("firewall_messages", firewall_messages),
    ("firewall_packets", firewall_packets),
    ("forward_file", forward_file),
    ("host", host),
    ("ident2_messages", ident2_messages),
    ("names", names),
    ("next", next),
    ("node_map", node_map),
    ("pam_messages", pam_messages),
    ("proc_status", proc_status),
    ("proxy_header", proxy_header),
    ("request_headers", request_headers),
    ("request_site", request_site),
    ("response_headers", response_headers),
    ("rewriting", rewriting),
    ("sock_diag", sock_diag),
    ("spawner_messages", spawner_messages),
    ("ticket", ticket),
    ("webdav", webdav),
    ("worker_messages", worker_messages),
];
