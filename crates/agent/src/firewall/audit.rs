//! A record for each refusal, but not for each packet of a flood: the same refusal once in a while, and not more than so
//! many a second in all. What was not written is counted, and that is said.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use portreeve_model::firewall::Refused;
use portreeve_model::wire::firewall::{Flow, Transport};

use super::limits;

const REMEMBERED: NonZeroUsize = NonZeroUsize::new(limits::AUDIT_REMEMBERED).expect("not 0");

/// Decides what is written. One for each queue.
pub(super) struct Audit {
    /// By who connected to where: not by the port that they connected from, which is another each time.
    written: LruCache<(Transport, std::net::IpAddr, std::net::SocketAddr, &'static str), Instant>,
    /// Records that may be written now, as of `since`.
    allowance: f64,
    since: Instant,
    /// Not written since the last one that was.
    withheld: u64,
}

impl Audit {
    pub(super) fn new(now: Instant) -> Self {
        let (written, allowance) = (LruCache::new(REMEMBERED), f64::from(limits::AUDIT_BURST));
        Self { written, allowance, since: now, withheld: 0 }
    }

    /// Writes it, if it is its turn.
    pub(super) fn refused(&mut self, flow: &Flow, why: &Refused, dry_run: bool, now: Instant) {
        let Some(withheld) = self.admit(flow, why, now) else { return };
        let outcome = if dry_run { "would-be-refused" } else { "refused" };
        tracing::info!(
            target: "audit", event = "firewall", outcome, transport = ?flow.transport, from = %flow.from,
            to = %flow.to, reason = why.code(), withheld, "{why}"
        );
    }

    /// How many were withheld before this one; `None`: it is withheld as well.
    fn admit(&mut self, flow: &Flow, why: &Refused, now: Instant) -> Option<u64> {
        let key = (flow.transport, flow.from.ip(), flow.to, why.code());
        let age = |since: &Instant| now.saturating_duration_since(*since);
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.allowance = (self.allowance + passed * f64::from(limits::AUDIT_PER_SECOND))
            .min(f64::from(limits::AUDIT_BURST));
        let again = self.written.get(&key).is_some_and(|since| age(since) < limits::AUDIT_SAME);
        if again || self.allowance < 1.0 {
            self.withheld += 1;
            return None;
        }
        self.allowance -= 1.0;
        self.written.put(key, now);
        Some(std::mem::take(&mut self.withheld))
    }
}

/// A line now and then, whatever happens how often.
pub(super) struct Seldom(Option<Instant>);

impl Seldom {
    pub(super) fn new() -> Self {
        Self(None)
    }

    /// Whether it is time again.
    pub(super) fn now(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(10));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(from: u16, to: u16) -> Flow {
        let end = |port| ([10, 0, 0, 1], port).into();
        Flow { transport: Transport::Tcp, from: end(from), to: end(to) }
    }

    #[test]
    fn the_same_refusal_is_written_once_in_a_while() {
        let now = Instant::now();
        let mut audit = Audit::new(now);
        let why = Refused::OtherUser { connector: 1, listener: 2 };
        assert_eq!(audit.admit(&flow(1, 5000), &why, now), Some(0));
        for from in 2..50 {
            assert_eq!(audit.admit(&flow(from, 5000), &why, now), None);
        }
        assert_eq!(audit.admit(&flow(1, 5001), &why, now), Some(48), "to somewhere else");
        assert_eq!(audit.admit(&flow(1, 5000), &Refused::NoListener, now), Some(0), "for another reason");
        assert_eq!(audit.admit(&flow(1, 5000), &why, now + limits::AUDIT_SAME), Some(0));
    }

    #[test]
    fn a_flood_is_not_written_whole() {
        let now = Instant::now();
        let mut audit = Audit::new(now);
        let written = |audit: &mut Audit, at: Instant, first: u16| {
            (first..first + 10_000)
                .filter(|port| audit.admit(&flow(1, *port), &Refused::NoListener, at).is_some())
                .count()
        };
        assert_eq!(written(&mut audit, now, 1), limits::AUDIT_BURST as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(written(&mut audit, later, 20_000), limits::AUDIT_PER_SECOND as usize);
        // And it is said how many were not.
        let last = audit.admit(&flow(1, 50_000), &Refused::NoListener, later + Duration::from_secs(1));
        assert_eq!(last, Some(10_000 - u64::from(limits::AUDIT_PER_SECOND)));
    }
}
