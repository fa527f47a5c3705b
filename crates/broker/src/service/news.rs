//! What every portal is told unasked: keys, and sessions that are over. Each listener gets all of it, in time or late.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use portreeve_model::SessionId;
use portreeve_model::wire::broker::{FromBroker, PublicKey, UserEnded};
use tokio::sync::Notify;

use super::limits;

/// Those who listen.
#[derive(Default)]
pub(super) struct News {
    listeners: RefCell<Vec<Weak<Listener>>>,
}

/// What one listener has not been told.
pub(super) struct Listener {
    waiting: RefCell<Waiting>,
    /// There is something to tell before the next second.
    pub(super) wake: Notify,
}

/// Not told yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The keys changed.
    pub(super) keys: bool,
    /// Everything that is over is to be told again.
    pub(super) whole: bool,
    pub(super) sessions: Vec<SessionId>,
    pub(super) users: Vec<UserEnded>,
}

const NOTHING: Waiting = Waiting { keys: false, whole: false, sessions: Vec::new(), users: Vec::new() };

impl News {
    /// One more listener, to whom everything is news.
    pub(super) fn listen(&self) -> Rc<Listener> {
        let waiting = RefCell::new(Waiting { keys: true, whole: true, ..NOTHING });
        let listener = Rc::new(Listener { waiting, wake: Notify::new() });
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Rc::downgrade(&listener));
        listener
    }

    fn tell(&self, add: impl Fn(&mut Waiting)) {
        for listener in self.listeners.borrow().iter().filter_map(Weak::upgrade) {
            let mut waiting = listener.waiting.borrow_mut();
            add(&mut waiting);
            if waiting.sessions.len() + waiting.users.len() > limits::NEWS_WAITING {
                *waiting = Waiting { keys: waiting.keys, whole: true, ..NOTHING };
            }
            listener.wake.notify_one();
        }
    }

    pub(super) fn session_ended(&self, session: &SessionId) {
        self.tell(|waiting| waiting.sessions.push(session.clone()));
    }

    pub(super) fn user_ended(&self, user: UserEnded) {
        self.tell(|waiting| waiting.users.push(user));
    }

    pub(super) fn keys_changed(&self) {
        self.tell(|waiting| waiting.keys = true);
    }
}

impl Listener {
    /// Takes what is to be told now.
    pub(super) fn take(&self) -> Waiting {
        self.waiting.replace(NOTHING)
    }
}

/// The messages: keys if they are news, then what is over. The last one is always an `Ended`. At most `most` sessions or users
/// in one.
pub(super) fn messages(
    keys: Option<Vec<PublicKey>>,
    mut sessions: Vec<SessionId>,
    mut users: Vec<UserEnded>,
    most: usize,
) -> Vec<FromBroker> {
    let mut messages: Vec<FromBroker> = keys.map(FromBroker::Keys).into_iter().collect();
    while !users.is_empty() || sessions.len() > most {
        let users_now = users.split_off(users.len().saturating_sub(most.min(limits::NEWS_USERS)));
        let sessions_now = match users_now.is_empty() {
            true => sessions.split_off(sessions.len() - most),
            false => Vec::new(),
        };
        messages.push(FromBroker::AlsoEnded { sessions: sessions_now, users: users_now });
    }
    messages.push(FromBroker::Ended(sessions));
    messages
}

#[cfg(test)]
mod tests {
    use portreeve_model::wire::encode_bare;

    use super::*;

    #[test]
    fn a_list_of_any_length_is_told_whole_in_messages_that_fit() {
        let sessions: Vec<SessionId> =
            (0..10_001u128).map(|n| SessionId::from_bytes(n.to_be_bytes())).collect();
        let users: Vec<UserEnded> =
            (0..3001).map(|uid| UserEnded { uid: u32::MAX - uid, until: i64::MAX }).collect();
        for most in [60, limits::NEWS_SESSIONS] {
            let (mut told_sessions, mut told_users) = (Vec::new(), Vec::new());
            let messages = messages(Some(Vec::new()), sessions.clone(), users.clone(), most);
            assert!(matches!(messages.first(), Some(FromBroker::Keys(_))));
            assert!(matches!(messages.last(), Some(FromBroker::Ended(_))));
            for message in messages {
                let length = encode_bare(&message).unwrap().len();
                assert!(most > 60 || length < 4000, "{length}");
                match message {
                    FromBroker::Ended(some) => told_sessions.extend(some),
                    FromBroker::AlsoEnded { sessions, users } => {
                        told_sessions.extend(sessions);
                        told_users.extend(users);
                    }
                    _ => {}
                }
            }
            told_sessions.sort();
            assert_eq!(told_sessions.len(), sessions.len());
            assert!(told_sessions.windows(2).all(|pair| pair[0] != pair[1]));
            assert_eq!(told_users.len(), users.len());
        }
        assert_eq!(messages(None, vec![], vec![], 60), [FromBroker::Ended(vec![])]);
    }

    #[test]
    fn who_does_not_read_is_told_everything_again_instead_of_filling_the_memory() {
        let news = News::default();
        let listener = news.listen();
        assert_eq!(listener.take(), Waiting { keys: true, whole: true, ..NOTHING });
        let session = SessionId::from_bytes([1; 16]);
        news.session_ended(&session);
        assert_eq!(listener.take(), Waiting { sessions: vec![session.clone()], ..NOTHING });
        for _ in 0..=limits::NEWS_WAITING {
            news.session_ended(&session);
        }
        news.keys_changed();
        assert_eq!(listener.take(), Waiting { keys: true, whole: true, ..NOTHING });
        drop(listener);
        news.session_ended(&session);
        let other = news.listen();
        assert_eq!(news.listeners.borrow().len(), 1);
        drop(other);
    }
}
