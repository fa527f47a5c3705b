//! Files and directories as one zip archive, made while it is taken: nothing of it is ever stored.
//!
//! Invariant: links are put in as links; what can't be read is left out and named in the archive.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use portreeve_dav::Dav;
use portreeve_files::{Entries, Error, Kind, OpenFile, RelPath, Root, Status};
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::listing::seconds;
use crate::limits;

/// An archive that is being made.
pub(super) struct Archive {
    writer: Option<ZipWriter<StreamWriter<Out>>>,
    made: Out,
    /// What was asked for and has not begun.
    wanted: Vec<(Root, RelPath, String)>,
    /// The way down to where it is.
    levels: Vec<Level>,
    file: Option<(OpenFile, u64)>,
    left_out: Vec<String>,
    count: usize,
    most: limits::Archive,
}

struct Level {
    entries: Entries,
    /// How it is called in the archive, with a slash at its end.
    name: String,
}

/// What is put in: open, so that it is what was looked at whatever has its name by then.
enum Opened {
    File(OpenFile),
    Directory(Entries),
    /// What it says.
    Link(Vec<u8>),
}

/// What was made and is not taken.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Out {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where it is named what was left out.
const LEFT_OUT: &str = "NOT-INCLUDED.txt";

impl Archive {
    /// Of these, and so much of them. Blocks.
    ///
    /// # Errors
    /// When one of them is outside of what is shown.
    pub(super) fn of(dav: &Dav, paths: &[RelPath], most: limits::Archive) -> Result<Self, Error> {
        let mut wanted = Vec::new();
        for path in paths {
            let (root, below) = dav.roots().named(Some(path))?;
            wanted.push((root, below, lossy(path.name())));
        }
        wanted.reverse();
        let made = Out::default();
        Ok(Self {
            writer: Some(ZipWriter::new_stream(made.clone())),
            made,
            wanted,
            levels: Vec::new(),
            file: None,
            left_out: Vec::new(),
            count: 0,
            most,
        })
    }

