//! The values of attributes: several URLs in one, and the way through character references and charsets.

use std::ops::Range;

use encoding_rs::Encoding;
use htmlize::unescape_attribute;

use crate::charset;

/// An attribute's value as it is written, and how.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) raw: &'a [u8],
    pub(super) quoted: bool,
    pub(super) encoding: Option<&'static Encoding>,
}

impl Value<'_> {
    /// Whether it reads as it is written, up to where a URL's path ends.
    pub(super) fn is_plain(&self) -> bool {
        match self.raw.iter().position(|byte| *byte == b'&') {
            None => true,
            Some(first) => {
                self.raw.get(..first).unwrap_or_default().iter().any(|byte| matches!(byte, b'?' | b'#'))
            }
        }
    }

    /// The value in its place once `map` changed what it says.
    pub(super) fn through(&self, map: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        if !self.raw.contains(&b'&') && self.encoding_is_plain() {
            let mapped = map(self.raw)?;
            return Some(if needs_escape(&mapped, self.raw) {
                self.escaped(&mapped)?
            } else {
                self.wrapped(mapped)
            });
        }
        let text = charset::decode(self.raw, self.encoding)?;
        let said = unescape_attribute(text);
        let mapped = map(said.as_bytes())?;
        let text = String::from_utf8(mapped).ok()?;
        Some(self.wrapped(charset::encode(escape(&text), self.encoding, self.raw)))
    }

    /// What it says.
    pub(super) fn text(&self) -> Option<String> {
        let text = charset::decode(self.raw, self.encoding)?;
        Some(unescape_attribute(text).into_owned())
    }

    /// Bytes mean in the declared encoding what they mean in ASCII.
    fn encoding_is_plain(&self) -> bool {
        self.raw.is_ascii() || self.encoding.is_none_or(|encoding| encoding == encoding_rs::UTF_8)
    }

    fn escaped(&self, mapped: &[u8]) -> Option<Vec<u8>> {
        let text = charset::decode(mapped, self.encoding)?;
        Some(self.wrapped(charset::encode(escape(&text), self.encoding, self.raw)))
    }

    fn wrapped(&self, value: Vec<u8>) -> Vec<u8> {
        if self.quoted { value } else { [b"\"", value.as_slice(), b"\""].concat() }
    }
}

/// Letters that were not there before and would end the value or begin a reference.
fn needs_escape(mapped: &[u8], was: &[u8]) -> bool {
    [b'"', b'\'', b'&', b'<', b'>'].iter().any(|byte| mapped.contains(byte) && !was.contains(byte))
        || mapped.contains(&b'"')
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Replaces pieces of a value, which are named in order.
pub(crate) fn replace(
    value: &[u8],
    pieces: &[Range<usize>],
    map: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut mapped: Option<Vec<u8>> = None;
    let mut written = 0;
    for piece in pieces {
        if let Some(with) = map(value.get(piece.clone())?) {
            let mapped = mapped.get_or_insert_default();
            mapped.extend_from_slice(value.get(written..piece.start)?);
            mapped.extend_from_slice(&with);
            written = piece.end;
        }
    }
    let mut mapped = mapped?;
    mapped.extend_from_slice(value.get(written..)?);
    Some(mapped)
}

/// Words with white space between.
pub(super) fn words(value: &[u8]) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut begin = None;
    for (at, byte) in value.iter().enumerate() {
        match (byte.is_ascii_whitespace(), begin) {
            (false, None) => begin = Some(at),
            (true, Some(start)) => {
                words.push(start..at);
                begin = None;
            }
            _ => {}
        }
    }
    words.extend(begin.map(|start| start..value.len()));
    words
}

/// The URLs of image candidates (HTML Standard, "Parsing a srcset attribute").
pub(crate) fn srcset(value: &[u8]) -> Vec<Range<usize>> {
    let mut urls = Vec::new();
    let mut at = 0;
    let byte = |at: usize| value.get(at).copied();
    while at < value.len() {
        while byte(at).is_some_and(|byte| byte.is_ascii_whitespace() || byte == b',') {
            at += 1;
        }
        let start = at;
        while byte(at).is_some_and(|byte| !byte.is_ascii_whitespace()) {
            at += 1;
        }
        let mut end = at;
        while end > start && byte(end - 1) == Some(b',') {
            end -= 1;
        }
        if end > start {
            urls.push(start..end);
        }
        if end < at {
            continue;
        }
        // Descriptors, up to a comma outside parentheses.
        let mut inside = false;
        while let Some(letter) = byte(at) {
            at += 1;
            match letter {
                b'(' => inside = true,
                b')' => inside = false,
                b',' if !inside => break,
                _ => {}
            }
        }
    }
    urls
}

/// The URL of a refresh (HTML Standard, "shared declarative refresh steps").
pub(crate) fn refresh(value: &[u8]) -> Option<Range<usize>> {
    let byte = |at: usize| value.get(at).copied();
    let skip = |mut at: usize, test: fn(u8) -> bool| {
        while byte(at).is_some_and(test) {
            at += 1;
        }
        at
    };
    let space: fn(u8) -> bool = |byte| byte.is_ascii_whitespace();
    let begin = skip(0, space);
    let mut at = skip(begin, |byte| byte.is_ascii_digit() || byte == b'.');
    if at == begin || !byte(at).is_some_and(|byte| matches!(byte, b';' | b',') || byte.is_ascii_whitespace())
    {
        return None;
    }
    at = skip(at, space);
    if let Some(b';' | b',') = byte(at) {
        at = skip(at + 1, space);
    }
    let url = value.get(at..)?;
    if url.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"url")) {
        let equals = skip(at + 3, space);
        if byte(equals) == Some(b'=') {
            at = skip(equals + 1, space);
        }
    }
    let end = match byte(at) {
        Some(quote @ (b'"' | b'\'')) => {
            at += 1;
            value.get(at..)?.iter().position(|byte| *byte == quote).map_or(value.len(), |length| at + length)
        }
        _ => value.len(),
    };
    (at < end).then_some(at..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str, ranges: Vec<Range<usize>>) -> Vec<&str> {
        ranges.into_iter().map(|range| &value[range]).collect()
    }

    #[test]
    fn image_candidates() {
        for (value, expected) in [
            ("", vec![]),
            (" , ,", vec![]),
            ("/a", vec!["/a"]),
            ("/a 1x, /b 2x", vec!["/a", "/b"]),
            ("/a,/b 2x", vec!["/a,/b"]),
            ("/a, /b", vec!["/a", "/b"]),
            ("/a 1x,/b 2x,", vec!["/a", "/b"]),
            ("data:,x 1x, /b", vec!["data:,x", "/b"]),
            ("/a x(,/no) 1x, /b", vec!["/a", "/b"]),
        ] {
            assert_eq!(texts(value, srcset(value.as_bytes())), expected, "{value}");
        }
    }

    #[test]
    fn refreshes() {
        for (value, expected) in [
            ("0;url=/x", Some("/x")),
            ("5 ; URL = '/x' y", Some("/x")),
            ("0,/x", Some("/x")),
            ("1.5;url=\"/x", Some("/x")),
            ("0 /x", Some("/x")),
            ("0", None),
            ("0;", None),
            ("x;url=/x", None),
            ("url=/x", None),
            ("0;url", Some("url")),
        ] {
            assert_eq!(refresh(value.as_bytes()).map(|range| &value[range]), expected, "{value}");
        }
    }
}
