//! Doors for the fuzz targets: parsers that no one else needs from outside.

use crate::conditions::If;
use crate::xml::{self, Element};

/// A request's XML: what is kept of it can stand by itself, and means the same.
pub fn xml(bytes: &[u8]) {
    let Ok(document) = xml::read(bytes) else { return };
    let mut waiting: Vec<&Element> = vec![&document.root];
    while let Some(element) = waiting.pop() {
        let kept = document.standalone(element);
        if kept.len() <= crate::limits::XML {
            let again = xml::read(kept.as_bytes()).unwrap_or_else(|error| panic!("{error}: {kept:?}"));
            assert_eq!((&again.root.name, &again.root.text), (&element.name, &element.text), "{kept:?}");
            assert_eq!(again.root.children.len(), element.children.len());
        }
        waiting.extend(&element.children);
    }
}

/// The field `If`.
pub fn if_field(text: &str) {
    let mut headers = http::HeaderMap::new();
    let Ok(value) = http::HeaderValue::try_from(text) else { return };
    headers.insert("if", value);
    let Ok(field) = If::of(&headers) else { return };
    // A field that is understood asks something.
    let asked = std::cell::Cell::new(false);
    field.holds(|_, _| {
        asked.set(true);
        false
    });
    assert!(asked.get());
}
