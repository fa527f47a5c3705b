//! Files: what is secret is nobody else's to read, and what root's processes believe is nobody else's to change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use portreeve_agent::channel::Identity;
use portreeve_model::Secret;

use super::{Finding, Installation};
use crate::keys::PORTAL_KEY;

/// Whoever may change a directory may replace what is in it.
const CHANGE: u32 = 0o022;

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let agents = at.dir.join(PORTAL_KEY);
    let (certificate, tls) = at.tls_files();
    let mut findings = vec![closed(&agents, 0o077, Some("make it with portreeve keys init"))];
    findings.push(unusable(&agents));
    // What of these is not there is told elsewhere. The key may be a group's, for renewals.
    findings.push(closed(&tls, 0o027, None));
    findings.extend([&at.dir, &at.file, &at.nodes, &certificate].map(|file| closed(file, CHANGE, None)));
    findings.into_iter().flatten().collect()
}

/// Whether it is root's, and none of `forbidden` is in its mode. With a remedy it must be there.
fn closed(file: &Path, forbidden: u32, remedy: Option<&str>) -> Option<Finding> {
    let shown = file.display();
    let found = match std::fs::metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return remedy.map(|remedy| Finding::unreadable(file, &error, remedy));
        }
        Err(error) => return Some(Finding::unreadable(file, &error, "look at the file system it is on")),
    };
    let mode = found.mode() & 0o7777;
    let too_open = mode & forbidden;
    Some(if found.uid() != 0 {
        Finding::problem(format!("{shown} belongs to uid {}", found.uid()), format!("chown root {shown}"))
    } else if too_open & CHANGE != 0 {
        Finding::problem(
            format!("{shown} has mode {mode:04o}: others can change it"),
            format!("chmod go-w {shown}"),
        )
    } else if too_open != 0 {
        let what = format!("{shown} has mode {mode:04o}: others can read it");
        Finding::problem(
            what,
            format!("chmod 0600 {shown}, and take a new key if somebody may have read this one"),
        )
    } else {
        Finding::fine(format!("{shown} is root's, mode {mode:04o}"))
    })
}

/// Why agents would not be spoken with, where that can be seen.
fn unusable(file: &Path) -> Option<Finding> {
    // Who may not read it has seen by its mode that this is right.
    let text = Secret::new(std::fs::read_to_string(file).ok()?);
    let error = anyhow::Error::from(Identity::from_pem(&text).err()?);
    let what = format!("{} can't be used: {error:#}", file.display());
    Some(Finding::problem(what, "take it from a backup; a new one has to go to every node"))
}
