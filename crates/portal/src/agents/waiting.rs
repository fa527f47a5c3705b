//! Connections of whom nobody knows yet who they are. Whoever can reach the socket can open them, so there is a bounded
//! number of places; the oldest makes room for the newest, since a genuine agent needs its place for milliseconds only.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::limits;

/// The places.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// The oldest first.
    places: VecDeque<Place>,
}

#[derive(Debug)]
struct Place {
    number: u64,
    address: IpAddr,
    /// Dropped when it is somebody else's turn.
    _evict: oneshot::Sender<std::convert::Infallible>,
}

/// A place, until dropped.
#[derive(Debug)]
pub(super) struct Held<'w> {
    waiting: &'w Waiting,
    number: u64,
    evicted: oneshot::Receiver<std::convert::Infallible>,
}

impl Waiting {
    /// Takes a place. If there is none, the oldest of this address gives way, or the oldest of all.
    pub(super) fn enter(&self, address: IpAddr) -> Held<'_> {
        let (evict, evicted) = oneshot::channel();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = || taken.places.iter().filter(|place| place.address == address).count();
        if of_one() >= limits::AGENT_HANDSHAKES_OF_ONE {
            let oldest = taken.places.iter().position(|place| place.address == address);
            oldest.and_then(|oldest| taken.places.remove(oldest));
        } else if taken.places.len() >= limits::AGENT_HANDSHAKES {
            taken.places.pop_front();
        }
        let number = taken.next;
        taken.next += 1;
        taken.places.push_back(Place { number, address, _evict: evict });
        Held { waiting: self, number, evicted }
    }
}

impl Held<'_> {
    /// Returns when the place is another's.
    pub(super) async fn evicted(&mut self) {
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut taken = self.waiting.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.places.retain(|place| place.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(held: &mut Held<'_>) -> bool {
        held.evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_oldest_of_an_address_gives_way() {
        let waiting = Waiting::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut quiet = waiting.enter(other);
        let mut held: Vec<_> = (0..limits::AGENT_HANDSHAKES_OF_ONE).map(|_| waiting.enter(one)).collect();
        assert!(!held.iter_mut().any(is_evicted));
        let mut last = waiting.enter(one);
        assert!(is_evicted(&mut held[0]));
        assert!(!held[1..].iter_mut().any(is_evicted) && !is_evicted(&mut last) && !is_evicted(&mut quiet));
        drop(held);
        assert_eq!(waiting.taken.lock().unwrap().places.len(), 2);
    }

    #[test]
    fn the_oldest_of_all_gives_way() {
        let waiting = Waiting::default();
        let address = |number: usize| IpAddr::from([10, 0, (number >> 8) as u8, number as u8]);
        let mut held: Vec<_> =
            (0..limits::AGENT_HANDSHAKES).map(|number| waiting.enter(address(number))).collect();
        let _one_more = waiting.enter(address(limits::AGENT_HANDSHAKES));
        assert!(is_evicted(&mut held[0]) && !held[1..].iter_mut().any(is_evicted));
        assert_eq!(waiting.taken.lock().unwrap().places.len(), limits::AGENT_HANDSHAKES);
    }
}
