//! Slows wrong tries down: per name, per address, and per browser that is known for a name.
//!
//! A try is counted against its name when it begins, so that many at once are no way around, and is taken back when the
//! person turns out to be who they say, or left before answering anything. A browser with a mark has a count of its
//! own: others' tries neither slow it nor lock it out.
//!
//! Invariant: every table is bounded. Whoever wants to push a name out of its table needs as many wrong tries as it has
//! places, and each address is slowed meanwhile.

use std::cell::RefCell;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use lru::LruCache;
use portreeve_model::UserName;
use tokio::time::Instant;

use super::marks::MarkId;

/// Names, addresses and marks that are remembered, each.
const PLACES: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("it is no zero");
/// Tries with one mark, after which it counts as none until they are forgotten: it may have been stolen.
const WORN_OUT: u32 = 12;

/// When waiting begins, and how long it gets.
#[derive(Debug, Clone, Copy)]
pub struct SlowDown {
    /// Wrong tries of one name, from anywhere, that cost no waiting. Below the count at which PAM's own lock-out trips.
    pub free_of_a_name: u32,
    /// Wrong tries from one address, for any names, that cost no waiting. Many people may share an address.
    pub free_of_an_address: u32,
    /// The longest wait. Each further wrong try doubles it, from a second on.
    pub longest: Duration,
    /// Without a wrong try for so long, the earlier ones are forgotten.
    pub forgotten: Duration,
}

impl Default for SlowDown {
    fn default() -> Self {
        Self {
            free_of_a_name: 3,
            free_of_an_address: 20,
            longest: Duration::from_secs(60),
            forgotten: Duration::from_secs(15 * 60),
        }
    }
}

/// A name as tries are counted for it: without case and without a domain, because a directory may take
/// `alice`, `ALICE` and `alice@example.org` for the same account, and count them together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct NameKey(Box<str>);

