//! What one user's requests may ask of the broker at once, over all threads. Before: `line.rs`, which asks.
//!
//! Invariants: nobody's requests take the places of another user's, and all of them together leave some for signing in and for
//! the portal's own questions. A place is held until the question is answered, whether or not somebody still waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::line::LineError;
use crate::limits;

/// What is asked. Each has places of its own: a worker that hangs keeps its user from no forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    /// A forward file: a process for each.
    Forward,
    /// A connection to the user's worker.
    Worker,
    /// Groups, younger tickets, ways into origins.
    Session,
}

/// The places.
pub(super) struct Shares {
    of_one: Mutex<HashMap<(u32, Sort), Weak<Semaphore>>>,
    of_all: Arc<Semaphore>,
}

/// A place that is taken, until dropped.
#[derive(Debug)]
pub(super) struct Share {
    _own: OwnedSemaphorePermit,
    _among_all: OwnedSemaphorePermit,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self { of_one: Mutex::default(), of_all: Arc::new(Semaphore::new(limits::ASKED_BY_REQUESTS)) }
    }

    /// A place for a question of this user's, waited for a while.
    pub(super) async fn take(&self, uid: u32, sort: Sort) -> Result<Share, LineError> {
        let own = timeout(limits::ASKED_TURN, self.places_of(uid, sort).acquire_owned()).await;
        // Nobody closes a semaphore.
        let Ok(Ok(own)) = own else { return Err(LineError::TooMany) };
        let among_all = Arc::clone(&self.of_all).try_acquire_owned().map_err(|_| LineError::Busy)?;
        Ok(Share { _own: own, _among_all: among_all })
    }

    fn places_of(&self, uid: u32, sort: Sort) -> Arc<Semaphore> {
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_one.get(&(uid, sort)).and_then(Weak::upgrade) {
            return known;
        }
        // Whose places nobody holds or waits for is forgotten.
        of_one.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(limits::ASKED_OF_ONE));
        of_one.insert((uid, sort), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_more_waits_a_while_and_is_refused_and_takes_nothing_from_anybody_else() {
        let shares = Shares::new();
        let mut held = Vec::new();
        for _ in 0..limits::ASKED_OF_ONE {
            held.push(shares.take(1, Sort::Forward).await.unwrap());
        }
        let began = tokio::time::Instant::now();
        let refused = shares.take(1, Sort::Forward).await;
        assert!(matches!(refused, Err(LineError::TooMany)), "{refused:?}");
        assert_eq!(began.elapsed(), limits::ASKED_TURN);
        let others = [shares.take(2, Sort::Forward).await, shares.take(1, Sort::Worker).await];
        assert!(others.iter().all(Result::is_ok) && began.elapsed() == limits::ASKED_TURN);
        // Who waits gets the place that is free.
        let (waits, ()) = tokio::join!(shares.take(1, Sort::Forward), async { drop(held.pop()) });
        assert!(waits.is_ok());
        drop((held, others, waits));
        drop(shares.take(3, Sort::Session).await);
        drop(shares.take(4, Sort::Session).await);
        assert_eq!(shares.of_one.lock().unwrap().len(), 1, "who asks nothing any more is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_them_together_leave_places_for_signing_in() {
        let shares = Shares::new();
        let mut held = Vec::new();
        let users = u32::try_from(limits::ASKED_BY_REQUESTS / limits::ASKED_OF_ONE).unwrap();
        for uid in 0..users {
            for _ in 0..limits::ASKED_OF_ONE {
                held.push(shares.take(uid, Sort::Forward).await.unwrap());
            }
        }
        assert!(matches!(shares.take(users, Sort::Forward).await, Err(LineError::Busy)));
        held.pop();
        assert!(shares.take(users, Sort::Forward).await.is_ok());
    }
}