    /// The next piece; `None` at the end. Blocks.
    ///
    /// # Errors
    /// When it can't be gone on with: then the archive has no end.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.made.bytes().len() >= limits::PIECE || self.writer.is_none() {
                let made = std::mem::take(&mut *self.made.bytes());
                return Ok(Some(made).filter(|made| !made.is_empty()));
            }
            if self.file.is_some() {
                self.copy()?;
            } else if !self.advance()? {
                self.finish()?;
            }
        }
    }

    fn writer(&mut self) -> io::Result<&mut ZipWriter<StreamWriter<Out>>> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("the archive is complete"))
    }

    fn copy(&mut self) -> io::Result<()> {
        let Some((file, offset)) = self.file.take() else { return Ok(()) };
        let piece = file.piece(offset, limits::PIECE).map_err(io::Error::other)?;
        if !piece.bytes.is_empty() {
            self.writer()?.write_all(&piece.bytes)?;
            self.file = Some((file, piece.end()));
        }
        Ok(())
    }

    /// Begins the next file; whether there is any.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(level) = self.levels.last_mut() else {
            let Some((root, path, name)) = self.wanted.pop() else { return Ok(false) };
            let opened = root.status(&path).and_then(|status| {
                Ok((
                    status,
                    match status.kind {
                        Kind::Directory => Opened::Directory(root.entries(Some(&path))?),
                        _ => Opened::File(root.read(&path)?),
                    },
                ))
            });
            self.put(name, opened)?;
            return Ok(true);
        };
        match level.entries.next_itself() {
            None => {
                self.levels.pop();
            }
            Some(Err(error)) => {
                let name = level.name.clone();
                self.levels.pop();
                self.leave_out(&name, &error);
            }
            Some(Ok(entry)) => {
                let name = format!("{}{}", level.name, lossy(&entry.name));
                let opened = entry.status.ok_or(Error::Denied).and_then(|status| {
                    let (entries, name) = (&level.entries, &*entry.name);
                    Ok((
                        status,
                        match entry.kind {
                            Kind::Directory => Opened::Directory(entries.descend(name)?),
                            Kind::Link => Opened::Link(entries.link(name)?),
                            _ => Opened::File(entries.read(name)?),
                        },
                    ))
                });
                self.put(name, opened)?;
            }
        }
        Ok(true)
    }

    fn put(&mut self, name: String, opened: Result<(Status, Opened), Error>) -> io::Result<()> {
        self.count += 1;
        if self.count > self.most.count {
            return Err(io::Error::other("the archive has too many files"));
        }
        let begun = opened.and_then(|(status, opened)| self.begin(&name, &status, opened));
        if let Err(error) = begun {
            self.leave_out(&name, &error);
        }
        Ok(())
    }

    fn begin(&mut self, name: &str, status: &Status, opened: Opened) -> Result<(), Error> {
        let options = SimpleFileOptions::default()
            .unix_permissions(status.mode & 0o777)
            .last_modified_time(dos_time(status).unwrap_or_default())
            .large_file(status.size >= 1 << 32);
        // Two names that differ in what is not UTF-8 are one in the archive.
        let taken = |_| Error::Exists;
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match opened {
            Opened::File(file) => {
                let options = options.compression_method(method(name)).compression_level(None);
                writer.start_file(name, options).map_err(taken)?;
                self.file = Some((file, 0));
            }
            Opened::Directory(_) if self.levels.len() >= self.most.depth => return Err(Error::TooLong),
            Opened::Directory(entries) => {
                let name = format!("{name}/");
                writer.add_directory(&*name, options).map_err(taken)?;
                self.levels.push(Level { entries, name });
            }
            Opened::Link(said) => {
                writer.add_symlink(name, String::from_utf8_lossy(&said), options).map_err(taken)?;
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &str, error: &Error) {
        if self.left_out.len() < limits::ARCHIVE_LEFT_OUT {
            self.left_out.push(format!("{name}: {error}"));
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        if !self.left_out.is_empty() {
            writer.start_file(LEFT_OUT, SimpleFileOptions::default()).map_err(io::Error::other)?;
            writer.write_all((self.left_out.join("\n") + "\n").as_bytes())?;
        }
        writer.finish().map_err(io::Error::other)?;
        Ok(())
    }
}

/// In UTC. An archive knows the years from 1980 to 2107.
fn dos_time(status: &Status) -> Option<DateTime> {
    let time = Timestamp::from_second(seconds(status.modified)).ok()?.to_zoned(TimeZone::UTC).datetime();
    let number = |number: i8| u8::try_from(number).ok();
    DateTime::from_date_and_time(
        u16::try_from(time.year()).ok()?,
        number(time.month())?,
        number(time.day())?,
        number(time.hour())?,
        number(time.minute())?,
        number(time.second())?,
    )
    .ok()
}

/// What is compressed already does not get smaller.
fn method(name: &str) -> CompressionMethod {
    const COMPRESSED: [&str; 14] =
        ["7z", "bz2", "gz", "h5", "jpeg", "jpg", "mp4", "png", "rar", "tgz", "webp", "xz", "zip", "zst"];
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending {
        Some(ending) if COMPRESSED.contains(&&*ending) => CompressionMethod::Stored,
        _ => CompressionMethod::Deflated,
    }
}

fn lossy(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};
    use std::path::Path;

    use portreeve_files::Roots;
    use zip::ZipArchive;

    use super::*;

    /// Of one directory.
    fn made(path: &Path, most: limits::Archive) -> io::Result<Vec<u8>> {
        let path = RelPath::parse(path.to_str().unwrap().trim_start_matches('/').as_bytes()).unwrap();
        let mut archive = Archive::of(&Dav::new(Roots::default()), &[path], most).unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next()? {
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    #[test]
    fn more_files_than_that_have_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("d");
        std::fs::create_dir(&top).unwrap();
        // A piece is full, and yet the answer has no end.
        std::fs::write(top.join("a"), vec![7; 2 * limits::PIECE]).unwrap();
        std::os::unix::fs::symlink("a", top.join("b")).unwrap();
        let most = limits::Archive { count: 3, ..limits::ARCHIVE };
        assert_eq!(ZipArchive::new(Cursor::new(made(&top, most).unwrap())).unwrap().len(), 3);
        // What is left out is counted, too: it was looked at.
        nix::unistd::mkfifo(&top.join("c"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = made(&top, most).unwrap_err().to_string();
        assert!(error.contains("too many files"), "{error}");
    }

    #[test]
    fn what_is_deeper_than_that_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("d");
        std::fs::create_dir_all(top.join("e/f")).unwrap();
        std::fs::write(top.join("e/f/below"), "x").unwrap();
        std::fs::write(top.join("e/here"), "x").unwrap();
        let bytes = made(&top, limits::Archive { depth: 2, ..limits::ARCHIVE }).unwrap();
        let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut names: Vec<_> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        names.sort();
        assert_eq!(names, [LEFT_OUT, "d/", "d/e/", "d/e/here"]);
        let mut left_out = String::new();
        archive.by_name(LEFT_OUT).unwrap().read_to_string(&mut left_out).unwrap();
        assert!(left_out.starts_with("d/e/f: "), "{left_out}");
    }
}
