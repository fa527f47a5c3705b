//! Counts refused codes by address, so that trying many is slow. Bounded: the address that was seen longest ago makes
//! room, and a code's 128 bits do the rest.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;

use crate::limits;

/// Refused codes of the last while.
pub(crate) struct Attempts(Mutex<LruCache<IpAddr, (Instant, u32)>>);

impl Default for Attempts {
    fn default() -> Self {
        let most = NonZeroUsize::new(limits::CODE_FAILURE_ADDRESSES).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(most)))
    }
}

impl Attempts {
    /// Whether this address may try a code now.
    pub(crate) fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(&address) {
            Some((since, count)) => {
                *count < limits::CODE_FAILURES || now.duration_since(*since) >= limits::CODE_FAILURE_WINDOW
            }
            None => true,
        }
    }

    #[cfg(test)]
    pub(crate) fn most(&self) -> NonZeroUsize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cap()
    }

    /// Notes a refused code.
    pub(crate) fn failed(&self, address: IpAddr, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.get_or_insert_mut(address, || (now, 0));
        if now.duration_since(entry.0) >= limits::CODE_FAILURE_WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_that_fails_often_has_to_wait_and_others_do_not() {
        let attempts = Attempts::default();
        let (one, other) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from([127, 0, 0, 2]));
        let start = Instant::now();
        for _ in 0..limits::CODE_FAILURES {
            assert!(attempts.may_try(one, start));
            attempts.failed(one, start);
        }
        assert!(!attempts.may_try(one, start));
        assert!(attempts.may_try(other, start));
        assert!(attempts.may_try(one, start + limits::CODE_FAILURE_WINDOW));
    }
}
