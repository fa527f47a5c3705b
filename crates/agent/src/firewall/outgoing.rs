//! Flows of UDP that began on this node. What comes back on them is an answer, and nobody is asked about it; so it must not
//! go on when the port here has another owner. Every two seconds the kernel's table is read, and a flow whose socket is
//! another one than before, or gone, is forgotten.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use portreeve_model::wire::firewall::{Flow, Transport};
use portreeve_sys::Connections;

use super::audit::Seldom;
use super::limits;
use crate::lookup::Lookup;
use crate::own_addresses::OwnAddresses;

/// What is known of them.
pub(super) struct Outgoing {
    connections: Connections,
    lookup: Lookup,
    own: OwnAddresses,
    /// By their ends: the socket here.
    known: HashMap<(SocketAddr, SocketAddr), u64>,
    failed: Seldom,
}

impl Outgoing {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            connections: Connections::open()?,
            lookup: Lookup::open()?,
            own: OwnAddresses::default(),
            known: HashMap::new(),
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

    fn look(&mut self) -> io::Result<()> {
        let mut now = HashMap::new();
        for (from, to) in self.connections.udp_flows()? {
            if from.port() < portreeve_model::wire::agent::FIRST_PORT || !self.own.has(from.ip()) {
                continue;
            }
            // Whoever gets what comes back.
            let back = Flow { transport: Transport::Udp, from: to, to: from };
            let cookie = self.lookup.datagrams_go_to(&back).ok().map(|end| end.cookie);
            let before = self.known.get(&(from, to)).copied();
            match cookie {
                Some(cookie)
                    if before.is_none_or(|before| before == cookie) && now.len() < limits::OUTGOING =>
                {
                    now.insert((from, to), cookie);
                }
                _ => {
                    self.connections.forget_udp(from, to)?;
                }
            }
        }
        self.known = now;
        Ok(())
    }
}
