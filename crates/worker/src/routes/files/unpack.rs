//! A zip archive that the person has, into a new directory.
//!
//! Invariant: nothing is written outside of that directory, whatever the archive's names are; it appears when it is complete; an
//! archive that gets too large is given up.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, copy};
use std::iter::successors;
use std::rc::Rc;

use portreeve_dav::{Dav, Refusal};
use portreeve_files::{Error, Finish, NewMode, Only, RelPath, Root};
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use crate::limits;

/// Why nothing was unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotUnpacked {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("it is no zip archive that is understood")]
    NoArchive(#[from] ZipError),
    #[error("it has a name that leads elsewhere")]
    Elsewhere,
    #[error("its table of contents has more than {0} bytes")]
    Table(u64),
    #[error("it has more than {0} files and directories")]
    Many(usize),
    #[error("it has more than {0} directories in one another")]
    Deep(usize),
    #[error("it gets more than {} times as large as it is", limits::UNPACKED_RATIO)]
    Bomb,
    #[error("it has something that can't be read")]
    Io(#[from] std::io::Error),
}

/// Unpacks the archive at `from` into the directory `to`, which must not be there. Blocks.
///
/// # Errors
/// Then nothing is there.
pub(super) fn unpack(
    dav: &Dav,
    from: &RelPath,
    to: &RelPath,
    most: limits::Archive,
) -> Result<(), NotUnpacked> {
    let (root, archive) = dav.roots().named(Some(from))?;
    let file = root.read(&archive)?;
    let size = file.status().size;
    // All of its table is read at once.
    let left = Rc::new(Cell::new(most.table));
    let bounded = Bounded { file: file.into_file(), left: Rc::clone(&left) };
    let archive = ZipArchive::new(BufReader::new(bounded)).map_err(|error| match error {
        ZipError::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => NotUnpacked::Table(most.table),
        other => other.into(),
    })?;
    left.set(u64::MAX);
    let (root, to) = dav.changeable(to)?;
    root.make_filled(&to, |inside| fill(inside, archive, size, most))
}

/// A file of which so much more is read.
struct Bounded {
    file: File,
    left: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64).ok_or(io::ErrorKind::QuotaExceeded)?;
        self.left.set(left);
        Ok(read)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

fn fill<R: Read + Seek>(
    inside: &Root,
    mut archive: ZipArchive<R>,
    size: u64,
    most: limits::Archive,
) -> Result<(), NotUnpacked> {
    if archive.len() > most.count {
        return Err(NotUnpacked::Many(most.count));
    }
    let mut directories = Directories { inside, made: BTreeSet::new(), restricted: Vec::new(), most };
    let mut left = size.saturating_mul(limits::UNPACKED_RATIO).saturating_add(limits::UNPACKED_SPARE);
    for number in 0..archive.len() {
        let entry = archive.by_index(number)?;
        let name = entry.enclosed_name().ok_or(NotUnpacked::Elsewhere)?;
        let path = RelPath::parse(name.as_os_str().as_encoded_bytes()).map_err(|_| NotUnpacked::Elsewhere)?;
        if entry.is_dir() {
            directories.make(path.clone())?;
            directories.restricted.extend(entry.unix_mode().map(|mode| (path, mode)));
        } else if !entry.is_symlink() {
            // A link could be the way out for what comes after it.
            if let Some(parent) = path.parent() {
                directories.make(parent)?;
            }
            left = left.checked_sub(write(inside, &path, entry, left)?).ok_or(NotUnpacked::Bomb)?;
        }
    }
    for (path, mode) in directories.restricted {
        let usual = inside.status(&path)?.mode;
        if usual & !mode & 0o077 != 0 {
            inside.set_mode(&path, usual & (mode | 0o700))?;
        }
    }
    Ok(())
}

/// Those that were made: one name can stand for very many.
struct Directories<'i> {
    inside: &'i Root,
    made: BTreeSet<RelPath>,
    /// What the archive says of their permissions.
    restricted: Vec<(RelPath, u32)>,
    most: limits::Archive,
}

