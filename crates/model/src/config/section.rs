//! One table of a file, from which keys are taken with the type that they must have. Before: the text. After: whoever
//! knows the file's keys. Invariant: what was never asked for is refused as unknown, and a wrong type is noted.

use super::Notes;
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One table of the file, from which known keys are taken out; what is left is unknown.
pub(crate) struct Section<'t> {
    name: &'static str,
    table: DeTable<'t>,
    /// Where it stands, if it does.
    span: Option<Range<usize>>,
}

impl<'t> Section<'t> {
    /// The whole text, as far as it is TOML.
    pub(crate) fn whole(text: &'t str, notes: &mut Notes) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            notes.syntax(error.span().unwrap_or(0..0), error.message());
        }
        Self { name: "", table: table.into_inner(), span: Some(0..0) }
    }

    /// Whether the file has it.
    pub(crate) fn is_there(&self) -> bool {
        self.span.is_some()
    }

    /// Where it stands.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone().unwrap_or_default()
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
                        DeValue::Table(table) => {
                            sections.push((span.clone(), Section { name, table, span: Some(span) }));
                        }
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
        let found = self.take(name, notes).and_then(|found| {
            let span = found.span();
            match found.into_inner() {
                DeValue::Table(table) => Some((table, span)),
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
        let (table, span) = found.unzip();
        Section { name, table: table.unwrap_or_default(), span }
    }

    /// A string, a whole number or a boolean, as text.
    pub(crate) fn scalar(&mut self, key: &str, notes: &mut Notes) -> Option<Spanned<String>> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Scalar {
            Text(String),
            Number(i64),
            Boolean(bool),
        }
        let value = self.take(key, notes)?;
        let scalar: Spanned<Scalar> = typed(value, &dotted(self.name, key), "a string or a number", notes)?;
        let span = scalar.span();
        let text = match scalar.into_inner() {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Boolean(boolean) => boolean.to_string(),
        };
        Some(Spanned::new(span, text))
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
            notes.unknown(key.span(), dotted(self.name, key.get_ref()));
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
                "a string or a number" => "write it in quotes, or digits without quotes",
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
