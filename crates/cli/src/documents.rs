//! `portreeve completions` and `portreeve man`: what a package installs beside the programs, made from what can be typed
//! and from what the repository's files say.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::aot::{Shell, generate};

use crate::arguments::Arguments;
use crate::config_page;

/// `portreeve completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For this shell
    shell: ShellArgument,
}

/// A shell as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShellArgument {
    Bash,
    Zsh,
    Fish,
}

/// `portreeve man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory for the pages; made if it is not there
    dir: PathBuf,
}

/// Pages that are written by hand, each with its file's name.
const WRITTEN: [(&str, &str); 3] = [
    ("portreeve-portal.8", include_str!("../../../docs/man/portreeve-portal.8")),
    ("portreeve-broker.8", include_str!("../../../docs/man/portreeve-broker.8")),
    ("portreeve-agent.8", include_str!("../../../docs/man/portreeve-agent.8")),
];

pub(crate) fn completions(completions: &Completions) -> anyhow::Result<()> {
    let shell = match completions.shell {
        ShellArgument::Bash => Shell::Bash,
        ShellArgument::Zsh => Shell::Zsh,
        ShellArgument::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "portreeve", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}

/// Writes portreeve.1, a page for each subcommand, the daemons' pages and the configuration file's.
pub(crate) fn man(man: &Man) -> anyhow::Result<()> {
    let dir = &man.dir;
    let failed = || format!("{}: the pages can't be written", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    clap_mangen::generate_to(Arguments::command(), dir).with_context(failed)?;
    for (name, text) in WRITTEN {
        write(dir, name, text).with_context(failed)?;
    }
    write(dir, "portreeve.toml.5", &config_page::page()).with_context(failed)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::write(dir.join(name), text.replace("@VERSION@", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pages of a command and those below it.
    fn pages(command: &clap::Command, found: &mut Vec<String>) {
        found.push(format!("{}.1", command.get_display_name().unwrap_or(command.get_name())));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            pages(below, found);
        }
    }

    #[test]
    fn every_subcommand_has_a_page_and_an_explanation() {
        let dir = tempfile::tempdir().unwrap();
        man(&Man { dir: dir.path().to_owned() }).unwrap();
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        let mut expected = Vec::new();
        pages(&command, &mut expected);
        for page in
            ["portreeve.1", "portreeve-token-create.1", "portreeve-forward-add.1", "portreeve-nodes-list.1"]
        {
            assert!(expected.iter().any(|found| found == page), "{page}: {expected:?}");
        }
        let by_hand = WRITTEN.iter().map(|(name, _)| (*name).to_owned());
        expected.extend(by_hand.chain(["portreeve.toml.5".to_owned()]));
        let mut found: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        for page in &found {
            let text = fs::read_to_string(dir.path().join(page)).unwrap();
            let name = text.lines().skip_while(|line| !line.starts_with(".SH NAME")).nth(1).unwrap();
            assert!(name.contains("\\- ") && !name.ends_with("\\- "), "{page}: {name}");
            assert!(!text.contains("@VERSION@"), "{page}");
        }
        man(&Man { dir: dir.path().join("one/more") }).unwrap();
        assert!(man(&Man { dir: dir.path().join("portreeve.1") }).is_err(), "a file is in the way");
    }

    #[test]
    fn everything_that_can_be_typed_is_explained() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
        Arguments::command().debug_assert();
    }
}
