//! The bytes of a page that have not left yet, and what is to be changed in them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::charset;
use crate::css::Css;
use crate::json;
use crate::place::{Base, Place};

/// The longest import map or list of speculation rules that is changed, in bytes; a longer one passes as it is.
const LONGEST_JSON: usize = 256 << 10;

/// A change, at an offset from the page's beginning.
struct Edit {
    at: usize,
    what: What,
}

/// What to do there.
pub(super) enum What {
    /// Put the place's prefix there.
    Prefix,
    /// Put this there, in place of as many bytes.
    Replace(usize, Vec<u8>),
    /// From here on it is the text of a `style` element.
    Style(Box<Css>),
    /// From here on it is JSON.
    Json(Json),
    /// The text is over.
    End,
}

/// JSON inside a page.
pub(super) struct Json {
    pub(super) kind: JsonKind,
    pub(super) base: Base,
}

/// What the JSON is.
pub(super) enum JsonKind {
    /// An import map, and whether ours goes into it.
    ImportMap { merge: bool },
    /// Speculation rules.
    Speculation,
}

/// What the bytes that leave are.
enum Text {
    Markup,
    Style(Box<Css>),
    Json(Json, Vec<u8>),
}

/// Bytes between two offsets.
pub(super) struct Window {
    place: Arc<Place>,
    bytes: Vec<u8>,
    /// The first one's offset.
    start: usize,
    edits: VecDeque<Edit>,
    text: Text,
}

impl Window {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, bytes: Vec::new(), start: 0, edits: VecDeque::new(), text: Text::Markup }
    }

    pub(super) fn extend(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The bytes between two offsets; nothing where they are gone.
    pub(super) fn get(&self, from: usize, to: usize) -> &[u8] {
        let from = from.checked_sub(self.start);
        let to = to.checked_sub(self.start);
        match (from, to) {
            (Some(from), Some(to)) => self.bytes.get(from..to).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Notes a change. Of two at one offset, the first comes first.
    pub(super) fn edit(&mut self, at: usize, what: What) {
        let after = self.edits.iter().rev().take_while(|edit| edit.at > at).count();
        self.edits.insert(self.edits.len() - after, Edit { at, what });
    }

    /// Lets all bytes before this offset go.
    pub(super) fn emit(&mut self, before: usize, out: &mut Vec<u8>) {
        let mut written = 0;
        let end = before.saturating_sub(self.start).min(self.bytes.len());
        let bytes = std::mem::take(&mut self.bytes);
        while let Some(edit) = self.edits.front() {
            let at = edit.at.saturating_sub(self.start).max(written);
            if at > end {
                break;
            }
            let Some(edit) = self.edits.pop_front() else { break };
            self.write(bytes.get(written..at).unwrap_or_default(), out);
            written = at;
            match edit.what {
                What::Style(css) => {
                    self.close(out);
                    self.text = Text::Style(css);
                }
                What::Json(json) => {
                    self.close(out);
                    self.text = Text::Json(json, Vec::new());
                }
                What::End => self.close(out),
                // Tags inside such text, which markup of SVG allows, stay as they are.
                _ if !matches!(self.text, Text::Markup) => {}
                What::Prefix => out.extend_from_slice(self.place.prefix().as_bytes()),
                What::Replace(skip, with) => {
                    out.extend_from_slice(&with);
                    written = written.saturating_add(skip).min(bytes.len());
                }
            }
        }
        if written < end {
            self.write(bytes.get(written..end).unwrap_or_default(), out);
            written = end;
        }
        self.start = self.start.saturating_add(written);
        self.bytes = bytes;
        self.bytes.drain(..written.min(self.bytes.len()));
    }

    fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.text {
            Text::Markup => out.extend_from_slice(bytes),
            Text::Style(css) => css.push(bytes, out),
            Text::Json(_, held) => {
                held.extend_from_slice(bytes);
                if held.len() > LONGEST_JSON {
                    out.extend_from_slice(held);
                    self.text = Text::Markup;
                }
            }
        }
    }

    /// Ends the text that the bytes were.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.text, Text::Markup) {
            Text::Markup => {}
            Text::Style(mut css) => css.finish(out),
            Text::Json(json, held) => match self.mapped(&json, &held) {
                Some(mapped) => out.extend_from_slice(&mapped),
                None => out.extend_from_slice(&held),
            },
        }
    }

    fn mapped(&self, json: &Json, held: &[u8]) -> Option<Vec<u8>> {
        // Of other charsets only what they share with this one: JSON is ASCII nearly always.
        let text = charset::decode(held, Some(encoding_rs::UTF_8))?;
        let mapped = match json.kind {
            JsonKind::ImportMap { merge } => json::import_map(&text, &self.place, json.base, merge),
            JsonKind::Speculation => json::speculation_rules(&text, &self.place, json.base),
        };
        mapped.map(String::into_bytes)
    }
}
