//! Where the program is: where the files are that it reads and writes.
//!
//! Invariant: it is a directory that this process finds by the same path; anything else is not known.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The directory of what runs in the foreground of the program's terminal, or else the program's own. May wait for the
/// file system.
pub(crate) fn directory(program: u32) -> Option<PathBuf> {
    [foreground(program), Some(program)].into_iter().flatten().find_map(directory_of)
}

fn directory_of(process: u32) -> Option<PathBuf> {
    let link = format!("/proc/{process}/cwd");
    let path = fs::read_link(&link).ok()?;
    // Of one that was removed, or that lies below another root, the text says something else.
    let (meant, found) = (fs::metadata(link).ok()?, fs::metadata(&path).ok()?);
    ((meant.dev(), meant.ino()) == (found.dev(), found.ino())).then_some(path)
}

/// The process group in the foreground: `tpgid` of proc_pid_stat(5).
fn foreground(process: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name in parentheses can hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_removed_is_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let mut child = Command::new("cat").current_dir(dir.path()).stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(directory_of(child.id()), Some(real));
        drop(dir);
        assert_eq!(directory_of(child.id()), None);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
