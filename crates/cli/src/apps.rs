//! `portreeve apps`: which applications can be started, and what is wrong with their manifests. Reads files; nothing is asked.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::bail;
use clap::{Args, Subcommand};
use portreeve_jobs::{Catalog, Source};
use portreeve_model::Problem;
use portreeve_model::manifest::{Manifest, ManifestFile};

use crate::config;
use crate::table;

/// `portreeve apps`
#[derive(Debug, Args)]
pub(crate) struct Apps {
    #[command(subcommand)]
    action: Option<Action>,
    /// Configuration file [default: the cluster's, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show them (without a command, too)
    List,
    /// Report every problem of manifests, with its line
    Check {
        /// These; without any, all that you can start here
        files: Vec<PathBuf>,
    },
}

pub(crate) fn apps(apps: &Apps) -> anyhow::Result<()> {
    match &apps.action {
        Some(Action::Check { files }) if !files.is_empty() => checked(files),
        Some(Action::Check { .. }) => check_all(&catalog(apps)?),
        Some(Action::List) | None => list(&catalog(apps)?),
    }
}

/// What the workspace would offer to whoever types this.
fn catalog(apps: &Apps) -> anyhow::Result<Catalog> {
    let file =
        apps.config.clone().or_else(|| Some(PathBuf::from(config::SYSTEM_FILE)).filter(|file| file.exists()));
    let site = config::read(file.as_deref())?.workspace;
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute() && site.own_apps);
    Ok(Catalog::read(Some(&site.apps), home.map(|home| home.join(".config/portreeve/apps")).as_deref()))
}

fn list(catalog: &Catalog) -> anyhow::Result<()> {
    let rows: Vec<[String; 4]> = catalog
        .apps
        .values()
        .map(|app| {
            [
                app.name.to_string(),
                app.manifest.title.clone(),
                whose(app.source).to_owned(),
                app.manifest.description.clone(),
            ]
        })
        .collect();
    table::print(["NAME", "TITLE", "FROM", "WHAT"], &rows)?;
    if !catalog.problems.is_empty() {
        eprintln!("others have problems: `portreeve apps check` says which");
    }
    Ok(())
}

fn whose(source: Source) -> &'static str {
    match source {
        Source::Shipped => "portreeve",
        Source::Site => "the site",
        Source::Own => "yourself",
    }
}

fn check_all(catalog: &Catalog) -> anyhow::Result<()> {
    let mut problems = catalog.problems.clone();
    for app in catalog.apps.values() {
        let script = in_bash(&app.manifest, &format!("{} of {}", app.name, whose(app.source)), None);
        match script {
            None => println!("{}: {}, from {}", app.name, app.manifest.title, whose(app.source)),
            Some(problem) => problems.push(problem),
        }
    }
    told(&problems)
}

fn checked(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let of_file = |what: String, remedy: &str| Problem {
            file: name.clone(),
            line: None,
            key: String::new(),
            what,
            remedy: remedy.to_owned(),
        };
        let found = match std::fs::read_to_string(file) {
            Err(error) => {
                vec![of_file(format!("it can't be read: {error}"), "name a text that you may read")]
            }
            Ok(text) => match ManifestFile::parse(&text, &name) {
                Err(problems) => problems,
                Ok(ManifestFile::Disabled) => Vec::new(),
                Ok(ManifestFile::Application(manifest)) => {
                    in_bash(&manifest, &name, Some(&text)).into_iter().collect()
                }
            },
        };
        let mut found: Vec<Problem> = found;
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if portreeve_model::manifest::AppName::parse(stem).is_none()
            || file.extension().is_none_or(|end| end != "toml")
        {
            found.push(of_file(
                "the file's name is no application's".to_owned(),
                "name it with 1 to 32 of a-z 0-9 -, beginning with a letter, and .toml",
            ));
        }
        if found.is_empty() {
            println!("{name}: no problems");
        }
        problems.extend(found);
    }
    told(&problems)
}

fn told(problems: &[Problem]) -> anyhow::Result<()> {
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    match problems.len() {
        0 => Ok(()),
        1 => bail!("one problem"),
        count => bail!("{count} problems"),
    }
}

/// What the script's own shell finds wrong with it, without running it. A shell that is not here finds nothing.
fn in_bash(manifest: &Manifest, file: &str, text: Option<&str>) -> Option<Problem> {
    let first = manifest.script.lines().next()?.trim_start_matches("#!").trim();
    let shell = Path::new(first.split_whitespace().next()?);
    if !matches!(shell.file_name()?.to_str()?, "bash" | "sh" | "dash") {
        return None;
    }
    let mut child = Command::new(shell)
        .arg("-n")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    let script = manifest.script.clone();
    let written = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().ok()?;
    let _ = written.join();
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let complaint: String =
        said.lines().next().unwrap_or_default().chars().filter(|one| !one.is_control()).collect();
    // Its line in the script, and where the script begins in the file.
    let line =
        complaint.split("line ").nth(1).and_then(|rest| rest.split(':').next()?.trim().parse::<usize>().ok());
    let begin = text.and_then(|text| text.lines().position(|line| line.trim_start().starts_with("script")));
    Some(Problem {
        file: file.to_owned(),
        line: begin.zip(line).map(|(begin, line)| begin + line),
        key: "script".to_owned(),
        what: format!("the shell says: {complaint}"),
        remedy: "mend the script; `bash -n` tells the same".to_owned(),
    })
}
