//! What ends a token that is too long to be held.

/// The token that is being passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// Up to `*/`.
    Comment {
        /// The last letter was a `*`.
        star: bool,
    },
    /// Up to the quote, or the end of the line.
    String { quote: u8, escape: Escape },
    /// Up to `)`.
    Url { escape: Escape },
    /// Letters and digits.
    Name { escape: Escape },
    /// White space, or what else has no end of its own.
    Space,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    No,
    /// The last letter was a `\`.
    Begun,
    /// A carriage return ended it: a line feed still belongs to that.
    Return,
    /// So many digits of a letter's number: white space after them belongs to it.
    Hex(u8),
}

impl Skip {
    /// What a token is, by how it begins, and how much of these bytes belongs to it.
    pub(super) fn of(token: &[u8]) -> (Self, usize) {
        let (mut skip, head) = match token {
            [b'/', b'*', ..] => (Self::Comment { star: false }, 2),
            [quote @ (b'"' | b'\''), ..] => (Self::String { quote: *quote, escape: Escape::No }, 1),
            [b'@' | b'#', ..] => (Self::Name { escape: Escape::No }, 1),
            [b'\t' | b'\n' | b'\r' | b' ' | 0x0c, ..] => (Self::Space, 1),
            _ if token.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"url(")) => {
                (Self::Url { escape: Escape::No }, 4)
            }
            [first, ..] if is_name(*first) || *first == b'\\' => (Self::Name { escape: Escape::No }, 0),
            _ => return (Self::Space, token.len()),
        };
        let (passed, _) = skip.pass(token.get(head..).unwrap_or_default());
        (skip, head + passed)
    }

    /// How many of these bytes belong to the token, and whether it ends with them.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            match self {
                Self::Comment { star } => {
                    if *star && *byte == b'/' {
                        return (at + 1, true);
                    }
                    *star = *byte == b'*';
                }
                Self::String { quote, escape } => match (*escape, *byte) {
                    (Escape::Begun, b'\r') => *escape = Escape::Return,
                    (Escape::Begun, _) | (Escape::Return, b'\n') => *escape = Escape::No,
                    (_, b'\\') => *escape = Escape::Begun,
                    (_, b'\n' | b'\r' | 0x0c) => return (at, true),
                    (_, byte) if byte == *quote => return (at + 1, true),
                    _ => *escape = Escape::No,
                },
                Self::Url { escape } => match (*escape, *byte) {
                    (Escape::Begun, _) => *escape = Escape::No,
                    (_, b'\\') => *escape = Escape::Begun,
                    (_, b')') => return (at + 1, true),
                    _ => {}
                },
                Self::Name { escape } => match (*escape, *byte) {
                    (Escape::Begun, byte) if byte.is_ascii_hexdigit() => *escape = Escape::Hex(1),
                    (Escape::Hex(count @ 1..=5), byte) if byte.is_ascii_hexdigit() => {
                        *escape = Escape::Hex(count + 1);
                    }
                    (Escape::Hex(_), b'\r') => *escape = Escape::Return,
                    (Escape::Begun, _)
                    | (Escape::Hex(_), b' ' | b'\t' | b'\n' | 0x0c)
                    | (Escape::Return, b'\n') => *escape = Escape::No,
                    (_, b'\\') => *escape = Escape::Begun,
                    (_, byte) if !is_name(byte) => return (at, true),
                    _ => *escape = Escape::No,
                },
                Self::Space => {
                    if !byte.is_ascii_whitespace() {
                        return (at, true);
                    }
                }
            }
        }
        (bytes.len(), false)
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || !byte.is_ascii()
}
