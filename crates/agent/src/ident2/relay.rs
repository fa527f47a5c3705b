//! Questions that other nodes were asked for a caller of this one. Before: `callers`, which ask. After: `peers`, from whom
//! an answer comes.
//! Invariants: an answer is believed once, from the very address that was asked, and only with a number that was made up for
//! this question alone: whoever can only send in that node's name, and has not seen the question, would have to guess it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use super::limits;

/// A caller; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CallerId(pub(super) u64);

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// In the order in which each caller asked.
    asked: BTreeMap<(CallerId, u64), Asked>,
    by_number: HashMap<u64, (CallerId, u64)>,
    by_question: HashMap<(CallerId, u64), u64>,
    of_one: HashMap<CallerId, usize>,
    next: u64,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    query_id: u64,
    peer: IpAddr,
    at: Instant,
}

impl Relay {
    /// Notes that a caller asks this node, under a number that is random. `None`: too many questions are open. Asked again,
    /// a question keeps its number, so that the first of two answers counts.
    pub(super) fn ask(
        &mut self,
        caller: CallerId,
        query_id: u64,
        peer: IpAddr,
        random: u64,
        now: Instant,
    ) -> Option<u64> {
        let peer = peer.to_canonical();
        if let Some(&turn) = self.by_question.get(&(caller, query_id)) {
            match self.asked.get_mut(&(caller, turn)) {
                Some(asked) if asked.peer == peer => {
                    asked.at = now;
                    return Some(asked.number);
                }
                _ => self.take((caller, turn)),
            };
        }
        if self.of_one.get(&caller).is_some_and(|count| *count >= limits::ASKED_OF_ONE) {
            let oldest = self.asked.range((caller, 0)..).next().map(|(key, _)| *key);
            oldest.and_then(|key| self.take(key));
        }
        if self.asked.len() >= limits::ASKED || self.by_number.contains_key(&random) {
            return None;
        }
        let key = (caller, self.next);
        self.next += 1;
        self.asked.insert(key, Asked { number: random, query_id, peer, at: now });
        self.by_number.insert(random, key);
        self.by_question.insert((caller, query_id), key.1);
        *self.of_one.entry(caller).or_default() += 1;
        Some(random)
    }

    /// Whose question this node answers with that number.
    pub(super) fn answered(
        &mut self,
        peer: IpAddr,
        number: u64,
        query_id: u64,
        now: Instant,
    ) -> Option<CallerId> {
        let key = *self.by_number.get(&number)?;
        let asked = self.asked.get(&key)?;
        let is_in_time = now.saturating_duration_since(asked.at) <= limits::ANSWER;
        if asked.peer != peer.to_canonical() || asked.query_id != query_id || !is_in_time {
            return None;
        }
        self.take(key)?;
        Some(key.0)
    }

    /// A caller has gone.
    pub(super) fn forget(&mut self, caller: CallerId) {
        let of_them: Vec<_> =
            self.asked.range((caller, 0)..=(caller, u64::MAX)).map(|(key, _)| *key).collect();
        for key in of_them {
            self.take(key);
        }
    }

    /// Gives up what was not answered in time.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_late = |asked: &Asked| now.saturating_duration_since(asked.at) > limits::ANSWER;
        let late: Vec<_> =
            self.asked.iter().filter(|(_, asked)| is_late(asked)).map(|(key, _)| *key).collect();
        for key in late {
            self.take(key);
        }
    }

    fn take(&mut self, key: (CallerId, u64)) -> Option<Asked> {
        let asked = self.asked.remove(&key)?;
        self.by_number.remove(&asked.number);
        self.by_question.remove(&(key.0, asked.query_id));
        if let Some(count) = self.of_one.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&key.0);
            }
        }
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ONE: CallerId = CallerId(1);
    const TWO: CallerId = CallerId(2);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    impl Relay {
        fn is_empty(&self) -> bool {
            self.asked.is_empty()
                && self.by_number.is_empty()
                && self.by_question.is_empty()
                && self.of_one.is_empty()
        }
    }

    #[test]
    fn an_answer_is_believed_once_from_whom_was_asked() {
        let (mut relay, now) = (Relay::default(), Instant::now());
        let (peer, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        assert_eq!(relay.ask(ONE, 7, peer, 100, now), Some(100));
        assert_eq!(relay.ask(TWO, 7, ip("::ffff:10.0.0.1"), 200, now), Some(200));
        for (from, number, query_id) in [(other, 100, 7), (peer, 101, 7), (peer, 100, 8), (peer, 1, 7)] {
            assert_eq!(relay.answered(from, number, query_id, now), None, "{from} {number} {query_id}");
        }
        assert_eq!(relay.answered(ip("::ffff:10.0.0.1"), 100, 7, now), Some(ONE));
        assert_eq!(relay.answered(peer, 100, 7, now), None, "a second time");
        let late = now + limits::ANSWER + Duration::from_millis(1);
        assert_eq!(relay.answered(peer, 200, 7, late), None);
        assert_eq!(relay.answered(peer, 200, 7, now + limits::ANSWER), Some(TWO));
        assert!(relay.is_empty());
    }

    #[test]
    fn asked_again_it_is_the_same_question() {
        let (mut relay, now) = (Relay::default(), Instant::now());
        let (peer, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let later = now + limits::ANSWER;
        assert_eq!(relay.ask(ONE, 7, peer, 100, now), Some(100));
        assert_eq!(relay.ask(ONE, 7, peer, 101, later), Some(100));
        assert_eq!(relay.answered(peer, 100, 7, later + limits::ANSWER), Some(ONE));
        // Of another node it is another question, and the first one is given up.
        assert_eq!(relay.ask(ONE, 7, peer, 102, now), Some(102));
        assert_eq!(relay.ask(ONE, 7, other, 103, now), Some(103));
        assert_eq!(relay.answered(peer, 102, 7, now), None);
        assert_eq!(relay.answered(other, 103, 7, now), Some(ONE));
        assert!(relay.is_empty());
    }

    #[test]
    fn nothing_grows_for_ever() {
        let (mut relay, now) = (Relay::default(), Instant::now());
        let peer = ip("fd00::1");
        let numbers = u64::try_from(limits::ASKED_OF_ONE).unwrap();
        for n in 0..numbers {
            assert_eq!(relay.ask(ONE, n, peer, 1000 + n, now), Some(1000 + n));
        }
        // The caller's oldest one gives way.
        assert_eq!(relay.ask(ONE, numbers, peer, 1, now), Some(1));
        assert_eq!(relay.answered(peer, 1000, 0, now), None);
        assert_eq!(relay.answered(peer, 1001, 1, now), Some(ONE));
        assert_eq!(relay.ask(TWO, 0, peer, 1002, now), None, "a number that is taken");
        let mut callers = 2..;
        let mut number = 1_000_000;
        while relay.asked.len() < limits::ASKED {
            let caller = CallerId(callers.next().unwrap());
            for n in 0..numbers / 2 {
                number += 1;
                relay.ask(caller, n, peer, number, now);
            }
        }
        assert_eq!(relay.ask(CallerId(1_000_000), 0, peer, 2, now), None);
        relay.forget(ONE);
        assert_eq!(relay.ask(CallerId(1_000_000), 0, peer, 2, now + Duration::from_secs(1)), Some(2));
        relay.sweep(now + limits::ANSWER + Duration::from_millis(1));
        assert_eq!(relay.asked.len(), 1);
        relay.forget(CallerId(1_000_000));
        assert!(relay.is_empty());
    }
}
