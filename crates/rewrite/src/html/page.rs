//! One element after the other: what in each is to be changed, and where ours goes in.

use std::sync::Arc;

use encoding_rs::Encoding;
use html5gum::State;

use super::foreign::{Foreign, StartTag};
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
    is_in_head: bool,
    foreign: Foreign,
    /// The element whose text gets a look, up to its end tag.
    text_of: Option<&'static [u8]>,
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
            is_in_head: false,
            foreign: Foreign::default(),
            text_of: None,
        }
    }

    /// Whether the page turned out to be one that can't be read.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }
}

/// One tag's place in the page.
pub(super) struct Tag {
    /// Where its `<` is.
    pub(super) start: usize,
    /// What follows its `>`.
    pub(super) end: usize,
    /// Whether a `/` stands before its `>`.
    pub(super) is_closed: bool,
}

/// One attribute's place in the page.
pub(super) struct Spot {
    pub(super) name: usize,
    pub(super) name_end: usize,
    pub(super) value: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
}

impl Spot {
    fn name<'w>(&self, window: &'w Window) -> &'w [u8] {
        window.get(self.name, self.name_end)
    }

    fn value<'w>(&self, window: &'w Window) -> &'w [u8] {
        window.get(self.value, self.end)
    }
}

/// A start tag and where it stands, for a look at its attributes.
struct Attributes<'a> {
    window: &'a Window,
    spots: &'a [Spot],
}

impl StartTag for Attributes<'_> {
    fn attribute(&self, name: &[u8]) -> Option<&[u8]> {
        attribute(self.window, self.spots, name)
    }
}

fn attribute<'w>(window: &'w Window, spots: &[Spot], name: &[u8]) -> Option<&'w [u8]> {
    let spot = spots.iter().find(|spot| spot.name(window).eq_ignore_ascii_case(name))?;
    Some(spot.value(window))
}

impl Page {
    /// Looks at one start tag. Returns how what follows is read.
    pub(super) fn start_tag(&mut self, window: &mut Window, tag: &Tag, spots: &[Spot]) -> Option<State> {
        if self.given_up {
            return None;
        }
        let name = tag_name(window.get(tag.start + 1, tag.end));
        let length = name.len();
        let name = Name::of(name);
        let name = name.as_bytes();
        let was_foreign = self.foreign.is_inside();
        let foreign = self.foreign.start(name, tag.is_closed, &Attributes { window, spots });
        self.given_up = self.foreign.is_too_deep();
        if was_foreign && !foreign {
            self.text_is_over(window, tag.start);
        }
        if self.script_pending || self.map_pending {
            self.let_in(window, name, foreign, tag.start, tag.end, spots);
        }
        let is_head = name == b"head" && !foreign;
        self.is_in_head |= is_head;
        // Most elements have nothing but, perhaps, style.
        let is_worth_a_look = foreign || names::has_any(name);
        if !is_head && (is_worth_a_look || spots.iter().any(|spot| is_style(spot.name(window)))) {
            if foreign {
                self.foreign(window, spots);
            } else {
                self.html(window, name, spots);
            }
            // In what is foreign, a tag can be all of its element.
            if let Some(text) = self.inside(window, name, tag.start + 1 + length, spots)
                && !(foreign && tag.is_closed)
            {
                window.edit(tag.end, text);
                self.text_of = Some(if name == b"style" { b"style" } else { b"script" });
            }
        }
        if foreign { None } else { text_state(name) }
    }

    /// Looks at one end tag.
    pub(super) fn end_tag(&mut self, window: &mut Window, tag: &Tag) {
        let name = Name::of(tag_name(window.get(tag.start + 2, tag.end)));
        let name = name.as_bytes();
        if self.is_in_head && matches!(name, b"head" | b"html") {
            self.is_in_head = false;
            self.map_here(window, tag.start);
        }
        let was_foreign = self.foreign.is_inside();
        self.foreign.end(name);
        if self.text_of.is_some_and(|text| text == name) || (was_foreign && !self.foreign.is_inside()) {
            self.text_is_over(window, tag.start);
        }
    }

