//! How long to wait before dialling again.

use std::time::Duration;

use super::limits;

/// Twice as long each time, with chance in it: a thousand nodes whose portal restarted must not come all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a connection that lasted so long since the portal's welcome (`None`: there was none). `chance` is
    /// from 0 to 1; the wait is from half to all of what the count of failures gives.
    pub(super) fn after(&mut self, lasted: Option<Duration>, chance: f64) -> Duration {
        match lasted {
            Some(lasted) if lasted >= limits::BACKOFF_FORGET => self.failures = 0,
            // A portal that is restarted again and again is there each time: people must not be kept waiting by this node.
            Some(_) => self.failures = self.failures.min(limits::BACKOFF_WELCOMED),
            None => {}
        }
        let doubled = limits::BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(limits::BACKOFF_MOST).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// A number from 0 to 1. Without randomness all wait alike, which is no reason to stop.
pub(super) fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_most_and_begins_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..10).map(|_| backoff.after(None, 1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.after(Some(Duration::from_secs(10)), 1.0).as_millis(), 200);
        assert_eq!(backoff.after(None, 0.0).as_millis(), 200);
        for _ in 0..100 {
            backoff.after(None, 0.5);
        }
        assert_eq!(backoff.after(None, 0.0).as_secs(), 15);
        assert!((0.0..=1.0).contains(&chance()));
    }

    #[test]
    fn after_a_welcome_it_is_short_but_not_nothing() {
        let (mut backoff, short) = (Backoff::default(), Some(Duration::from_millis(10)));
        let waits: Vec<u128> = (0..6).map(|_| backoff.after(short, 1.0).as_millis()).collect();
        // Two agents with one key throw each other out for ever, but not in a hurry.
        assert_eq!(waits, [200, 400, 800, 800, 800, 800]);
        for _ in 0..100 {
            backoff.after(None, 0.5);
        }
        assert_eq!(backoff.after(short, 1.0).as_millis(), 800);
    }
}
