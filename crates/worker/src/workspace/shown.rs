//! Text that somebody else chose, as far as it is shown. Escaping is the template's.

/// At most `most` characters of it, none of which controls a terminal or turns the direction of what stands around it
/// (Unicode Standard Annex 9).
pub(crate) fn shown(text: &str, most: usize) -> String {
    let mut characters =
        text.chars().map(|one| if is_plain(one) { one } else { char::REPLACEMENT_CHARACTER });
    let mut shown: String = characters.by_ref().take(most).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn is_plain(one: char) -> bool {
    !one.is_control()
        && !matches!(one, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_plain() {
        for (text, most, expected) in [
            ("jupyter-lab", 64, "jupyter-lab"),
            ("", 4, ""),
            ("abcd", 4, "abcd"),
            ("abcde", 4, "abcd…"),
            ("äöüß€", 4, "äöüß…"),
            ("a\u{1b}[31m\n\u{202e}b", 64, "a\u{fffd}[31m\u{fffd}\u{fffd}b"),
        ] {
            assert_eq!(shown(text, most), expected, "{text:?}");
        }
    }
}
