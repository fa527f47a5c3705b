//! One element after the other: what in each is to be changed, and where ours goes in.

use std::cell::RefCell;
use std::rc::Rc;

use encoding_rs::Encoding;
use lol_html::html_content::{Attribute, Element, EndTag};

use super::names::{self, Kind, Name};
use super::values::{self, Value};
use super::window::{Json, JsonKind, What, Window};
use super::{Html, Reading};
use crate::charset;
use crate::css::{self, Css};
use crate::json;
use crate::place::{Base, Place};
use crate::policy;
use crate::reference;

/// What is known of a page so far.
pub(super) struct Page {
    reading: Reading,
    encoding: Option<&'static Encoding>,
    base: Base,
    base_seen: bool,
    script_pending: bool,
    map_pending: bool,
    given_up: bool,
}

/// Text of an element that needs a look, up to its end tag.
enum Inside {
    Head,
    Text(What),
}

impl Page {
    pub(super) fn new(reading: Reading) -> Self {
        let injects = reading.injection.is_some();
        Self {
            encoding: reading.encoding,
            reading,
            base: Base::Ours,
            base_seen: false,
            script_pending: injects,
            map_pending: injects,
            given_up: false,
        }
    }

    /// Whether the page turned out to be one that can't be read.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }
}

/// Looks at one start tag.
pub(super) fn element(page: &Rc<RefCell<Page>>, window: &Rc<RefCell<Window>>, element: &mut Element<'_, '_>) {
    let inside = page.borrow_mut().start_tag(&mut window.borrow_mut(), element);
    let Some(inside) = inside else { return };
    if !element.can_have_content() {
        return;
    }
    let end = element.source_location().bytes().end;
    let at_end: Box<dyn FnOnce(&mut EndTag<'_>) -> lol_html::HandlerResult> = match &inside {
        Inside::Head => {
            let (page, window) = (Rc::clone(page), Rc::clone(window));
            Box::new(move |tag| {
                page.borrow_mut().map_here(&mut window.borrow_mut(), tag.source_location().bytes().start);
                Ok(())
            })
        }
        Inside::Text(_) => {
            let window = Rc::clone(window);
            Box::new(move |tag| {
                window.borrow_mut().edit(tag.source_location().bytes().start, What::End);
                Ok(())
            })
        }
    };
    if element.on_end_tag(at_end).is_ok()
        && let Inside::Text(what) = inside
    {
        window.borrow_mut().edit(end, what);
    }
}

/// One attribute's place in the page.
struct Spot {
    name: usize,
    value: usize,
    end: usize,
    quoted: bool,
}

impl Spot {
    fn of(attribute: &Attribute<'_>, window: &Window) -> Option<Self> {
        let name = attribute.name_source_location()?.bytes();
        let Some(value) = attribute.value_source_location() else {
            return Some(Self { name: name.start, value: name.end, end: name.end, quoted: false });
        };
        let value = value.bytes();
        let before = window.get(value.start.checked_sub(1)?, value.start);
        let quoted = matches!(before, [b'"' | b'\'']);
        Some(Self { name: name.start, value: value.start, end: value.end, quoted })
    }

    fn value<'w>(&self, window: &'w Window) -> &'w [u8] {
        window.get(self.value, self.end)
    }
}

