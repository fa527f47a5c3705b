//! The administrator's pages, `docs/admin/`, as what a person types and what the machine answers.
//!
//! | fence | means |
//! | --- | --- |
//! | ```` ```console NODE USER ```` | lines behind `# ` (root) or `$ ` (a user) are typed there, the others are what is said |
//! | ```` ```console NODE USER wait ```` | the same, typed again until that is said |
//! | ```` ```LANGUAGE NODE USER PATH ```` | a file with this content is written there |
//!
//! `...` stands for anything, in a line or for any number of lines. Invariant: no other fence, and no indented code, so
//! that no command of the pages is left out.

use std::path::Path;

/// A part of a page that is carried out.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// `start.md:12`
    pub at: String,
    /// On which node.
    pub node: String,
    /// As whom.
    pub user: String,
    /// What.
    pub what: What,
}

/// What is done.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// Commands, each with the lines that it says. No lines: whatever it says.
    Type {
        /// One after the other.
        commands: Vec<(String, Vec<String>)>,
        /// Again and again, until it says so.
        wait: bool,
    },
    /// A file.
    Write {
        /// Absolute.
        path: String,
        /// All of it.
        content: String,
    },
}

/// The pages in the order in which `README.md` numbers them, and it first.
///
/// # Panics
/// When they can't be read.
#[must_use]
pub fn pages(directory: &Path) -> Vec<String> {
    let readme = std::fs::read_to_string(directory.join("README.md")).expect("docs/admin/README.md");
    let numbered = readme.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let linked = numbered.filter_map(|line| Some(line.split_once("](")?.1.split_once(')')?.0.to_owned()));
    std::iter::once("README.md".to_owned()).chain(linked).collect()
}

/// The blocks of a page; each problem of its form otherwise.
///
/// # Errors
/// What is wrong, as `FILE:LINE: what`.
pub fn blocks(name: &str, text: &str) -> Result<Vec<Block>, Vec<String>> {
    let (mut blocks, mut problems) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = format!("{name}:{}", number + 1);
        if line.starts_with("    ") || line.starts_with('\t') {
            problems.push(format!("{at}: indented code, which nobody runs"));
        }
        let Some(words) = line.strip_prefix("```") else { continue };
        let words: Vec<&str> = words.split_whitespace().collect();
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let (node, user, what) = match words[..] {
            ["console", node, user] => (node, user, typed(&body, false)),
            ["console", node, user, "wait"] => (node, user, typed(&body, true)),
            [language, node, user, path] if language != "console" && path.starts_with('/') => {
                let content = body.iter().flat_map(|line| [line, "\n"]).collect();
                (node, user, Some(What::Write { path: path.to_owned(), content }))
            }
            _ => {
                problems.push(format!("{at}: it says neither where it is typed nor what file it is"));
                continue;
            }
        };
        match what {
            Some(what) => blocks.push(Block { at, node: node.to_owned(), user: user.to_owned(), what }),
            None => problems.push(format!("{at}: it begins with what is said, not with what is typed")),
        }
    }
    if problems.is_empty() { Ok(blocks) } else { Err(problems) }
}

fn typed(body: &[&str], wait: bool) -> Option<What> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in body {
        match line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")) {
            Some(command) => commands.push((command.to_owned(), Vec::new())),
            None => commands.last_mut()?.1.push((*line).to_owned()),
        }
    }
    (!commands.is_empty()).then_some(What::Type { commands, wait })
}

/// Whether what a command said is what the page shows.
#[must_use]
pub fn is_said(shown: &[String], said: &str) -> bool {
    let said: Vec<&str> = said.lines().map(str::trim_end).collect();
    shown.is_empty() || lines_match(shown, &said)
}

fn lines_match(shown: &[String], said: &[&str]) -> bool {
    match (shown.split_first(), said.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((first, rest)), _) if first == "..." => {
            (0..=said.len()).any(|skipped| lines_match(rest, &said[skipped..]))
        }
        (Some(_), None) => false,
        (Some((first, rest)), Some((line, others))) => {
            line_matches(first.trim_end(), line) && lines_match(rest, others)
        }
    }
}

fn line_matches(shown: &str, said: &str) -> bool {
    let mut parts = shown.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_is_typed_and_said() {
        let page = "# T\n\n```console c1 root\n# one\nsaid\n...\n# two # not a comment of ours\n```\n\
                    ```toml login root /etc/x.toml\n[a]\n# b\n```\n```console c1 alice wait\n$ three\n```\n";
        let found = blocks("p.md", page).unwrap();
        let typed = |commands: &[(&str, &[&str])], wait| What::Type {
            commands: commands
                .iter()
                .map(|(command, said)| {
                    ((*command).to_owned(), said.iter().map(ToString::to_string).collect())
                })
                .collect(),
            wait,
        };
        assert_eq!(
            found[0].what,
            typed(&[("one", &["said", "..."]), ("two # not a comment of ours", &[])], false)
        );
        assert_eq!(found[1].what, What::Write { path: "/etc/x.toml".into(), content: "[a]\n# b\n".into() });
        assert_eq!(found[2].what, typed(&[("three", &[])], true));
        assert_eq!(
            (found[2].at.as_str(), found[2].node.as_str(), found[2].user.as_str()),
            ("p.md:13", "c1", "alice")
        );
        for wrong in [
            "```\nx\n```\n",
            "```sh\nls\n```\n",
            "    ls\n",
            "```console c1 root\nsaid\n```\n",
            "```console c1\n# ls\n```\n",
        ] {
            assert_eq!(blocks("p.md", wrong).unwrap_err().len(), 1, "{wrong}");
        }
    }

    #[test]
    fn dots_stand_for_anything() {
        for (shown, said, expected) in [
            (&[][..], "anything", true),
            (&["a", "b"], "a\nb\n", true),
            (&["a"], "a\nb\n", false),
            (&["a", "..."], "a\nb\nc\n", true),
            (&["..."], "", true),
            (&["...", "c"], "a\nb\nc\n", true),
            (&["...", "b"], "a\nb\nc\n", false),
            (&["a...c"], "abc\n", true),
            (&["...b..."], "abc\n", true),
            (&["a...d"], "abc\n", false),
            (&["a  "], "a\n", true),
        ] {
            let shown: Vec<String> = shown.iter().map(ToString::to_string).collect();
            assert_eq!(is_said(&shown, said), expected, "{shown:?} {said}");
        }
    }
}