impl NameKey {
    pub(super) fn of(name: &UserName) -> Self {
        let whole = name.as_str();
        let account = whole.split('@').next().filter(|account| !account.is_empty()).unwrap_or(whole);
        Self(account.to_ascii_lowercase().into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who a wrong try is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl Network {
    /// One IPv4 address, or the IPv6 network that one customer has at least.
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
            four => four,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    count: u32,
    last: Instant,
}

struct Tables {
    slow_down: SlowDown,
    names: LruCache<NameKey, Tries>,
    marks: LruCache<MarkId, Tries>,
    networks: LruCache<Network, Tries>,
    /// Wrong access tokens: a program with an old one must not make the people behind its address wait.
    tokens: LruCache<Network, Tries>,
}

/// Counts tries.
#[derive(Clone)]
pub(super) struct Throttle {
    tables: Rc<RefCell<Tables>>,
}

/// A try that is under way. Dropped, it counts as a wrong one.
#[must_use = "dropped, it is a wrong try"]
pub(super) struct Try {
    tables: Rc<RefCell<Tables>>,
    counted: Counted,
    network: Network,
}

enum Counted {
    Name(NameKey),
    Mark(MarkId),
    /// Taken back.
    No,
}

impl Tables {
    /// The rest of the wait after the last of these tries, zero if there is none.
    fn rest(&self, tries: Option<&Tries>, free: u32, now: Instant) -> Duration {
        let Some(tries) = tries else { return Duration::ZERO };
        let passed = now.saturating_duration_since(tries.last);
        if tries.count < free || passed >= self.slow_down.forgotten {
            return Duration::ZERO;
        }
        let doubled = 1u64.checked_shl(tries.count - free).unwrap_or(u64::MAX);
        Duration::from_secs(doubled).min(self.slow_down.longest).saturating_sub(passed)
    }
}

fn count<K: Hash + Eq>(table: &mut LruCache<K, Tries>, key: K, forgotten: Duration, now: Instant) {
    let tries = table.get_or_insert_mut(key, || Tries { count: 0, last: now });
    if now.saturating_duration_since(tries.last) >= forgotten {
        tries.count = 0;
    }
    *tries = Tries { count: tries.count.saturating_add(1), last: now };
}

fn take_back<K: Hash + Eq>(table: &mut LruCache<K, Tries>, key: &K) {
    if let Some(tries) = table.get_mut(key) {
        tries.count = tries.count.saturating_sub(1);
    }
}

impl Throttle {
    pub(super) fn new(slow_down: SlowDown) -> Self {
        let (names, marks) = (LruCache::new(PLACES), LruCache::new(PLACES));
        let (networks, tokens) = (LruCache::new(PLACES), LruCache::new(PLACES));
        Self { tables: Rc::new(RefCell::new(Tables { slow_down, names, marks, networks, tokens })) }
    }

    /// Takes another measure; what was counted stays.
    pub(super) fn change(&self, slow_down: SlowDown) {
        self.tables.borrow_mut().slow_down = slow_down;
    }

    /// Begins a try.
    ///
    /// # Errors
    /// How long to wait first.
    pub(super) fn begin(
        &self,
        name: &NameKey,
        mark: Option<MarkId>,
        from: IpAddr,
        now: Instant,
    ) -> Result<Try, Duration> {
        let mut tables = self.tables.borrow_mut();
        let slow_down = tables.slow_down;
        let network = Network::of(from);
        let worn_out = |mark: &MarkId| {
            let tries = tables.marks.peek(mark);
            tries.is_some_and(|t| {
                t.count >= WORN_OUT && now.saturating_duration_since(t.last) < slow_down.forgotten
            })
        };
        let (wait, counted) = match mark.filter(|mark| !worn_out(mark)) {
            Some(mark) => {
                let tries = tables.marks.peek(&mark);
                (tables.rest(tries, slow_down.free_of_a_name, now), Counted::Mark(mark))
            }
            None => {
                let of_name = tables.rest(tables.names.peek(name), slow_down.free_of_a_name, now);
                let of_network = tables.networks.peek(&network);
                let of_network = tables.rest(of_network, slow_down.free_of_an_address, now);
                (of_name.max(of_network), Counted::Name(name.clone()))
            }
        };
        if wait > Duration::ZERO {
            return Err(wait);
        }
        match &counted {
            Counted::Name(name) => count(&mut tables.names, name.clone(), slow_down.forgotten, now),
            Counted::Mark(mark) => count(&mut tables.marks, *mark, slow_down.forgotten, now),
            Counted::No => {}
        }
        Ok(Try { tables: Rc::clone(&self.tables), counted, network })
    }

    /// A wrong access token came from there, and is counted.
    ///
    /// # Errors
    /// How long to wait before the next one is looked at; then it is not counted.
    pub(super) fn wrong_token(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut tables = self.tables.borrow_mut();
        let (slow_down, network) = (tables.slow_down, Network::of(from));
        let wait = tables.rest(tables.tokens.peek(&network), slow_down.free_of_an_address, now);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        count(&mut tables.tokens, network, slow_down.forgotten, now);
        Ok(())
    }
}

impl Try {
    /// It was no wrong try: the person is who they say, or left before answering anything.
    pub(super) fn take_back(mut self) {
        let mut tables = self.tables.borrow_mut();
        match std::mem::replace(&mut self.counted, Counted::No) {
            Counted::Name(name) => take_back(&mut tables.names, &name),
            Counted::Mark(mark) => take_back(&mut tables.marks, &mark),
            Counted::No => {}
        }
    }

    /// Whether a mark lets it pass others' tries.
    pub(super) fn is_marked(&self) -> bool {
        matches!(self.counted, Counted::Mark(_))
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if !matches!(self.counted, Counted::No) {
            let mut tables = self.tables.borrow_mut();
            let forgotten = tables.slow_down.forgotten;
            count(&mut tables.networks, self.network, forgotten, Instant::now());
        }
    }
}

#[cfg(test)]
#[path = "tests/throttle.rs"]
mod tests;
