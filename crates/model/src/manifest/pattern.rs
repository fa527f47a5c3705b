//! What an answer must look like: an expression in the language that the crate `regex` and HTML's `pattern` have in common.

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, Ast, ClassSetItem, Literal, LiteralKind, Visitor};

/// What a pattern may take in memory once it is compiled, in bytes.
const PATTERN_BYTES: usize = 64 * 1024;

/// What the whole of an answer must match: in the language that the crate `regex` and HTML's `pattern` have in common.
#[derive(Debug, Clone)]
pub struct Pattern {
    written: String,
    whole: Regex,
}

impl Pattern {
    /// Of an expression as written.
    ///
    /// # Errors
    /// Why it is none, in the words of the crate `regex`.
    pub fn parse(written: &str) -> Result<Self, regex::Error> {
        let compiled = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
        // By itself first: a bracket too many must not close the one that is put around it.
        compiled(written)?;
        Ok(Self { written: written.to_owned(), whole: compiled(&format!("^(?:{written})$"))? })
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// For HTML's `pattern`: browsers read it with the flag `v`, which wants more signs escaped than the crate `regex` does, and
    /// else pass over it.
    #[must_use]
    pub fn in_html(&self) -> String {
        let signs = signs(&self.written);
        let escaped = |(at, sign)| if signs.contains(&at) { format!("\\{sign}") } else { String::from(sign) };
        self.written.char_indices().map(escaped).collect()
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

/// Where in an expression a sign stands for itself that the flag `v` wants escaped.
fn signs(written: &str) -> Vec<usize> {
    #[derive(Default)]
    struct Signs(Vec<usize>);
    impl Signs {
        fn literal(&mut self, literal: &Literal, wanted: &str) {
            if literal.kind == LiteralKind::Verbatim && wanted.contains(literal.c) {
                self.0.push(literal.span.start.offset);
            }
        }
    }
    impl Visitor for Signs {
        type Output = Vec<usize>;
        type Err = std::convert::Infallible;

        fn finish(self) -> Result<Self::Output, Self::Err> {
            Ok(self.0)
        }

        fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
            if let Ast::Literal(literal) = ast {
                self.literal(literal, "]{}/");
            }
            Ok(())
        }

        fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
            // Every sign that may be escaped there.
            const IN_CLASS: &str = "()[]{}/-\\|^$.*+?&!#%,:;<=>@`~";
            match item {
                ClassSetItem::Literal(literal) => self.literal(literal, IN_CLASS),
                ClassSetItem::Range(range) => {
                    self.literal(&range.start, IN_CLASS);
                    self.literal(&range.end, IN_CLASS);
                }
                _ => {}
            }
            Ok(())
        }
    }
    ast::parse::Parser::new()
        .parse(written)
        .ok()
        .and_then(|ast| ast::visit(&ast, Signs::default()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_browsers_read_it() {
        for (written, in_html) in [
            ("[A-Za-z0-9._+/ -]*", r"[A-Za-z0-9\._\+\/ \-]*"),
            ("[^/].*", r"[^\/].*"),
            ("a/b]}", r"a\/b\]\}"),
            (r"[\-\]]{1,3}(a|b)?", r"[\-\]]{1,3}(a|b)?"),
            ("[a&&[^b]]", "[a&&[^b]]"),
            ("[+-.]", r"[\+-\.]"),
            ("[é/]", r"[é\/]"),
        ] {
            let pattern = Pattern::parse(written).unwrap();
            assert_eq!(pattern.in_html(), in_html);
            let other = Pattern::parse(&pattern.in_html()).unwrap();
            for text in ["a", "b", "-", "/", "a/b]}", "x y", "+", ",", "]", "é", ""] {
                assert_eq!(pattern.matches(text), other.matches(text), "{written} {text}");
            }
        }
    }
}
