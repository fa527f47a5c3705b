//! What the portal remembers of a session beside who it is: lost with the portal, and then asked or found out anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use portreeve_model::PathMode;

use super::Session;
use crate::limits;
use crate::route::What;

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Others' applications that the visitor opens beside their own, with their owners' uids; the oldest first.
    consents: Mutex<VecDeque<(What, u32)>>,
    /// Stands in our own forms.
    secret: OnceLock<String>,
    /// How the applications that were opened get their paths, by prefix; the oldest first.
    modes: Mutex<VecDeque<(Box<str>, PathMode)>>,
}

impl Session {
    /// Its person wants somebody else's application to be shown beside their own ones.
    pub(crate) fn consent(&self, what: What, owner: u32) {
        remember(&mut lock(&self.memory.consents), limits::CONSENTS, (what, owner), PartialEq::eq);
    }

    /// Whether they do.
    pub(crate) fn consented(&self, what: &What, owner: u32) -> bool {
        lock(&self.memory.consents).iter().any(|(one, uid)| one == what && *uid == owner)
    }

    /// What a form of ours carries, so that no page but ours can send it; the same for the whole session. `None` when no random
    /// numbers can be had.
    pub(crate) fn page_secret(&self) -> Option<String> {
        if let Some(secret) = self.memory.secret.get() {
            return Some(secret.clone());
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        Some(self.memory.secret.get_or_init(|| BASE64URL_NOPAD.encode(&random)).clone())
    }

    /// An application was opened in a window.
    pub(crate) fn note_mode(&self, prefix: &str, mode: PathMode) {
        let same = |one: &(Box<str>, PathMode), other: &(Box<str>, PathMode)| one.0 == other.0;
        remember(&mut lock(&self.memory.modes), limits::MODES_SHOWN, (prefix.into(), mode), same);
    }

    /// How those that were opened last get their paths, by prefix.
    pub(crate) fn modes(&self) -> BTreeMap<String, PathMode> {
        lock(&self.memory.modes).iter().map(|(prefix, mode)| (prefix.to_string(), *mode)).collect()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts it last, in the place of one that is the `same`; the oldest gives way.
fn remember<T>(list: &mut VecDeque<T>, most: usize, new: T, same: impl Fn(&T, &T) -> bool) {
    list.retain(|one| !same(one, &new));
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(new);
}

#[cfg(test)]
mod tests {
    use portreeve_model::{ForwardName, SignIn};

    use super::*;
    use crate::portal::now;

    #[test]
    fn what_is_remembered_is_bounded_and_for_one_owner() {
        let (_state, room) = crate::room::tests::room();
        let (claims, _) = room.portal.service.embedded().broker().start_session(SignIn::Code, now()).unwrap();
        let session = room.portal.sessions.admit(&claims, "", &[], now(), 3600).unwrap();
        let forward = |at: usize| What::Forward(ForwardName::parse(&format!("f{at}")).unwrap());
        for at in 0..=limits::CONSENTS {
            session.consent(forward(at), 7);
        }
        assert!(!session.consented(&forward(0), 7) && session.consented(&forward(1), 7));
        session.consent(forward(1), 7);
        assert!(session.consented(&forward(2), 7), "the same again takes nobody's place");
        assert!(!session.consented(&forward(1), 8), "the port has another user now");

        for at in 0..=limits::MODES_SHOWN {
            session.note_mode(&format!("/fw/f{at}"), PathMode::Strip);
        }
        session.note_mode("/fw/f1", PathMode::Keep);
        let modes = session.modes();
        assert_eq!((modes.len(), modes.get("/fw/f0")), (limits::MODES_SHOWN, None));
        assert_eq!(modes["/fw/f1"], PathMode::Keep);
        let secret = session.page_secret().unwrap();
        assert_eq!((secret.len(), session.page_secret()), (22, Some(secret.clone())));
    }
}
