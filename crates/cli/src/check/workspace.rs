//! The workspace: the site's applications, the program that jobs call, and where people show a group what they ran.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use portreeve_jobs::Catalog;

use super::{Finding, Installation, in_time};

/// Everybody may write, and remove only what is theirs.
const STICKY_AND_OPEN: u32 = 0o1777;

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let site = at.config.workspace.clone();
    let looked = in_time(move || {
        let mut findings = applications(&site.apps);
        findings.extend(program(&site.portreeve));
        findings.extend(shared(&site.shared));
        findings
    });
    looked.unwrap_or_else(|| {
        let what = "its directories do not answer";
        vec![Finding::problem(what, "look at the file systems of workspace.apps and workspace.shared")]
    })
}

fn applications(dir: &Path) -> Vec<Finding> {
    let catalog = Catalog::read(Some(dir), None);
    if catalog.problems.is_empty() {
        return vec![Finding::fine(format!("{} applications can be started", catalog.apps.len()))];
    }
    let remedy = "portreeve apps check says the same; until then it is not offered";
    catalog.problems.iter().map(|problem| Finding::problem(problem.to_string(), remedy)).collect()
}

fn program(path: &Path) -> Option<Finding> {
    let is_there = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o001 != 0);
    (!is_there).then(|| {
        let what = format!("there is no program {} that everybody may run: jobs call it", path.display());
        Finding::warning(
            what,
            "install portreeve-client here and on the compute nodes, or set workspace.portreeve",
        )
    })
}

fn shared(dir: &Path) -> Option<Finding> {
    let shown = dir.display();
    let make = format!("install -d -m 1777 -o root {shown}");
    let Ok(found) = std::fs::symlink_metadata(dir) else {
        return Some(Finding::warning(
            format!("there is no {shown}: nobody can show a job to a group"),
            make,
        ));
    };
    let mode = found.mode() & 0o7777;
    if found.is_dir() && found.uid() == 0 && mode == STICKY_AND_OPEN {
        return None;
    }
    let what =
        format!("{shown} is not root's directory with mode 1777: people could change what others show there");
    Some(Finding::problem(what, make))
}
