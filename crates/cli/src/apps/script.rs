//! What bash finds wrong with a manifest's script.
//! Invariant: nothing of the script runs, and no program that it names: bash is the one of whoever checks, and only reads (`-n`).

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use portreeve_model::Problem;

/// The first fault of the script in a manifest's text. Where bash is missing, or the script is for another program: none.
pub(super) fn fault(text: &str, file: &str) -> Option<Problem> {
    let document: toml_edit::DocumentMut = text.parse().ok()?;
    let script = document.get("script")?.as_str()?;
    let said = complaint(script, is_posix(script)?).ok()??;
    // Where the script stands in the file, and the fault in it.
    let begin = text.find(script).map(|at| text.bytes().take(at).filter(|&byte| byte == b'\n').count());
    let (line, what) = parted(&said);
    Some(Problem {
        file: file.to_owned(),
        line: begin.zip(line).map(|(before, line)| before + line),
        key: "script".to_owned(),
        what: format!("bash says: {}", what.replace(char::is_control, "?")),
        remedy: "correct it there, or in a line before it".to_owned(),
    })
}

/// Whether a script is for the plain shell, by its first line; `None`: for no shell that bash could stand in for.
fn is_posix(script: &str) -> Option<bool> {
    let mut words = script.lines().next()?.strip_prefix("#!")?.split_whitespace();
    let mut program = Path::new(words.next()?).file_name()?.to_str()?;
    if program == "env" {
        program = words.find(|word| !word.starts_with('-'))?;
    }
    match program {
        "bash" => Some(false),
        "sh" | "dash" => Some(true),
        _ => None,
    }
}

/// The first line that bash says, if it says anything.
fn complaint(script: &str, is_posix: bool) -> io::Result<Option<String>> {
    let mut command = Command::new("bash");
    command.args(is_posix.then_some("--posix")).arg("-n");
    // These name a file that is read first.
    command.env_remove("BASH_ENV").env_remove("ENV").env("LC_ALL", "C");
    let mut bash = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (input, script) = (bash.stdin.take(), script.to_owned());
    // Beside it, so that neither waits for the other. It stops to read at the first fault.
    let written = std::thread::spawn(move || input.map(|mut input| input.write_all(script.as_bytes())));
    let said = bash.wait_with_output()?;
    let _ = written.join();
    let said = String::from_utf8_lossy(&said.stderr);
    Ok(said.lines().next().map(str::to_owned))
}

/// `bash: line 3: syntax error ...`
fn parted(said: &str) -> (Option<usize>, &str) {
    let said = said.strip_prefix("bash: ").unwrap_or(said);
    let numbered = said.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    match numbered.and_then(|(number, what)| Some((number.parse().ok()?, what))) {
        Some((line, what)) => (Some(line), what),
        None => (None, said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(first: &str) -> String {
        format!("title = 'T'\n\nscript = '''{first}\nif true; then\n'''\n")
    }

    #[test]
    fn which_scripts_bash_can_judge() {
        for (first, judged) in [
            ("#!/bin/bash -l", Some(false)),
            ("#!/usr/bin/env bash", Some(false)),
            ("#!/usr/bin/env -S bash -l", Some(false)),
            ("#! /bin/sh", Some(true)),
            ("#!/bin/dash", Some(true)),
            ("#!/usr/bin/python3", None),
            ("#!/usr/bin/env", None),
            ("#!", None),
            ("true", None),
            ("", None),
        ] {
            assert_eq!(is_posix(first), judged, "{first}");
        }
    }

    #[test]
    fn a_fault_has_its_line_in_the_file() {
        let said = fault(&manifest("#!/bin/bash"), "a.toml").unwrap();
        assert_eq!((said.line, said.key.as_str()), (Some(5), "script"), "{said}");
        assert!(said.what.contains("unexpected end of file"), "{said}");
        assert_eq!(fault(&manifest("#!/usr/bin/python3"), "a.toml"), None);
        assert_eq!(fault("script = '''#!/bin/sh\ntrue\n'''", "a.toml"), None);
        assert_eq!(fault("script = ", "a.toml"), None);
        // Not as it stands in the file: then there is no line.
        let escaped = fault("script = \"#!/bin/sh\\nif\\n\"", "a.toml").unwrap();
        assert_eq!(escaped.line, None);
    }

    #[test]
    fn nothing_of_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (shell, trace) = (dir.path().join("bash"), dir.path().join("trace"));
        std::fs::write(&shell, format!("#!/bin/sh\ntouch {}\n", trace.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&shell, mode).unwrap();
        for first in [format!("#!{}", shell.display()), format!("#!/bin/bash\ntouch {}", trace.display())] {
            assert!(fault(&manifest(&first), "a.toml").is_some(), "{first}");
            assert!(!trace.exists(), "{first}");
        }
    }
}
