//! Which addresses are this node's. A question about another one is refused: whatever this node's kernel might find for
//! it, it is not the connection that is meant.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long this node's list of addresses is believed.
const FRESH: Duration = Duration::from_secs(5);
/// How soon it is read again for an address that is not in it.
const AGAIN: Duration = Duration::from_millis(100);

/// The node's addresses, read from the kernel now and then.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses {
    read: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl OwnAddresses {
    /// Whether this is an address of an interface that is up.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_loopback() {
            return true;
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, known)) = &*read {
            let (has, age) = (known.contains(&address), since.elapsed());
            if (has && age < FRESH) || (!has && age < AGAIN) {
                return has;
            }
        }
        match portreeve_sys::local_addresses() {
            Ok(known) => {
                let has = known.contains(&address);
                *read = Some((Instant::now(), known));
                has
            }
            Err(error) => {
                tracing::warn!(%error, "this node's addresses can't be read");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours_and_another_machine_is_not() {
        let own = OwnAddresses::default();
        for (address, ours) in [
            ("127.0.0.1", true),
            ("127.0.1.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            assert_eq!(own.has(address.parse().unwrap()), ours, "{address}");
        }
        for address in portreeve_sys::local_addresses().unwrap() {
            assert!(own.has(address), "{address}");
        }
    }
}
