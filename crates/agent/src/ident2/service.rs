//! What all tasks of the ident2 service share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portreeve_model::Network;
use portreeve_model::wire::ident2::Response;
use tokio::sync::mpsc;

use super::answer::Answerer;
use super::limits;
use super::looks::Looks;
use super::oddities::{Oddities, Oddity};
use super::peers::Peers;
use super::relay::{CallerId, Relay};

/// Shared by all tasks.
pub(super) struct Service {
    pub(super) answerer: Answerer,
    pub(super) oddities: Oddities,
    /// `None`: there are no other nodes.
    pub(super) peers: Option<Arc<Peers>>,
    pub(super) callers_looks: Arc<Looks<CallerId>>,
    pub(super) peers_looks: Arc<Looks<IpAddr>>,
    ranges: Mutex<Vec<Network>>,
    relay: Mutex<Relay>,
    /// Where answers for the callers go.
    queues: Mutex<HashMap<CallerId, mpsc::Sender<Vec<u8>>>>,
}

impl Service {
    pub(super) fn new(answerer: Answerer, peers: Option<Arc<Peers>>, ranges: Vec<Network>) -> Self {
        Self {
            answerer,
            oddities: Oddities::default(),
            peers,
            callers_looks: Looks::new(limits::LOOKS, limits::LOOKS_OF_ONE),
            peers_looks: Looks::new(limits::PEER_LOOKS, limits::PEER_LOOKS_OF_ONE),
            ranges: Mutex::new(ranges),
            relay: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    /// From now on these are the other nodes.
    pub(super) fn set_ranges(&self, ranges: Vec<Network>) {
        *locked(&self.ranges) = ranges;
    }

    /// Whether this is another node's address.
    pub(super) fn is_peer(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // None of these is one node's, whatever range it is in.
        let is_nobodys = address.is_unspecified()
            || address.is_multicast()
            || matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        !is_nobodys && locked(&self.ranges).iter().any(|range| range.contains(address))
    }

    pub(super) fn relay(&self) -> MutexGuard<'_, Relay> {
        locked(&self.relay)
    }

    /// A caller's queue, for as long as it is connected.
    pub(super) fn enter(&self, caller: CallerId, queue: mpsc::Sender<Vec<u8>>) {
        locked(&self.queues).insert(caller, queue);
    }

    pub(super) fn leave(&self, caller: CallerId) {
        locked(&self.queues).remove(&caller);
        self.relay().forget(caller);
    }

    /// Hands a caller an answer from another node. It is lost if there is no room.
    pub(super) fn hand(&self, caller: CallerId, response: &Response) {
        let queues = locked(&self.queues);
        if queues.get(&caller).is_some_and(|queue| queue.try_send(response.to_bytes()).is_err()) {
            self.oddities.note(Oddity::Deaf, format_args!("caller {}", caller.0));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
