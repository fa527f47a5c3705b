//! JSON inside pages: import maps and speculation rules (HTML Standard). Only the first import map counts in older
//! browsers, so ours goes into the application's where it has one.

use serde_json::{Map, Value};

use crate::place::{Base, Place};

/// How deep rules may be nested before they are left alone.
const DEPTH: usize = 16;

/// Our own import map: a module that is imported by a path from the root comes from below the prefix.
pub(crate) fn own_import_map(place: &Place, base: Base) -> String {
    let mut imports = Map::new();
    add_own(&mut imports, place, base);
    inside_script(&Value::Object(Map::from_iter([("imports".to_owned(), Value::Object(imports))])))
}

fn add_own(imports: &mut Map<String, Value>, place: &Place, base: Base) {
    let below = format!("{}/", place.prefix());
    // Addresses are relative to the document's base.
    let target = match base {
        Base::Ours => below.clone(),
        Base::Elsewhere => format!("https://{}{below}", place.host()),
    };
    let root = if base == Base::Ours { "/".to_owned() } else { format!("https://{}/", place.host()) };
    let mut keys = vec![root, target.clone()];
    keys.extend(place.origins().map(|origin| format!("http://{origin}/")));
    for key in keys {
        imports.entry(key).or_insert_with(|| Value::String(target.clone()));
    }
}

/// An application's import map, with ours in it if `merge`. `None` when it is not one.
pub(crate) fn import_map(text: &str, place: &Place, base: Base, merge: bool) -> Option<String> {
    let Ok(Value::Object(mut map)) = serde_json::from_str(text) else { return None };
    if let Some(Value::Object(imports)) = map.get_mut("imports") {
        *imports = specifiers(imports, place, base);
    }
    if let Some(Value::Object(scopes)) = map.get_mut("scopes") {
        let mapped = scopes.iter().map(|(scope, imports)| {
            let imports = match imports {
                Value::Object(imports) => Value::Object(specifiers(imports, place, base)),
                other => other.clone(),
            };
            (reference(scope, place, base).unwrap_or_else(|| scope.clone()), imports)
        });
        *scopes = mapped.collect();
    }
    if let Some(Value::Object(integrity)) = map.get_mut("integrity") {
        let mapped = integrity
            .iter()
            .map(|(url, hash)| (reference(url, place, base).unwrap_or_else(|| url.clone()), hash.clone()));
        *integrity = mapped.collect();
    }
    if merge {
        let imports = map.entry("imports").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(imports) = imports {
            add_own(imports, place, base);
        }
    }
    Some(inside_script(&Value::Object(map)))
}

/// Addresses are mapped. A key that is a URL stands for what scripts say, as it is, and for what they get, mapped.
fn specifiers(imports: &Map<String, Value>, place: &Place, base: Base) -> Map<String, Value> {
    let mut mapped = Map::new();
    for (key, address) in imports {
        let address = match address {
            Value::String(url) => Value::String(reference(url, place, base).unwrap_or_else(|| url.clone())),
            other => other.clone(),
        };
        if let Some(key) = reference(key, place, base) {
            mapped.insert(key, address.clone());
        }
        mapped.insert(key.clone(), address);
    }
    mapped
}

/// Rules of what to load before it is asked for. `None` when nothing in them is mapped.
pub(crate) fn speculation_rules(text: &str, place: &Place, base: Base) -> Option<String> {
    let mut rules: Value = serde_json::from_str(text).ok()?;
    let Value::Object(kinds) = &mut rules else { return None };
    let mut changed = false;
    for list in kinds.values_mut() {
        for rule in list.as_array_mut().into_iter().flatten() {
            changed |= rule_urls(rule, place, base, DEPTH);
        }
    }
    changed.then(|| inside_script(&rules))
}

