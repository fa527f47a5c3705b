//! Paths.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use portreeve_tests::hostile::{Report, Use};

/// What holds the programs' libraries is not looked into.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/lib", "/lib64", "/usr/lib64"];
/// The kernel's own: looked at by single paths.
const KERNEL: [&str; 2] = ["/proc", "/sys"];
/// What is read of a file.
const MOST_BYTES: u64 = 64 * 1024;
/// Names at most.
const MOST: usize = 20_000;

pub(crate) fn descriptors() -> Result<String> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // The one that lists is gone.
        if let Ok(leads_to) = std::fs::read_link(&path)
            && !leads_to.starts_with("/proc")
        {
            open.push(leads_to.display().to_string());
        }
    }
    open.sort();
    Ok(open.join("\n"))
}

pub(crate) fn use_path(to: Use, path: &str) -> Result<String> {
    match to {
        Use::Read if Path::new(path).is_dir() => {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names.join("\n"))
        }
        Use::Read => {
            let mut begin = Vec::new();
            File::open(path)?.take(MOST_BYTES).read_to_end(&mut begin)?;
            Ok(String::from_utf8_lossy(&begin).into_owned())
        }
        Use::Write => OpenOptions::new().write(true).open(path).map(|_| String::new()),
        Use::Create => created(Path::new(path)).map(|()| String::new()),
        Use::Enter => {
            std::env::set_current_dir(path).and_then(|()| Ok(std::env::current_dir()?.display().to_string()))
        }
    }
}

fn created(path: &Path) -> Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)
}

/// Everything below the root.
pub(crate) fn walk(mark: &str) -> Report {
    let (mut marked, mut readable, mut writable, mut seen) = (vec![], vec![], vec![], 0);
    let mut directories = vec![PathBuf::from("/")];
    while let Some(directory) = directories.pop() {
        if created(&directory.join("portreeve-attempt")).is_ok() {
            writable.push(directory.display().to_string());
        }
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let shown = path.display().to_string();
            seen += 1;
            if seen > MOST {
                marked.push(format!("more than {MOST} names"));
                return Report::Walked { marked, readable, writable, seen };
            }
            if shown.contains(mark) {
                marked.push(shown.clone());
            }
            let Ok(kind) = entry.file_type() else { continue };
            let left_out = LIBRARIES.contains(&shown.as_str()) || KERNEL.contains(&shown.as_str());
            if kind.is_dir() && !left_out {
                directories.push(path);
            } else if kind.is_file() {
                if File::open(&path).is_ok() {
                    readable.push(shown.clone());
                }
                let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
                if opened.is_ok() {
                    writable.push(shown);
                }
            }
        }
    }
    [&mut marked, &mut readable, &mut writable].into_iter().for_each(|names| names.sort());
    Report::Walked { marked, readable, writable, seen }
}

/// Nothing came in time.
pub(crate) fn late() -> Error {
    ErrorKind::TimedOut.into()
}
