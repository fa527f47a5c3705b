//! The counters of one thread.
//!
//! Invariant: one thread writes them (`tally.rs` sees to that), so that adding is a load and a store, never a locked
//! instruction; and no other block is on their cache lines. Any thread may read, and reads what was true a moment ago.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::codes::CODES;
use super::labels::{
    Connect, Direction, Entered, HandshakeFailure, Kind, Label, Looked, Pooled, Protocol, Status, Turned, Way,
};

/// A number that grows.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// For the one thread that writes.
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One number for each of a label's `N` values.
pub(super) struct Each<L, const N: usize> {
    counts: [Count; N],
    label: PhantomData<fn(L)>,
}

impl<L: Label, const N: usize> Default for Each<L, N> {
    fn default() -> Self {
        const { assert!(L::ALL.len() == N) };
        Self { counts: std::array::from_fn(|_| Count::default()), label: PhantomData }
    }
}

impl<L: Label, const N: usize> Each<L, N> {
    pub(super) fn of(&self, label: L) -> &Count {
        &self.counts[label.number()]
    }
}

/// One number for each of the `N` pairs of two labels' values.
pub(super) struct Pairs<A, B, const N: usize> {
    counts: [Count; N],
    labels: PhantomData<fn(A, B)>,
}

impl<A: Label, B: Label, const N: usize> Default for Pairs<A, B, N> {
    fn default() -> Self {
        const { assert!(A::ALL.len() * B::ALL.len() == N) };
        Self { counts: std::array::from_fn(|_| Count::default()), labels: PhantomData }
    }
}

impl<A: Label, B: Label, const N: usize> Pairs<A, B, N> {
    pub(super) fn of(&self, a: A, b: B) -> &Count {
        &self.counts[a.number() * B::ALL.len() + b.number()]
    }
}

/// How often something took how long. `N` is the number of bounds.
pub(super) struct Durations<const N: usize> {
    /// In nanoseconds; what is longer than the last one counts behind it.
    bounds: &'static [u64; N],
    counts: [Count; N],
    longer: Count,
    /// In nanoseconds.
    sum: Count,
}

impl<const N: usize> Durations<N> {
    fn of(bounds: &'static [u64; N]) -> Self {
        let counts = std::array::from_fn(|_| Count::default());
        Self { bounds, counts, longer: Count::default(), sum: Count::default() }
    }

    pub(super) fn note(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = self.bounds.partition_point(|bound| *bound < nanoseconds);
        self.counts.get(place).unwrap_or(&self.longer).add(1);
        self.sum.add(nanoseconds);
    }

    /// Adds what this one has to `buckets` (one for each bound, and one behind them), and its sum to `sum`.
    pub(super) fn add_to(&self, buckets: &mut [u64], sum: &mut u64) {
        for (bucket, count) in buckets.iter_mut().zip(self.counts.iter().chain([&self.longer])) {
            *bucket += count.get();
        }
        *sum += self.sum.get();
    }

    /// In seconds.
    pub(super) fn bounds(&self) -> impl Iterator<Item = f64> + use<N> {
        #[expect(clippy::cast_precision_loss, reason = "the bounds are far below 2^53")]
        self.bounds.iter().map(|bound| *bound as f64 / 1e9)
    }
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// From a millisecond to a minute.
const REQUEST_BOUNDS: [u64; 15] = [
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
];

/// From 25 microseconds to the time after which an agent's answer is none.
const LOOKUP_BOUNDS: [u64; 13] = [
    25 * US,
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    50 * MS,
    250 * MS,
    S,
    2 * S,
];

/// All counters of one thread, in one piece. Aligned to two cache lines, since processors fetch them in pairs.
#[repr(align(128))]
pub(super) struct Block {
    pub(super) requests_begun: Count,
    pub(super) requests_ended: Count,
    pub(super) durations: Durations<{ REQUEST_BOUNDS.len() }>,
    pub(super) requests: Pairs<Protocol, Status, { Protocol::COUNT * Status::COUNT }>,
    pub(super) pooled: Each<Pooled, { Pooled::COUNT }>,
    pub(super) bytes: Pairs<Direction, Kind, { Direction::COUNT * Kind::COUNT }>,
    pub(super) connections_accepted: Count,
    pub(super) connections_ended: Count,
    pub(super) turned_away: Each<Turned, { Turned::COUNT }>,
    pub(super) handshakes_failed: Each<HandshakeFailure, { HandshakeFailure::COUNT }>,
    pub(super) connects: Each<Connect, { Connect::COUNT }>,
    pub(super) lookups: Each<Looked, { Looked::COUNT }>,
    pub(super) lookup_durations: Durations<{ LOOKUP_BOUNDS.len() }>,
    pub(super) tunnels_begun: Count,
    pub(super) tunnels_ended: Count,
    /// One more for other codes.
    pub(super) refusals: [Count; CODES.len() + 1],
    pub(super) sign_ins: Pairs<Way, Entered, { Way::COUNT * Entered::COUNT }>,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            requests_begun: Count::default(),
            requests_ended: Count::default(),
            durations: Durations::of(&REQUEST_BOUNDS),
            requests: Pairs::default(),
            pooled: Each::default(),
            bytes: Pairs::default(),
            connections_accepted: Count::default(),
            connections_ended: Count::default(),
            turned_away: Each::default(),
            handshakes_failed: Each::default(),
            connects: Each::default(),
            lookups: Each::default(),
            lookup_durations: Durations::of(&LOOKUP_BOUNDS),
            tunnels_begun: Count::default(),
            tunnels_ended: Count::default(),
            refusals: std::array::from_fn(|_| Count::default()),
            sign_ins: Pairs::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_counts_once_and_a_bound_belongs_below_itself() {
        let durations = Durations::of(&REQUEST_BOUNDS);
        for took in [0, MS, MS + 1, 60 * S, 60 * S + 1, u64::MAX] {
            durations.note(Duration::from_nanos(took));
        }
        let (mut buckets, mut sum) = ([0; REQUEST_BOUNDS.len() + 1], 0);
        durations.add_to(&mut buckets, &mut sum);
        let mut expected = [0; REQUEST_BOUNDS.len() + 1];
        (expected[0], expected[1], expected[14], expected[15]) = (2, 1, 1, 2);
        assert_eq!(buckets, expected);
        assert_eq!(durations.bounds().next(), Some(0.001));
    }

    #[test]
    fn every_pair_has_a_number_of_its_own() {
        let pairs = Pairs::<Protocol, Status, { Protocol::COUNT * Status::COUNT }>::default();
        for (n, protocol) in Protocol::ALL.iter().enumerate() {
            for (m, status) in Status::ALL.iter().enumerate() {
                pairs.of(*protocol, *status).add((n * 100 + m + 1) as u64);
            }
        }
        for (n, protocol) in Protocol::ALL.iter().enumerate() {
            for (m, status) in Status::ALL.iter().enumerate() {
                assert_eq!(pairs.of(*protocol, *status).get(), (n * 100 + m + 1) as u64);
            }
        }
    }

    #[test]
    fn no_two_blocks_share_a_cache_line() {
        assert_eq!(align_of::<Block>(), 128);
        assert_eq!(size_of::<Block>() % 128, 0);
    }
}
