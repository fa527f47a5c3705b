//! What a package installs beside the programs: manual pages and completions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use portreeve_tests::world::{built_if_possible, portreeve, skip, system};

fn pages(dir: &Path) -> Vec<std::path::PathBuf> {
    let said = portreeve(&["man", &dir.display().to_string()], None);
    assert_eq!(said.status, 0, "{said:?}");
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_page_renders_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let pages = pages(dir.path());
    assert!(pages.len() > 20, "{pages:?}");
    let groff = ["-man", "-ww", "-Tutf8", "-z"];
    let man = ["--warnings", "--local-file"];
    let (program, options): (_, &[&str]) = if system("groff", &["--version"]).is_some() {
        ("groff", &groff)
    } else if system("man", &["--version"]).is_some() {
        ("man", &man)
    } else {
        return skip("every_page_renders_without_a_warning", "needs groff or man");
    };
    for page in pages {
        let mut command = Command::new(program);
        command.args(options).arg(&page).env("LC_ALL", "C.UTF-8");
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", page.display());
    }
}

/// The long options in a text, as they are typed.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 3 && word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn the_daemons_pages_have_their_options() {
    let dir = tempfile::tempdir().unwrap();
    pages(dir.path());
    for (program, argument) in
        [("portreeve-agent", "--help"), ("portreeve-broker", "--usage"), ("portreeve-portal", "--help")]
    {
        let built = match built_if_possible(program) {
            Ok(built) => built,
            Err(why) => {
                skip("the_daemons_pages_have_their_options", &why);
                continue;
            }
        };
        let output = Command::new(built).arg(argument).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let mut expected = options(&said);
        expected.remove(argument);
        let page = std::fs::read_to_string(dir.path().join(format!("{program}.8"))).unwrap();
        let written = options(&page.replace("\\-", "-"));
        assert!(!expected.is_empty(), "{said}");
        let missing: Vec<_> = expected.difference(&written).collect();
        assert!(missing.is_empty(), "{program}: {missing:?} of {said}");
    }
}

#[test]
fn shells_understand_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let said = portreeve(&["completions", shell], None);
        assert!(said.status == 0 && said.out.contains("all-nodes") && said.out.contains("token"), "{said:?}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("completions");
        std::fs::write(&file, &said.out).unwrap();
        match system(shell, &["-n", &file.display().to_string()]) {
            Some(output) => assert!(output.status.success() && output.stderr.is_empty(), "{output:?}"),
            None => skip("shells_understand_their_completions", &format!("needs {shell}")),
        }
    }
    assert_eq!(portreeve(&["completions", "tcsh"], None).status, 2);
}
