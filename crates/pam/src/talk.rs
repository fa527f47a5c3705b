//! Carries PAM's questions to the broker and the answers back, over one SEQPACKET channel.
//!
//! Invariant: a text that leaves here is at most `MAX_TEXT` bytes, and has no control character and none that changes
//! the direction of what follows it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pam_client2::{ConversationHandler, ErrorCode};
use portreeve_model::wire::pam::{MAX_PROMPTS, MAX_TEXT, PamNews, PamReply, Prompt, PromptKind};
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use portreeve_model::{Secret, WireError};
use portreeve_sys::message::{self, ReceiveError};
use zeroize::{Zeroize, Zeroizing};

/// Texts that are shown together with the next question. Past that the earlier ones are left out.
const MOST_SAID: usize = MAX_PROMPTS - 1;

/// One conversation.
pub(crate) struct Talk {
    channel: OwnedFd,
    said: Vec<Prompt>,
}

/// The conversation of a check that asks nobody: a module that wants to ask is told that it can't.
#[derive(Default)]
pub(crate) struct NobodyThere {
    said: Vec<Prompt>,
}

/// The module's words as they may be shown.
fn clean(text: &CStr) -> String {
    let mut clean = String::new();
    for character in text.to_string_lossy().chars() {
        let kept = match character {
            '\n' | '\t' | '\r' => ' ',
            // Marks that turn the direction of writing, which could make a text read as another one (UAX 9).
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                continue;
            }
            other if other.is_control() => continue,
            other => other,
        };
        if clean.len() + kept.len_utf8() > MAX_TEXT {
            break;
        }
        clean.push(kept);
    }
    clean.trim_end().to_owned()
}

fn note(said: &mut Vec<Prompt>, kind: PromptKind, text: &CStr) {
    let text = clean(text);
    if text.is_empty() {
        return;
    }
    // The last words say what went wrong.
    if said.len() >= MOST_SAID {
        said.remove(0);
    }
    said.push(Prompt { kind, text });
}

impl Talk {
    pub(crate) fn new(channel: OwnedFd) -> Self {
        Self { channel, said: Vec::new() }
    }

    /// What was said and not yet shown.
    pub(crate) fn take_said(&mut self) -> Vec<Prompt> {
        std::mem::take(&mut self.said)
    }

    /// Says how it ended.
    pub(crate) fn end(&self, news: &PamNews) -> io::Result<()> {
        self.send(news)
    }

    fn wait(&self, what: PollFlags) -> io::Result<()> {
        let mut waited = [PollFd::new(self.channel.as_fd(), what)];
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    fn send(&self, news: &PamNews) -> io::Result<()> {
        let frame = match (encode_bare(news), news) {
            (Ok(frame), _) => frame,
            // Sixteen of the longest texts, all of quotes. The question itself fits.
            (Err(WireError::TooLong { .. }), PamNews::Prompts(prompts)) => {
                let last = prompts.last().cloned().into_iter().collect();
                encode_bare(&PamNews::Prompts(last)).map_err(io::Error::other)?
            }
            (Err(error), _) => return Err(io::Error::other(error)),
        };
        loop {
            match message::send(&self.channel, &frame, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                done => return done,
            }
        }
    }

    fn receive(&self) -> io::Result<PamReply> {
        let mut buffer = Zeroizing::new(vec![0; MAX_FRAME]);
        let length = loop {
            match message::receive(&self.channel, &mut buffer, 0) {
                Ok(message) => break message.bytes.len(),
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN)?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        };
        decode(&buffer[..length]).map_err(io::Error::other)
    }

    fn ask(&mut self, kind: PromptKind, text: &CStr) -> Result<CString, ErrorCode> {
        let mut prompts = self.take_said();
        prompts.push(Prompt { kind, text: clean(text) });
        let reply = self.send(&PamNews::Prompts(prompts)).and_then(|()| self.receive());
        let answers = match reply {
            Ok(PamReply { answers }) => answers,
            Err(error) => {
                // Whoever signs in may just have left, as often as they like.
                tracing::debug!(%error, "the conversation broke off");
                return Err(ErrorCode::CONV_ERR);
            }
        };
        match <[Secret; 1]>::try_from(answers) {
            Ok([answer]) if answer.reveal().len() <= MAX_TEXT => to_c(&answer).ok_or(ErrorCode::CONV_ERR),
            _ => Err(ErrorCode::CONV_ERR),
        }
    }
}

/// As the modules want it; `None` for one with a NUL inside.
fn to_c(answer: &Secret) -> Option<CString> {
    CString::new(answer.reveal()).map_err(|error| error.into_vec().zeroize()).ok()
}

impl ConversationHandler for Talk {
    fn prompt_echo_on(&mut self, prompt: &CStr) -> Result<CString, ErrorCode> {
        self.ask(PromptKind::Visible, prompt)
    }

    fn prompt_echo_off(&mut self, prompt: &CStr) -> Result<CString, ErrorCode> {
        self.ask(PromptKind::Hidden, prompt)
    }

    fn text_info(&mut self, text: &CStr) {
        note(&mut self.said, PromptKind::Info, text);
    }

