//! The XML of requests (RFC 4918, sections 14 and 17): a tree of at most [`limits::XML`] bytes.
//!
//! Invariant: no document type, so that no entity is expanded but the five of XML itself; what is kept of a request can stand in an
//! answer by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use quick_xml::NsReader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{PrefixDeclaration, ResolveResult};

use crate::limits;

/// The namespace of WebDAV itself.
pub(crate) const DAV: &str = "DAV:";

/// What the prefix `xml` means without being declared.
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// A name in its namespace; that may be none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    /// Its address, empty for none.
    pub(crate) space: String,
    /// What it is called there.
    pub(crate) local: String,
}

impl Name {
    /// One of WebDAV's own.
    #[must_use]
    pub(crate) fn dav(local: &str) -> Self {
        Self { space: DAV.to_owned(), local: local.to_owned() }
    }

    /// An element of that name without anything in it.
    #[must_use]
    pub(crate) fn empty_element(&self) -> String {
        if self.space == DAV {
            return format!("<D:{}/>", self.local);
        }
        format!("<{} xmlns=\"{}\"/>", self.local, escape(&self.space))
    }
}

/// An element.
#[derive(Debug)]
pub(crate) struct Element {
    /// Its name.
    pub(crate) name: Name,
    /// All text in it that is not in a child.
    pub(crate) text: String,
    /// Its children.
    pub(crate) children: Vec<Element>,
    /// Where it stands in the text.
    at: Range<usize>,
    /// Where the attributes of its tag stand.
    attributes: Range<usize>,
    /// Which prefixes mean what in it.
    scope: Arc<Scope>,
}

/// What a tag declares, and what was declared around it. A document has room for many prefixes and many elements: so no element has a
/// copy of what holds around it.
#[derive(Debug, Default)]
struct Scope {
    around: Option<Arc<Scope>>,
    /// A prefix, "" for the default, and its address.
    own: Vec<(String, String)>,
}

impl Scope {
    /// What a prefix means; nothing if it means nothing.
    fn space(&self, prefix: &str) -> String {
        let own = self.own.iter().rev().find(|(one, _)| one == prefix);
        match (own, &self.around) {
            (Some((_, space)), _) => space.clone(),
            (None, Some(around)) => around.space(prefix),
            (None, None) if prefix == "xml" => XML.to_owned(),
            (None, None) => String::new(),
        }
    }

    /// All that hold, by prefix.
    fn all(&self) -> BTreeMap<&str, &str> {
        let mut all = self.around.as_ref().map(|around| around.all()).unwrap_or_default();
        all.extend(self.own.iter().map(|(prefix, space)| (prefix.as_str(), space.as_str())));
        all
    }
}

/// Why a body is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XmlError {
    /// It is too long.
    #[error("it has more than {} bytes", limits::XML)]
    Long,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Elements are too deep in one another.
    #[error("more than {} elements are in one another", limits::XML_DEPTH)]
    Deep,
    /// It has a document type.
    #[error("it has a document type, which is not read")]
    DocType,
    /// It has an entity that is not one of XML's own.
    #[error("it has an entity that is not known")]
    Entity,
    /// A prefix that was not declared, or declared as nothing.
    #[error("a prefix in it means nothing")]
    Prefix,
    /// It is no XML.
    #[error("it is no XML: {0}")]
    Malformed(String),
}

