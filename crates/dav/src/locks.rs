//! Which resources are locked, by which token, until when (RFC 4918, sections 6 and 7). Kept in memory by the user's worker: it sees the
//! locks of that user's clients, and of nobody else's.
//!
//! Invariant: a lock that is over is none; nothing is changed below a lock without its token.

use std::time::{Duration, Instant};

use portreeve_files::RelPath;

use crate::limits;

/// A lock.
#[derive(Debug, Clone)]
pub(crate) struct Lock {
    pub(crate) token: String,
    /// `None`: the root.
    pub(crate) path: Option<RelPath>,
    /// All below is locked as well.
    pub(crate) deep: bool,
    pub(crate) exclusive: bool,
    /// An element, or empty.
    pub(crate) owner: String,
    pub(crate) time: Duration,
    until: Instant,
}

/// All of one user's.
#[derive(Debug, Default)]
pub(crate) struct Locks(Vec<Lock>);

/// What is to be locked.
pub(crate) struct Wanted {
    pub(crate) path: Option<RelPath>,
    pub(crate) deep: bool,
    pub(crate) exclusive: bool,
    pub(crate) owner: String,
    pub(crate) time: Duration,
}

/// Why nothing was locked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotLocked {
    /// By a lock that does not go with it, with this root.
    Conflict(Option<RelPath>),
    /// There are too many.
    TooMany,
    /// No token could be drawn.
    NoToken,
}

/// How far a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What a resource is or has.
    Content,
    /// The same of it and of all below; and it appears or goes: the collection that it is in changes as well.
    Existence,
}

impl Lock {
    fn covers(&self, path: Option<&RelPath>) -> bool {
        self.path.as_ref() == path || (self.deep && is_below(path, self.path.as_ref()))
    }

    /// Who says to hold it, if that is told: text of a client's, on one line.
    pub(crate) fn holder(&self) -> Option<String> {
        let text = crate::xml::read(self.owner.as_bytes()).ok()?.root.whole_text();
        Some(text.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
    }

    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

/// Whether `path` is somewhere in `directory`.
pub(crate) fn is_below(path: Option<&RelPath>, directory: Option<&RelPath>) -> bool {
    match (path, directory) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(path), Some(directory)) => {
            path.as_bytes().strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
        }
    }
}

impl Locks {
    fn live(&mut self, now: Instant) -> &mut Vec<Lock> {
        self.0.retain(|lock| lock.until > now);
        &mut self.0
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&mut self, now: Instant) -> bool {
        self.live(now).is_empty()
    }

    /// Those that cover the resource.
    pub(crate) fn of(&mut self, path: Option<&RelPath>, now: Instant) -> Vec<Lock> {
        self.live(now).iter().filter(|lock| lock.covers(path)).cloned().collect()
    }

    pub(crate) fn add(&mut self, wanted: Wanted, now: Instant) -> Result<Lock, NotLocked> {
        let live = self.live(now);
        let path = wanted.path.as_ref();
        let meets = |lock: &&Lock| lock.covers(path) || (wanted.deep && is_below(lock.path.as_ref(), path));
        if let Some(other) = live.iter().filter(meets).find(|lock| lock.exclusive || wanted.exclusive) {
            return Err(NotLocked::Conflict(other.path.clone()));
        }
        if live.len() >= limits::LOCKS {
            return Err(NotLocked::TooMany);
        }
        let token = token().ok_or(NotLocked::NoToken)?;
        let Wanted { path, deep, exclusive, owner, time } = wanted;
        let lock = Lock { token, path, deep, exclusive, owner, time, until: now + time };
        live.push(lock.clone());
        Ok(lock)
    }

    /// Lasts anew.
    pub(crate) fn refresh(
        &mut self,
        path: Option<&RelPath>,
        tokens: &[&str],
        time: Duration,
        now: Instant,
    ) -> Option<Lock> {
        let lock =
            self.live(now).iter_mut().find(|lock| lock.covers(path) && tokens.contains(&&*lock.token))?;
        (lock.time, lock.until) = (time, now + time);
        Some(lock.clone())
    }

    /// Whether there was one with that token that covers the resource.
    pub(crate) fn remove(&mut self, path: Option<&RelPath>, token: &str, now: Instant) -> bool {
        let live = self.live(now);
        let before = live.len();
        live.retain(|lock| !(lock.token == token && lock.covers(path)));
        live.len() < before
    }

    /// The resource is gone, with all below.
    pub(crate) fn forget(&mut self, path: &RelPath) {
        self.0.retain(|lock| lock.path.as_ref() != Some(path) && !is_below(lock.path.as_ref(), Some(path)));
    }

