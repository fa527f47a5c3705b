//! Answers one question about this node's sockets. Before: `callers` and `peers`, which read it. After: `lookup`, which asks
//! the kernel.
//! Invariant: what takes milliseconds (a look at processes, or at all connections) never stands in the way of what takes
//! microseconds; a doubt is no answer.
//!
//! | question | answered with |
//! | --- | --- |
//! | TCP, no remote end, LISTEN among the states (or any state) | what takes connections to the local end |
//! | TCP, no remote end, other states | connections of the local end with anybody, if they are all of one uid |
//! | TCP, both ends, any states but LISTEN alone | the socket of that very connection, if it is in one of the states |
//! | UDP, no remote end or both ends, no states | the socket that takes such datagrams |
//! | anything else: half an end, no local end | nothing |

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portreeve_model::Unowned;
use portreeve_model::wire::ident2::{Flags, Found, Protocol, Request, TcpStates};

use crate::lookup::{Held, Lookup};
use crate::own_addresses::OwnAddresses;

/// Answers questions about this node.
pub(super) struct Answerer {
    /// For the quick questions, on the thread that reads them.
    quick: Lookup,
    /// For the others.
    slow: Arc<Lookup>,
    own: OwnAddresses,
}

/// An answer, or the slow work that makes one.
pub(super) enum Reply {
    Now(Option<Found>),
    Later(Look),
}

/// Slow work.
pub(super) struct Look {
    lookup: Arc<Lookup>,
    form: Form,
    flags: Flags,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Listening(SocketAddr),
    Connection(SocketAddr, SocketAddr, TcpStates),
    Connections(SocketAddr, TcpStates),
    Datagrams(SocketAddr, SocketAddr),
}

impl Answerer {
    /// Opens the sockets towards the kernel.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { quick: Lookup::open()?, slow: Arc::new(Lookup::open()?), own: OwnAddresses::default() })
    }

    /// Whether the address is this node's.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own.has(address)
    }

    /// Whatever is asked about an address of another node has no answer here.
    pub(super) fn answer(&self, request: &Request) -> Reply {
        let Some(form) = Form::of(request).filter(|_| self.is_own(request.local.ip())) else {
            return Reply::Now(None);
        };
        let later = || Reply::Later(Look { lookup: Arc::clone(&self.slow), form, flags: request.flags });
        if let Form::Connections(..) = form {
            return later();
        }
        match form.held(&self.quick) {
            Some(held) if request.flags.wants_process(held.uid) => later(),
            Some(held) => Reply::Now(Some(only(held.uid))),
            None => Reply::Now(None),
        }
    }
}

impl Look {
    /// Blocks for milliseconds.
    pub(super) fn make(self) -> Option<Found> {
        let held = self.form.held(&self.lookup)?;
        if !self.flags.wants_process(held.uid) {
            return Some(only(held.uid));
        }
        match self.lookup.holder(&held, self.flags.has(Flags::GROUPS)) {
            Ok(holder) => Some(Found {
                uid: held.uid,
                gid: Some(holder.gid),
                pid: Some(holder.pid),
                groups: holder.groups,
            }),
            Err(why) => {
                tracing::debug!(uid = held.uid, form = ?self.form, %why, "no group");
                Some(only(held.uid))
            }
        }
    }
}

fn only(uid: u32) -> Found {
    Found { uid, gid: None, pid: None, groups: None }
}

impl Form {
    fn of(request: &Request) -> Option<Self> {
        let (local, remote, states) = (request.local, request.remote, request.states);
        let is_end = |end: SocketAddr| !end.ip().to_canonical().is_unspecified() && end.port() != 0;
        let is_nobody = remote.ip().to_canonical().is_unspecified() && remote.port() == 0;
        if !is_end(local) || !(is_end(remote) || is_nobody) {
            return None;
        }
        match request.protocol {
            Protocol::Udp => (states == TcpStates::ANY).then_some(Self::Datagrams(local, remote)),
            Protocol::Tcp if !is_nobody => {
                (states != TcpStates::LISTEN).then_some(Self::Connection(local, remote, states))
            }
            Protocol::Tcp if states == TcpStates::ANY || states.0 & TcpStates::LISTEN.0 != 0 => {
                Some(Self::Listening(local))
            }
            Protocol::Tcp => Some(Self::Connections(local, states)),
        }
    }

    fn held(self, lookup: &Lookup) -> Option<Held> {
        let held = match self {
            Self::Listening(local) => lookup.listening_at(local),
            Self::Connection(local, remote, states) => lookup.connection(local, remote, states),
            Self::Connections(local, states) => lookup.connections_at(local, states),
            Self::Datagrams(local, remote) => lookup.datagrams(local, remote),
        };
        match held {
            Ok(held) => Some(held),
            Err(why) => {
                match why {
                    Unowned::Lookup(_) => tracing::warn!(form = ?self, %why, "no answer"),
                    _ => tracing::debug!(form = ?self, %why, "no answer"),
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
