//! Places of which each key (a user, an address, a node) may have so many at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How many places each key has now. Clones are the same.
pub(crate) struct Shares<K>(Arc<Mutex<HashMap<K, usize>>>);

/// A place; it is given back when dropped.
pub(crate) struct Share<K: Copy + Eq + Hash> {
    shares: Shares<K>,
    key: K,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// One more place for this key, if it has fewer than `most`.
    pub(crate) fn take(&self, key: K, most: usize) -> Option<Share<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { shares: Self(Arc::clone(&self.0)), key })
    }
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_no_more() {
        let shares = Shares::default();
        let first = shares.take(1, 2).unwrap();
        let _second = shares.take(1, 2).unwrap();
        assert!(shares.take(1, 2).is_none());
        let other = shares.take(2, 2).unwrap();
        drop((first, other));
        let _again = shares.take(1, 2).unwrap();
        assert!(shares.take(1, 2).is_none());
        assert_eq!(shares.0.lock().unwrap().len(), 1, "who has none is not kept");
    }
}
