//! How many connections each address has. Asked where one begins, before a byte is read.
//!
//! Invariant: whoever connects from one address leaves most places to others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits;

/// Connections by address, of all threads.
pub(crate) struct Addresses {
    most: usize,
    by_network: Mutex<HashMap<IpAddr, usize>>,
}

/// One of an address's places, until dropped.
pub(crate) struct AddressPlace {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Addresses {
    /// Of so many connections in all.
    pub(crate) fn new(connections: usize) -> Self {
        Self { most: (connections / limits::ADDRESS_SHARE).max(1), by_network: Mutex::default() }
    }

    /// A place for one more connection from there; `None` when it has as many as it may.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<AddressPlace> {
        let network = network(address);
        let mut by_network = self.by_network();
        let taken = by_network.entry(network).or_default();
        if *taken >= self.most {
            return None;
        }
        *taken += 1;
        Some(AddressPlace { addresses: Arc::clone(self), network })
    }

    fn by_network(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut by_network = self.addresses.by_network();
        if let Some(taken) = by_network.get_mut(&self.network) {
            *taken -= 1;
            if *taken == 0 {
                by_network.remove(&self.network);
            }
        }
    }
}

/// Who has one IPv6 address has all of its /64 (RFC 4291 section 2.5.4).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_share_and_its_other_names_have_the_same_one() {
        for (connections, first, same, other) in [
            (8, "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            (8, "2001:db8::1", "2001:db8::ffff:0:1", "2001:db8:0:1::1"),
        ] {
            let addresses = Arc::new(Addresses::new(connections));
            let take = |text: &str| addresses.take(text.parse().unwrap());
            let held = [take(first), take(same)];
            assert!(held.iter().all(Option::is_some));
            assert!(take(first).is_none() && take(same).is_none() && take(other).is_some());
            drop(held);
            assert!(take(same).is_some());
            assert!(addresses.by_network().is_empty(), "who has none is forgotten");
        }
        assert!(Arc::new(Addresses::new(1)).take("192.0.2.1".parse().unwrap()).is_some());
    }
}
