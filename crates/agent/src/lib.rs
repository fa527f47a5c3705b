//! Says who owns the server's end of a TCP connection on this node, by the kernel's own records. Before: the portal
//! has connected. After: the judgement in `portreeve-model`.
//! Invariant: an owner is named only where the records leave no doubt; whatever is missing, ambiguous or late is an
//! `Unowned` or an `Unknown`, which grants nothing. Nothing that a user's own process says is believed.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod channel;
pub mod daemon;
mod files;
pub mod firewall;
mod holders;
pub mod ident2;
pub mod listening;
mod lockup;
pub mod lookup;
mod own_addresses;
mod privileged;
mod processes;
pub mod rules;
mod seqpacket;
mod shares;

pub use listening::{Listening, listening};
pub use lookup::Lookup;

/// Doors to the parsers of proc(5) and of packets, for the fuzz targets only.
#[doc(hidden)]
pub mod fuzz {
    /// Real uid, effective uid and effective gid of a `status` file.
    #[must_use]
    pub fn credentials(status: &[u8]) -> Option<(u32, u32, u32)> {
        let read = crate::processes::parse_credentials(status)?;
        Some((read.real_uid, read.effective_uid, read.effective_gid))
    }

    /// The two ends of a packet, and the errors that whoever sent it could be told.
    #[must_use]
    pub fn packet(bytes: &[u8]) -> Option<(portreeve_model::wire::firewall::Flow, Vec<Vec<u8>>)> {
        crate::firewall::told_of(bytes)
    }

    /// The inode in a descriptor's link.
    #[must_use]
    pub fn socket_inode(link: &[u8]) -> Option<u32> {
        crate::processes::socket_inode(link)
    }
}