impl Directories<'_> {
    /// Makes it and those above it, if they are not there.
    fn make(&mut self, path: RelPath) -> Result<(), NotUnpacked> {
        if path.as_bytes().split(|byte| *byte == b'/').count() > self.most.depth {
            return Err(NotUnpacked::Deep(self.most.depth));
        }
        if self.made.contains(&path) {
            return Ok(());
        }
        self.inside.make_dirs(&path, 0o777)?;
        let above = successors(Some(path), RelPath::parent);
        self.made.extend(above);
        if self.made.len() > self.most.count { Err(NotUnpacked::Many(self.most.count)) } else { Ok(()) }
    }
}

/// How much it was.
fn write<R: Read>(
    inside: &Root,
    path: &RelPath,
    mut entry: ZipFile<'_, R>,
    most: u64,
) -> Result<u64, NotUnpacked> {
    struct Into(portreeve_files::Put);
    impl std::io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // What was private stays so.
    let mode = NewMode::AtMost(entry.unix_mode().unwrap_or(0o666) | 0o600);
    let mut into = Into(inside.put(path)?);
    let written = copy(&mut entry.by_ref().take(most.saturating_add(1)), &mut into).map_err(|error| {
        // What the disk said is worth more than that it could not be copied.
        match error.downcast::<Error>() {
            Ok(error) => NotUnpacked::from(error),
            Err(error) => NotUnpacked::Io(error),
        }
    })?;
    if written > most {
        return Err(NotUnpacked::Bomb);
    }
    into.0.finish(Finish { mode, only: Only::IfAbsent })?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use portreeve_files::Roots;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// Unpacks an archive with these names, which end with a slash where it is a directory; nothing else is in the place.
    fn unpacked(names: &[String], most: limits::Archive) -> (tempfile::TempDir, Result<(), NotUnpacked>) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ZipWriter::new(File::create(dir.path().join("a.zip")).unwrap());
        for name in names {
            writer.start_file(name, SimpleFileOptions::default()).unwrap();
            writer.write_all(if name.ends_with('/') { b"" } else { b"x" }).unwrap();
        }
        writer.finish().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name).display().to_string();
            RelPath::parse(path.trim_start_matches('/').as_bytes()).unwrap()
        };
        let done = unpack(&Dav::new(Roots::default()), &at("a.zip"), &at("out"), most);
        (dir, done)
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    /// One name is short and makes as many directories as may be in one another.
    #[test]
    fn few_names_do_not_make_more_directories_than_an_archive_may_have() {
        let names = ["a/b/c/", "d/e/f/", "g/h/i/x"].map(str::to_owned);
        let most = limits::Archive { count: 9, ..limits::ARCHIVE };
        let (dir, done) = unpacked(&names, most);
        done.unwrap();
        assert!(dir.path().join("out/g/h/i/x").exists());
        let (dir, done) = unpacked(&names, limits::Archive { count: 8, ..most });
        assert!(matches!(done, Err(NotUnpacked::Many(8))), "{done:?}");
        assert_eq!(names_in(dir.path()), ["a.zip"], "nothing is left of it");
    }

    #[test]
    fn more_files_than_that_are_not_unpacked() {
        let names: Vec<_> = (0..4).map(|number| format!("f{number}")).collect();
        let most = limits::Archive { count: 4, ..limits::ARCHIVE };
        unpacked(&names, most).1.unwrap();
        let (dir, done) = unpacked(&names, limits::Archive { count: 3, ..most });
        assert!(matches!(done, Err(NotUnpacked::Many(3))), "{done:?}");
        assert_eq!(names_in(dir.path()), ["a.zip"]);
    }

    /// The table is in memory as a whole, before anything is known of what it says.
    #[test]
    fn a_table_that_is_larger_than_that_is_not_read() {
        let names: Vec<_> = (0..1000).map(|number| format!("{number:0200}")).collect();
        let most = limits::Archive { table: 1000 * 300, ..limits::ARCHIVE };
        unpacked(&names, most).1.unwrap();
        let (dir, done) = unpacked(&names, limits::Archive { table: 1000 * 150, ..most });
        assert!(matches!(done, Err(NotUnpacked::Table(150_000))), "{done:?}");
        assert_eq!(names_in(dir.path()), ["a.zip"]);
    }
}
