//! Extended attributes that a user may set (`user.*`, xattr(7)): they go with a file when it is renamed, replaced or copied.
//! Invariant: a file system without them loses nothing but them, and says so when one is to be set.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::error::{Error, failed};
use crate::limits;
use crate::rel_path::RelPath;
use crate::root::{Root, by_descriptor};
use crate::status::errno;

const PREFIX: &str = "user.";

impl Root {
    /// The value of `user.NAME`; `None` if the file has no such attribute, or can't have one.
    ///
    /// # Errors
    /// When there is no such file, or it may not be read.
    pub fn attribute(&self, path: Option<&RelPath>, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let file = self.resolve(path.map_or(&b"."[..], RelPath::as_bytes), OFlag::O_PATH)?;
        read(&by_descriptor(&file), &format!("{PREFIX}{name}"))
    }

    /// Sets `user.NAME`, or removes it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where files have none; [`Error::Full`] when it is larger than the file system keeps with a file.
    pub fn set_attribute(
        &self,
        path: Option<&RelPath>,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        let file = self.resolve(path.map_or(&b"."[..], RelPath::as_bytes), OFlag::O_PATH)?;
        let (path, name) = (by_descriptor(&file), format!("{PREFIX}{name}"));
        let done = match value {
            Some(value) => setxattr(&path, &*name, value, XattrFlags::empty()),
            None => match removexattr(&path, &*name) {
                Err(Errno::NODATA) => Ok(()),
                done => done,
            },
        };
        done.map_err(|error| match error {
            // What ext4 says of a value that does not fit; the disk itself may have room.
            Errno::NOSPC | Errno::TOOBIG | Errno::RANGE => Error::Full,
            Errno::OPNOTSUPP => Error::Unsupported("this file system keeps no attributes with files"),
            other => failed("set an attribute")(errno(other)),
        })
    }
}

/// Gives another file the attributes of this one, as far as its file system takes them.
pub(crate) fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Error> {
    let (from, to) = (by_descriptor(&from), by_descriptor(&to));
    let mut names = vec![0; limits::ATTRIBUTES];
    let length = match listxattr(&from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::RANGE | Errno::ACCESS | Errno::PERM) => return Ok(()),
        Err(error) => return Err(failed("read attributes")(errno(error))),
    };
    for name in names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if !name.starts_with(PREFIX) {
            continue;
        }
        let Ok(Some(value)) = read(&from, name) else { continue };
        match setxattr(&to, name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::TOOBIG | Errno::ACCESS | Errno::PERM) => {}
            Err(error) => return Err(failed("set an attribute")(errno(error))),
        }
    }
    Ok(())
}

fn read(path: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut value = vec![0; limits::ATTRIBUTE];
    match getxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(failed("read an attribute")(errno(error))),
    }
}