/// Reads a document; its one element.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn read(bytes: &[u8]) -> Result<Document<'_>, XmlError> {
    if bytes.len() > limits::XML {
        return Err(XmlError::Long);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| XmlError::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.chars().all(is_char) {
        return Err(XmlError::Malformed(NO_CHAR.to_owned()));
    }
    let malformed = |error: &dyn std::fmt::Display| XmlError::Malformed(error.to_string());
    let mut reader = NsReader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        let begin = position(&reader);
        let (space, event) = reader.read_resolved_event().map_err(|error| malformed(&error))?;
        if matches!(space, ResolveResult::Unknown(_)) {
            return Err(XmlError::Prefix);
        }
        match event {
            Event::Start(ref start) | Event::Empty(ref start) => {
                if open.len() >= limits::XML_DEPTH {
                    return Err(XmlError::Deep);
                }
                if open.is_empty() && root.is_some() {
                    return Err(XmlError::Malformed("it has two elements".to_owned()));
                }
                if !is_name(start.name().as_ref()) {
                    return Err(XmlError::Malformed("an element's name is none".to_owned()));
                }
                let around = open.last().map(|parent| Arc::clone(&parent.scope));
                let own = declared(start, &reader)?;
                let scope = match around {
                    Some(around) if own.is_empty() => around,
                    around => Arc::new(Scope { around, own }),
                };
                // The library's own answer is the address as it was written, entities and all.
                let prefix = start.name().prefix();
                let space = scope.space(prefix.as_ref().map_or("", |prefix| prefix.as_ref()));
                let local = start.local_name().as_ref().to_owned();
                let end = position(&reader);
                let closing = if matches!(event, Event::Empty(_)) { "/>" } else { ">" };
                let element = Element {
                    name: Name { space, local },
                    text: String::new(),
                    children: Vec::new(),
                    at: begin..end,
                    attributes: begin + 1 + start.name().as_ref().len()..end - closing.len(),
                    scope,
                };
                if matches!(event, Event::Start(_)) {
                    open.push(element);
                } else {
                    close(element, &mut open, &mut root);
                }
            }
            Event::End(_) => {
                let Some(mut element) = open.pop() else {
                    return Err(XmlError::Malformed("an end".to_owned()));
                };
                element.at.end = position(&reader);
                close(element, &mut open, &mut root);
            }
            Event::Text(text) if text.contains("]]>") => {
                return Err(XmlError::Malformed("it ends a part that has not begun".to_owned()));
            }
            Event::Text(text) => add(&mut open, &text.xml10_content())?,
            Event::CData(text) => add(&mut open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let said = match reference.resolve_char_ref().map_err(|error| malformed(&error))? {
                    Some(char) => char.to_string(),
                    None => known(reference.as_ref())?.to_owned(),
                };
                add(&mut open, &said)?;
            }
            Event::DocType(_) => return Err(XmlError::DocType),
            Event::Comment(_) => {}
            Event::Decl(_) if begin == 0 => {}
            // Whatever is kept of it would stand in the middle of another document.
            Event::Decl(_) | Event::PI(_) => {
                return Err(XmlError::Malformed("it has an instruction in it".to_owned()));
            }
            Event::Eof => break,
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(Document { root, text }),
        _ => Err(XmlError::Malformed("it ends too early".to_owned())),
    }
}

fn position(reader: &NsReader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn known(entity: &str) -> Result<&'static str, XmlError> {
    match entity {
        "lt" => Ok("<"),
        "gt" => Ok(">"),
        "amp" => Ok("&"),
        "apos" => Ok("'"),
        "quot" => Ok("\""),
        _ => Err(XmlError::Entity),
    }
}

fn add(open: &mut [Element], text: &str) -> Result<(), XmlError> {
    // Of those that are written by their number, too.
    if !text.chars().all(is_char) {
        return Err(XmlError::Malformed(NO_CHAR.to_owned()));
    }
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(XmlError::Malformed("it has text outside of its element".to_owned())),
    }
    Ok(())
}

fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None => *root = Some(element),
    }
}

/// The namespaces that a tag declares.
fn declared(start: &BytesStart<'_>, reader: &NsReader<&[u8]>) -> Result<Vec<(String, String)>, XmlError> {
    let malformed = |why: &str| XmlError::Malformed(why.to_owned());
    let (mut own, mut seen) = (Vec::new(), BTreeSet::new());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| XmlError::Malformed(error.to_string()))?;
        let value = attribute.value.as_ref();
        if !is_name(attribute.key.as_ref()) || value.contains('<') {
            return Err(malformed("an attribute is none"));
        }
        // The same entities as in text.
        for reference in value.split('&').skip(1) {
            let name = reference.split_once(';').ok_or(XmlError::Entity)?.0;
            if !name.starts_with('#') {
                known(name)?;
            }
        }
        let value = quick_xml::escape::unescape(value).map_err(|_| XmlError::Entity)?;
        if !value.chars().all(is_char) {
            return Err(malformed(NO_CHAR));
        }
        match attribute.key.as_namespace_binding() {
            None => match reader.resolver().resolve_attribute(attribute.key) {
                (ResolveResult::Unknown(_), _) => return Err(XmlError::Prefix),
                (ResolveResult::Bound(space), local) => {
                    if !seen.insert((space.into_inner().to_owned(), local.as_ref().to_owned())) {
                        return Err(malformed("an attribute is there twice"));
                    }
                }
                (ResolveResult::Unbound, _) => {}
            },
            // What stands for a space in an attribute is no part of an address, and does not come back as it was.
            Some(_) if value.contains(char::is_whitespace) => {
                return Err(malformed("a namespace has a space in it"));
            }
            Some(PrefixDeclaration::Default) => own.push((String::new(), value.into_owned())),
            Some(PrefixDeclaration::Named(_)) if value.is_empty() => return Err(XmlError::Prefix),
            Some(PrefixDeclaration::Named(prefix)) => own.push((prefix.to_owned(), value.into_owned())),
        }
    }
    Ok(own)
}

