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

use crate::limits;

/// Why nothing was unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotUnpacked {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("it is no zip archive that is understood")]
    NoArchive(#[from] zip::result::ZipError),
    #[error("it has a name that leads elsewhere")]
    Elsewhere,
    #[error("it has more than {} files", limits::ARCHIVE)]
    Many,
    #[error("it has more than {} directories in one another", limits::ARCHIVE_DEPTH)]
    Deep,
    #[error("it gets more than {} times as large as it is", limits::UNPACKED_RATIO)]
    Bomb,
    #[error("it has something that can't be read")]
    Io(#[from] std::io::Error),
}

/// Unpacks the archive at `from` into the directory `to`, which must not be there. Blocks.
///
/// # Errors
/// Then nothing is there.
pub(super) fn unpack(dav: &Dav, from: &RelPath, to: &RelPath) -> Result<(), NotUnpacked> {
    let (root, archive) = dav.roots().named(Some(from))?;
    let file = root.read(&archive)?;
    let size = file.status().size;
    // All of its table is read at once.
    let left = Rc::new(Cell::new(limits::ARCHIVE_TABLE));
    let archive =
        ZipArchive::new(BufReader::new(Bounded { file: file.into_file(), left: Rc::clone(&left) }))?;
    left.set(u64::MAX);
    let (root, to) = dav.changeable(to)?;
    root.make_filled(&to, |inside| fill(inside, archive, size))
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

fn fill<R: Read + Seek>(inside: &Root, mut archive: ZipArchive<R>, size: u64) -> Result<(), NotUnpacked> {
    if archive.len() > limits::ARCHIVE {
        return Err(NotUnpacked::Many);
    }
    let mut directories = Directories { inside, made: BTreeSet::new(), restricted: Vec::new() };
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
}

impl Directories<'_> {
    /// Makes it and those above it, if they are not there.
    fn make(&mut self, path: RelPath) -> Result<(), NotUnpacked> {
        if path.as_bytes().split(|byte| *byte == b'/').count() > limits::ARCHIVE_DEPTH {
            return Err(NotUnpacked::Deep);
        }
        if self.made.contains(&path) {
            return Ok(());
        }
        self.inside.make_dirs(&path, 0o777)?;
        let above = successors(Some(path), RelPath::parent);
        self.made.extend(above);
        if self.made.len() > limits::ARCHIVE { Err(NotUnpacked::Many) } else { Ok(()) }
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