fn rule_urls(rule: &mut Value, place: &Place, base: Base, depth: usize) -> bool {
    let (Value::Object(rule), Some(depth)) = (rule, depth.checked_sub(1)) else { return false };
    let mut changed = false;
    for (key, value) in rule.iter_mut() {
        changed |= match (key.as_str(), value) {
            ("urls" | "href_matches" | "pathname", value) => strings(value, place, base),
            ("where" | "not", value) => rule_urls(value, place, base, depth),
            ("and" | "or", Value::Array(several)) => {
                several.iter_mut().fold(false, |changed, one| rule_urls(one, place, base, depth) | changed)
            }
            _ => false,
        };
    }
    changed
}

fn strings(value: &mut Value, place: &Place, base: Base) -> bool {
    match value {
        Value::String(url) => match reference(url, place, base) {
            Some(mapped) => {
                *url = mapped;
                true
            }
            None => false,
        },
        Value::Array(several) => several.iter_mut().fold(false, |changed, one| match one {
            Value::String(_) | Value::Object(_) => strings(one, place, base) | changed,
            _ => changed,
        }),
        Value::Object(pattern) => match pattern.get_mut("pathname") {
            Some(path @ Value::String(_)) => strings(path, place, base),
            _ => false,
        },
        _ => false,
    }
}

pub(crate) fn reference(url: &str, place: &Place, base: Base) -> Option<String> {
    String::from_utf8(place.splice(url.as_bytes(), base)?.apply(url.as_bytes())).ok()
}

/// Text that can't end the script element it stands in.
fn inside_script(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    fn place() -> Place {
        Place::new("/fw/tb", "", "portal", Mode::Strip).unwrap().with_origins(["c1:12001"])
    }

    fn same(left: &str, right: &str) {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parse(left), parse(right));
    }

    #[test]
    fn our_import_map() {
        same(
            &own_import_map(&place(), Base::Ours),
            r#"{"imports":{"/":"/fw/tb/","/fw/tb/":"/fw/tb/","http://c1:12001/":"/fw/tb/"}}"#,
        );
        assert!(
            own_import_map(&place(), Base::Elsewhere)
                .contains(r#""https://portal/":"https://portal/fw/tb/""#)
        );
    }

    #[test]
    fn an_applications_import_map() {
        let text = r#"{"imports":{"vue":"/js/vue.js","/a":"/b","./c":"./d","e":"https://cdn/e","x":null},
            "scopes":{"/s/":{"vue":"/v2"}},"integrity":{"/js/vue.js":"sha256-x"},"other":"</script>"}"#;
        let mapped = import_map(text, &place(), Base::Ours, false).unwrap();
        assert!(!mapped.contains("</script"));
        same(
            &mapped,
            r#"{"imports":{"vue":"/fw/tb/js/vue.js","/a":"/fw/tb/b","/fw/tb/a":"/fw/tb/b","./c":"./d","e":"https://cdn/e","x":null},
            "scopes":{"/fw/tb/s/":{"vue":"/fw/tb/v2"}},"integrity":{"/fw/tb/js/vue.js":"sha256-x"},"other":"</script>"}"#,
        );
        same(
            &import_map(r#"{"imports":{"/":"/static/"}}"#, &place(), Base::Ours, true).unwrap(),
            r#"{"imports":{"/":"/fw/tb/static/","/fw/tb/":"/fw/tb/static/","http://c1:12001/":"/fw/tb/"}}"#,
        );
        assert!(import_map("{}", &place(), Base::Ours, true).unwrap().contains("imports"));
        for text in ["", "[]", "{", "7"] {
            assert_eq!(import_map(text, &place(), Base::Ours, true), None);
        }
    }

    #[test]
    fn speculation() {
        let text = r#"{"prefetch":[{"urls":["/a","b"]},{"where":{"and":[{"href_matches":"/c/*"},{"not":{"href_matches":["/d",{"pathname":"/e"}]}},{"selector_matches":"/x"}]}}]}"#;
        let mapped = speculation_rules(text, &place(), Base::Ours).unwrap();
        same(&mapped, &text.replace("\"/x", "KEEP").replace("\"/", "\"/fw/tb/").replace("KEEP", "\"/x"));
        for text in ["", "[]", "{\"prefetch\":7}", r#"{"prefetch":[{"urls":["a"]}]}"#] {
            assert_eq!(speculation_rules(text, &place(), Base::Ours), None);
        }
    }
}
