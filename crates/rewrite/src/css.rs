//! Stylesheets, as they come: `url()`, `@import "..."` and the strings of `image-set()`.
//!
//! Invariant: nothing but a mapped reference is changed, comments and other strings least of all; however the sheet is
//! cut, the same comes out; at most [`LONGEST`] bytes and the last piece are held.

use std::borrow::Cow;
use std::sync::Arc;

use cssparser::{Parser, ParserInput, Token};
use encoding_rs::Encoding;

use crate::charset;
use crate::place::{Base, Place};

mod skip;
use skip::Skip;

/// The longest token that is looked at, in bytes. Longer ones, most of them `data:` URLs, pass without being held.
pub(crate) const LONGEST: usize = 8 << 10;

/// One stylesheet, or the text of one `style` element or attribute.
pub(crate) struct Css {
    place: Arc<Place>,
    base: Base,
    encoding: Option<&'static Encoding>,
    /// A token that the next piece may continue.
    carry: Vec<u8>,
    /// How long it must be to be read again: twice what it was, lest many small pieces cost many readings.
    again_at: usize,
    skip: Option<Skip>,
    expect: Expect,
    /// How many parentheses are open, from that of `image-set(`.
    set: u32,
}

/// What the next string or URL is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Text.
    Nothing,
    /// What `@import` or `url(` names.
    Reference,
    /// A name that only looks like a URL.
    Namespace,
}

