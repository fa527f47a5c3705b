//! Everything that needs a person's authority, so that the process which faces the network needs none.
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`Broker`] | the questions the portal may ask |
//! | [`account`] | who is this, and in which groups |
//! | [`codes`] | single-use codes: an address that signs somebody in, once |
//! | [`tickets`] | signs what a session's cookie carries |
//! | [`verifier`] | verifies it, with public keys only: for the portal, the broker and every worker |
//! | [`revocations`] | sessions that ended before their tickets did; survives a restart |
//! | [`forwards`] | reads a forward file for a person who may use it |
//! | [`forward_edit`] | makes, changes, disables and shares one's own forward files |
//! | [`dial`] | opens a connection as that person |
//! | [`config`] | on a cluster: what the configuration file says to the broker |
//! | [`service`] | all of that for many users, as a process of its own on a cluster |
//! | [`spawner`] | on a cluster: root's process, which forks all others |
//! | [`dialer`] | on a cluster: the process that connects as a user |
//! | [`private_file`] | files of the state directory: private, and never half-written |
//!
//! Invariant: nothing here parses HTTP or speaks TLS. A test of the dependency tree holds that.

pub mod account;
mod authority;
pub mod codes;
pub mod config;
pub mod dial;
pub mod dialer;
pub mod forward_edit;
pub mod forwards;
pub mod private_file;
pub mod revocations;
pub mod service;
pub mod spawner;
pub mod tickets;
pub mod verifier;

pub use account::Account;
pub use authority::{Broker, BrokerError, Lifetimes};
pub use codes::{CodeError, Codes, Purpose};
pub use forwards::{ForwardRead, Forwards, ReadError};
pub use revocations::{RevocationError, Revocations};
pub use tickets::TicketKey;
pub use verifier::Verifier;
