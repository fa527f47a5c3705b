//! Who may have how many looks at processes made at once. Before: `callers` and `peers`. After: `answer`, on a thread.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use portreeve_model::wire::ident2::Found;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::Look;
use super::limits;

/// Places for looks of some, of whom each is a `K`.
pub(super) struct Looks<K> {
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    of_one: Mutex<HashMap<K, usize>>,
    most_of_one: usize,
}

/// A place, until dropped.
pub(super) struct Place<K: Eq + Hash + Copy> {
    looks: Arc<Looks<K>>,
    whose: K,
    _one: OwnedSemaphorePermit,
}

impl<K: Eq + Hash + Copy> Looks<K> {
    pub(super) fn new(places: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            threads: Arc::new(Semaphore::new(limits::LOOK_THREADS)),
            of_one: Mutex::default(),
            most_of_one,
        })
    }

    /// A place for one more look; `None`: that would be too many.
    pub(super) fn admit(self: &Arc<Self>, whose: K) -> Option<Place<K>> {
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_one.get(&whose).copied().unwrap_or(0);
        if count >= self.most_of_one {
            return None;
        }
        let one = Arc::clone(&self.places).try_acquire_owned().ok()?;
        of_one.insert(whose, count + 1);
        Some(Place { looks: Arc::clone(self), whose, _one: one })
    }
}

impl<K: Eq + Hash + Copy> Drop for Place<K> {
    fn drop(&mut self) {
        let mut of_one = self.looks.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_one.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                of_one.remove(&self.whose);
            }
        }
    }
}

impl<K: Eq + Hash + Copy + Send + Sync + 'static> Place<K> {
    /// Has the look made. `None`: it was not, for want of a thread.
    pub(super) async fn make(self, look: Look) -> Option<Option<Found>> {
        let thread = timeout(limits::LOOK_WAIT, Arc::clone(&self.looks.threads).acquire_owned()).await;
        let thread = thread.ok()?.ok()?;
        let made = tokio::task::spawn_blocking(move || {
            // Kept until the thread is free, even if nobody waits any more.
            let _kept = (self, thread);
            look.make()
        });
        made.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_places() {
        let looks = Looks::new(3, 2);
        let one = looks.admit("a").unwrap();
        let two = looks.admit("a").unwrap();
        assert!(looks.admit("a").is_none(), "a share");
        let three = looks.admit("b").unwrap();
        assert!(looks.admit("c").is_none(), "all places");
        drop(one);
        let again = looks.admit("c").unwrap();
        drop((two, three, again));
        assert!(looks.of_one.lock().unwrap().is_empty());
        assert_eq!(looks.places.available_permits(), 3);
    }
}
