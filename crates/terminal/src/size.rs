//! A terminal's size. Invariant: it is one that every part can have, whatever was asked for.

use serde::Serialize;

use crate::limits;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Size {
    pub(crate) cols: u16,
    pub(crate) rows: u16,
}

impl Size {
    /// Before anybody looks.
    pub(crate) const FIRST: Self = Self { cols: 80, rows: 24 };

    /// The nearest one to what was asked for.
    pub(crate) fn nearest(cols: i64, rows: i64) -> Self {
        let within = |value: i64, range: std::ops::RangeInclusive<i64>| {
            u16::try_from(value.clamp(*range.start(), *range.end())).unwrap_or(u16::MAX)
        };
        Self { cols: within(cols, limits::COLUMNS), rows: within(rows, limits::ROWS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_a_possible_one() {
        for (asked, is) in [
            ((80, 24), (80, 24)),
            ((0, 0), (2, 1)),
            ((-5, i64::MIN), (2, 1)),
            ((i64::MAX, 1 << 40), (1000, 500)),
        ] {
            assert_eq!(Size::nearest(asked.0, asked.1), Size { cols: is.0, rows: is.1 });
        }
    }
}