const NO_CHAR: &str = "it has a character that XML does not have";

/// XML 1.0, production 2.
fn is_char(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// XML 1.0, production 5.
fn is_name(text: &str) -> bool {
    let begins = |char: char| {
        matches!(char, ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
            | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
            | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
            | '\u{10000}'..='\u{effff}')
    };
    let goes_on = |char: char| {
        begins(char)
            || matches!(char, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
    };
    text.starts_with(begins) && text.chars().all(goes_on)
}

/// What was read, and the text that it was read from.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    /// Its one element.
    pub(crate) root: Element,
    text: &'t str,
}

impl Document<'_> {
    /// Whether there is nothing but the element, not even a space.
    #[must_use]
    pub(crate) fn is_bare(&self) -> bool {
        self.root.at == (0..self.text.len())
    }

    /// The element as it stands in the text, with what its prefixes mean: it can stand anywhere.
    #[must_use]
    pub(crate) fn standalone(&self, element: &Element) -> String {
        let mut said = self.text[element.at.start..element.attributes.start].to_owned();
        let tag = BytesStart::from_content(format!("x{}", &self.text[element.attributes.clone()]), 1);
        let own: Vec<_> =
            tag.attributes().flatten().map(|attribute| attribute.key.as_ref().to_owned()).collect();
        let scope = element.scope.all();
        for (prefix, space) in &scope {
            let attribute = if prefix.is_empty() { "xmlns".to_owned() } else { format!("xmlns:{prefix}") };
            if !own.contains(&attribute) {
                said += &format!(" {attribute}=\"{}\"", escape(*space));
            }
        }
        if !scope.contains_key("") {
            // Wherever it stands, what has no prefix is in no namespace.
            said += " xmlns=\"\"";
        }
        said + &self.text[element.attributes.start..element.at.end]
    }
}