    /// Whether `CDATA` is more than a comment here.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign.is_inside()
    }

    fn text_is_over(&mut self, window: &mut Window, at: usize) {
        if self.text_of.take().is_some() {
            window.edit(at, What::End);
        }
    }

    /// Puts the script and the import map where they belong.
    fn let_in(
        &mut self,
        window: &mut Window,
        name: &[u8],
        foreign: bool,
        start: usize,
        end: usize,
        spots: &[Spot],
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
            let kind = |name: &[u8]| attribute(window, spots, name).unwrap_or_default();
            let here = match name {
                b"body" | b"frameset" => true,
                b"script" => kind(b"type").trim_ascii().eq_ignore_ascii_case(b"module"),
                b"link" => {
                    let mut words = kind(b"rel").split(u8::is_ascii_whitespace);
                    words.any(|rel| rel.eq_ignore_ascii_case(b"modulepreload"))
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

    fn foreign(&mut self, window: &mut Window, spots: &[Spot]) {
        for spot in spots {
            let name = Name::of(spot.name(window));
            if let Some(kind) = names::foreign_kind(name.as_bytes()) {
                self.change(window, spot, kind);
            }
        }
    }

    fn html(&mut self, window: &mut Window, tag: &[u8], spots: &[Spot]) {
        let meta = (tag == b"meta").then(|| self.meta(window, spots)).flatten();
        let styled = tag == b"link" && self.is_rewritten_style(window, spots);
        for spot in spots {
            let name = Name::of(spot.name(window));
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
                self.note_base(window, spot);
                // Relative to the page, whatever it says.
                let base = std::mem::replace(&mut self.base, Base::Ours);
                self.change(window, spot, kind);
                self.base = base;
            } else {
                self.change(window, spot, kind);
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
            place: Arc::clone(&self.reading.place),
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
    fn meta(&mut self, window: &Window, spots: &[Spot]) -> Option<Kind> {
        let equiv = attribute(window, spots, b"http-equiv").unwrap_or_default().to_ascii_lowercase();
        let charset = match equiv.as_slice() {
            b"refresh" => return Some(Kind::Refresh),
            b"content-security-policy" => return Some(Kind::Policy),
            b"content-type" => attribute(window, spots, b"content")
                .and_then(|content| charset::of_content_type(&String::from_utf8_lossy(content))),
            _ => attribute(window, spots, b"charset").and_then(Encoding::for_label),
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
    fn is_rewritten_style(&self, window: &Window, spots: &[Spot]) -> bool {
        let has = |name: &[u8], word: &[u8]| {
            attribute(window, spots, name).is_some_and(|value| {
                value.split(u8::is_ascii_whitespace).any(|one| one.eq_ignore_ascii_case(word))
            })
        };
        let is_style = has(b"rel", b"stylesheet") || (has(b"rel", b"preload") && has(b"as", b"style"));
        is_style
            && attribute(window, spots, b"href").is_some_and(|href| {
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

    /// Whether the element's text needs a look.
    fn inside(
        &mut self,
        window: &mut Window,
        name: &[u8],
        after_name: usize,
        spots: &[Spot],
    ) -> Option<What> {
        let kind = |window: &Window| attribute(window, spots, b"type").map(|kind| kind.trim_ascii().to_vec());
        match name {
            b"style" => {
                let has_nonce = attribute(window, spots, b"nonce").is_some();
                if !css::is_css(kind(window).map(Into::into))
                    || (self.reading.effects.style_by_hash && !has_nonce)
                {
                    return None;
                }
                let css = Css::new(Arc::clone(&self.reading.place), self.base, self.encoding);
                Some(What::Style(Box::new(css)))
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
                    && attribute(window, spots, b"nonce").is_none()
                    && let Some(injection) = &self.reading.injection
                {
                    let nonce = format!(" nonce=\"{}\"", crate::script::attribute(&injection.nonce));
                    window.edit(after_name, What::Replace(0, nonce.into_bytes()));
                }
                Some(What::Json(Json { kind: json, base: self.base }))
            }
            _ => None,
        }
    }
}

fn mapped(
    place: &Arc<Place>,
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
        Kind::Style => Css::new(Arc::clone(place), base, encoding).whole(said),
        Kind::Srcdoc | Kind::Policy => None,
    }
}

/// What of a tag, after its `<`, is its name.
pub(super) fn tag_name(tag: &[u8]) -> &[u8] {
    let is_over = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
    tag.get(..tag.iter().position(is_over).unwrap_or(tag.len())).unwrap_or_default()
}

fn is_style(attribute: &[u8]) -> bool {
    attribute.len() == 5 && attribute.eq_ignore_ascii_case(b"style")
}

/// How the text of an element of HTML is read; `None` where it may have tags in it.
fn text_state(name: &[u8]) -> Option<State> {
    match name {
        b"title" | b"textarea" => Some(State::RcData),
        b"script" => Some(State::ScriptData),
        b"style" | b"iframe" | b"xmp" | b"noembed" | b"noframes" | b"noscript" => Some(State::RawText),
        b"plaintext" => Some(State::PlainText),
        _ => None,
    }
}
