//! Reads a configuration file of another program, with the files that it includes, as lines.
//! Invariant: a bounded number of files, each bounded; whatever is not read is an error, not an empty file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files at most, those included among them.
const MOST_FILES: usize = 64;
/// Of each, in bytes.
const MOST_BYTES: u64 = 1024 * 1024;
/// How deep files include one another, as with sshd.
const DEPTH: usize = 16;

/// How the program's files are written.
pub(super) struct Form {
    /// Where names of included files begin that do not begin with a slash.
    pub(super) base: PathBuf,
    /// From this word on, nothing of a file is of interest.
    pub(super) until: Option<&'static str>,
    /// Whether a backslash at the end of a line joins the next one to it.
    pub(super) joins: bool,
}

/// A line's first word and what follows, without the space or `=` between them.
pub(super) fn split(line: &str) -> (&str, &str) {
    let end = line.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let rest = rest.trim_start();
    (word, rest.strip_prefix('=').unwrap_or(rest).trim())
}

/// All lines that hold anything, without comments.
///
/// # Errors
/// `NotFound` if the file itself is not there; else what could not be read.
pub(super) fn lines(path: &Path, form: &Form) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    read(path, form, DEPTH, &mut 0, &mut lines)?;
    Ok(lines)
}

fn read(
    path: &Path,
    form: &Form,
    depth: usize,
    files: &mut usize,
    lines: &mut Vec<String>,
) -> io::Result<()> {
    *files += 1;
    if depth == 0 || *files > MOST_FILES {
        return Err(io::Error::other("too many files are included"));
    }
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    if form.joins {
        text = text.replace("\\\n", " ");
    }
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (word, rest) = split(line);
        if word.is_empty() {
            continue;
        }
        if form.until.is_some_and(|until| word.eq_ignore_ascii_case(until)) {
            break;
        }
        if !word.eq_ignore_ascii_case("include") {
            lines.push(line.to_owned());
            continue;
        }
        for name in rest.split_ascii_whitespace() {
            let name = form.base.join(name.trim_matches('"'));
            for file in matching(&name)? {
                read(&file, form, depth - 1, files, lines).map_err(|error| {
                    // Not `NotFound`: the file that was asked for is there.
                    io::Error::other(format!("it includes {}: {error}", file.display()))
                })?;
            }
        }
    }
    Ok(())
}

/// The files that a name stands for; in its last part, `*` is any text and `?` any character.
fn matching(name: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(pattern)) = (name.parent(), name.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::Error::other(format!("it includes {}", name.display())));
    };
    if !pattern.contains(['*', '?']) {
        return Ok(vec![name.to_owned()]);
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let Some(file) = file.to_str() else { continue };
        if !file.starts_with('.') && is_like(file.as_bytes(), pattern.as_bytes()) {
            files.push(directory.join(file));
        }
    }
    files.sort();
    Ok(files)
}

fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|from| is_like(&name[from..], rest)),
        ([b'?', rest @ ..], [_, name @ ..]) => is_like(name, rest),
        ([one, rest @ ..], [other, name @ ..]) if one == other => is_like(name, rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_are_read_where_they_are_included() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        write("main", "# Port 1\n\n a 1 # x\nINCLUDE d/*.conf \"other\"\nb=2\\\n3\nMatch all\nc 3\n");
        write("d/2.conf", "second = 2");
        write("d/1.conf", "first 1\nmatch x\nfirst 2");
        write("d/.conf", "hidden");
        write("d/x.cnf", "no");
        write("other", "other");
        let form = Form { base: dir.path().into(), until: Some("match"), joins: true };
        let read = lines(&dir.path().join("main"), &form).unwrap();
        assert_eq!(read, ["a 1", "first 1", "second = 2", "other", "b=2 3"]);
        let missing = lines(&dir.path().join("none"), &form).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        for wrong in ["include none", "include loop", "include /"] {
            write("loop", wrong);
            let error = lines(&dir.path().join("loop"), &form).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{wrong}: {error}");
        }
    }

    #[test]
    fn names_and_their_patterns() {
        for (name, pattern, is) in [
            ("50-a.conf", "*.conf", true),
            ("conf", "*.conf", false),
            ("a", "?", true),
            ("ab", "?", false),
            ("abc", "a*c", true),
            ("abcd", "a*c", false),
            ("", "*", true),
        ] {
            assert_eq!(is_like(name.as_bytes(), pattern.as_bytes()), is, "{name} {pattern}");
        }
    }

    #[test]
    fn a_word_and_what_follows() {
        for (line, word, rest) in [
            ("Port 22", "Port", "22"),
            ("Port=22", "Port", "22"),
            ("Port = 22", "Port", "22"),
            ("Port\t\t22 ", "Port", "22"),
            ("Port", "Port", ""),
            ("", "", ""),
        ] {
            assert_eq!(split(line), (word, rest), "{line}");
        }
    }
}
