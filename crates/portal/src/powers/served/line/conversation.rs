//! One connection of the broker's, to its end: news in, questions out, answers in.
//!
//! Invariants: the broker is believed only while it answers. A connection that waited in the queue is full of what was so
//! when it was made, and stays so when the broker has died or hangs: it is no news until the first question is answered. What was
//! said of ended sessions is in force before anything that is said later; the list is had anew from each connection.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use portreeve_broker::Verifier;
use portreeve_model::Secret;
use portreeve_model::wire::MAX_FRAME;
use portreeve_model::wire::broker::{AT_ONCE, Answer, Ask, FromBroker, PublicKey, Question};

use super::super::channel::{Channel, ChannelError};
use super::super::ended::List;
use super::{Asked, Line, Questions};
use crate::sessions::Sessions;

/// The first question's number. It is about no session, and shows that somebody is there.
const KNOCK: u32 = 0;

/// What one connection has going.
struct Conversation<'l> {
    line: &'l Line,
    sessions: &'l Sessions,
    open: HashMap<u32, Asked>,
    /// The number of the last question.
    last: u32,
    /// Until the first question is answered: what was said so far.
    first: Option<First>,
    /// Something was added to the list, and nobody has been ended by it yet.
    is_longer: bool,
}

/// What was said before anybody answered.
#[derive(Default)]
struct First {
    keys: Option<Vec<PublicKey>>,
    list: List,
    is_whole: bool,
}

/// Has it, and says why it ended.
pub(super) async fn converse(
    line: &Line,
    channel: &Channel,
    questions: &mut Questions,
    sessions: &Sessions,
) -> ChannelError {
    let mut conversation = Conversation::new(line, sessions);
    let ended = conversation.go_on(channel, questions).await;
    questions.ask_again(conversation.open.into_values());
    ended
}

impl<'l> Conversation<'l> {
    fn new(line: &'l Line, sessions: &'l Sessions) -> Self {
        let (open, first) = (HashMap::new(), Some(First::default()));
        Self { line, sessions, open, last: KNOCK, first, is_longer: false }
    }

    async fn go_on(&mut self, channel: &Channel, questions: &mut Questions) -> ChannelError {
        let mut buffer = zeroize::Zeroizing::new(vec![0; MAX_FRAME]);
        let knock = Question::Groups { ticket: Secret::new(String::new()) };
        if let Err(error) = channel.send(&Ask { id: KNOCK, question: knock }, None).await {
            return error;
        }
        loop {
            let takes_questions = self.first.is_none() && self.open.len() < AT_ONCE;
            // Hearing first: answers free places for questions.
            tokio::select! {
                biased;
                heard = channel.receive_plain(&mut buffer) => {
                    if let Err(error) = heard.and_then(|said| self.hear(said)) {
                        return error;
                    }
                }
                Some(asked) = questions.next(), if takes_questions => {
                    if let Err(error) = self.ask(channel, asked).await {
                        return error;
                    }
                }
            }
        }
    }

    async fn ask(&mut self, channel: &Channel, asked: Asked) -> Result<(), ChannelError> {
        // Whoever asked may have left.
        if asked.reply.is_closed() {
            return Ok(());
        }
        self.last = self.last.wrapping_add(1);
        let ask = Ask { id: self.last, question: asked.question.clone() };
        let asked = self.open.entry(self.last).insert_entry(asked).into_mut();
        channel.send(&ask, asked.descriptor.as_ref().map(AsFd::as_fd)).await
    }

