//! The line with the broker, which the portal has by right.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use portreeve_model::wire::broker::{Answer, Ask, FromBroker, PublicKey, Question};
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use portreeve_sys::message::{self, ReceiveError};
use portreeve_tests::hostile::Report;

use crate::Held;
use crate::files::late;
use crate::sockets::{PATIENCE, wait};

/// What was heard on a line.
#[derive(Default)]
pub(crate) struct Heard {
    keys: Vec<PublicKey>,
    answers: BTreeMap<u32, Answer>,
    next: u32,
}

/// The next message of any kind; `None` at the end.
pub(crate) fn next(channel: &OwnedFd) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    wait(channel, PATIENCE)?;
    let mut buffer = vec![0; MAX_FRAME];
    match message::receive(channel, &mut buffer, 8) {
        Ok(message) => Ok(Some((message.bytes.to_vec(), message.descriptors))),
        Err(ReceiveError::Closed) => Ok(None),
        Err(ReceiveError::Io(error)) => Err(error),
        Err(other) => Err(Error::other(other)),
    }
}

impl Heard {
    /// Hears one more. False at the end.
    fn hear(&mut self, line: &OwnedFd) -> Result<bool> {
        let Some((bytes, _)) = next(line)? else { return Ok(false) };
        match decode(&bytes).map_err(Error::other)? {
            FromBroker::Keys(keys) => self.keys = keys,
            FromBroker::Answer { id, answer } => drop(self.answers.insert(id, answer)),
            FromBroker::Ended(_) | FromBroker::AlsoEnded { .. } => {}
        }
        Ok(true)
    }

    fn ask(&mut self, line: &OwnedFd, question: Question, with: &[&OwnedFd]) -> Result<u32> {
        self.next += 1;
        let frame = encode_bare(&Ask { id: self.next, question }).map_err(Error::other)?;
        let with: Vec<_> = with.iter().map(|descriptor| descriptor.as_fd()).collect();
        message::send(line, &frame, &with)?;
        Ok(self.next)
    }
}

impl Held {
    pub(crate) fn ask(&mut self, line: &str, question: Question, with: &[String]) -> Report {
        let mut heard = self.heard.remove(line).unwrap_or_default();
        let answer = self.answer(line, &mut heard, question, with).unwrap_or_else(|error| {
            eprintln!("the line with the broker: {error}");
            None
        });
        let keys = heard.keys.clone();
        self.heard.insert(line.to_owned(), heard);
        Report::Answered { answer: answer.map(Box::new), keys }
    }

    fn answer(
        &self,
        line: &str,
        heard: &mut Heard,
        question: Question,
        with: &[String],
    ) -> Result<Option<Answer>> {
        let line = self.socket(line)?;
        let with = with.iter().map(|name| self.socket(name)).collect::<Result<Vec<_>>>()?;
        let id = heard.ask(line, question, &with)?;
        let started = Instant::now();
        // PAM and the user database take their time.
        while started.elapsed() < 3 * PATIENCE {
            if let Some(answer) = heard.answers.remove(&id) {
                return Ok(Some(answer));
            }
            if !heard.hear(line)? {
                return Ok(None);
            }
        }
        Err(late())
    }

    pub(crate) fn flood(&mut self, line: &str, uid: u32, count: u32) -> Report {
        let mut heard = self.heard.remove(line).unwrap_or_default();
        let (mut answered, mut busy, mut asked) = (0, 0, 0);
        let flooded = self.socket(line).and_then(|line| {
            while answered < count {
                // As many as there is room for.
                while asked < count && heard.ask(line, Question::Login { uid: uid + asked }, &[]).is_ok() {
                    asked += 1;
                }
                if !heard.hear(line)? {
                    return Ok(());
                }
                while let Some((_, answer)) = heard.answers.pop_first() {
                    answered += 1;
                    busy += u32::from(matches!(answer, Answer::Failed { why } if why.contains("busy")));
                }
            }
            Ok(())
        });
        if let Err(error) = flooded {
            eprintln!("the flood: {error}");
        }
        self.heard.insert(line.to_owned(), heard);
        Report::Flooded { answered, busy }
    }
}
