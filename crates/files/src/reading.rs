//! Opens regular files, and takes pieces of those that grow.
//! Invariant: whatever stands at the path, opening it neither waits nor does something to a device or a FIFO's writer.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, failed, failed_io};
use crate::limits;
use crate::rel_path::RelPath;
use crate::root::Root;
use crate::status::Status;

/// What is swapped in is not waited for.
const READING: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// A regular file, open for reading.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    status: Status,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What stands there: fewer bytes than asked for only where the file ends.
    pub bytes: Vec<u8>,
    /// Of the file, just before. A size below `offset` says that it was cut off; another inode
    /// ([`crate::Identity::is_same_file`]) that it was replaced.
    pub status: Status,
}

impl Piece {
    /// Where the next one begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

impl Root {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`Error::IsADirectory`] and [`Error::NotRegular`] for what is none.
    pub fn read(&self, path: &RelPath) -> Result<OpenFile, Error> {
        // Opening alone can do something: rewind a tape, wake a FIFO's writer. So the first look is one that opens
        // nothing. What is swapped in after it is opened, but not waited for, and refused all the same.
        self.status(path)?.regular()?;
        OpenFile::opened(self.resolve(path.as_bytes(), READING)?)
    }

    /// The last `most` bytes of a file; [`limits::PIECE`] at most. Of a file that grows they are the last ones as of
    /// the look at its size: [`Root::read_from`] goes on at [`Piece::end`].
    ///
    /// # Errors
    /// As [`Root::read`], or when it can't be read.
    pub fn tail(&self, path: &RelPath, most: usize) -> Result<Piece, Error> {
        let file = self.read(path)?;
        let most = most.min(limits::PIECE);
        file.piece(file.status.size.saturating_sub(most as u64), most)
    }

    /// `most` bytes from `offset` on, fewer or none at the end; [`limits::PIECE`] at most.
    ///
    /// # Errors
    /// As [`Root::read`], or when it can't be read.
    pub fn read_from(&self, path: &RelPath, offset: u64, most: usize) -> Result<Piece, Error> {
        self.read(path)?.piece(offset, most.min(limits::PIECE))
    }
}

impl OpenFile {
    /// Opens what has the name in the directory; a link is none.
    pub(crate) fn at(dir: impl AsFd, name: &OsStr) -> Result<Self, Error> {
        Status::at(&dir, name).map_err(failed("open it"))?.regular()?;
        let flags = READING | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Self::opened(openat(dir, name, flags, Mode::empty()).map_err(failed("open it"))?)
    }

    fn opened(file: OwnedFd) -> Result<Self, Error> {
        let status = Status::of(&file)?.regular()?;
        // File systems that bring files back from tape answer a read that may not wait with EAGAIN.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(failed("open it"))?;
        Ok(Self { file: file.into(), status })
    }

    /// As it was when it was opened.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// To read from the beginning on.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// `most` bytes from `offset` on, fewer or none at the end; [`limits::PIECE`] at most.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn piece(&self, offset: u64, most: usize) -> Result<Piece, Error> {
        // No file reaches beyond what an `off_t` counts, and pread(2) calls a range that does an error.
        let reach = i64::MAX.cast_unsigned().saturating_sub(offset);
        let most = most.min(limits::PIECE).min(usize::try_from(reach).unwrap_or(usize::MAX));
        let mut bytes = vec![0; most];
        let mut have = 0;
        while have < most {
            match self.file.read_at(&mut bytes[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed_io("read it")(error)),
            }
        }
        bytes.truncate(have);
        Ok(Piece { offset, bytes, status: self.status })
    }
}