impl Page {
    fn start_tag(&mut self, window: &mut Window, element: &Element<'_, '_>) -> Option<Inside> {
        if self.given_up {
            return None;
        }
        let tag = element.source_location().bytes();
        let source = window.get(tag.start, tag.end);
        let rest = source.get(1..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))
            .unwrap_or(rest.len());
        let name = Name::of(rest.get(..length).unwrap_or_default());
        let name = name.as_bytes();
        let foreign = !element.namespace_uri().ends_with("xhtml");
        // Most elements have nothing but, perhaps, style.
        let is_worth_a_look = foreign || names::has_any(name) || holds_style(source);
        if self.script_pending || self.map_pending {
            self.let_in(window, name, foreign, tag.start, tag.end, element);
        }
        if name == b"head" && !foreign {
            return self.map_pending.then_some(Inside::Head);
        }
        if !is_worth_a_look {
            return None;
        }
        let attributes = element.attributes();
        if foreign {
            self.foreign(window, attributes);
        } else {
            self.html(window, name, attributes);
        }
        self.inside(window, name, tag.start + 1 + length, attributes)
    }

    /// Puts the script and the import map where they belong.
    fn let_in(
        &mut self,
        window: &mut Window,
        name: &[u8],
        foreign: bool,
        start: usize,
        end: usize,
        element: &Element<'_, '_>,
    ) {
        if self.script_pending {
            match name {
                b"html" => {}
                b"head" if !foreign => self.script_here(window, end),
                _ if self.reading.xml => {}
                _ => self.script_here(window, start),
            }
            if self.script_pending {
                return;
            }
        }
        if self.map_pending && !foreign {
            let kind = |attribute: &str| element.get_attribute(attribute).unwrap_or_default();
            let here = match name {
                b"body" | b"frameset" => true,
                b"script" => kind("type").trim().eq_ignore_ascii_case("module"),
                b"link" => {
                    kind("rel").split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("modulepreload"))
                }
                _ => false,
            };
            if here {
                self.map_here(window, start);
            }
        }
    }

    fn script_here(&mut self, window: &mut Window, at: usize) {
        self.script_pending = false;
        let Some(injection) = &self.reading.injection else { return };
        window.edit(at, What::Replace(0, crate::script::tag(&self.reading.place, injection).into_bytes()));
    }

    fn map_here(&mut self, window: &mut Window, at: usize) {
        if !self.map_pending || self.script_pending {
            return;
        }
        self.map_pending = false;
        let Some(injection) = &self.reading.injection else { return };
        let map = json::own_import_map(&self.reading.place, self.base);
        let tag = format!(
            "<script type=\"importmap\" nonce=\"{}\">{map}</script>",
            crate::script::attribute(&injection.nonce)
        );
        window.edit(at, What::Replace(0, tag.into_bytes()));
    }

    fn foreign(&mut self, window: &mut Window, attributes: &[Attribute<'_>]) {
        for attribute in attributes {
            let Some(spot) = Spot::of(attribute, window) else { continue };
            let length = attribute.name_source_location().map_or(0, |name| name.bytes().len());
            let name = Name::of(window.get(spot.name, spot.name + length));
            if let Some(kind) = names::foreign_kind(name.as_bytes()) {
                self.change(window, &spot, kind);
            }
        }
    }

    fn html(&mut self, window: &mut Window, tag: &[u8], attributes: &[Attribute<'_>]) {
        let meta = (tag == b"meta").then(|| self.meta(window, attributes)).flatten();
        let styled = tag == b"link" && self.is_rewritten_style(window, attributes);
        for attribute in attributes {
            let Some(spot) = Spot::of(attribute, window) else { continue };
            let length = attribute.name_source_location().map_or(0, |name| name.bytes().len());
            let name = Name::of(window.get(spot.name, spot.name + length));
            let kind = match name.as_bytes() {
                b"content" if meta.is_some() => meta,
                b"integrity" if styled => {
                    let end = spot.end + usize::from(spot.quoted);
                    window.edit(spot.name, What::Replace(end - spot.name, Vec::new()));
                    continue;
                }
                name => names::kind(tag, name),
            };
            let Some(kind) = kind else { continue };
            if tag == b"base" && !std::mem::replace(&mut self.base_seen, true) {
                self.note_base(window, &spot);
                // Relative to the page, whatever it says.
                let base = std::mem::replace(&mut self.base, Base::Ours);
                self.change(window, &spot, kind);
                self.base = base;
            } else {
                self.change(window, &spot, kind);
            }
        }
    }

    fn value<'w>(&self, window: &'w Window, spot: &Spot) -> Value<'w> {
        Value { raw: spot.value(window), quoted: spot.quoted, encoding: self.encoding }
    }

    fn note_base(&mut self, window: &Window, spot: &Spot) {
        if let Some(text) = self.value(window, spot).text()
            && self.reading.place.read(text.as_bytes()) == reference::Reading::Elsewhere
        {
            self.base = Base::Elsewhere;
        }
    }

    /// What one attribute says, mapped.
    fn change(&mut self, window: &mut Window, spot: &Spot, kind: Kind) {
        let value = self.value(window, spot);
        if kind == Kind::Url && value.is_plain() {
            let Some(splice) = self.reading.place.splice(value.raw, self.base) else { return };
            let at = spot.value + splice.at;
            let what = match splice.insert {
                std::borrow::Cow::Borrowed(_) if splice.skip == 0 => What::Prefix,
                insert => What::Replace(splice.skip, insert.into_owned()),
            };
            window.edit(at, what);
            return;
        }
        let with = match kind {
            Kind::Srcdoc => self.srcdoc(value),
            Kind::Policy => self.policy(value),
            Kind::Style if self.reading.effects.style_by_hash => None,
            kind => {
                let (place, base, encoding) = (&self.reading.place, self.base, self.encoding);
                value.through(|said| mapped(place, base, encoding, kind, said))
            }
        };
        if let Some(with) = with {
            window.edit(spot.value, What::Replace(spot.end - spot.value, with));
        }
    }

    /// A document in an attribute, one level deep.
    fn srcdoc(&self, value: Value<'_>) -> Option<Vec<u8>> {
        if self.reading.nested {
            return None;
        }
        let reading = Reading {
            place: Rc::clone(&self.reading.place),
            encoding: Some(encoding_rs::UTF_8),
            injection: self.reading.injection.clone(),
            xml: false,
            effects: self.reading.effects,
            nested: true,
        };
        let base = self.base;
        value.through(|said| {
            let mut html = Html::new(reading);
            html.page.borrow_mut().base = base;
            let mut out = Vec::with_capacity(said.len() + 512);
            html.push(said, &mut out);
            html.finish(&mut out);
            (out != said).then_some(out)
        })
    }

    fn policy(&mut self, value: Value<'_>) -> Option<Vec<u8>> {
        let injection = self.reading.injection.as_deref();
        let (place, effects) = (&self.reading.place, &mut self.reading.effects);
        value.through(|said| {
            let said = std::str::from_utf8(said).ok()?;
            policy::map(said, place, injection, effects).map(String::into_bytes)
        })
    }

    /// What a `meta` element's content is, and what it says about the page.
    fn meta(&mut self, window: &Window, attributes: &[Attribute<'_>]) -> Option<Kind> {
        let equiv =
            self.attribute(window, attributes, b"http-equiv").unwrap_or_default().to_ascii_lowercase();
        let charset = match equiv.as_slice() {
            b"refresh" => return Some(Kind::Refresh),
            b"content-security-policy" => return Some(Kind::Policy),
            b"content-type" => self
                .attribute(window, attributes, b"content")
                .and_then(|content| charset::of_content_type(&String::from_utf8_lossy(content))),
            _ => self.attribute(window, attributes, b"charset").and_then(Encoding::for_label),
        };
        if let (None, Some(charset)) = (self.encoding, charset) {
            if charset::is_readable(charset) {
                self.encoding = Some(charset);
            } else if charset == encoding_rs::UTF_16BE || charset == encoding_rs::UTF_16LE {
                // It was read so far, so it can't be (HTML Standard, "extracting a character encoding").
                self.encoding = Some(encoding_rs::UTF_8);
            } else {
                self.given_up = true;
            }
        }
        None
    }

    /// A link whose target would be rewritten: its hash would not hold.
    fn is_rewritten_style(&self, window: &Window, attributes: &[Attribute<'_>]) -> bool {
        let has = |name: &[u8], word: &[u8]| {
            self.attribute(window, attributes, name).is_some_and(|value| {
                value.split(u8::is_ascii_whitespace).any(|one| one.eq_ignore_ascii_case(word))
            })
        };
        let is_style = has(b"rel", b"stylesheet") || (has(b"rel", b"preload") && has(b"as", b"style"));
        is_style
            && self.attribute(window, attributes, b"href").is_some_and(|href| {
                let value = Value { raw: href, quoted: true, encoding: self.encoding };
                let text = value.text().unwrap_or_default();
                match (self.reading.place.read(text.as_bytes()), self.base) {
                    (reference::Reading::Elsewhere, _) => false,
                    (reference::Reading::Relative, base) => base == Base::Ours,
                    (reference::Reading::Ours(found), base) => {
                        base == Base::Ours || found.form != reference::Form::Root
                    }
                }
            })
    }

    fn attribute<'w>(
        &self,
        window: &'w Window,
        attributes: &[Attribute<'_>],
        name: &[u8],
    ) -> Option<&'w [u8]> {
        attributes.iter().find_map(|attribute| {
            let range = attribute.name_source_location()?.bytes();
            if !window.get(range.start, range.end).eq_ignore_ascii_case(name) {
                return None;
            }
            Spot::of(attribute, window).map(|spot| spot.value(window))
        })
    }

    /// Whether the element's text needs a look.
    fn inside(
        &mut self,
        window: &mut Window,
        name: &[u8],
        after_name: usize,
        attributes: &[Attribute<'_>],
    ) -> Option<Inside> {
        let kind = |window: &Window| {
            self.attribute(window, attributes, b"type").map(|kind| kind.trim_ascii().to_vec())
        };
        match name {
            b"style" => {
                let has_nonce = self.attribute(window, attributes, b"nonce").is_some();
                if !css::is_css(kind(window).map(Into::into))
                    || (self.reading.effects.style_by_hash && !has_nonce)
                {
                    return None;
                }
                let css = Css::new(Rc::clone(&self.reading.place), self.base, self.encoding);
                Some(Inside::Text(What::Style(Box::new(css))))
            }
            b"script" => {
                let kind = kind(window)?.to_ascii_lowercase();
                let json = match kind.as_slice() {
                    b"importmap" => {
                        let merge = std::mem::take(&mut self.map_pending);
                        JsonKind::ImportMap { merge }
                    }
                    b"speculationrules" => JsonKind::Speculation,
                    _ => return None,
                };
                if self.reading.effects.script_by_hash
                    && self.attribute(window, attributes, b"nonce").is_none()
                    && let Some(injection) = &self.reading.injection
                {
                    let nonce = format!(" nonce=\"{}\"", crate::script::attribute(&injection.nonce));
                    window.edit(after_name, What::Replace(0, nonce.into_bytes()));
                }
                Some(Inside::Text(What::Json(Json { kind: json, base: self.base })))
            }
            _ => None,
        }
    }
}

fn mapped(
    place: &Rc<Place>,
    base: Base,
    encoding: Option<&'static Encoding>,
    kind: Kind,
    said: &[u8],
) -> Option<Vec<u8>> {
    let one = |url: &[u8]| Some(place.splice(url, base)?.apply(url));
    match kind {
        Kind::Url => one(said),
        Kind::Urls => values::replace(said, &values::words(said), one),
        Kind::Srcset => values::replace(said, &values::srcset(said), one),
        Kind::Refresh => values::replace(said, values::refresh(said).as_slice(), one),
        Kind::Style => Css::new(Rc::clone(place), base, encoding).whole(said),
        Kind::Srcdoc | Kind::Policy => None,
    }
}

/// Whether a tag may have a `style` attribute.
fn holds_style(tag: &[u8]) -> bool {
    tag.windows(5).any(|five| five.eq_ignore_ascii_case(b"style"))
}
