//! What the documents say of the sources is so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use portreeve_tests::world::{skip, system};

/// The repository's files that are wanted; none without git.
fn tracked(is_wanted: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().display().to_string();
    // The repository may be somebody else's than the one who runs this.
    let output = system("git", &["-c", "safe.directory=*", "-C", &root, "ls-files"])?;
    let files = String::from_utf8(output.stdout).unwrap();
    let files: Vec<String> = files.lines().filter(|file| is_wanted(file)).map(str::to_owned).collect();
    (output.status.success() && !files.is_empty()).then_some(files)
}

fn is_source(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs" || extension == "mjs")
}

/// The paths of sources that a line has between backticks. One with a capital letter stands for others.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |word: &&str| {
        word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_./".contains(&b))
    };
    line.split('`').skip(1).step_by(2).filter(|word| is_source(word)).filter(is_path)
}

#[test]
fn each_source_that_a_document_names_is_one_file() {
    let is_document =
        |file: &str| file == "CONTRIBUTING.md" || (file.starts_with("docs/") && file.ends_with(".md"));
    let (Some(sources), Some(documents)) = (tracked(is_source), tracked(is_document)) else {
        return skip("each_source_that_a_document_names_is_one_file", "needs git, and its repository");
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut wrong, mut right) = (Vec::new(), 0);
    for document in documents {
        let text = std::fs::read_to_string(root.join(&document)).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            for path in named(line) {
                let is_meant = |source: &&String| Path::new(source).ends_with(path);
                let found: Vec<&String> = sources.iter().filter(is_meant).collect();
                match found[..] {
                    [_] => right += 1,
                    [] => wrong.push(format!("{document}:{number}: there is no {path}")),
                    _ => wrong.push(format!("{document}:{number}: {path} could be any of {found:?}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(right > 100, "only {right} were looked at");
}

/// The strings in double quotes.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// The names of audit events that a source writes.
fn events(source: &str) -> BTreeSet<String> {
    let product = source.split("\n#[cfg(test)]\n").next().unwrap();
    let mut found = BTreeSet::new();
    for (begin, end) in [("event = \"", ","), ("event = match", "};"), ("audit::session(", ",")] {
        for rest in product.split(begin).skip(1) {
            let rest = rest.split(end).next().unwrap();
            // The first one's quotation mark is in `begin`.
            let rest = if begin.ends_with('"') { format!("\"{rest}") } else { rest.to_owned() };
            found.extend(quoted(&rest));
        }
    }
    found
}

#[test]
fn every_audit_event_stands_in_the_guide_and_none_else() {
    let is_product = |file: &str| {
        let in_tests = Path::new(file).components().any(|part| part.as_os_str() == "tests");
        file.starts_with("crates/") && is_source(file) && !in_tests && !file.ends_with("/tests.rs")
    };
    let Some(sources) = tracked(is_product) else {
        return skip("every_audit_event_stands_in_the_guide_and_none_else", "needs git, and its repository");
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let written: BTreeSet<String> = sources.iter().flat_map(|file| events(&read(file))).collect();
    let guide = read("docs/admin-guide.md");
    let section = guide.split("\n#### Events\n").nth(1).unwrap().split("\n#").next().unwrap();
    let cells =
        section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split(" | ").next());
    let documented: BTreeSet<String> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
    assert_eq!(written, documented, "left: the sources, right: the guide");
}
