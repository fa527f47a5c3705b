//! Which paths an application wants, when it appears below a prefix.
//!
//! Started with the prefix as its base URL (JupyterLab), it wants paths whole: *keep*. Otherwise it believes to be at
//! the root: *strip*. The portal finds out by itself, from what the application answers: a redirect into the prefix,
//! or "not found" without the prefix and something with it, means keep. What was learned holds for the listening
//! socket it was learned from, so an application that is restarted is learned anew.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use portreeve_model::{ListenerId, PathMode};
pub(crate) use portreeve_rewrite::Mode;

use crate::authorize::Owned;
use crate::limits;
use crate::resolve::Target;
use crate::room::Room;
use crate::route::Place;

/// Names a LISTEN socket among those of all nodes and all their boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Listener {
    /// Its node's address.
    pub(crate) node: IpAddr,
    /// See [`crate::agents::Heard::generation`].
    pub(crate) generation: u64,
    /// What the node's kernel calls it.
    pub(crate) id: ListenerId,
}

/// What was learned, for all threads. Asked once a connection to an application, not once a request.
pub(crate) struct Modes(Mutex<LruCache<(Listener, Box<str>), Mode>>);

impl Default for Modes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(limits::MODES).unwrap_or(NonZeroUsize::MIN))))
    }
}

impl Modes {
    pub(crate) fn get(&self, listener: Listener, prefix: &str) -> Option<Mode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(listener, prefix.into())).copied()
    }

    #[cfg(test)]
    pub(crate) fn most(&self) -> NonZeroUsize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cap()
    }

    pub(crate) fn learn(&self, listener: Listener, prefix: &str, mode: Mode) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put((listener, prefix.into()), mode);
    }
}

/// Why an application gets its paths as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has an origin to itself.
    OwnOrigin,
    /// Its forward says so.
    Forward,
    /// Its forward's path is the prefix.
    Base,
    /// Its answers told.
    Learned,
    /// Nothing has told yet.
    NotYet,
}

impl Why {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::OwnOrigin => "it has a host name of its own",
            Self::Forward => "its forward says so",
            Self::Base => "its forward leads to a path that is the prefix itself",
            Self::Learned => "its answers told",
            Self::NotYet => "it has answered nothing yet that tells",
        }
    }
}

/// The same for the workspace.
pub(crate) fn shown(mode: Mode) -> PathMode {
    match mode {
        Mode::Keep => PathMode::Keep,
        Mode::Strip => PathMode::Strip,
    }
}

/// The mode that needs no learning.
pub(crate) fn fixed(place: &Place, target: &Target) -> Option<(Mode, Why)> {
    if place.prefix.is_empty() {
        return Some((Mode::Keep, Why::OwnOrigin));
    }
    match target.mode {
        Some(PathMode::Keep) => Some((Mode::Keep, Why::Forward)),
        Some(PathMode::Strip) => Some((Mode::Strip, Why::Forward)),
        None => (*target.base == *place.prefix).then_some((Mode::Keep, Why::Base)),
    }
}

/// The mode of an application, as far as it is known.
pub(crate) fn mode_of(room: &Room, place: &Place, target: &Target, owned: &Owned) -> Option<(Mode, Why)> {
    fixed(place, target).or_else(|| {
        let known = owned
            .known_mode(&place.prefix)
            .or_else(|| room.portal.modes.get(room.listener(&owned.tuple(), &owned.owner()), &place.prefix));
        known.map(|mode| (mode, Why::Learned))
    })
}

/// Whether a `Location` leads into the prefix, in path form or with any origin before it.
pub(crate) fn leads_into(location: &[u8], prefix: &str) -> bool {
    let Ok(location) = std::str::from_utf8(location) else { return false };
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => location,
    };
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_into_the_prefix_is_recognised() {
        for (location, expected) in [
            ("/fw/tb/", true),
            ("/fw/tb", true),
            ("/fw/tb?x", true),
            ("http://localhost:8443/fw/tb/lab", true),
            ("/fw/tb2/", false),
            ("/lab", false),
            ("https://elsewhere", false),
            ("", false),
        ] {
            assert_eq!(leads_into(location.as_bytes(), "/fw/tb"), expected, "{location}");
        }
    }
}
