//! Pages, as they come. `lol_html` reads them and tells where each tag and attribute stands; what is mapped is spliced
//! into the bytes as they were.
//!
//! Invariant: every byte that is not part of a mapped reference leaves as it came, in order; of a page that can't be
//! read (a tag longer than [`MOST_HELD`], tags opened without end) the rest leaves as it is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use encoding_rs::Encoding;
use lol_html::{DocumentContentHandlers, ElementContentHandlers, HtmlRewriter, MemorySettings, Settings};

use crate::place::Place;
use crate::policy::{Effects, Injection};

mod names;
mod page;
pub(crate) mod values;
mod window;

use page::Page;
use window::Window;

/// What one page may hold back at once, in bytes: a tag with its attributes, and the names of the elements that are
/// open. A picture in an attribute passes.
const MOST_HELD: usize = 4 << 20;

/// How a page is to be read.
pub(crate) struct Reading {
    pub(crate) place: Rc<Place>,
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

type Sink = Box<dyn FnMut(&[u8])>;
type Reader = HtmlRewriter<'static, Sink>;

/// One page.
pub(crate) struct Html {
    /// Gone when the rest is to pass as it is.
    reader: Option<Reader>,
    page: Rc<RefCell<Page>>,
    window: Rc<RefCell<Window>>,
    passed: Rc<Cell<usize>>,
}

impl Html {
    pub(crate) fn new(reading: Reading) -> Self {
        let window = Rc::new(RefCell::new(Window::new(Rc::clone(&reading.place))));
        let page = Rc::new(RefCell::new(Page::new(reading)));
        let passed = Rc::new(Cell::new(0_usize));
        let handlers = {
            let (page, window) = (Rc::clone(&page), Rc::clone(&window));
            ElementContentHandlers::default().element(
                move |element: &mut lol_html::html_content::Element<'_, '_>| {
                    page::element(&page, &window, element);
                    Ok(())
                },
            )
        };
        let mut settings = Settings::new()
            .with_memory_settings(
                MemorySettings::new()
                    .with_max_allowed_memory_usage(MOST_HELD)
                    .with_graceful_bail_out_on_memory_limit_exceeded(true),
            )
            .with_strict(false)
            .with_adjust_charset_on_meta_tag(false)
            .with_graceful_bail_out_on_content_handler_error(true);
        // Something that is always asked for keeps the reader from going over each tag twice.
        settings = settings.append_document_content_handler(
            DocumentContentHandlers::default().doctype(|_: &mut lol_html::html_content::Doctype<'_>| Ok(())),
        );
        // One selector for all, and a look at the name: faster than a selector for each name.
        if let Ok(all) = "*".parse() {
            settings = settings.append_element_content_handler((std::borrow::Cow::Owned(all), handlers));
        }
        let sink: Sink = {
            let passed = Rc::clone(&passed);
            Box::new(move |bytes: &[u8]| passed.set(passed.get() + bytes.len()))
        };
        Self { reader: Some(HtmlRewriter::new(settings, sink)), page, window, passed }
    }

    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(mut reader) = self.reader.take() else {
            out.extend_from_slice(piece);
            return;
        };
        self.window.borrow_mut().extend(piece);
        let read = reader.write(piece);
        let mut window = self.window.borrow_mut();
        if read.is_ok() && !self.page.borrow().is_given_up() {
            window.emit(self.passed.get(), out);
            self.reader = Some(reader);
        } else {
            window.emit(usize::MAX, out);
            window.close(out);
        }
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let Some(reader) = self.reader.take() else { return };
        // What can't be read any more is passed on below.
        let _ = reader.end();
        let mut window = self.window.borrow_mut();
        window.emit(usize::MAX, out);
        window.close(out);
    }
}

#[cfg(test)]
mod tests;