impl Element {
    /// The first child of WebDAV's own with that name.
    #[must_use]
    pub(crate) fn child(&self, local: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(local))
    }

    /// Whether it is WebDAV's own with that name.
    #[must_use]
    pub(crate) fn is(&self, local: &str) -> bool {
        self.name.space == DAV && self.name.local == local
    }

    /// All text in it and in its children, a space between one's and the next.
    pub(crate) fn whole_text(&self) -> String {
        let below = self.children.iter().map(Self::whole_text);
        [self.text.clone()].into_iter().chain(below).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> XmlError {
        read(text.as_bytes()).map(|document| document.root).unwrap_err()
    }

    #[test]
    fn a_tree_with_names_and_text() {
        let text = "<?xml version=\"1.0\"?>\n<D:a xmlns:D=\"DAV:\"><b xmlns=\"urn:b\">x&amp;&#x41;<![CDATA[<]]></b><c/></D:a>\n";
        let document = read(text.as_bytes()).unwrap();
        assert!(document.root.is("a"));
        let [b, c] = &document.root.children[..] else { panic!() };
        assert_eq!((b.name.space.as_str(), b.name.local.as_str(), b.text.as_str()), ("urn:b", "b", "x&A<"));
        assert_eq!((c.name.space.as_str(), c.name.local.as_str()), ("", "c"));
        let entities = read(b"<p:a xmlns:p='urn:a&amp;b>'><xml:b/></p:a>").unwrap();
        assert_eq!(
            (entities.root.name.space.as_str(), entities.root.children[0].name.space.as_str()),
            ("urn:a&b>", XML)
        );
        let again = entities.standalone(&entities.root);
        assert_eq!(read(again.as_bytes()).unwrap().root.name, entities.root.name);
    }

    #[test]
    fn what_is_kept_can_stand_anywhere() {
        let text = r#"<p:set xmlns:p="urn:p" xmlns="urn:q"><p:v k="xmlns:p='no'" xml:lang="de"><w/>a<p:x xmlns:r="urn:r"/></p:v></p:set>"#;
        let document = read(text.as_bytes()).unwrap();
        let kept = document.standalone(&document.root.children[0]);
        let around = format!("<D:z xmlns:D=\"DAV:\" xmlns=\"urn:other\" xmlns:p=\"urn:else\">{kept}</D:z>");
        let again = read(around.as_bytes()).unwrap();
        let v = &again.root.children[0];
        assert_eq!((v.name.space.as_str(), v.children[0].name.space.as_str()), ("urn:p", "urn:q"));
        assert_eq!(v.children[1].name, Name { space: "urn:p".into(), local: "x".into() });
        assert!(kept.contains(r#"xml:lang="de""#));
        // Kept again, it is the same.
        assert_eq!(again.standalone(v).matches("xmlns:p=\"").count(), 1);
        for tag in
            ["<x/>", "<x></x>", "<x\n a='/>'/>", "<x a='>' xmlns='urn:x' xmlns:y=\"urn:y\" ><y:z/></x>"]
        {
            let document = read(tag.as_bytes()).unwrap();
            let kept = document.standalone(&document.root);
            assert_eq!(read(kept.as_bytes()).unwrap().root.name.local, "x", "{kept}");
        }
    }

    #[test]
    fn what_a_strict_reader_would_not_take_is_not_read() {
        for text in [
            "<a b=\"<\"/>",
            "<a b=\"\u{1}\"/>",
            "<a b=\"&#1;\"/>",
            "<a>]]></a>",
            "<a><!-- \u{1} --></a>",
            "<a><?b c?></a>",
            "<a><?xml version=\"1.0\"?></a>",
            "<a\u{2603}/>",
            "<a 1=\"\"/>",
            "<1/>",
            "<a xmlns=\"urn:\rx\"/>",
            "<a xmlns:p=\"urn:&#10;x\"/>",
            "<a xmlns:p=\"urn:x\" xmlns:q=\"urn:x\" p:b=\"\" q:b=\"\"/>",
            "<a b=\"\" b=\"\"/>",
        ] {
            assert!(matches!(read(text.as_bytes()), Err(XmlError::Malformed(_))), "{text:?}");
        }
        assert_eq!(refused("<a p:b=\"\"/>"), XmlError::Prefix);
        read("<ä-1.b xml:lang=\"de\">]]&gt;</ä-1.b>".as_bytes()).unwrap();
    }

    #[test]
    fn many_prefixes_and_many_elements_take_no_more_room_than_either() {
        let prefixes: String = (0..100).map(|number| format!(" xmlns:p{number}=\"urn:{number}\"")).collect();
        let children = "<c/>".repeat((limits::XML - prefixes.len() - 10) / 4);
        let text = format!("<a{prefixes}>{children}</a>");
        let document = read(text.as_bytes()).unwrap();
        let scope = &document.root.scope;
        assert!(document.root.children.len() > 10_000);
        assert!(document.root.children.iter().all(|child| Arc::ptr_eq(&child.scope, scope)));
        assert_eq!(document.standalone(&document.root.children[7]).matches(" xmlns:").count(), 100);
    }

    #[test]
    fn what_is_not_read() {
        assert_eq!(refused("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>"), XmlError::DocType);
        assert_eq!(refused("<a>&x;</a>"), XmlError::Entity);
        assert_eq!(refused("<a b='&x;'/>"), XmlError::Entity);
        assert_eq!(refused("<p:a/>"), XmlError::Prefix);
        assert_eq!(refused("<a xmlns:p=''/>"), XmlError::Prefix);
        assert_eq!(refused(&"<a>".repeat(33)), XmlError::Deep);
        assert_eq!(refused(&" ".repeat(limits::XML + 1)), XmlError::Long);
        assert_eq!(read(b"<a>\xff</a>").unwrap_err(), XmlError::NotUtf8);
        for text in [
            "",
            "<a>",
            "<a></b>",
            "</a>",
            "<a/><b/>",
            "x<a/>",
            "<a/>x",
            "<a b='1' b='2'/>",
            "<a>&#0;</a>",
            "<a>\u{1}</a>",
            "<a",
        ] {
            assert!(matches!(refused(text), XmlError::Malformed(_)), "{text}");
        }
    }
}
