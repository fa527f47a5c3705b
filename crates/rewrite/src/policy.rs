//! Content security policies (CSP Level 3): sources that name the application follow it below its prefix, and the
//! script of ours is let in, no wider than that.
//!
//! Invariant: a policy never allows more of the application's own than before, but what a nonce of this one answer
//! marks.

use crate::place::{Base, Place};
use crate::reference::authority;

/// The script that goes into pages.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Its address on the portal, from the root: `/-/rewrite.js`.
    pub src: String,
    /// What its `integrity` says, if anything.
    pub integrity: Option<String>,
    /// Random, for this answer alone: base64 letters.
    pub nonce: String,
}

/// What the policies of an answer mean for its body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Style is allowed by its hash: it must stay as it is.
    pub(crate) style_by_hash: bool,
    /// Scripts are allowed by their hash: an import map that is changed needs the nonce.
    pub(crate) script_by_hash: bool,
}

/// Directives that hold no sources.
const NO_SOURCES: [&str; 8] = [
    "sandbox",
    "plugin-types",
    "report-to",
    "require-sri-for",
    "require-trusted-types-for",
    "trusted-types",
    "upgrade-insecure-requests",
    "block-all-mixed-content",
];

/// The policies of one field, as they must read; `None` when they are right already.
pub(crate) fn map(
    policies: &str,
    place: &Place,
    injection: Option<&Injection>,
    effects: &mut Effects,
) -> Option<String> {
    let mapped: Vec<String> =
        policies.split(',').map(|policy| one(policy, place, injection, effects)).collect();
    let mapped = mapped.join(",");
    (mapped != policies).then_some(mapped)
}

struct Directive<'a> {
    /// As it stood; used while nothing changes.
    text: &'a str,
    name: String,
    values: Vec<String>,
    changed: bool,
}

fn one(policy: &str, place: &Place, injection: Option<&Injection>, effects: &mut Effects) -> String {
    let mut directives: Vec<Directive<'_>> = policy.split(';').map(|text| directive(text, place)).collect();
    let style = effective(&directives, &["style-src-elem", "style-src", "default-src"]);
    effects.style_by_hash |= style.is_some_and(|at| has(&directives, at, is_hash));
    let script = effective(&directives, &["script-src-elem", "script-src", "default-src"]);
    effects.script_by_hash |= script.is_some_and(|at| has(&directives, at, is_hash));
    if let (Some(injection), Some(at)) = (injection, script) {
        let_in(&mut directives, at, place, injection);
    }
    let texts: Vec<String> = directives
        .iter()
        .map(|directive| {
            if directive.changed {
                let space = if directive.text.starts_with(' ') { " " } else { "" };
                format!("{space}{} {}", directive.name, directive.values.join(" ")).trim_end().to_owned()
            } else {
                directive.text.to_owned()
            }
        })
        .collect();
    texts.join(";")
}

fn directive<'a>(text: &'a str, place: &Place) -> Directive<'a> {
    let mut words = text.split_ascii_whitespace();
    let name = words.next().unwrap_or_default().to_ascii_lowercase();
    let mut changed = false;
    let values = words
        .map(|word| {
            let mapped = match name.as_str() {
                "report-uri" => place.map(word),
                name if NO_SOURCES.contains(&name) => None,
                _ => source(word, place),
            };
            changed |= mapped.is_some();
            mapped.unwrap_or_else(|| word.to_owned())
        })
        .collect();
    Directive { text, name, values, changed }
}