    fn hear(&mut self, said: FromBroker) -> Result<(), ChannelError> {
        match (said, &mut self.first) {
            // All that was news by then has come before it.
            (FromBroker::Answer { id: KNOCK, .. }, first @ Some(_)) => match first.take() {
                Some(First { keys: Some(keys), list, is_whole: true }) => {
                    tracing::info!("the broker is there");
                    self.take_keys(&keys)?;
                    // It replaces what was known: old entries have had their day.
                    *self.line.ended.list() = list;
                    self.end_all();
                    self.note_heard()?;
                }
                _ => return Err(io::Error::other("it answers before it has said who is over").into()),
            },
            (FromBroker::Answer { id, answer }, _) => self.answered(id, answer)?,
            (FromBroker::Keys(keys), Some(first)) => first.keys = Some(keys),
            (FromBroker::Keys(keys), None) => self.take_keys(&keys)?,
            (FromBroker::AlsoEnded { sessions, users }, Some(first)) => first.list.add(sessions, users),
            (FromBroker::AlsoEnded { sessions, users }, None) => {
                self.is_longer = true;
                self.line.ended.list().add(sessions, users);
            }
            (FromBroker::Ended(sessions), Some(first)) => {
                first.list.add(sessions, []);
                first.is_whole = true;
                if first.list.is_full() {
                    return Err(too_long());
                }
            }
            (FromBroker::Ended(sessions), None) => {
                self.is_longer |= !sessions.is_empty();
                self.line.ended.list().add(sessions, []);
                if std::mem::take(&mut self.is_longer) {
                    self.end_all();
                }
                self.note_heard()?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, id: u32, answer: Answer) -> Result<(), ChannelError> {
        let asked = self.open.remove(&id).ok_or(ChannelError::NoQuestion)?;
        // Whoever asked may have left.
        let _ = asked.reply.send(answer);
        Ok(())
    }

    fn note_heard(&self) -> Result<(), ChannelError> {
        if self.line.ended.list().is_full() {
            return Err(too_long());
        }
        self.line.ended.note_heard();
        Ok(())
    }

    /// Ends the sessions of this portal that are on the list.
    fn end_all(&self) {
        let list = self.line.ended.list();
        self.sessions.end_those(|claims| list.has(claims));
    }

    fn take_keys(&self, keys: &[PublicKey]) -> Result<(), ChannelError> {
        let verifier = Verifier::of_keys(keys).map_err(io::Error::other)?;
        let old = self.line.verifier.swap(Arc::new(verifier));
        let new = self.line.verifier.load();
        if old.key_ids().any(|id| !new.knows_key(id)) {
            self.line.epoch.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }
}

fn too_long() -> ChannelError {
    io::Error::other("the list of ended sessions is to be had anew").into()
}

#[cfg(test)]
mod tests {
    use portreeve_model::wire::broker::UserEnded;
    use portreeve_model::{Audience, Claims, SessionId, SignIn, UserName};

    use super::*;

    fn claims(n: u8, uid: u32) -> Claims {
        Claims {
            iss: "portreeve".into(),
            sub: UserName::parse("alice").unwrap(),
            uid,
            sid: SessionId::from_bytes([n; 16]),
            iat: 10,
            auth_time: 10,
            exp: 1000,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    fn knocked() -> FromBroker {
        FromBroker::Answer { id: KNOCK, answer: Answer::NoTicket }
    }

    #[test]
    fn what_waited_in_the_queue_is_no_news_until_somebody_answers() {
        let ((line, _questions), sessions) = (Line::new(), Sessions::new(9));
        let session = sessions.admit(&claims(1, 7), "", &[], 10, 50).unwrap();
        line.ended.list().add([claims(2, 7).sid], []);
        let mut conversation = Conversation::new(&line, &sessions);
        conversation.hear(FromBroker::Keys(Vec::new())).unwrap();
        for _ in 0..3 {
            conversation.hear(FromBroker::Ended(vec![claims(1, 7).sid])).unwrap();
        }
        assert!(!line.ended.is_fresh() && session.is_live(11, 50), "a dead broker could have said that");
        assert!(line.ended.list().has(&claims(2, 7)), "what was known stays known");
        conversation.hear(knocked()).unwrap();
        assert!(line.ended.is_fresh() && !session.is_live(11, 50));
        assert!(!line.ended.list().has(&claims(2, 7)), "the broker that is there does not have it any more");
    }

    #[test]
    fn who_answers_before_the_list_was_whole_is_not_heard() {
        let ((line, _questions), sessions) = (Line::new(), Sessions::new(9));
        for said in [vec![], vec![FromBroker::Keys(Vec::new())], vec![FromBroker::Ended(Vec::new())]] {
            let mut conversation = Conversation::new(&line, &sessions);
            said.into_iter().for_each(|said| conversation.hear(said).unwrap());
            assert!(conversation.hear(knocked()).is_err() && !line.ended.is_fresh());
        }
    }

    #[test]
    fn all_of_a_users_sessions_end_at_once_though_no_session_is_named() {
        let ((line, _questions), sessions) = (Line::new(), Sessions::new(9));
        let [one, other] =
            [(1, 7), (2, 8)].map(|(n, uid)| sessions.admit(&claims(n, uid), "", &[], 10, 50).unwrap());
        let mut conversation = Conversation::new(&line, &sessions);
        for said in [FromBroker::Keys(Vec::new()), FromBroker::Ended(Vec::new()), knocked()] {
            conversation.hear(said).unwrap();
        }
        let users = vec![UserEnded { uid: 7, until: 10 }];
        conversation.hear(FromBroker::AlsoEnded { sessions: Vec::new(), users }).unwrap();
        conversation.hear(FromBroker::Ended(Vec::new())).unwrap();
        assert!(!one.is_live(11, 50) && other.is_live(11, 50));
    }
}
