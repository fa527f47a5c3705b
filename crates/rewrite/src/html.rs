//! Pages, as they come. `html5gum` reads them and tells where each tag and attribute stands; what is mapped is spliced
//! into the bytes as they were.
//!
//! Invariant: every byte that is not part of a mapped reference leaves as it came, in order; of a page that can't be
//! read (a tag longer than [`MOST_HELD`], SVG in HTML in SVG without end) the rest leaves as it is.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use encoding_rs::Encoding;
use html5gum::Tokenizer;

use crate::place::Place;
use crate::policy::{Effects, Injection};

mod feed;
mod foreign;
mod names;
mod page;
mod tags;
pub(crate) mod values;
mod window;

use feed::{Feed, Shared};
use page::Page;
use tags::Tags;
use window::Window;

/// What one page may hold back at once, in bytes: a tag with its attributes. A picture in an attribute passes.
const MOST_HELD: usize = 4 << 20;

/// How a page is to be read.
pub(crate) struct Reading {
    pub(crate) place: Arc<Place>,
    /// As declared outside of the page.
    pub(crate) encoding: Option<&'static Encoding>,
    /// The script that goes in, when the page is a document.
    pub(crate) injection: Option<Rc<Injection>>,
    /// XHTML or SVG: nothing goes in where there is no `head`.
    pub(crate) xml: bool,
    /// What the policies among the fields say.
    pub(crate) effects: Effects,
    /// Whether it stands in an attribute of another: then none may stand in it.
    pub(crate) nested: bool,
}

/// One page.
pub(crate) struct Html {
    /// Gone when the rest is to pass as it is.
    reader: Option<Tokenizer<Feed, Tags>>,
    page: Rc<RefCell<Page>>,
    window: Rc<RefCell<Window>>,
    shared: Rc<Shared>,
}

impl Html {
    pub(crate) fn new(reading: Reading) -> Self {
        let window = Rc::new(RefCell::new(Window::new(Arc::clone(&reading.place))));
        let page = Rc::new(RefCell::new(Page::new(reading)));
        let shared = Rc::new(Shared::default());
        let tags = Tags::new(Rc::clone(&shared), Rc::clone(&page), Rc::clone(&window));
        let reader = Tokenizer::new_with_emitter(Feed::new(Rc::clone(&shared)), tags);
        Self { reader: Some(reader), page, window, shared }
    }

    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(reader) = &mut self.reader else {
            out.extend_from_slice(piece);
            return;
        };
        self.window.borrow_mut().extend(piece);
        self.shared.push(piece);
        // It yields nothing but that there is no more yet.
        let _ = reader.next();
        let position = self.shared.position.get();
        let before = self.shared.held_from.get().unwrap_or(position);
        let mut window = self.window.borrow_mut();
        if self.shared.is_too_much.get()
            || position.saturating_sub(before) > MOST_HELD
            || self.page.borrow().is_given_up()
        {
            self.reader = None;
            window.emit(usize::MAX, out);
            window.close(out);
        } else {
            window.emit(before, out);
        }
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let Some(mut reader) = self.reader.take() else { return };
        self.shared.complete();
        let _ = reader.next();
        let mut window = self.window.borrow_mut();
        window.emit(usize::MAX, out);
        window.close(out);
    }
}

#[cfg(test)]
mod tests;
