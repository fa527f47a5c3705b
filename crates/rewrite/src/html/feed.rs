//! What the tokenizer reads from: pieces as they come.
//!
//! Invariant: one byte is shown for each that came, in order, so that positions hold. Nothing is lost where a piece ends
//! in the middle: the tokenizer is told to ask again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use html5gum::Reader;
use memchr::{memchr, memchr2, memchr3};

/// How far text is searched letter by letter, before what is faster over long distances begins.
const NEAR: usize = 16;

/// What is known on both sides of the tokenizer.
#[derive(Default)]
pub(super) struct Shared {
    /// How many bytes it read.
    pub(super) position: Cell<usize>,
    /// Where the markup begins that is not complete, and may be a tag.
    pub(super) held_from: Cell<Option<usize>>,
    /// Whether the page can't be read.
    pub(super) is_too_much: Cell<bool>,
    piece: RefCell<Vec<u8>>,
    is_complete: Cell<bool>,
}

impl Shared {
    /// More of the page. What came before must have been read.
    pub(super) fn push(&self, piece: &[u8]) {
        // What a reference to a character says is of no matter to where tags are, nor is which of the line ends it is.
        // Without them no state of the tokenizer needs more than one byte again.
        self.piece.borrow_mut().extend(piece.iter().map(|byte| match byte {
            b'&' => b'.',
            b'\r' => b'\n',
            byte => *byte,
        }));
    }

    /// Nothing follows.
    pub(super) fn complete(&self) {
        self.is_complete.set(true);
    }
}

/// There is nothing to read yet.
#[derive(Debug, thiserror::Error)]
#[error("nothing more yet")]
pub(super) struct Starved;

/// The bytes, as the tokenizer reads them.
pub(super) struct Feed {
    shared: Rc<Shared>,
    bytes: Vec<u8>,
    at: usize,
}

impl Feed {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared, bytes: Vec::new(), at: 0 }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.at += count;
        self.shared.position.set(self.shared.position.get() + count);
    }

    /// Makes sure of something to read. False: it was the end.
    #[cold]
    fn refill(&mut self) -> Result<bool, Starved> {
        let mut piece = self.shared.piece.borrow_mut();
        if piece.is_empty() {
            return if self.shared.is_complete.get() { Ok(!self.rest().is_empty()) } else { Err(Starved) };
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        if self.bytes.is_empty() {
            std::mem::swap(&mut self.bytes, &mut piece);
        } else {
            self.bytes.append(&mut piece);
        }
        Ok(true)
    }
}

impl Reader for Feed {
    type Error = Starved;

    #[inline]
    fn read_byte(&mut self) -> Result<Option<u8>, Starved> {
        if self.at == self.bytes.len() && !self.refill()? {
            return Ok(None);
        }
        let byte = self.bytes.get(self.at).copied();
        self.advance(1);
        Ok(byte)
    }

    fn try_read_string(&mut self, wanted: &[u8], case_sensitive: bool) -> Result<bool, Starved> {
        while self.rest().len() < wanted.len() {
            let rest = self.rest();
            let as_far = wanted.get(..rest.len()).unwrap_or_default();
            if !is_same(rest, as_far, case_sensitive) {
                return Ok(false);
            }
            // What it is the continuation of is asked for again, too.
            self.at -= 1;
            if let Err(starved) = self.refill() {
                self.shared.position.set(self.shared.position.get() - 1);
                return Err(starved);
            }
            self.at += 1;
            if self.rest().len() < wanted.len() && self.shared.is_complete.get() {
                return Ok(false);
            }
        }
        let is_there = is_same(self.rest().get(..wanted.len()).unwrap_or_default(), wanted, case_sensitive);
        if is_there {
            self.advance(wanted.len());
        }
        Ok(is_there)
    }

    // The needle is known where this is called from.
    #[inline(always)]
    fn read_until<'b>(&'b mut self, needle: &[u8], _: &'b mut [u8; 4]) -> Result<Option<&'b [u8]>, Starved> {
        if self.at == self.bytes.len() && !self.refill()? {
            return Ok(None);
        }
        let from = self.at;
        let length = distance(needle, self.rest()).max(1);
        self.advance(length);
        Ok(self.bytes.get(from..from + length))
    }
}

fn is_same(left: &[u8], right: &[u8], case_sensitive: bool) -> bool {
    if case_sensitive { left == right } else { left.eq_ignore_ascii_case(right) }
}

/// How far it is to the first of these.
#[inline(always)]
fn distance(needle: &[u8], bytes: &[u8]) -> usize {
    let is_one = |byte: &u8| needle.iter().any(|one| one == byte);
    let near = bytes.get(..NEAR).unwrap_or(bytes);
    if let Some(at) = near.iter().position(is_one) {
        return at;
    }
    let rest = bytes.get(near.len()..).unwrap_or_default();
    // Two that are never shown.
    let needle = needle.strip_suffix(b"\r").unwrap_or(needle);
    let needle = needle.strip_prefix(b"&").unwrap_or(needle);
    let found = match *needle {
        [one] => memchr(one, rest),
        [one, two] => memchr2(one, two, rest),
        [one, two, three] => memchr3(one, two, three, rest),
        _ => rest.iter().position(is_one),
    };
    near.len() + found.unwrap_or(rest.len())
}