    /// Locks that forbid the change, for want of their tokens.
    pub(crate) fn forbidding(
        &mut self,
        path: Option<&RelPath>,
        reach: Reach,
        tokens: &[&str],
        now: Instant,
    ) -> Vec<Lock> {
        let parent = path.map(RelPath::parent);
        let concerns = |lock: &Lock| {
            lock.covers(path)
                || (reach == Reach::Existence
                    && (is_below(lock.path.as_ref(), path)
                        || parent.as_ref().is_some_and(|parent| lock.covers(parent.as_ref()))))
        };
        let live = self.live(now);
        let shown = |lock: &Lock| tokens.contains(&&*lock.token);
        // Of those that share a resource, one token will do.
        let is_shared = |lock: &Lock| {
            !lock.exclusive
                && live.iter().any(|other| !other.exclusive && other.path == lock.path && shown(other))
        };
        let forbids = |lock: &&Lock| concerns(lock) && !shown(lock) && !is_shared(lock);
        live.iter().filter(forbids).cloned().collect()
    }
}

/// Nobody guesses it, and none is given twice (RFC 4918, section 6.5).
fn token() -> Option<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    // RFC 9562, section 5.4.
    random[6] = (random[6] & 0x0f) | 0x40;
    random[8] = (random[8] & 0x3f) | 0x80;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<RelPath> {
        RelPath::parse(text.as_bytes()).ok()
    }

    fn wanted(text: &str, deep: bool, exclusive: bool) -> Wanted {
        Wanted { path: path(text), deep, exclusive, owner: String::new(), time: Duration::from_secs(60) }
    }

    #[test]
    fn who_locks_what_is_locked() {
        let (mut locks, now) = (Locks::default(), Instant::now());
        locks.add(wanted("a/b", true, true), now).unwrap();
        for (text, deep, exclusive, conflict) in [
            ("a/b", false, true, true),
            ("a/b/c", false, false, true),
            ("a", true, false, true),
            ("a", false, true, false),
            ("", true, true, true),
            ("a/bc", false, true, false),
        ] {
            assert_eq!(locks.add(wanted(text, deep, exclusive), now).is_err(), conflict, "{text}");
        }
        locks.add(wanted("s", false, false), now).unwrap();
        locks.add(wanted("s", false, false), now).unwrap();
        assert_eq!(locks.add(wanted("s", false, true), now).unwrap_err(), NotLocked::Conflict(path("s")));
    }

    #[test]
    fn nothing_is_changed_without_the_token() {
        let (mut locks, now) = (Locks::default(), Instant::now());
        let deep = locks.add(wanted("d", true, true), now).unwrap().token;
        let flat = locks.add(wanted("f", false, true), now).unwrap().token;
        let mut forbids = |text: &str, reach, tokens: &[&str]| {
            !locks.forbidding(path(text).as_ref(), reach, tokens, now).is_empty()
        };
        use Reach::{Content, Existence};
        for (text, reach, expected) in [
            ("d", Content, true),
            ("d/x", Content, true),
            ("d/x/y", Existence, true),
            ("dx", Existence, false),
            // The members of a collection that is locked by itself are not locked, but who they are.
            ("f", Content, true),
            ("f/x", Content, false),
            ("f/x", Existence, true),
            ("f/x/y", Existence, false),
            ("", Existence, true),
            ("", Content, false),
        ] {
            assert_eq!(forbids(text, reach, &[]), expected, "{text} {reach:?}");
            assert!(!forbids(text, reach, &[&deep, &flat]));
        }
        assert!(forbids("d", Content, &[&flat]));
        locks.add(wanted("s", false, false), now).unwrap();
        let shared = locks.add(wanted("s", false, false), now).unwrap().token;
        assert!(!locks.forbidding(path("s").as_ref(), Content, &[], now).is_empty());
        assert!(locks.forbidding(path("s").as_ref(), Content, &[&shared], now).is_empty());
    }

    #[test]
    fn a_lock_ends() {
        let (mut locks, now) = (Locks::default(), Instant::now());
        let token = locks.add(wanted("a", true, true), now).unwrap().token;
        let later = now + Duration::from_secs(59);
        let refreshed =
            locks.refresh(path("a/b").as_ref(), &[&token], Duration::from_secs(10), later).unwrap();
        assert_eq!(refreshed.left(later), Duration::from_secs(10));
        assert!(locks.refresh(path("c").as_ref(), &[&token], Duration::from_secs(10), later).is_none());
        assert_eq!(locks.of(path("a").as_ref(), later).len(), 1);
        let over = later + Duration::from_secs(10);
        assert!(locks.of(path("a").as_ref(), over).is_empty() && locks.is_empty(over));
        let token = locks.add(wanted("a", false, true), over).unwrap().token;
        assert!(
            !locks.remove(path("b").as_ref(), &token, over) && locks.remove(path("a").as_ref(), &token, over)
        );
        locks.add(wanted("m/n", false, true), over).unwrap();
        locks.forget(&path("m").unwrap());
        assert!(locks.is_empty(over));
        for _ in 0..limits::LOCKS {
            locks.add(wanted("s", false, false), over).unwrap();
        }
        assert_eq!(locks.add(wanted("t", false, false), over).unwrap_err(), NotLocked::TooMany);
    }

    #[test]
    fn tokens_are_of_their_own() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert!(one != other && one.len() == 45 && one.as_bytes()[23] == b'4', "{one}");
    }
}
