//! What the tokenizer finds, up to whole tags, each of which gets a look as soon as it is complete.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use html5gum::{Emitter, Error, State};

use super::MOST_HELD;
use super::feed::Shared;
use super::page::{Page, Spot, Tag};
use super::window::Window;

/// Attributes of one tag that get a look. Others stay as they are.
const MOST_ATTRIBUTES: usize = 4096;

/// Letters in a row that the tokenizer keeps a copy of, in what looks like a tag within a script.
const MOST_LETTERS: usize = MOST_HELD;

/// One page's tags.
pub(super) struct Tags {
    shared: Rc<Shared>,
    page: Rc<RefCell<Page>>,
    window: Rc<RefCell<Window>>,
    is_end: bool,
    is_closed: bool,
    spots: Vec<Spot>,
    /// Whether the last attribute is beyond what gets a look.
    is_left_out: bool,
    /// The name of the last start tag, as it was written, if text of its own kind follows.
    last: Vec<u8>,
    letters: usize,
}

impl Tags {
    pub(super) fn new(shared: Rc<Shared>, page: Rc<RefCell<Page>>, window: Rc<RefCell<Window>>) -> Self {
        Self {
            shared,
            page,
            window,
            is_end: false,
            is_closed: false,
            spots: Vec::new(),
            is_left_out: false,
            last: Vec::new(),
            letters: 0,
        }
    }

    fn position(&self) -> usize {
        self.shared.position.get()
    }

    fn is_no_tag(&self) {
        self.shared.held_from.set(None);
    }

    fn init_tag(&mut self, is_end: bool) {
        self.is_end = is_end;
        self.is_closed = false;
        self.spots.clear();
        self.is_left_out = false;
    }

    fn spot(&mut self) -> Option<&mut Spot> {
        if self.is_left_out { None } else { self.spots.last_mut() }
    }
}

impl Emitter for Tags {
    type Token = Infallible;

    fn emit_current_tag(&mut self) -> Option<State> {
        let end = self.position();
        let start = self.shared.held_from.take()?;
        let tag = Tag { start, end, is_closed: self.is_closed };
        let (mut page, mut window) = (self.page.borrow_mut(), self.window.borrow_mut());
        if self.is_end {
            page.end_tag(&mut window, &tag);
            return None;
        }
        let state = page.start_tag(&mut window, &tag, &self.spots);
        if state.is_some() {
            self.last.clear();
            self.last.extend_from_slice(super::page::tag_name(window.get(start + 1, end)));
        }
        state
    }

    fn current_is_appropriate_end_tag_token(&mut self) -> bool {
        let Some(start) = self.shared.held_from.get() else { return false };
        let window = self.window.borrow();
        // `</` before, and the letter that ended it.
        window.get(start + 2, self.position().saturating_sub(1)).eq_ignore_ascii_case(&self.last)
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&mut self) -> bool {
        self.page.borrow().is_foreign()
    }

    #[inline]
    fn start_open_tag(&mut self) {
        self.shared.held_from.set(Some(self.position().saturating_sub(1)));
    }

    #[inline]
    fn init_start_tag(&mut self) {
        self.init_tag(false);
    }

    #[inline]
    fn init_end_tag(&mut self) {
        self.init_tag(true);
    }

    fn set_self_closing(&mut self) {
        self.is_closed = true;
    }

    #[inline]
    fn init_attribute(&mut self) {
        // Its first letter was read already.
        let end = self.position();
        let name = end.saturating_sub(1);
        self.is_left_out = self.spots.len() >= MOST_ATTRIBUTES;
        if !self.is_left_out {
            self.spots.push(Spot { name, name_end: end, value: end, end, quoted: false });
        }
    }

    #[inline]
    fn push_attribute_name(&mut self, _: &[u8]) {
        let end = self.position();
        if let Some(spot) = self.spot() {
            spot.name_end = end;
            spot.value = end;
            spot.end = end;
        }
    }

    #[inline]
    fn init_attribute_value(&mut self) {
        let at = self.position();
        // What was read last is its quote, or its first letter.
        let before = at.saturating_sub(1);
        let quoted = matches!(self.window.borrow().get(before, at), [b'"' | b'\'']);
        if let Some(spot) = self.spot() {
            spot.quoted = quoted;
            spot.value = if quoted { at } else { before };
            spot.end = spot.value;
        }
    }

    #[inline]
    fn push_attribute_value(&mut self, _: &[u8]) {
        let end = self.position();
        if let Some(spot) = self.spot() {
            spot.end = end;
        }
    }

    #[inline]
    fn init_string(&mut self) {
        self.is_no_tag();
    }

    #[inline]
    fn emit_string(&mut self, text: &[u8]) {
        self.is_no_tag();
        self.letters = if matches!(text, [one] if one.is_ascii_alphabetic()) { self.letters + 1 } else { 0 };
        if self.letters > MOST_LETTERS {
            self.shared.is_too_much.set(true);
        }
    }

    fn init_comment(&mut self) {
        self.is_no_tag();
    }

    fn init_doctype(&mut self) {
        self.is_no_tag();
    }

    fn pop_token(&mut self) -> Option<Infallible> {
        None
    }

    fn should_emit_errors(&mut self) -> bool {
        false
    }

    // Of no matter to where things are.
    fn set_last_start_tag(&mut self, _: Option<&[u8]>) {}
    fn emit_eof(&mut self) {}
    fn emit_error(&mut self, _: Error) {}
    fn emit_current_comment(&mut self) {}
    fn emit_current_doctype(&mut self) {}
    fn set_force_quirks(&mut self) {}
    fn push_tag_name(&mut self, _: &[u8]) {}
    fn push_comment(&mut self, _: &[u8]) {}
    fn push_doctype_name(&mut self, _: &[u8]) {}
    fn set_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn set_doctype_system_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_public_identifier(&mut self, _: &[u8]) {}
    fn push_doctype_system_identifier(&mut self, _: &[u8]) {}
}
