//! The directory of forward files: everybody can make one there, nobody can replace another's.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Finding, Installation, in_time};

/// Only the owner of a file may rename or remove it there.
const STICKY: u32 = 0o1000;

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let Some(dir) = at.config.forwards.directory.clone() else {
        return vec![Finding::not_checked("forwards.directory is missing")];
    };
    let shown = dir.display().to_string();
    in_time(move || of_directory(&dir)).unwrap_or_else(|| {
        vec![Finding::problem(format!("{shown} does not answer"), "look at the file system it is on")]
    })
}

fn of_directory(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    let make = format!("make it on the shared file system: install -d -m 1777 {shown}");
    let found = match std::fs::symlink_metadata(dir) {
        Ok(found) => found,
        Err(error) => return vec![Finding::unreadable(dir, &error, &make)],
    };
    if !found.is_dir() {
        return vec![Finding::problem(format!("{shown} is no directory"), make)];
    }
    let mode = found.mode() & 0o7777;
    let open = format!("chmod 1777 {shown}");
    let mut findings = Vec::new();
    if found.uid() != 0 {
        let what = format!("{shown} belongs to uid {}, who can rename what others have there", found.uid());
        findings.push(Finding::problem(what, format!("chown root {shown}")));
    }
    if mode & 0o022 == 0 {
        findings
            .push(Finding::problem(format!("{shown} has mode {mode:04o}: nobody can make a forward"), &open));
    } else if mode & STICKY == 0 {
        let what = format!(
            "{shown} has mode {mode:04o}: without the sticky bit people can remove each other's forwards"
        );
        findings.push(Finding::problem(what, &open));
    } else if mode & 0o001 == 0 {
        let what = format!("{shown} has mode {mode:04o}: only its group can use forwards");
        findings.push(Finding::warning(what, format!("{open}, unless that is meant")));
    }
    if let Some(closed) = dir.ancestors().skip(1).find(|above| is_closed(above)) {
        let what = format!("{} is not open to everybody, and {shown} is below it", closed.display());
        findings
            .push(Finding::warning(what, format!("chmod o+x {}, unless that is meant", closed.display())));
    }
    match statvfs(dir) {
        Ok(system) if system.flags().contains(FsFlags::ST_NOEXEC) => {
            let what = format!("{shown} is mounted noexec: nobody has execute permission on any forward");
            findings.push(Finding::problem(what, "mount it without noexec on this node"));
        }
        Ok(_) => {}
        Err(errno) => {
            let what = format!("{shown}: its file system can't be asked: {}", std::io::Error::from(errno));
            findings.push(Finding::problem(what, "look at the file system it is on"));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine(format!("{shown} is root's, mode {mode:04o}, and not mounted noexec")));
    }
    findings
}

/// Whether there is somebody who can't pass through.
fn is_closed(above: &Path) -> bool {
    std::fs::metadata(above).is_ok_and(|found| found.mode() & 0o001 == 0)
}
