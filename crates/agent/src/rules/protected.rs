//! Which ports stay reachable whether or not the firewall runs: of sshd, of Slurm's daemons, and what the sysadmin adds.
//! After: `wanted`.
//! Invariant: what can't be read to the letter protects nothing, and is said.

mod slurm;
mod ssh;
mod written;

use super::ports::Ports;

/// Ports that are never asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protected {
    pub(super) ports: Ports,
    /// Whose they are.
    pub(super) what: String,
    /// Who says so.
    pub(super) from: String,
}

impl Protected {
    fn new(ports: Ports, what: &str, from: &str) -> Self {
        Self { ports, what: what.to_owned(), from: from.to_owned() }
    }
}

/// What was found, and what is to be known about it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) protected: Vec<Protected>,
    pub(super) notes: Vec<String>,
}

/// Looks for them on this node, and adds `more`.
pub(super) fn find(more: &[Ports]) -> Found {
    let mut found = Found::default();
    ssh::find(&mut found);
    slurm::find(&mut found);
    for ports in more {
        found.protected.push(Protected::new(*ports, "a port of yours", "--protect"));
    }
    found
}
