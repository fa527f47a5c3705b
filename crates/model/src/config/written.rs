//! The configuration as written: which keys stand in the file, with which type of value, and where.
//! Before: the text. After: `check`. Invariant: no judgement of values here, but every unknown key and wrong type noted.
//!
//! Each value is read by serde on its own. A derived `deny_unknown_fields` for the whole file would stop at the first
//! mistake, and the sysadmin would meet the others one restart at a time.

use super::Problem;
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every key that there is, as found. `None`: not written, or of the wrong type, which is noted then.
pub(super) struct Written {
    pub(super) threads: Option<Spanned<i64>>,
    pub(super) session: WrittenSession,
    pub(super) tls: WrittenTls,
    pub(super) groups_never: Option<Vec<Spanned<WrittenGroup>>>,
    pub(super) forwards_admin: Option<Vec<Spanned<String>>>,
    pub(super) agents_plain_networks: Option<Vec<Spanned<String>>>,
    pub(super) limits: WrittenLimits,
}

/// `[session]`
pub(super) struct WrittenSession {
    pub(super) idle: Option<Spanned<String>>,
    pub(super) lifetime: Option<Spanned<String>>,
    pub(super) code_lifetime: Option<Spanned<String>>,
}

/// `[tls]`
pub(super) struct WrittenTls {
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
}

/// `[limits]`
pub(super) struct WrittenLimits {
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) requests_per_session: Option<Spanned<i64>>,
    pub(super) response_head: Option<Spanned<String>>,
    pub(super) body_stall: Option<Spanned<String>>,
    pub(super) write_stall: Option<Spanned<String>>,
    pub(super) idle_connection: Option<Spanned<String>>,
    pub(super) http2_ping: Option<Spanned<String>>,
    pub(super) pool_idle: Option<Spanned<String>>,
    pub(super) drain: Option<Spanned<String>>,
}

/// A group: a name, or a gid without quotes.
#[derive(serde::Deserialize)]
#[serde(untagged)]
pub(super) enum WrittenGroup {
    Gid(i64),
    Name(String),
}

/// Reads the text as far as it can be read.
pub(super) fn read(text: &str) -> (Written, Notes) {
    let mut notes = Notes::default();
    let mut top = Section::whole(text, &mut notes);
    let mut session = top.section("session", &mut notes);
    let mut tls = top.section("tls", &mut notes);
    let mut groups = top.section("groups", &mut notes);
    let mut forwards = top.section("forwards", &mut notes);
    let mut agents = top.section("agents", &mut notes);
    let mut limits = top.section("limits", &mut notes);
    let written = Written {
        threads: top.integer("threads", &mut notes),
        session: WrittenSession {
            idle: session.string("idle", &mut notes),
            lifetime: session.string("lifetime", &mut notes),
            code_lifetime: session.string("code_lifetime", &mut notes),
        },
        tls: WrittenTls {
            certificate: tls.string("certificate", &mut notes),
            key: tls.string("key", &mut notes),
        },
        groups_never: groups.array("never", "a group's name or gid", &mut notes),
        forwards_admin: forwards.array("admin", "a string", &mut notes),
        agents_plain_networks: agents.array("plain_networks", "a string", &mut notes),
        limits: WrittenLimits {
            connections: limits.integer("connections", &mut notes),
            requests_per_session: limits.integer("requests_per_session", &mut notes),
            response_head: limits.string("response_head", &mut notes),
            body_stall: limits.string("body_stall", &mut notes),
            write_stall: limits.string("write_stall", &mut notes),
            idle_connection: limits.string("idle_connection", &mut notes),
            http2_ping: limits.string("http2_ping", &mut notes),
            pool_idle: limits.string("pool_idle", &mut notes),
            drain: limits.string("drain", &mut notes),
        },
    };
    for section in [top, session, tls, groups, forwards, agents, limits] {
        section.refuse_rest(&mut notes);
    }
    (written, notes)
}

/// One table of the file, from which known keys are taken out; what is left is unknown.
pub(crate) struct Section<'t> {
    name: &'static str,
    table: DeTable<'t>,
}

