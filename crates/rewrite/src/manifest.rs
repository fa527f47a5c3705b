//! Web application manifests (W3C Web Application Manifest and its incubations): the addresses in them.

use serde_json::Value;

use crate::json::reference;
use crate::place::{Base, Place};

/// The longest manifest that is looked at, in bytes; a longer one passes as it is.
pub(crate) const LONGEST: usize = 1 << 20;

/// The manifest as it must read; `None` when it is right already, or no manifest.
pub(crate) fn map(text: &[u8], place: &Place) -> Option<Vec<u8>> {
    let mut manifest: Value =
        serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).ok()?;
    let mut changed = false;
    let mut one = |value: Option<&mut Value>| {
        if let Some(Value::String(url)) = value
            && let Some(mapped) = reference(url, place, Base::Ours)
        {
            *url = mapped;
            changed = true;
        }
    };
    let top = manifest.as_object_mut()?;
    for key in ["start_url", "scope", "id"] {
        one(top.get_mut(key));
    }
    for (list, keys) in [
        ("icons", ["src"].as_slice()),
        ("screenshots", &["src"]),
        ("shortcuts", &["url"]),
        ("file_handlers", &["action"]),
        ("protocol_handlers", &["url"]),
        ("related_applications", &["url"]),
        ("scope_extensions", &["origin"]),
    ] {
        for entry in top.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for key in keys {
                one(entry.get_mut(key));
            }
            for icon in entry.get_mut("icons").and_then(Value::as_array_mut).into_iter().flatten() {
                one(icon.get_mut("src"));
            }
        }
    }
    for (object, key) in [("share_target", "action"), ("note_taking", "new_note_url")] {
        one(top.get_mut(object).and_then(|object| object.get_mut(key)));
    }
    changed.then(|| manifest.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    #[test]
    fn addresses_are_mapped_and_all_else_stays() {
        let place = Place::new("/fw/tb", "", "portal", Mode::Strip).unwrap().with_origins(["c1:12001"]);
        let text = r#"{"name":"/x","start_url":"/?a","scope":"/","id":"/app","icons":[{"src":"/i.png","sizes":"1x1"},{"src":"j.png"}],
            "screenshots":[{"src":"http://c1:12001/s"}],"shortcuts":[{"name":"/n","url":"/u","icons":[{"src":"/k"}]}],
            "share_target":{"action":"/share"},"file_handlers":[{"action":"/open"}],"protocol_handlers":[{"url":"/p?%s"}],
            "related_applications":[{"url":"https://play/x"}],"other":{"url":"/x"}}"#;
        let expected = r#"{"name":"/x","start_url":"/fw/tb/?a","scope":"/fw/tb/","id":"/fw/tb/app","icons":[{"src":"/fw/tb/i.png","sizes":"1x1"},{"src":"j.png"}],
            "screenshots":[{"src":"https://portal/fw/tb/s"}],"shortcuts":[{"name":"/n","url":"/fw/tb/u","icons":[{"src":"/fw/tb/k"}]}],
            "share_target":{"action":"/fw/tb/share"},"file_handlers":[{"action":"/fw/tb/open"}],"protocol_handlers":[{"url":"/fw/tb/p?%s"}],
            "related_applications":[{"url":"https://play/x"}],"other":{"url":"/x"}}"#;
        let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(parse(&map(text.as_bytes(), &place).unwrap()), parse(expected.as_bytes()));
        for text in ["", "[]", "{", "7", r#"{"start_url":"x","icons":7}"#, r#"{"icons":[7,{"src":7}]}"#] {
            assert_eq!(map(text.as_bytes(), &place), None, "{text}");
        }
    }
}
