//! Judges single values: paths, networks, numbers, durations. Before: `written`. After: `check`.
//! Invariant: a value that is refused is noted, with what to write instead.

use super::Notes;
use crate::network::Network;
use jiff::SignedDuration;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// Empty is as good as not written: so the shipped file can show the key with its default.
pub(super) fn is_unset(written: Option<&Spanned<String>>) -> bool {
    written.is_none_or(|path| path.get_ref().is_empty())
}

pub(crate) fn path<'w>(
    written: Option<&'w Spanned<String>>,
    key: &str,
    notes: &mut Notes,
) -> Option<(&'w Spanned<String>, PathBuf)> {
    let written = written.filter(|path| !path.get_ref().is_empty())?;
    let path = PathBuf::from(written.get_ref());
    if path.is_absolute() && !written.get_ref().contains(char::is_control) {
        return Some((written, path));
    }
    let remedy = "write the whole path from '/' on";
    notes.note(written.span(), key, "this is no absolute path".to_owned(), remedy.to_owned());
    None
}

/// Whether a group can have this name.
pub(crate) fn is_group_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || matches!(c, ':' | ',' | '/');
    !name.trim().is_empty() && name.trim() == name && name.len() <= 255 && !name.contains(bad)
}

/// The networks among them.
pub(crate) fn networks(written: Option<Vec<Spanned<String>>>, key: &str, notes: &mut Notes) -> Vec<Network> {
    written.unwrap_or_default().iter().filter_map(|written| network(written, key, notes)).collect()
}

fn network(written: &Spanned<String>, key: &str, notes: &mut Notes) -> Option<Network> {
    Network::parse(written.get_ref())
        .map_err(|error| {
            let remedy = "write it as \"10.1.0.0/16\"";
            notes.note(written.span(), key, error.to_string(), remedy.to_owned());
        })
        .ok()
}

pub(crate) fn number<T: TryFrom<i64> + PartialOrd + Display>(
    written: Option<Spanned<i64>>,
    key: &str,
    range: RangeInclusive<T>,
    notes: &mut Notes,
) -> Option<T> {
    let written = written?;
    match T::try_from(*written.get_ref()) {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            let remedy = format!("write a number from {} to {}", range.start(), range.end());
            notes.note(written.span(), key, format!("{} is out of range", written.get_ref()), remedy);
            None
        }
    }
}

pub(crate) fn duration(
    written: &Option<Spanned<String>>,
    key: &str,
    range: RangeInclusive<Duration>,
    notes: &mut Notes,
) -> Option<Duration> {
    let written = written.as_ref()?;
    let (what, remedy) = match written.get_ref().parse::<SignedDuration>() {
        Ok(signed) => match Duration::try_from(signed) {
            Ok(duration) if range.contains(&duration) => return Some(duration),
            _ => (
                format!("{:?} is out of range", written.get_ref()),
                format!("write a duration from {} to {}", shown(*range.start()), shown(*range.end())),
            ),
        },
        Err(_) => (
            "this is no duration".to_owned(),
            "write hours, minutes and seconds, such as \"90s\", \"5m\" or \"1h 30m\"".to_owned(),
        ),
    };
    notes.note(written.span(), key, what, remedy);
    None
}

/// In the form that the file takes.
pub(super) fn shown(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}
