//! The places among the conversations with PAM: few for each name and each network, and so many for all.
//!
//! Invariants: a conversation that waits for a person makes room for a new one, so that nobody holds places by leaving
//! questions unanswered; what PAM is busy with keeps its place. First goes what nobody has answered yet, of whoever holds
//! most, and of that the oldest: who holds one place is not put out by who holds many.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use super::limits;
use super::throttle::{NameKey, Network};

/// Places of one sort.
#[derive(Default)]
pub(super) struct Places {
    /// By number: the oldest first.
    held: RefCell<BTreeMap<u64, Held>>,
    next: Cell<u64>,
}

struct Held {
    name: NameKey,
    network: Network,
    stage: Stage,
    lost: Rc<Notify>,
}

/// How far a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Nobody has answered anything.
    Unanswered,
    /// Something was answered, and PAM asks for more.
    AskedAgain,
    /// PAM has an answer before it.
    UnderWay,
}

/// A place, given back when dropped.
pub(super) struct Place {
    places: Rc<Places>,
    number: u64,
    lost: Rc<Notify>,
}

impl Places {
    /// A place for one more. `None` when PAM is busy with all that could make room.
    pub(super) fn take(self: &Rc<Self>, name: NameKey, network: Network) -> Option<Place> {
        let of_name = |held: &Held| held.name == name;
        let of_network = |held: &Held| held.network == network;
        let room = self.has_room(limits::CONVERSATIONS_OF_A_NAME, of_name)
            && self.has_room(limits::CONVERSATIONS_OF_A_NETWORK, of_network)
            && self.has_room(limits::CONVERSATIONS, |_| true);
        if !room {
            return None;
        }
        let (number, lost) = (self.next.get(), Rc::new(Notify::new()));
        self.next.set(number + 1);
        let held = Held { name, network, stage: Stage::Unanswered, lost: Rc::clone(&lost) };
        self.held.borrow_mut().insert(number, held);
        Some(Place { places: Rc::clone(self), number, lost })
    }

    /// Whether there are less than `most` of these, if need be because one of them goes.
    fn has_room(&self, most: usize, of: impl Fn(&Held) -> bool) -> bool {
        let mut held = self.held.borrow_mut();
        if held.values().filter(|other| of(other)).count() < most {
            return true;
        }
        let beside = |one: &Held| held.values().filter(|other| other.network == one.network).count();
        let goes = held
            .iter()
            .filter(|(_, one)| of(one) && one.stage != Stage::UnderWay)
            .min_by_key(|(number, one)| (one.stage, Reverse(beside(one)), **number))
            .map(|(number, _)| *number);
        let gone = goes.and_then(|number| held.remove(&number));
        if let Some(gone) = &gone {
            gone.lost.notify_one();
        }
        gone.is_some()
    }
}

impl Place {
    /// Notes how far its conversation is.
    pub(super) fn is_at(&self, stage: Stage) {
        if let Some(held) = self.places.held.borrow_mut().get_mut(&self.number) {
            held.stage = stage;
        }
    }

    /// Whether it went to somebody else.
    pub(super) fn is_lost(&self) -> bool {
        !self.places.held.borrow().contains_key(&self.number)
    }

    /// Waits until it goes to somebody else.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
#[path = "tests/places.rs"]
mod tests;
