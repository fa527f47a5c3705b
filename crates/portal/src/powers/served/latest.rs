//! What is asked for somebody at most once in a while, and by one request at a time: the others share its answer.
//!
//! Invariant: for one key nothing is asked twice within [`limits::LISTENING_FRESH`], also when whoever asked first has left
//! before the answer: what was begun for them goes on elsewhere.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep};

use crate::limits;

/// The latest answers, for all threads.
pub(super) struct Latest<K, V>(Mutex<Table<K, V>>);

struct Table<K, V> {
    by_key: HashMap<K, Arc<Turn<V>>>,
    /// When old answers were forgotten last.
    tidied: Instant,
}

/// Whoever has it asks, or finds what was said.
type Turn<V> = tokio::sync::Mutex<Option<Said<V>>>;

struct Said<V> {
    asked: Instant,
    /// `None`: whoever asked has left.
    answer: Option<V>,
}

impl<V> Said<V> {
    fn is_fresh(&self) -> bool {
        self.asked.elapsed() < limits::LISTENING_FRESH
    }
}

impl<K: Eq + Hash, V: Clone> Latest<K, V> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Table { by_key: HashMap::new(), tidied: Instant::now() }))
    }

    /// What was said for this key a moment ago, or what `ask` says.
    pub(super) async fn answer(&self, key: K, ask: impl AsyncFnOnce() -> V) -> V {
        let turn = self.turn(key);
        let mut said = turn.lock().await;
        if let Some(Said { asked, answer }) = said.as_ref().filter(|said| said.is_fresh()) {
            if let Some(answer) = answer {
                return answer.clone();
            }
            sleep(limits::LISTENING_FRESH.saturating_sub(asked.elapsed())).await;
        }
        let asked = Instant::now();
        *said = Some(Said { asked, answer: None });
        let answer = ask().await;
        *said = Some(Said { asked, answer: Some(answer.clone()) });
        answer
    }

    fn turn(&self, key: K) -> Arc<Turn<V>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.tidied.elapsed() >= limits::LISTENING_FRESH {
            table.tidied = Instant::now();
            // One that somebody holds is in use.
            let is_fresh =
                |turn: &Turn<V>| turn.try_lock().is_ok_and(|said| said.as_ref().is_some_and(Said::is_fresh));
            table.by_key.retain(|_, turn| Arc::strong_count(turn) > 1 || is_fresh(turn));
        }
        Arc::clone(table.by_key.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Asks, and takes its time.
    async fn ask(latest: &Latest<u32, u32>, key: u32, asked: &Cell<u32>) -> u32 {
        let answer = async || {
            asked.set(asked.get() + 1);
            let number = asked.get();
            sleep(Duration::from_millis(300)).await;
            number
        };
        latest.answer(key, answer).await
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_at_once_one_is_asked_for_all() {
        let (latest, asked) = (Latest::new(), Cell::new(0));
        let answers = tokio::join!(ask(&latest, 1, &asked), ask(&latest, 1, &asked), ask(&latest, 2, &asked));
        assert_eq!((answers, asked.get()), ((1, 1, 2), 2));
        sleep(limits::LISTENING_FRESH / 2).await;
        assert_eq!(ask(&latest, 1, &asked).await, 1);
        sleep(limits::LISTENING_FRESH / 2).await;
        assert_eq!(ask(&latest, 1, &asked).await, 3);
        assert_eq!(latest.0.lock().unwrap().by_key.len(), 1, "old answers are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_and_leaves_makes_the_next_one_wait_and_nobody_else() {
        let (latest, asked) = (Latest::new(), Cell::new(0));
        let moment = Duration::from_millis(1);
        let began = Instant::now();
        for _ in 0..100 {
            assert!(timeout(moment, ask(&latest, 1, &asked)).await.is_err());
        }
        assert_eq!((asked.get(), ask(&latest, 2, &asked).await), (1, 2));
        assert!(began.elapsed() < limits::LISTENING_FRESH);
        assert_eq!(ask(&latest, 1, &asked).await, 3);
        assert!(began.elapsed() >= limits::LISTENING_FRESH);
    }
}
