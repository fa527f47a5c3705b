//! Answers that are remembered for a while, and asked for once however many wait for them.

use std::cell::RefCell;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use lru::LruCache;
use tokio::sync::Mutex;
use tokio::time::Instant;

type Place<V> = Rc<Mutex<Option<(Instant, V)>>>;

/// At most so many answers; past that the one that was asked for longest ago is forgotten.
pub(super) struct Remembered<K, V> {
    places: RefCell<LruCache<K, Place<V>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> Remembered<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { places: RefCell::new(LruCache::new(NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN))) }
    }

    fn place(&self, key: &K) -> Place<V> {
        Rc::clone(self.places.borrow_mut().get_or_insert(key.clone(), Rc::default))
    }

    /// The answer, if it is younger than `good_for` says; otherwise what `ask` gives.
    pub(super) async fn answer(
        &self,
        key: &K,
        good_for: impl Fn(&V) -> Duration,
        ask: impl AsyncFnOnce() -> V,
    ) -> V {
        let place = self.place(key);
        // Whoever comes second waits here, and then finds the answer.
        let mut place = place.lock().await;
        if let Some((since, answer)) = &*place
            && since.elapsed() < good_for(answer)
        {
            return answer.clone();
        }
        let answer = ask().await;
        *place = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Takes over an answer that came another way.
    pub(super) async fn note(&self, key: &K, answer: V) {
        *self.place(key).lock().await = Some((Instant::now(), answer));
    }

    /// Forgets an answer.
    pub(super) fn forget(&self, key: &K) {
        self.places.borrow_mut().pop(key);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_ask_once_and_an_old_answer_is_asked_for_again() {
        let remembered: Remembered<u32, u32> = Remembered::new(2);
        let asked = Cell::new(0);
        let good_for = |_: &u32| Duration::from_secs(10);
        let ask = async || {
            asked.set(asked.get() + 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.get()
        };
        let both = tokio::join!(
            remembered.answer(&1, good_for, ask),
            remembered.answer(&1, good_for, ask),
            remembered.answer(&2, good_for, ask)
        );
        assert_eq!((both.0, both.1, asked.get()), (both.0, both.0, 2));
        tokio::time::advance(Duration::from_secs(10)).await;
        remembered.answer(&1, good_for, ask).await;
        assert_eq!(asked.get(), 3);
        remembered.forget(&1);
        remembered.answer(&1, good_for, ask).await;
        assert_eq!(asked.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_leaves_the_asking_to_the_next() {
        let remembered: Remembered<u32, u32> = Remembered::new(2);
        let good_for = |_: &u32| Duration::from_secs(10);
        let never = remembered.answer(&1, good_for, async || std::future::pending().await);
        assert!(tokio::time::timeout(Duration::from_secs(1), never).await.is_err());
        assert_eq!(remembered.answer(&1, good_for, async || 7).await, 7);
    }
}
