//! The vocabulary of Portreeve: names, configuration, the forward file's grammar, the judgement, wire messages.
//! Every other crate stands on this one. Invariant: nothing here does input or output, reads a clock, or is async;
//! whatever has one of these types has been checked.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent_config;
pub mod agent_key;
pub mod claims;
pub mod config;
pub mod decision;
pub mod firewall;
pub mod firewall_config;
pub mod forward_file;
pub mod host;
pub mod ident2_config;
pub mod manifest;
pub mod names;
pub mod network;
pub mod nodes;
pub mod owner;
pub mod records;
pub mod scopes;
pub mod secret;
pub mod wire;

pub use agent_config::AgentConfig;
pub use agent_key::{AgentKey, KeyFile};
pub use claims::{ApplicationHost, Audience, Claims, SignIn, TICKET_TYP};
pub use config::{Config, GroupRef, LimitsConfig, Problem, SessionConfig};
pub use decision::{
    Decision, ForwardStat, GroupRules, Login, LoginGroup, Refusal, Visitor, Why, direct_needs_group,
    forward_needs_group, judge_direct, judge_forward, skips_owner,
};
pub use firewall::{Connector, Exempt, LetThrough, Refused, judge_connection};
pub use firewall_config::{FirewallConfig, UserRef};
pub use forward_file::{
    CertificatePin, Credentials, ForwardFile, ForwardFileError, ForwardTarget, PathMode, Scheme,
};
pub use host::{AppHost, HostForm, HostRules, split_host_port};
pub use ident2_config::Ident2Config;
pub use manifest::{AppName, Manifest, ManifestFile};
pub use names::{ForwardName, NameError, NodeName, NodePort, Port, SessionId, TokenName, UserName};
pub use network::Network;
pub use nodes::{Node, NodeMap, Speaker};
pub use owner::{ListenerId, Owner, OwnerGroups, Tuple, UnknownGroup, Unowned};
pub use records::{Due, RECORDS_SUMMED, Records};
pub use scopes::{Scope, Scopes, ScopesError, TOKEN_PREFIX};
pub use secret::Secret;
pub use wire::{ControlReply, ControlRequest, WireError};