impl Css {
    pub(crate) fn new(place: Arc<Place>, base: Base, encoding: Option<&'static Encoding>) -> Self {
        Self {
            place,
            base,
            encoding,
            carry: Vec::new(),
            again_at: 0,
            skip: None,
            expect: Expect::Nothing,
            set: 0,
        }
    }

    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        if let Some(skip) = &mut self.skip {
            let (passed, over) = skip.pass(rest);
            out.extend_from_slice(rest.get(..passed).unwrap_or_default());
            rest = rest.get(passed..).unwrap_or_default();
            if !over {
                return;
            }
            self.skip = None;
        }
        if rest.is_empty() {
            return;
        }
        let held;
        let bytes = if self.carry.is_empty() {
            rest
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(rest);
            if joined.len() < self.again_at.min(LONGEST) {
                self.carry = joined;
                return;
            }
            held = joined;
            &held
        };
        let kept = self.read(bytes, false, out);
        let carry = bytes.get(kept..).unwrap_or_default();
        if carry.len() > LONGEST {
            let (skip, passed) = Skip::of(carry);
            out.extend_from_slice(carry);
            if !matches!(skip, Skip::Space | Skip::Comment { .. }) {
                self.expect = after_other(self.expect);
            }
            // Should it end before: what follows it is read as if it began there.
            self.skip = (passed == carry.len()).then_some(skip);
        } else {
            self.carry = carry.to_vec();
            self.again_at = carry.len() * 2;
        }
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let carry = std::mem::take(&mut self.carry);
        self.read(&carry, true, out);
    }

    /// A whole text at once; `None` when nothing in it is mapped.
    pub(crate) fn whole(mut self, text: &[u8]) -> Option<Vec<u8>> {
        if !text.contains(&b'(') && !text.contains(&b'@') {
            return None;
        }
        let mut out = Vec::with_capacity(text.len() + 64);
        self.read(text, true, &mut out);
        (out != text).then_some(out)
    }

    /// Writes all but a last token that may go on. Returns where that one begins.
    fn read(&mut self, bytes: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let text = charset::shadow(bytes, self.encoding);
        let mut written = 0;
        let mut at = 0;
        let mut kept = bytes.len();
        'blocks: while at < text.len() {
            let mut input = ParserInput::new(text.get(at..).unwrap_or_default());
            let mut parser = Parser::new(&mut input);
            let offset = at;
            loop {
                let start = offset + parser.position().byte_index();
                let Ok(token) = parser.next_including_whitespace_and_comments() else { break 'blocks };
                let token = token.clone();
                let end = offset + parser.position().byte_index();
                if end >= text.len() && !last {
                    kept = start;
                    break 'blocks;
                }
                if let Some((from, to, with)) = self.token(&token, bytes, start, end) {
                    out.extend_from_slice(bytes.get(written..from).unwrap_or_default());
                    out.extend_from_slice(&with);
                    written = to;
                }
                // The library reads blocks as trees; a flat reader begins anew in each.
                if matches!(
                    token,
                    Token::Function(_)
                        | Token::ParenthesisBlock
                        | Token::SquareBracketBlock
                        | Token::CurlyBracketBlock
                ) {
                    at = end;
                    continue 'blocks;
                }
            }
        }
        if !last {
            kept = kept.min(begun_cdo(bytes)).max(written);
        }
        out.extend_from_slice(bytes.get(written..kept).unwrap_or_default());
        kept
    }

    /// Takes note of a token. Returns what of the text to replace, and by what.
    fn token(
        &mut self,
        token: &Token<'_>,
        bytes: &[u8],
        start: usize,
        end: usize,
    ) -> Option<(usize, usize, Vec<u8>)> {
        match token {
            Token::WhiteSpace(_) | Token::Comment(_) => return None,
            Token::UnquotedUrl(value) => {
                if self.expect != Expect::Namespace {
                    self.expect = Expect::Nothing;
                    return self.url(value, bytes, start, end);
                }
            }
            Token::QuotedString(value) => {
                let is_reference = self.expect == Expect::Reference || self.set == 1;
                self.expect = after_other(self.expect);
                if is_reference {
                    return self.string(value, bytes, start, end);
                }
            }
            Token::AtKeyword(name) => {
                self.expect = if name.eq_ignore_ascii_case("import") {
                    Expect::Reference
                } else if name.eq_ignore_ascii_case("namespace") {
                    Expect::Namespace
                } else {
                    Expect::Nothing
                };
            }
            Token::Function(name) => {
                let is_url = name.eq_ignore_ascii_case("url") || name.eq_ignore_ascii_case("src");
                if self.expect != Expect::Namespace {
                    self.expect = if is_url { Expect::Reference } else { Expect::Nothing };
                }
                let is_set =
                    ["image-set", "-webkit-image-set"].iter().any(|set| name.eq_ignore_ascii_case(set));
                if self.set > 0 || is_set {
                    self.set = self.set.saturating_add(1);
                }
            }
            Token::ParenthesisBlock => {
                self.expect = after_other(self.expect);
                if self.set > 0 {
                    self.set = self.set.saturating_add(1);
                }
            }
            Token::CloseParenthesis => {
                self.expect = after_other(self.expect);
                self.set = self.set.saturating_sub(1);
            }
            Token::Semicolon | Token::CurlyBracketBlock | Token::CloseCurlyBracket => {
                self.expect = Expect::Nothing;
                self.set = 0;
            }
            _ => self.expect = after_other(self.expect),
        }
        None
    }

    fn url(&self, value: &str, bytes: &[u8], start: usize, end: usize) -> Option<(usize, usize, Vec<u8>)> {
        if end - start > LONGEST {
            return None;
        }
        let raw = bytes.get(start..end)?;
        if raw.contains(&b'\\') || !raw.get(..4)?.eq_ignore_ascii_case(b"url(") {
            return Some((start, end, [b"url(", self.quoted(value, raw)?.as_slice(), b")"].concat()));
        }
        let inside = raw.get(4..)?;
        let inside = inside.strip_suffix(b")").unwrap_or(inside);
        self.straight(inside, start + 4)
    }

    fn string(&self, value: &str, bytes: &[u8], start: usize, end: usize) -> Option<(usize, usize, Vec<u8>)> {
        if end - start > LONGEST {
            return None;
        }
        let raw = bytes.get(start..end)?;
        if raw.contains(&b'\\') {
            return Some((start, end, self.quoted(value, raw)?));
        }
        let (quote, inside) = raw.split_first()?;
        self.straight(inside.strip_suffix(&[*quote]).unwrap_or(inside), start + 1)
    }

    /// A reference that reads as it is written.
    fn straight(&self, reference: &[u8], at: usize) -> Option<(usize, usize, Vec<u8>)> {
        let splice = self.place.splice(reference, self.base)?;
        let from = at + splice.at;
        Some((from, from + splice.skip, splice.insert.into_owned()))
    }

    /// A reference that was written with escapes.
    fn quoted(&self, value: &str, raw: &[u8]) -> Option<Vec<u8>> {
        // The reader saw a stand-in for other letters: what was written is lost to it.
        if !raw.is_ascii() {
            return None;
        }
        let mapped = self.place.splice(value.as_bytes(), self.base)?.apply(value.as_bytes());
        let mut written = String::with_capacity(mapped.len() + 2);
        cssparser::serialize_string(std::str::from_utf8(&mapped).ok()?, &mut written).ok()?;
        Some(written.into_bytes())
    }
}

/// A rule's name holds to its end; what else was expected, only for the next token.
fn after_other(expect: Expect) -> Expect {
    if expect == Expect::Namespace { expect } else { Expect::Nothing }
}

/// Where a `<!--` begins that the next piece may complete: it is one token.
fn begun_cdo(bytes: &[u8]) -> usize {
    let beginnings: [&[u8]; 3] = [b"<!-", b"<!", b"<"];
    let begun = beginnings.iter().find(|begun| bytes.ends_with(begun));
    bytes.len() - begun.map_or(0, |begun| begun.len())
}

/// Whether `@charset` begins a stylesheet, and what it names (CSS Syntax section 3.2).
pub(crate) fn declared(begin: &[u8]) -> Option<&'static Encoding> {
    let name = begin.strip_prefix(b"@charset \"")?;
    let end = name.windows(2).take(100).position(|two| two == b"\";")?;
    Encoding::for_label(name.get(..end)?)
}

/// Whether a `style` element of this type holds CSS.
pub(crate) fn is_css(kind: Option<Cow<'_, [u8]>>) -> bool {
    kind.is_none_or(|kind| kind.is_empty() || kind.eq_ignore_ascii_case(b"text/css"))
}

#[cfg(test)]
mod tests;
