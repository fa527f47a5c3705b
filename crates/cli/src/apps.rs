//! `portreeve apps`: which applications can be started, and what is wrong with their manifests. Reads files; nothing is asked.

mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use portreeve_jobs::catalog::{self, Catalog, Found, OWN, SHIPPED, Source};
use portreeve_model::Problem;
use portreeve_model::manifest::{AppName, ManifestFile};

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
        /// These; without any, all that you can start here, and which of them stand in others' place
        files: Vec<PathBuf>,
    },
}

/// What there is for whoever types this.
struct Here {
    catalog: Catalog,
    /// The directory of one's own that does not count.
    unused: Option<PathBuf>,
}

pub(crate) fn apps(apps: &Apps) -> anyhow::Result<()> {
    match &apps.action {
        Some(Action::Check { files }) if !files.is_empty() => told(&checked(files)),
        Some(Action::Check { .. }) => told(&check_all(&here(apps)?)),
        Some(Action::List) | None => list(&here(apps)?.catalog),
    }
}

fn here(apps: &Apps) -> anyhow::Result<Here> {
    let file =
        apps.config.clone().or_else(|| Some(PathBuf::from(config::SYSTEM_FILE)).filter(|file| file.exists()));
    let site = config::read(file.as_deref())?.workspace;
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let (own, unused) = match home.map(|home| home.join(OWN)) {
        Some(own) if site.own_apps => (Some(own), None),
        own => (None, own.filter(|own| own.exists())),
    };
    Ok(Here { catalog: Catalog::read(Some(&site.apps), own.as_deref()), unused })
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

/// All that there are: says which counts of each name, and finds what is wrong with any.
fn check_all(here: &Here) -> Vec<Problem> {
    let catalog = &here.catalog;
    let mut problems = catalog.problems.clone();
    let mut names: BTreeMap<&AppName, Vec<&Found>> = BTreeMap::new();
    for found in &catalog.found {
        names.entry(&found.name).or_default().push(found);
        problems.extend(script::fault(&text(found), &found.file));
    }
    for (name, all) in names {
        let Some((counts, others)) = all.split_last() else { continue };
        let what = match catalog.apps.get(name) {
            Some(app) => app.manifest.title.clone(),
            None if catalog.problems.iter().any(|problem| problem.file == counts.file) => {
                "not offered, its manifest has problems".to_owned()
            }
            None => "not offered, it is switched off".to_owned(),
        };
        let instead: Vec<String> = others.iter().map(|other| of(other)).collect();
        let instead = match &instead[..] {
            [] => String::new(),
            all => format!(", in place of the one {}", all.join(" and the one ")),
        };
        println!("{name}: {}{instead}: {what}", of(counts));
    }
    if let Some(dir) = &here.unused {
        println!("{} does not count: workspace.own_apps is false here", dir.display());
    }
    problems
}

/// Where one comes from.
fn of(found: &Found) -> String {
    match found.source {
        Source::Shipped => format!("from {}", whose(found.source)),
        Source::Site | Source::Own => format!("from {} ({})", whose(found.source), found.file),
    }
}

/// Its text, as far as it has one.
fn text(found: &Found) -> String {
    match found.source {
        Source::Shipped => {
            let shipped = SHIPPED.iter().find(|(name, _)| *name == found.name.as_str());
            shipped.map(|(_, text)| (*text).to_owned()).unwrap_or_default()
        }
        Source::Site | Source::Own => catalog::text_of(Path::new(&found.file)).unwrap_or_default(),
    }
}

fn checked(files: &[PathBuf]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files {
        let found = of_file(file);
        if found.is_empty() {
            println!("{}: no problems", file.display());
        }
        problems.extend(found);
    }
    problems
}

fn of_file(file: &Path) -> Vec<Problem> {
    let name = file.display().to_string();
    let whole = |what: String, remedy: &str| {
        let (file, line, key, remedy) = (name.clone(), None, String::new(), remedy.to_owned());
        Problem { file, line, key, what, remedy }
    };
    let text = match catalog::text_of(file) {
        Ok(text) => text,
        Err(error) => return vec![whole(format!("it can't be read: {error}"), "make it a readable text")],
    };
    let mut found = ManifestFile::parse(&text, &name).err().unwrap_or_default();
    found.extend(script::fault(&text, &name));
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if AppName::parse(stem).is_none() || file.extension().is_none_or(|end| end != "toml") {
        let remedy = "name it with 1 to 32 of a-z 0-9 -, beginning with a letter, and .toml";
        found.push(whole("the file's name is no application's".to_owned(), remedy));
    }
    found
}

fn told(problems: &[Problem]) -> anyhow::Result<()> {
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    match problems.len() {
        0 => Ok(()),
        1 => bail!("one problem"),
        count => bail!("{count} problems"),
    }
}
