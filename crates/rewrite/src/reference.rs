//! A URL reference as a browser reads it, as far as one must know to tell whose it is (WHATWG URL Standard, section
//! 4.4): white space around it, tabs and newlines anywhere, `\` for `/`, slashes that are too many or too few.

/// What a reference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It names the application.
    Ours(Found),
    /// It depends on where it stands, or is empty.
    Relative,
    /// Another host, or another scheme.
    Elsewhere,
}

/// Where in the reference what stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) form: Form,
    /// Where it begins, after white space.
    pub(crate) start: usize,
    /// Where its path begins.
    pub(crate) path: usize,
}

/// How a reference begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/x`
    Root,
    /// `//host/x`
    Network,
    /// `http://host/x`
    Absolute {
        /// `ws:` and `wss:`
        socket: bool,
    },
}

/// The letters that count.
struct Letters<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Letters<'_> {
    fn peek(&mut self) -> Option<u8> {
        while let Some(b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let letter = self.peek()?;
        self.at += 1;
        Some(letter)
    }

    fn slashes(&mut self) -> usize {
        let mut count = 0;
        while let Some(b'/' | b'\\') = self.peek() {
            self.at += 1;
            count += 1;
        }
        count
    }
}

/// Longest authority that is looked at: a host name has at most 253 letters.
const AUTHORITY: usize = 300;

/// Reads a reference. `is_ours` is asked for host (in small letters), port, and whether the scheme is a secure one, if
/// there is a scheme.
pub(crate) fn read(reference: &[u8], is_ours: impl Fn(&str, Option<u16>, Option<bool>) -> bool) -> Reading {
    let start = reference.iter().position(|byte| *byte > b' ').unwrap_or(reference.len());
    let mut letters = Letters { bytes: reference, at: start };
    let (form, secure) = match letters.peek() {
        Some(b'/' | b'\\') => {
            if letters.slashes() == 1 {
                return Reading::Ours(Found { form: Form::Root, start, path: start });
            }
            (Form::Network, None)
        }
        Some(letter) if letter.is_ascii_alphabetic() => match scheme(&mut letters) {
            Scheme::None => return Reading::Relative,
            Scheme::Other => return Reading::Elsewhere,
            Scheme::Web { secure, socket } => {
                letters.peek();
                let path = letters.at;
                match letters.slashes() {
                    // The page's own scheme: what follows is relative to the page.
                    0 if secure && !socket => return Reading::Relative,
                    1 if secure && !socket => return Reading::Ours(Found { form: Form::Root, start, path }),
                    _ => (Form::Absolute { socket }, Some(secure)),
                }
            }
        },
        _ => return Reading::Relative,
    };
    let mut name = Vec::new();
    while let Some(letter) = letters.peek() {
        if matches!(letter, b'/' | b'\\' | b'?' | b'#') {
            break;
        }
        name.push(letter);
        letters.at += 1;
        if name.len() > AUTHORITY {
            return Reading::Elsewhere;
        }
    }
    // White space at the end of the reference does not count.
    let trailing = if letters.peek().is_none() {
        name.iter().rev().take_while(|byte| **byte <= b' ').count()
    } else {
        0
    };
    name.truncate(name.len() - trailing);
    match authority(&name) {
        Some((host, port)) if is_ours(&host, port, secure) => {
            Reading::Ours(Found { form, start, path: letters.at.saturating_sub(trailing) })
        }
        _ => Reading::Elsewhere,
    }
}

enum Scheme {
    None,
    Web { secure: bool, socket: bool },
    Other,
}

fn scheme(letters: &mut Letters<'_>) -> Scheme {
    let mut name = [0_u8; 5];
    let mut length = 0;
    while let Some(letter) = letters.next() {
        match letter {
            b':' => {
                return match name.get(..length) {
                    Some(b"http") => Scheme::Web { secure: false, socket: false },
                    Some(b"https") => Scheme::Web { secure: true, socket: false },
                    Some(b"ws") => Scheme::Web { secure: false, socket: true },
                    Some(b"wss") => Scheme::Web { secure: true, socket: true },
                    _ => Scheme::Other,
                };
            }
            letter if letter.is_ascii_alphanumeric() || matches!(letter, b'+' | b'-' | b'.') => {
                if let Some(slot) = name.get_mut(length) {
                    *slot = letter.to_ascii_lowercase();
                }
                length += 1;
            }
            _ => return Scheme::None,
        }
    }
    Scheme::None
}

/// Host, in small letters, and port. `None` where a browser could read something else than we do: with a user name, or
/// with letters that it decodes.
pub(crate) fn authority(text: &[u8]) -> Option<(String, Option<u16>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']')? + 1;
        let (host, rest) = text.split_at(end);
        if !host.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'[' | b']' | b':' | b'.')) {
            return None;
        }
        (host, if rest.is_empty() { "" } else { rest.strip_prefix(':')? })
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(plain) {
            return None;
        }
        (host, port)
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// Where a path ends: at a query, a fragment, or the white space at the reference's end.
pub(crate) fn end_of_path(path: &[u8]) -> usize {
    match path.iter().position(|byte| matches!(byte, b'?' | b'#')) {
        Some(end) => end,
        None => path.iter().rposition(|byte| *byte > b' ').map_or(0, |last| last + 1),
    }
}

/// The path without `.` and `..`, as browsers resolve them before they ask; `None` when it has none.
pub(crate) fn without_dots(path: &[u8]) -> Option<Vec<u8>> {
    // Most have neither dots nor percent signs at all.
    let may = path.iter().any(|byte| matches!(byte, b'.' | b'%'))
        && path.windows(2).any(|two| matches!(two, [b'/' | b'\\' | b'\t' | b'\n' | b'\r', b'.' | b'%']));
    if !may {
        return None;
    }
    let letters: Vec<u8> =
        path.iter().copied().filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r')).collect();
    let segments = letters.get(1..)?.split(|byte| matches!(byte, b'/' | b'\\'));
    if !segments.clone().any(|segment| dots(segment) > 0) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut open = false;
    for segment in segments {
        open = dots(segment) > 0;
        match dots(segment) {
            0 => kept.push(segment),
            1 => {}
            _ => {
                kept.pop();
            }
        }
    }
    let mut straight = Vec::with_capacity(letters.len());
    for segment in kept {
        straight.push(b'/');
        straight.extend_from_slice(segment);
    }
    if open || straight.is_empty() {
        straight.push(b'/');
    }
    Some(straight)
}

/// 1 for `.`, 2 for `..`, percent-encoded or not; otherwise 0.
fn dots(segment: &[u8]) -> u8 {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] if count < 2 => rest,
            _ => return 0,
        };
        count += 1;
    }
    count
}