/// The first of these directives that is there; of several with one name, the first counts.
fn effective(directives: &[Directive<'_>], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| directives.iter().position(|directive| directive.name == *name))
}

fn has(directives: &[Directive<'_>], at: usize, test: impl Fn(&str) -> bool) -> bool {
    directives.get(at).is_some_and(|directive| directive.values.iter().any(|value| test(value)))
}

fn is_hash(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["'sha256-", "'sha384-", "'sha512-"].iter().any(|hash| value.starts_with(hash))
}

fn is_nonce(value: &str) -> bool {
    value.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("'nonce-"))
}

fn let_in(directives: &mut Vec<Directive<'_>>, at: usize, place: &Place, injection: &Injection) {
    let word = |word: &'static str| move |value: &str| value.eq_ignore_ascii_case(word);
    let inline = has(directives, at, word("'unsafe-inline'"))
        && !has(directives, at, |value| is_hash(value) || is_nonce(value))
        && !has(directives, at, word("'strict-dynamic'"));
    let added = if inline {
        let whole = [
            "'self'".to_owned(),
            "*".to_owned(),
            "https:".to_owned(),
            place.host().to_owned(),
            format!("https://{}", place.host()),
        ];
        if has(directives, at, |value| whole.iter().any(|one| value.eq_ignore_ascii_case(one))) {
            return;
        }
        format!("https://{}{}", place.host(), injection.src)
    } else {
        format!("'nonce-{}'", injection.nonce)
    };
    let Some(directive) = directives.get_mut(at) else { return };
    let mut values = directive.values.clone();
    values.retain(|value| !value.eq_ignore_ascii_case("'none'"));
    values.push(added);
    if directive.name == "default-src" {
        // Scripts alone: what else falls back to the default stays as it is.
        directives.push(Directive { text: " ", name: "script-src".to_owned(), values, changed: true });
    } else {
        directive.values = values;
        directive.changed = true;
    }
}

/// A host source (CSP section 2.3.1) that names the application.
fn source(word: &str, place: &Place) -> Option<String> {
    if word.starts_with('\'') || word.ends_with(':') || word == "*" {
        return None;
    }
    if word.contains("://") {
        let splice = place.splice(word.as_bytes(), Base::Ours)?;
        let has_path = word.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let mapped = String::from_utf8(splice.apply(word.as_bytes())).ok()?;
        if has_path {
            return Some(without_brackets(&mapped));
        }
        let origin =
            mapped.find("://").and_then(|at| mapped.get(at + 3..)).and_then(|rest| rest.split('/').next())?;
        let scheme = mapped.split("://").next()?;
        let mapped = format!("{scheme}://{origin}");
        return (mapped != word).then_some(mapped);
    }
    let (host, path) = word.split_at(word.find('/').unwrap_or(word.len()));
    authority(host.as_bytes())?;
    let mapped =
        place.splice(format!("//{word}").as_bytes(), Base::Ours)?.apply(format!("//{word}").as_bytes());
    let mapped = String::from_utf8(mapped).ok()?;
    let mapped = mapped.strip_prefix("//")?;
    let mapped = if path.is_empty() { place.host().to_owned() } else { without_brackets(mapped) };
    (mapped != word).then_some(mapped)
}

/// Brackets of an address in a prefix have no place in a source's path (CSP section 2.3.1); encoded they match.
fn without_brackets(source: &str) -> String {
    let from = source.find("://").map_or(0, |at| at + 3);
    let path = source.get(from..).and_then(|rest| rest.find('/')).map_or(source.len(), |at| from + at);
    let (host, path) = source.split_at(path);
    format!("{host}{}", path.replace('[', "%5B").replace(']', "%5D"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    fn mapped(policy: &str, with_script: bool) -> (String, Effects) {
        let place = Place::new("/fw/tb", "", "portal", Mode::Strip)
            .unwrap()
            .with_origins(["c1:12001", "localhost:12001"]);
        let injection = Injection { src: "/-/rewrite.js".into(), integrity: None, nonce: "N".into() };
        let mut effects = Effects::default();
        let mapped = map(policy, &place, with_script.then_some(&injection), &mut effects);
        (mapped.unwrap_or_else(|| policy.to_owned()), effects)
    }

    #[test]
    fn sources_of_the_application_follow_it() {
        for (from, to) in [
            ("img-src http://c1:12001 data:", "img-src https://portal data:"),
            ("img-src c1:12001; font-src x", "img-src portal; font-src x"),
            ("img-src http://c1:12001/a/", "img-src https://portal/fw/tb/a/"),
            ("img-src c1:12001/a/", "img-src portal/fw/tb/a/"),
            ("connect-src ws://localhost:12001", "connect-src wss://portal"),
            (
                "default-src 'self'; report-uri /csp http://c1:12001/r",
                "default-src 'self'; report-uri /fw/tb/csp https://portal/fw/tb/r",
            ),
            (
                "frame-ancestors http://c1:12001, img-src http://c1:12001",
                "frame-ancestors https://portal, img-src https://portal",
            ),
        ] {
            assert_eq!(mapped(from, false).0, to, "{from}");
        }
    }

    #[test]
    fn brackets_of_an_address_are_encoded() {
        let place = Place::new("/fw2/[::1]:8888", "", "[::2]:8443", Mode::Strip).unwrap();
        let place = place.with_origins(["c1:12001"]);
        for (from, to) in [
            ("img-src http://c1:12001/a/", "img-src https://[::2]:8443/fw2/%5B::1%5D:8888/a/"),
            ("img-src c1:12001/a/", "img-src [::2]:8443/fw2/%5B::1%5D:8888/a/"),
            ("img-src http://c1:12001", "img-src https://[::2]:8443"),
        ] {
            assert_eq!(map(from, &place, None, &mut Effects::default()).as_deref(), Some(to), "{from}");
        }
    }

    #[test]
    fn others_stay() {
        for policy in [
            "",
            ";;",
            "default-src 'self' https: data: *.c1 http://evil:12001 c1:12002 *; sandbox allow-scripts",
            "img-src  x  ;  upgrade-insecure-requests;",
            "trusted-types c1:12001; report-to c1:12001",
            "img-src https://portal portal",
        ] {
            assert_eq!(mapped(policy, false).0, policy);
        }
        assert_eq!(mapped("img-src 'none'; style-src x", true).0, "img-src 'none'; style-src x");
    }

    #[test]
    fn our_script_is_let_in_and_nothing_else() {
        for (from, to) in [
            ("script-src 'self'", "script-src 'self' 'nonce-N'"),
            ("script-src 'none'", "script-src 'nonce-N'"),
            ("script-src", "script-src 'nonce-N'"),
            ("script-src x; script-src-elem y", "script-src x; script-src-elem y 'nonce-N'"),
            ("default-src 'self'", "default-src 'self'; script-src 'self' 'nonce-N'"),
            ("default-src 'none'; img-src x", "default-src 'none'; img-src x; script-src 'nonce-N'"),
            ("script-src 'nonce-a' 'strict-dynamic'", "script-src 'nonce-a' 'strict-dynamic' 'nonce-N'"),
            ("script-src 'unsafe-inline' 'nonce-a'", "script-src 'unsafe-inline' 'nonce-a' 'nonce-N'"),
            ("script-src 'unsafe-inline' x", "script-src 'unsafe-inline' x https://portal/-/rewrite.js"),
            ("script-src 'unsafe-inline' 'self'", "script-src 'unsafe-inline' 'self'"),
            ("script-src 'unsafe-inline' *", "script-src 'unsafe-inline' *"),
            ("SCRIPT-SRC 'NONE'", "script-src 'nonce-N'"),
        ] {
            assert_eq!(mapped(from, true).0, to, "{from}");
        }
    }

    #[test]
    fn hashes_are_noticed() {
        let effects = |policy| mapped(policy, true).1;
        assert!(effects("style-src 'sha256-x'").style_by_hash);
        assert!(effects("default-src 'SHA384-x'").script_by_hash);
        assert!(!effects("style-src 'sha256-x'; style-src-elem 'self'").style_by_hash);
        assert_eq!(effects("style-src 'unsafe-inline'; script-src 'nonce-a'"), Effects::default());
    }
}
