//! One portal thread's channel, and what is under way for it. Invariants: questions are read only while no answer waits to be
//! taken, and no more than `AT_ONCE` connections are under way; `Released` is said when this process has no copy of the
//! socket any more. A channel that says anything unexpected is closed, and everything that was under way for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;
use portreeve_model::wire::dialer::{AT_ONCE, Dial, Dialed};
use portreeve_model::wire::{decode, encode_bare};
use portreeve_sys::message::{self, ReceiveError};

use super::attempt::Attempt;

/// A channel.
pub(super) struct Channel {
    pub(super) socket: OwnedFd,
    pub(super) attempts: Vec<Attempt>,
    answers: VecDeque<Answer>,
}

/// What is to be said.
enum Answer {
    Connected { id: u32, socket: OwnedFd },
    Released { id: u32 },
    Failed { id: u32, errno: Errno },
}

/// The channel is at its end.
pub(super) struct Over;

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, attempts: Vec::new(), answers: VecDeque::new() }
    }

    /// What the channel itself waits for.
    pub(super) fn wanted(&self) -> PollFlags {
        if self.answers.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Reads the questions that wait, as many as there may be.
    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) -> Result<(), Over> {
        for _ in 0..AT_ONCE {
            if !self.answers.is_empty() {
                break;
            }
            let dial: Dial = match message::receive(&self.socket, buffer, 0) {
                Ok(message) => decode(message.bytes).map_err(|_| Over)?,
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Over),
            };
            let begun = match self.attempts.len() {
                0..AT_ONCE => Attempt::begin(&dial, now),
                _ => Err(Errno::EBUSY),
            };
            match begun {
                Ok(attempt) => self.attempts.push(attempt),
                Err(errno) => self.answers.push_back(Answer::Failed { id: dial.id, errno }),
            }
            self.say()?;
        }
        Ok(())
    }

    /// Takes what became of the attempts: of those in `ready` (by their place), and of those whose time is up.
    pub(super) fn settle(&mut self, ready: &[usize], now: Instant) -> Result<(), Over> {
        // From the end, so that places stay what they are.
        for place in (0..self.attempts.len()).rev() {
            let answer = if ready.contains(&place) {
                let attempt = self.attempts.swap_remove(place);
                let id = attempt.id;
                match attempt.finish() {
                    Ok(socket) => Answer::Connected { id, socket },
                    Err(errno) => Answer::Failed { id, errno },
                }
            } else if self.attempts[place].until <= now {
                let id = self.attempts.swap_remove(place).id;
                Answer::Failed { id, errno: Errno::ETIMEDOUT }
            } else {
                continue;
            };
            self.answers.push_back(answer);
        }
        self.say()
    }

    /// Says what the portal's end has room for.
    pub(super) fn say(&mut self) -> Result<(), Over> {
        while let Some(answer) = self.answers.pop_front() {
            let (said, socket) = match &answer {
                Answer::Connected { id, socket } => (Dialed::Connected { id: *id }, Some(socket.as_fd())),
                Answer::Released { id } => (Dialed::Released { id: *id }, None),
                Answer::Failed { id, errno } => (Dialed::Failed { id: *id, errno: *errno as i32 }, None),
            };
            let frame = encode_bare(&said).map_err(|_| Over)?;
            match (message::send(&self.socket, &frame, socket.as_slice()), answer) {
                (Ok(()), Answer::Connected { id, socket }) => {
                    drop(socket);
                    self.answers.push_front(Answer::Released { id });
                }
                (Ok(()), _) => {}
                (Err(error), answer) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.answers.push_front(answer);
                    break;
                }
                // The user has too many descriptors on their way between processes (unix(7)).
                (Err(error), Answer::Connected { id, .. })
                    if error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32) =>
                {
                    self.answers.push_front(Answer::Failed { id, errno: Errno::ETOOMANYREFS });
                }
                (Err(_), _) => return Err(Over),
            }
        }
        Ok(())
    }
}
