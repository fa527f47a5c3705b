//! One at a time puts a new file into a directory: between the look at what is there and the rename nobody else of this
//! process gets in. Other processes can: Linux has no rename that compares.
//! Invariant: held only for looks and renames, never while content is written.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

static TAKEN: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// Until it is dropped, nobody else has the turn in that directory. A network file system that hangs holds up only
/// those who would write to the same directory, and they would hang as well.
#[derive(Debug)]
pub(crate) struct Turn((u64, u64));

impl Turn {
    /// Waits for the turn in the directory of this device and inode.
    pub(crate) fn take(directory: (u64, u64)) -> Self {
        // Nothing panics with the lock held; if it did, the set would still be right.
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| taken.contains(&directory))
            .unwrap_or_else(PoisonError::into_inner);
        taken.insert(directory);
        Self(directory)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        GIVEN_BACK.notify_all();
    }
}
