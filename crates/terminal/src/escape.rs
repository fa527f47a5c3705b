//! Where the sequences in a program's output begin and end (ECMA-48, and Paul Williams' state machine for the VT500).
//! Before: `log`, which may only cut between them. After: `front`.
//!
//! Invariant: after each byte it is known whether one may cut there. Nothing here grows with the output.

use crate::limits;

/// Follows the output, byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    state: State,
    parameters: Vec<u8>,
    /// Bytes of the string that it is in.
    string: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// In a character; so many bytes are missing.
    Character(u8),
    Escape,
    /// After ESC and an intermediate byte: the first one.
    Intermediate(u8),
    Csi,
    String(Opener),
    /// ESC in a string: it ends, or another sequence begins.
    StringEscape(Opener),
}

/// What a string begins with, after ESC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opener {
    /// BEL ends it as well.
    Osc,
    /// DCS, SOS, PM, APC.
    Other(u8),
}

/// What a byte was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A character of its own, a control character included.
    Text,
    /// The end of `ESC intermediate final`; without an intermediate byte that is 0.
    Escape { intermediate: u8, end: u8 },
    /// The end of a control sequence.
    Csi { parameters: &'a [u8], end: u8 },
    /// In a string that is longer than anybody needs.
    Surplus,
    /// Anything else.
    Part,
}

impl Scanner {
    /// A sequence or a character is not cut by what comes next.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Ground
    }

    /// What makes a terminal that has seen nothing take the next byte as this one will.
    pub(crate) fn opener(&self) -> Vec<u8> {
        match self.state {
            State::String(opener) | State::StringEscape(opener) => match opener {
                // A number that means nothing.
                Opener::Osc => b"\x1b]9999;".to_vec(),
                Opener::Other(byte) => vec![0x1b, byte],
            },
            _ => Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, byte: u8) -> Step<'_> {
        // CAN and SUB end everything; ESC begins anew everywhere.
        match (byte, self.state) {
            (0x18 | 0x1a, State::Ground) => return Step::Text,
            (0x18 | 0x1a, _) => {
                self.state = State::Ground;
                return Step::Part;
            }
            (0x1b, State::String(opener) | State::StringEscape(opener)) => {
                self.state = State::StringEscape(opener);
                return Step::Part;
            }
            (0x1b, _) => {
                self.state = State::Escape;
                return Step::Part;
            }
            _ => {}
        }
        match self.state {
            State::Ground => self.character(byte),
            State::Character(missing) if (0x80..0xc0).contains(&byte) => {
                self.state = if missing == 1 { State::Ground } else { State::Character(missing - 1) };
                Step::Part
            }
            State::Character(_) => self.character(byte),
            State::Escape => self.after_escape(byte),
            State::Intermediate(intermediate) => match byte {
                0x30..=0x7e => {
                    self.state = State::Ground;
                    Step::Escape { intermediate, end: byte }
                }
                _ => Step::Part,
            },
            State::Csi => match byte {
                0x40..=0x7e => {
                    self.state = State::Ground;
                    Step::Csi { parameters: &self.parameters, end: byte }
                }
                0x20..=0x3f => {
                    if self.parameters.len() < limits::PARAMETERS {
                        self.parameters.push(byte);
                    }
                    Step::Part
                }
                _ => Step::Part,
            },
            State::String(Opener::Osc) if byte == 0x07 => {
                self.state = State::Ground;
                Step::Part
            }
            State::String(_) => {
                self.string = self.string.saturating_add(1);
                if self.string > limits::STRING { Step::Surplus } else { Step::Part }
            }
            // ESC \ ends it. Any other byte has ended it as well, and is part of a new sequence.
            State::StringEscape(_) if byte == b'\\' => {
                self.state = State::Ground;
                Step::Part
            }
            State::StringEscape(_) => self.after_escape(byte),
        }
    }

    fn character(&mut self, byte: u8) -> Step<'_> {
        self.state = match byte {
            0xc2..=0xdf => State::Character(1),
            0xe0..=0xef => State::Character(2),
            0xf0..=0xf4 => State::Character(3),
            _ => State::Ground,
        };
        if self.state == State::Ground { Step::Text } else { Step::Part }
    }

    fn after_escape(&mut self, byte: u8) -> Step<'_> {
        self.string = 0;
        self.parameters.clear();
        match byte {
            0x20..=0x2f => self.state = State::Intermediate(byte),
            b'[' => self.state = State::Csi,
            b']' => self.state = State::String(Opener::Osc),
            b'P' | b'X' | b'^' | b'_' => self.state = State::String(Opener::Other(byte)),
            0x30..=0x7e => {
                self.state = State::Ground;
                return Step::Escape { intermediate: 0, end: byte };
            }
            // A control character in between is carried out, and the sequence goes on.
            0x00..=0x1f => self.state = State::Escape,
            _ => self.state = State::Ground,
        }
        Step::Part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_cut_between_sequences_and_nowhere_else() {
        for whole in [
            "a",
            "ä",
            "€",
            "😀",
            "\x1b[0m",
            "\x1b[38;2;1;2;3m",
            "\x1b(0",
            "\x1bM",
            "\x1b]0;title\x07",
            "\x1b]8;;http://x\x1b\\",
            "\x1bPq#0\x1b\\",
            "\x1b[?1049h",
            "\x1b[1\x18",
        ] {
            let mut scanner = Scanner::default();
            let bytes = whole.as_bytes();
            for (n, byte) in bytes.iter().enumerate() {
                scanner.step(*byte);
                assert_eq!(scanner.is_between(), n + 1 == bytes.len(), "{whole:?} after {}", n + 1);
            }
        }
    }

    #[test]
    fn a_sequence_says_what_it_was() {
        let last = |text: &str| {
            let mut scanner = Scanner::default();
            let (end, head) = text.as_bytes().split_last().unwrap();
            for byte in head {
                scanner.step(*byte);
            }
            format!("{:?}", scanner.step(*end))
        };
        assert_eq!(last("\x1b[3;9r"), format!("{:?}", Step::Csi { parameters: b"3;9", end: b'r' }));
        assert_eq!(last("\x1b(0"), format!("{:?}", Step::Escape { intermediate: b'(', end: b'0' }));
        assert_eq!(last("\x1b]0;a\x1bc"), format!("{:?}", Step::Escape { intermediate: 0, end: b'c' }));
    }

    #[test]
    fn a_string_without_end_has_a_surplus() {
        let mut scanner = Scanner::default();
        for byte in b"\x1b]0;" {
            scanner.step(*byte);
        }
        let surplus = (0..10_000).filter(|_| scanner.step(b'x') == Step::Surplus).count();
        assert_eq!(surplus, 10_000 - limits::STRING + 2);
        assert_eq!(scanner.opener(), b"\x1b]9999;");
    }
}
