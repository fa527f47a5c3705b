//! What should not happen, and does: counted, and told now and then. A stranger that sends a thousand packets a second must
//! not fill the log.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::limits;

/// One kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// A datagram from another port than the nodes'.
    Port,
    /// A datagram from an address that is no other node's.
    Stranger,
    /// Bytes that are no message, or none that belongs there.
    Malformed,
    /// An answer that nobody waits for, or from another node than was asked.
    Unasked,
    /// A question about an address that is not this node's.
    Elsewhere,
    /// A caller asks about a node that is not among the others.
    Outside,
    /// More callers than there is room for.
    Crowd,
    /// More questions than are answered at once.
    Busy,
    /// A caller does not read its answers.
    Deaf,
    /// Something could not be sent.
    Unsent,
}

impl Oddity {
    fn what(self) -> &'static str {
        match self {
            Self::Port => "a datagram did not come from the nodes' port, and was ignored",
            Self::Stranger => "a datagram did not come from any of the peers, and was ignored",
            Self::Malformed => "a message could not be understood",
            Self::Unasked => "an answer came that was not asked for, came late, or came from another address",
            Self::Elsewhere => "a question was about an address that is not this node's",
            Self::Outside => "a question was about an address that is in none of the peers' ranges",
            Self::Crowd => "too many processes are connected, and one more was turned away",
            Self::Busy => "too many questions at once, and one was not answered",
            Self::Deaf => "a caller does not read its answers",
            Self::Unsent => "a message could not be sent",
        }
    }
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Oddities(Mutex<Vec<Kind>>);

#[derive(Debug)]
struct Kind {
    oddity: Oddity,
    told: Instant,
    since: u64,
}

impl Oddities {
    /// One more. `about` is told of the first and of each that is told.
    pub(super) fn note(&self, oddity: Oddity, about: impl Display) {
        if let Some(count) = self.count(oddity, Instant::now()) {
            tracing::warn!(count, %about, "{}", oddity.what());
        }
    }

    /// How many there were since it was last told, this one included; `None`: it is too early to tell again.
    fn count(&self, oddity: Oddity, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kind) = kinds.iter_mut().find(|kind| kind.oddity == oddity) else {
            kinds.push(Kind { oddity, told: now, since: 0 });
            return Some(1);
        };
        kind.since += 1;
        if now.saturating_duration_since(kind.told) < limits::TELL {
            return None;
        }
        kind.told = now;
        Some(std::mem::take(&mut kind.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_told_once_in_a_while() {
        let (oddities, start) = (Oddities::default(), Instant::now());
        let count = |oddity, after| oddities.count(oddity, start + Duration::from_millis(after));
        assert_eq!(count(Oddity::Port, 0), Some(1));
        assert!((1..1000).all(|after| count(Oddity::Port, after).is_none()));
        assert_eq!(count(Oddity::Stranger, 5), Some(1), "another kind");
        assert_eq!(count(Oddity::Port, 10_000), Some(1000));
        assert_eq!(count(Oddity::Port, 10_001), None);
        assert_eq!(count(Oddity::Port, 30_000), Some(2));
    }
}