impl<'t> Section<'t> {
    /// The whole text, as far as it is TOML.
    pub(crate) fn whole(text: &'t str, notes: &mut Notes) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            notes.syntax(error.span().unwrap_or(0..0), error.message());
        }
        Self { name: "", table: table.into_inner() }
    }

    /// Every `[[NAME]]`, with where it begins.
    pub(crate) fn sections(
        &mut self,
        name: &'static str,
        notes: &mut Notes,
    ) -> Vec<(Range<usize>, Section<'t>)> {
        let Some(found) = self.take(name, notes) else { return Vec::new() };
        let (span, mut sections, mut all) = (found.span(), Vec::new(), true);
        match found.into_inner() {
            DeValue::Array(values) => {
                for value in values {
                    let span = value.span();
                    match value.into_inner() {
                        DeValue::Table(table) => sections.push((span, Section { name, table })),
                        _ => all = false,
                    }
                }
            }
            _ => all = false,
        }
        if !all {
            let remedy = format!("write [[{name}]] on a line of its own for each, and its keys below");
            notes.note(span, name, "something else where sections belong".to_owned(), remedy);
        }
        sections
    }

    pub(crate) fn boolean(&mut self, key: &str, notes: &mut Notes) -> Option<Spanned<bool>> {
        let value = self.take(key, notes)?;
        typed(value, &dotted(self.name, key), "true or false", notes)
    }

    pub(crate) fn take(&mut self, key: &str, notes: &mut Notes) -> Option<Spanned<DeValue<'t>>> {
        notes.known.push(dotted(self.name, key));
        self.table.remove(key)
    }

    pub(crate) fn section(&mut self, name: &'static str, notes: &mut Notes) -> Section<'t> {
        let table = self.take(name, notes).and_then(|found| {
            let span = found.span();
            match found.into_inner() {
                DeValue::Table(table) => Some(table),
                other => {
                    let what = format!("{} where a section belongs", article(other.type_str()));
                    notes.note(
                        span,
                        name,
                        what,
                        format!("write [{name}] on a line of its own, and its keys below"),
                    );
                    None
                }
            }
        });
        Section { name, table: table.unwrap_or_default() }
    }

    pub(crate) fn integer(&mut self, key: &str, notes: &mut Notes) -> Option<Spanned<i64>> {
        let value = self.take(key, notes)?;
        typed(value, &dotted(self.name, key), "a whole number", notes)
    }

    pub(crate) fn string(&mut self, key: &str, notes: &mut Notes) -> Option<Spanned<String>> {
        let value = self.take(key, notes)?;
        typed(value, &dotted(self.name, key), "a string", notes)
    }

    pub(crate) fn array<T: DeserializeOwned>(
        &mut self,
        key: &str,
        element: &str,
        notes: &mut Notes,
    ) -> Option<Vec<Spanned<T>>> {
        let found = self.take(key, notes)?;
        let (key, span) = (dotted(self.name, key), found.span());
        match found.into_inner() {
            DeValue::Array(values) => {
                Some(values.into_iter().filter_map(|value| typed(value, &key, element, notes)).collect())
            }
            other => {
                let what = format!("{} where a list belongs", article(other.type_str()));
                notes.note(span, &key, what, "write [ ] around it".to_owned());
                None
            }
        }
    }

    pub(crate) fn refuse_rest(self, notes: &mut Notes) {
        for key in self.table.keys() {
            notes.unknown.push((key.span(), dotted(self.name, key.get_ref())));
        }
    }
}

fn typed<T: DeserializeOwned>(
    value: Spanned<DeValue<'_>>,
    key: &str,
    expected: &str,
    notes: &mut Notes,
) -> Option<Spanned<T>> {
    let (span, found) = (value.span(), value.get_ref().type_str());
    match T::deserialize(value.into_deserializer()) {
        Ok(typed) => Some(Spanned::new(span, typed)),
        Err(_) => {
            // An integer can also be one that no i64 holds.
            let what = match found {
                "integer" if expected == "a whole number" => "the number is out of all bounds".to_owned(),
                _ => format!("{} where {expected} belongs", article(found)),
            };
            let remedy = match expected {
                "a string" => "write it in quotes",
                "a whole number" => "write digits only, without quotes",
                "true or false" => "write it without quotes",
                _ => "write a name in quotes, or digits without quotes",
            };
            notes.note(span, key, what, remedy.to_owned());
            None
        }
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// What was noticed while reading and checking, by place in the text.
#[derive(Default)]
pub(crate) struct Notes {
    notes: Vec<Note>,
    unknown: Vec<(Range<usize>, String)>,
    /// Every key that was asked for: all that there are.
    pub(crate) known: Vec<String>,
}

struct Note {
    at: usize,
    key: String,
    what: String,
    remedy: String,
}

impl Notes {
    pub(crate) fn note(&mut self, span: Range<usize>, key: &str, what: String, remedy: String) {
        self.notes.push(Note { at: span.start, key: key.to_owned(), what, remedy });
    }

    fn syntax(&mut self, span: Range<usize>, message: &str) {
        self.note(span, "", message.to_owned(), "correct the line's TOML syntax".to_owned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.unknown.is_empty()
    }

    pub(crate) fn into_problems(mut self, text: &str, file: &str) -> Vec<Problem> {
        for (span, key) in std::mem::take(&mut self.unknown) {
            let remedy = self.remedy_for_unknown(&key);
            self.note(span, &key, "there is no such key".to_owned(), remedy);
        }
        self.notes.sort_by_key(|note| note.at);
        let line = |note: &Note| 1 + text.bytes().take(note.at).filter(|&b| b == b'\n').count();
        // What the parser made of a broken line is its guess: only the syntax error is told.
        let broken: Vec<usize> = self.notes.iter().filter(|note| note.key.is_empty()).map(line).collect();
        let told = |note: &Note| note.key.is_empty() || !broken.contains(&line(note));
        self.notes
            .iter()
            .filter(|note| told(note))
            .map(|note| Problem {
                file: file.to_owned(),
                line: Some(line(note)),
                key: note.key.clone(),
                what: note.what.clone(),
                remedy: note.remedy.clone(),
            })
            .collect()
    }

    fn remedy_for_unknown(&self, key: &str) -> String {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let elsewhere = self.known.iter().find(|known| last(known) == last(key));
        let similar = || {
            let near = self.known.iter().map(|known| (edits(known, key), known));
            near.filter(|(edits, _)| *edits <= 2).min().map(|(_, known)| known)
        };
        match elsewhere.or_else(similar) {
            Some(known) => format!("did you mean {known}?"),
            None => "remove it".to_owned(),
        }
    }
}

/// Levenshtein's distance in bytes: fine for keys.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