    fn error_msg(&mut self, text: &CStr) {
        note(&mut self.said, PromptKind::Error, text);
    }
}

impl NobodyThere {
    pub(crate) fn take_said(&mut self) -> Vec<Prompt> {
        std::mem::take(&mut self.said)
    }
}

impl ConversationHandler for NobodyThere {
    fn prompt_echo_on(&mut self, prompt: &CStr) -> Result<CString, ErrorCode> {
        tracing::warn!(prompt = clean(prompt), "a module asks, and nobody is there to answer");
        Err(ErrorCode::CONV_ERR)
    }

    fn prompt_echo_off(&mut self, prompt: &CStr) -> Result<CString, ErrorCode> {
        self.prompt_echo_on(prompt)
    }

    fn text_info(&mut self, text: &CStr) {
        note(&mut self.said, PromptKind::Info, text);
    }

    fn error_msg(&mut self, text: &CStr) {
        note(&mut self.said, PromptKind::Error, text);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use serde::Serialize;

    use super::*;

    fn c(text: &[u8]) -> CString {
        CString::new(text).unwrap()
    }

    fn pair() -> (Talk, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Talk::new(ours), theirs)
    }

    /// Answers before it is asked; the channel keeps it.
    fn answer(broker: &OwnedFd, reply: &impl Serialize) {
        message::send(broker, &encode_bare(reply).unwrap(), &[]).unwrap();
    }

    fn reply(answers: &[&str]) -> PamReply {
        PamReply { answers: answers.iter().map(|answer| Secret::new((*answer).to_owned())).collect() }
    }

    fn heard(broker: &OwnedFd) -> PamNews {
        let mut buffer = vec![0; MAX_FRAME];
        decode(message::receive(broker, &mut buffer, 0).unwrap().bytes).unwrap()
    }

    #[test]
    fn texts_are_cleaned_and_bounded() {
        for (text, expected) in [
            (&b"Password: "[..], "Password:"),
            (b"one\r\ntwo\tthree\n", "one  two three"),
            (b"\x1b[31mred\x07\x00", "[31mred"),
            ("a\u{202e}b\u{2066}c\u{85}d\u{200f}".as_bytes(), "abcd"),
            (b"bad \xff byte", "bad \u{fffd} byte"),
        ] {
            let text = CStr::from_bytes_until_nul(&[text, b"\0"].concat()).unwrap().to_owned();
            assert_eq!(clean(&text), expected);
        }
        let long = clean(&c("ä".repeat(MAX_TEXT).as_bytes()));
        assert!(long.len() <= MAX_TEXT && long.len() > MAX_TEXT - 2);
    }

    #[test]
    fn what_was_said_is_shown_with_the_next_question_and_once() {
        let (mut talk, broker) = pair();
        talk.text_info(&c(b"Welcome\n"));
        talk.text_info(&c(b"\n"));
        talk.error_msg(&c(b"2 failed logins"));
        answer(&broker, &reply(&["s3cret"]));
        assert_eq!(talk.prompt_echo_off(&c(b"Password: ")).unwrap(), c(b"s3cret"));
        let PamNews::Prompts(prompts) = heard(&broker) else { panic!() };
        let kinds: Vec<PromptKind> = prompts.iter().map(|prompt| prompt.kind).collect();
        assert_eq!(kinds, [PromptKind::Info, PromptKind::Error, PromptKind::Hidden]);
        answer(&broker, &reply(&[""]));
        assert_eq!(talk.prompt_echo_on(&c(b"Token? ")).unwrap(), c(b""));
        let PamNews::Prompts(prompts) = heard(&broker) else { panic!() };
        assert_eq!(prompts, [Prompt { kind: PromptKind::Visible, text: "Token?".to_owned() }]);
    }

    #[test]
    fn a_module_that_talks_without_end_is_bounded() {
        let (mut talk, broker) = pair();
        for n in 0..1000 {
            talk.text_info(&c(format!("{n}{}", "\"".repeat(2 * MAX_TEXT)).as_bytes()));
        }
        talk.error_msg(&c(b"the last words"));
        assert_eq!(talk.said.len(), MOST_SAID);
        assert_eq!(talk.said.last().unwrap().text, "the last words");
        answer(&broker, &reply(&["x"]));
        talk.prompt_echo_off(&c(b"Password: ")).unwrap();
        let PamNews::Prompts(prompts) = heard(&broker) else { panic!() };
        assert_eq!(prompts.last().unwrap().text, "Password:");
    }

    #[test]
    fn an_answer_that_does_not_fit_breaks_the_conversation() {
        let long = "x".repeat(MAX_TEXT + 1);
        for wrong in [&[][..], &["a", "b"], &["nul\0"], &[long.as_str()]] {
            let (mut talk, broker) = pair();
            answer(&broker, &reply(wrong));
            assert!(talk.prompt_echo_off(&c(b"Password: ")).is_err());
        }
        let (mut talk, broker) = pair();
        answer(&broker, &"nonsense");
        assert!(talk.prompt_echo_off(&c(b"Password: ")).is_err());
        let (mut talk, broker) = pair();
        drop(broker);
        assert!(talk.prompt_echo_off(&c(b"Password: ")).is_err());
        assert!(NobodyThere::default().prompt_echo_off(&c(b"Password: ")).is_err());
    }
}
