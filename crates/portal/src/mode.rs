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
use portreeve_model::ListenerId;
pub(crate) use portreeve_rewrite::Mode;

use crate::limits;

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
