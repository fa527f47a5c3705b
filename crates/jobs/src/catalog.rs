//! Which applications there are: those that are shipped, the sysadmin's, and one's own. Of the same name, the last of these counts.
//!
//! Invariant: a file that is no good takes away the application of its name, and is said with its line; it never hides behind the
//! one that it was meant to replace.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use portreeve_model::config::Problem;
use portreeve_model::manifest::{AppName, Manifest, ManifestFile};

use crate::limits;
use crate::records::{Links, open_file, read_whole};

/// Where one's own are, from home on.
pub const OWN: &str = ".config/portreeve/apps";

/// The shipped ones, by name.
pub const SHIPPED: [(&str, &str); 7] = [
    ("command", include_str!("../../../proxy-config/apps/command.toml")),
    ("compile", include_str!("../../../proxy-config/apps/compile.toml")),
    ("ipt", include_str!("../../../proxy-config/apps/ipt.toml")),
    ("jupyter", include_str!("../../../proxy-config/apps/jupyter.toml")),
    ("run", include_str!("../../../proxy-config/apps/run.toml")),
    ("tensorboard", include_str!("../../../proxy-config/apps/tensorboard.toml")),
    ("terminal", include_str!("../../../proxy-config/apps/terminal.toml")),
];

/// Who offers an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It comes with Portreeve.
    Shipped,
    /// The sysadmin.
    Site,
    /// The person.
    Own,
}

/// An application that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// Who offers it.
    pub source: Source,
    /// What it is.
    pub manifest: Manifest,
}

/// A manifest that there is, good or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose manifest it is.
    pub name: AppName,
    /// Who offers it.
    pub source: Source,
    /// Where it stands; of a shipped one its name alone.
    pub file: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// By name.
    pub apps: BTreeMap<AppName, App>,
    /// Of which manifests. Of the same name, the last one counts.
    pub found: Vec<Found>,
    /// What is wrong with others.
    pub problems: Vec<Problem>,
}

impl Catalog {
    /// Reads the directories: the sysadmin's, and one's own. One that is not there is empty. Blocks.
    #[must_use]
    pub fn read(site: Option<&Path>, own: Option<&Path>) -> Self {
        let mut catalog = Self::default();
        for (name, text) in SHIPPED {
            catalog.take(name, text, &format!("{name}.toml"), Source::Shipped);
        }
        for (dir, source) in [(site, Source::Site), (own, Source::Own)] {
            if let Some(dir) = dir {
                catalog.take_directory(dir, source);
            }
        }
        catalog
    }

    fn take_directory(&mut self, dir: &Path, source: Source) {
        let problem = |file: &Path, what: String, remedy: &str| Problem {
            file: file.display().to_string(),
            line: None,
            key: String::new(),
            what,
            remedy: remedy.to_owned(),
        };
        let found = match std::fs::read_dir(dir) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                return self.problems.push(problem(
                    dir,
                    format!("it can't be listed: {error}"),
                    "make it readable",
                ));
            }
        };
        let paths = found.filter_map(Result::ok).map(|entry| entry.path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "toml"))
            .take(limits::MANIFESTS + 1)
            .collect();
        paths.sort();
        if paths.len() > limits::MANIFESTS {
            paths.pop();
            let what = format!("it has more than {} manifests", limits::MANIFESTS);
            self.problems.push(problem(dir, what, "remove some"));
        }
        for path in paths {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            match text_of(&path) {
                Ok(text) => self.take(&name, &text, &path.display().to_string(), source),
                Err(error) => {
                    self.problems.push(problem(
                        &path,
                        format!("it can't be read: {error}"),
                        "make it a readable text",
                    ));
                    if let Some(name) = AppName::parse(&name) {
                        self.apps.remove(&name);
                        self.found.push(Found { name, source, file: path.display().to_string() });
                    }
                }
            }
        }
    }

    fn take(&mut self, name: &str, text: &str, file: &str, source: Source) {
        let Some(name) = AppName::parse(name) else {
            return self.problems.push(Problem {
                file: file.to_owned(),
                line: None,
                key: String::new(),
                what: "the file's name is no application's".to_owned(),
                remedy: "name it with 1 to 32 of a-z 0-9 -, beginning with a letter, and .toml".to_owned(),
            });
        };
        self.found.push(Found { name: name.clone(), source, file: file.to_owned() });
        match ManifestFile::parse(text, file) {
            Ok(ManifestFile::Application(manifest)) => {
                self.apps.insert(name.clone(), App { name, source, manifest: *manifest });
            }
            Ok(ManifestFile::Disabled) => drop(self.apps.remove(&name)),
            Err(problems) => {
                self.apps.remove(&name);
                self.problems.extend(problems);
            }
        }
    }

    /// The application of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&App> {
        self.apps.get(&AppName::parse(name)?)
    }
}

/// A manifest's text. A sysadmin's may be a link. Blocks.
///
/// # Errors
/// When it is no file, can't be read, is too long, or no text.
pub fn text_of(path: &Path) -> io::Result<String> {
    let bytes = read_whole(open_file(path, Links::Followed)?, limits::MANIFEST)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "title = 'T'\nscript = '''#!/bin/sh\n'''\n";

    #[test]
    fn all_that_are_shipped_are_good() {
        let catalog = Catalog::read(None, None);
        assert_eq!(catalog.problems, []);
        assert_eq!(catalog.apps.len(), SHIPPED.len());
    }

    #[test]
    fn the_last_of_a_name_counts_and_a_bad_one_hides_nothing() {
        let (site, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |dir: &tempfile::TempDir, name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap()
        };
        write(&site, "jupyter.toml", APP);
        write(&site, "run.toml", "disabled = true\n");
        write(&site, "compile.toml", "titel = 'T'\n");
        write(&site, "readme.txt", "no manifest");
        write(&own, "terminal.toml", APP);
        write(&own, "mine.toml", APP);
        write(&own, "My App.toml", APP);
        write(&own, "binary.toml", "\0");
        std::fs::write(own.path().join("latin.toml"), b"title = '\xff'\n").unwrap();
        nix::unistd::mkfifo(&own.path().join("pipe.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let catalog = Catalog::read(Some(site.path()), Some(own.path()));
        let source = |name: &str| catalog.find(name).map(|app| app.source);
        assert_eq!(source("jupyter"), Some(Source::Site));
        assert_eq!((source("run"), source("compile")), (None, None));
        assert_eq!(
            (source("terminal"), source("mine"), source("ipt")),
            (Some(Source::Own), Some(Source::Own), Some(Source::Shipped))
        );
        // Which one counts, and in whose place.
        let of = |name: &str| {
            let all = catalog.found.iter().filter(|found| found.name.as_str() == name);
            all.map(|found| found.source).collect::<Vec<_>>()
        };
        assert_eq!(of("jupyter"), [Source::Shipped, Source::Site]);
        assert_eq!(of("terminal"), [Source::Shipped, Source::Own]);
        assert_eq!((of("latin"), of("ipt")), (vec![Source::Own], vec![Source::Shipped]));
        let said: Vec<String> = catalog.problems.iter().map(ToString::to_string).collect();
        for part in [
            "compile.toml:1: titel",
            "My App.toml: the file's name",
            "latin.toml: it can't be read",
            "pipe.toml: it can't be read",
            "binary.toml:1",
        ] {
            assert!(said.iter().any(|one| one.contains(part)), "{part}: {said:#?}");
        }
        assert_eq!(Catalog::read(Some(Path::new("/nonexistent")), None).problems, []);
        assert_eq!(Catalog::read(Some(Path::new("/etc/hostname")), None).problems.len(), 1);
    }
}
