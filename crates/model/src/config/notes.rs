//! What is wrong with a file, by place, until it becomes a list of problems. Before: reading and checking.
//! Invariant: the problems come in the order of their lines; a line that is no TOML has one only.

use super::Problem;
use std::ops::Range;

/// What was noticed while reading and checking, by place in the text.
#[derive(Default)]
pub(crate) struct Notes {
    notes: Vec<Note>,
    /// Keys that nobody asked for, and where.
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

    pub(super) fn syntax(&mut self, span: Range<usize>, message: &str) {
        self.note(span, "", message.to_owned(), "correct the line's TOML syntax".to_owned());
    }

    pub(super) fn unknown(&mut self, span: Range<usize>, key: String) {
        self.unknown.push((span, key));
    }

    /// Whether something was noted about this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.notes.iter().any(|note| note.key == key)
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
