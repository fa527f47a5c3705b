//! What of the file system is shown: all of it, or the directories that the site names. Paths are the same in both cases.
//! Invariant: with directories named, nothing outside them is reached, by links neither; of what is above them, only their own names
//! are seen.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::rel_path::RelPath;
use crate::root::{Root, Within};

/// The directories that paths may be in.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<PathBuf>);

/// Where a path is.
#[derive(Debug)]
pub enum Found {
    /// In one of the directories, or that itself (`None`).
    In(Root, Option<RelPath>),
    /// Above some of them: a directory in which these names are all that is seen.
    Above(BTreeSet<OsString>),
}

impl Roots {
    /// These directories, absolute and without `.` and `..`; none: the whole file system. One below another adds nothing.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// Where it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what is outside. When the directory can't be opened.
    pub fn find(&self, path: Option<&RelPath>) -> Result<Found, Error> {
        if self.0.is_empty() {
            return Ok(Found::In(Root::open(Path::new("/"), Within::Anywhere)?, path.cloned()));
        }
        let asked = path.map_or(&b""[..], RelPath::as_bytes);
        let mut above = BTreeSet::new();
        for directory in &self.0 {
            let known = directory.as_os_str().as_bytes();
            let known = known.strip_prefix(b"/").unwrap_or(known);
            if let Some(rest) = below(asked, known) {
                let rest = RelPath::parse(rest).ok();
                return Ok(Found::In(Root::open(directory, Within::Root)?, rest));
            }
            let next = below(known, asked).and_then(|rest| rest.split(|byte| *byte == b'/').next());
            above.extend(next.map(|name| OsStr::from_bytes(name).to_owned()));
        }
        if above.is_empty() { Err(Error::NotFound) } else { Ok(Found::Above(above)) }
    }

    /// The same where nothing but a place in one of the directories will do.
    ///
    /// # Errors
    /// [`Error::Denied`] above them: nothing is changed there.
    pub fn inside(&self, path: Option<&RelPath>) -> Result<(Root, Option<RelPath>), Error> {
        match self.find(path)? {
            Found::In(root, path) => Ok((root, path)),
            Found::Above(_) => Err(Error::Denied),
        }
    }

    /// The same for something that has a name in one of the directories.
    ///
    /// # Errors
    /// [`Error::Denied`] for the directories themselves, and above them.
    pub fn named(&self, path: Option<&RelPath>) -> Result<(Root, RelPath), Error> {
        match self.inside(path)? {
            (root, Some(path)) => Ok((root, path)),
            (_, None) => Err(Error::Denied),
        }
    }
}

/// What is left of `path` below `directory`; nothing if that is it.
fn below<'p>(path: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    if directory.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(directory)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_directories_and_the_way_there_are_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().to_str().unwrap().trim_start_matches('/').to_owned();
        for name in ["home", "data/proj", "other"] {
            std::fs::create_dir_all(scratch.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("../other", scratch.path().join("home/out")).unwrap();
        let roots = Roots::new(vec![scratch.path().join("home"), scratch.path().join("data/proj")]);
        let path = |rest: &str| RelPath::parse(format!("{base}{rest}").as_bytes()).unwrap();
        let names = |rest: &str| match roots.find(Some(&path(rest))) {
            Ok(Found::Above(names)) => names.into_iter().map(|name| name.into_string().unwrap()).collect(),
            other => vec![format!("{other:?}")],
        };
        assert_eq!(
            (names(""), names("/data")),
            (vec!["data".to_owned(), "home".to_owned()], vec!["proj".to_owned()])
        );
        assert!(matches!(roots.find(None), Ok(Found::Above(names)) if names.len() == 1));
        for outside in ["/other", "/homes", "/data/proj2", "/hom"] {
            assert!(matches!(roots.find(Some(&path(outside))), Err(Error::NotFound)), "{outside}");
        }
        for (inside, rest) in [("/home", None), ("/home/a/b", Some("a/b")), ("/data/proj/x", Some("x"))] {
            let Ok(Found::In(_, path)) = roots.find(Some(&path(inside))) else { panic!("{inside}") };
            assert_eq!(path, rest.map(|rest| RelPath::parse(rest.as_bytes()).unwrap()));
        }
        let (root, out) = roots.named(Some(&path("/home/out"))).unwrap();
        assert!(matches!(root.status(&out), Err(Error::Outside)));
        for none in ["/home", "", "/data"] {
            assert!(matches!(roots.named(Some(&path(none))), Err(Error::Denied)), "{none}");
        }
        let everything = Roots::default();
        assert!(matches!(everything.find(None), Ok(Found::In(_, None))));
        assert!(matches!(everything.named(Some(&path("/other"))), Ok((_, whole)) if whole == path("/other")));
    }
}
