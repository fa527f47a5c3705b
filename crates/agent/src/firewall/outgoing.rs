//! Flows of UDP that began on this node. What comes back on them is an answer, and nobody is asked about it; so it must not
//! go on when the port here has another owner. Who had it when the first datagram left is noted by the gates; every two
//! seconds the kernel's table is read, and a flow whose socket is another one by now, or gone, is forgotten.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portreeve_model::wire::firewall::{Flow, Transport};
use portreeve_sys::Connections;

use super::audit::Seldom;
use super::{Shared, limits};
use crate::lookup::Lookup;
use crate::own_addresses::OwnAddresses;

/// No socket's cookie: whoever sent it had closed, or is exempt and need not have the port.
pub(super) const NOBODY: u64 = 0;

/// Whose socket had the port when a flow began.
#[derive(Default)]
pub(super) struct Sent(Mutex<HashMap<Flow, u64>>);

impl Sent {
    /// A datagram of the flow leaves, and this socket has the port.
    pub(super) fn note(&self, flow: &Flow, cookie: u64) {
        let mut known = self.known();
        if known.len() < limits::OUTGOING {
            known.insert(*flow, cookie);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Flow, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What looks at them.
pub(super) struct Outgoing {
    connections: Connections,
    lookup: Lookup,
    own: OwnAddresses,
    shared: Arc<Shared>,
    failed: Seldom,
}

impl Outgoing {
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            connections: Connections::open()?,
            lookup: Lookup::open()?,
            own: OwnAddresses::default(),
            shared: Arc::clone(shared),
            failed: Seldom::new(),
        })
    }

    /// Looks for as long as the firewall runs.
    pub(super) async fn watch(mut self) {
        loop {
            tokio::time::sleep(limits::OUTGOING_LOOK).await;
            // A large table takes milliseconds to read.
            let looked = tokio::task::spawn_blocking(move || {
                let looked = self.look();
                (self, looked)
            });
            let Ok((back, looked)) = looked.await else { return };
            self = back;
            if let Err(error) = looked
                && self.failed.now()
            {
                tracing::warn!(%error, "flows of UDP that began here can't be looked at: they go on as they are");
            }
        }
    }

    fn look(&self) -> io::Result<()> {
        // What is noted while the table is read may not be in it yet.
        let mut over: HashSet<Flow> = self.shared.sent.known().keys().copied().collect();
        for (from, to) in self.connections.udp_flows()? {
            if from.port() < portreeve_model::wire::agent::FIRST_PORT || !self.own.has(from.ip()) {
                continue;
            }
            let flow = Flow { transport: Transport::Udp, from, to };
            // Whoever gets what comes back.
            let back = Flow { transport: Transport::Udp, from: to, to: from };
            let now = self.lookup.datagrams_go_to(&back).ok().map(|end| end.cookie);
            let before = self.shared.sent.known().get(&flow).copied();
            match now {
                Some(now) if before.is_none_or(|before| before == now) => {
                    self.shared.sent.note(&flow, now);
                    over.remove(&flow);
                }
                _ => {
                    self.connections.forget_udp(from, to)?;
                }
            }
        }
        self.shared.sent.known().retain(|flow, _| !over.contains(flow));
        Ok(())
    }
}
