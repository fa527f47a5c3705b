//! How many callers of the login socket there may be of whom. Each user has a share. Whoever is not served, however many uids
//! they have (user_namespaces(7)), is in one share together.
//!
//! Invariant: a uid that is not known to be served is in that share, or in the one of those who are just being looked up.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::{Service, limits};

/// Whose share it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of {
    /// Root's, or that of a user who is served.
    User(u32),
    /// Nobody who was seen to be served yet.
    LookedUp,
    NotServed,
}

/// Who has how many callers.
#[derive(Default)]
pub(super) struct Shares {
    taken: RefCell<HashMap<Of, usize>>,
    served: RefCell<HashSet<u32>>,
}

/// One caller, counted until dropped.
pub(super) struct Share {
    shares: Rc<Shares>,
    of: Of,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.borrow_mut();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

impl Shares {
    /// Whose share this uid is in, as far as that is known.
    pub(super) fn of(&self, uid: u32) -> Of {
        match uid == 0 || self.served.borrow().contains(&uid) {
            true => Of::User(uid),
            false => Of::LookedUp,
        }
    }

    /// A place in it.
    pub(super) fn take(self: &Rc<Self>, of: Of) -> Option<Share> {
        let mut taken = self.taken.borrow_mut();
        let count = taken.entry(of).or_default();
        if *count >= limits::CALLERS_OF_A_USER {
            return None;
        }
        *count += 1;
        Some(Share { shares: Rc::clone(self), of })
    }

    /// The same in the share where this uid belongs, which is looked up if it is not known.
    pub(super) async fn settled(self: &Rc<Self>, share: Share, uid: u32, service: &Service) -> Option<Share> {
        if share.of != Of::LookedUp {
            return Some(share);
        }
        let is_served = service.accounts.serves(uid) && service.accounts.by_uid(uid).await.is_ok();
        drop(share);
        if !is_served {
            return self.take(Of::NotServed);
        }
        let mut served = self.served.borrow_mut();
        if served.len() >= limits::REMEMBERED {
            served.clear();
        }
        served.insert(uid);
        drop(served);
        self.take(Of::User(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_served_has_one_share_together_and_everybody_else_their_own() {
        let shares = Rc::<Shares>::default();
        shares.served.borrow_mut().insert(1000);
        assert_eq!(shares.of(0), Of::User(0));
        assert_eq!(shares.of(1000), Of::User(1000));
        assert_eq!((shares.of(1001), shares.of(100_000)), (Of::LookedUp, Of::LookedUp));
        let strangers: Vec<Share> =
            (0..limits::CALLERS_OF_A_USER).map(|_| shares.take(Of::NotServed).unwrap()).collect();
        assert!(shares.take(Of::NotServed).is_none());
        for of in [Of::User(0), Of::User(1000), Of::LookedUp] {
            assert!(shares.take(of).is_some());
        }
        drop(strangers);
        assert!(shares.taken.borrow().is_empty() && shares.take(Of::NotServed).is_some());
    }
}
