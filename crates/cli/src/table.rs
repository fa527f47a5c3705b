//! Tables and lists on standard output.
//! Invariant: nothing that a terminal would take for a command gets there, whoever named it.

use std::io::{self, Write};

/// Prints rows below a heading, each column as wide as its widest cell. The last one is not filled up.
pub(crate) fn print<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines(heading, rows) {
        match writeln!(out, "{line}") {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

fn lines<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let all: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned))
        .chain(rows.iter().cloned())
        .map(|row| row.map(tame))
        .collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    all.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A cell without control characters, and never empty.
fn tame(cell: String) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Prints JSON.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A moment (unix seconds) in UTC.
pub(crate) fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

/// A day (unix seconds) in UTC.
pub(crate) fn day(seconds: i64) -> String {
    moment(seconds).chars().take_while(|c| *c != 'T').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_tame() {
        let rows = [["a".to_owned(), "x\u{1b}[2J".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(lines(["NAME", "WHAT"], &rows), ["NAME    WHAT", "a       x?[2J", "longer  -"]);
    }

    #[test]
    fn moments() {
        assert_eq!((moment(0).as_str(), day(86_400).as_str()), ("1970-01-01T00:00:00Z", "1970-01-02"));
        assert_eq!(moment(i64::MAX), i64::MAX.to_string());
    }
}
