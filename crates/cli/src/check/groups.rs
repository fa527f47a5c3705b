//! Groups that never grant anything: whether the portal can find them by name. Its sandbox has `/etc/group`, and no
//! directory server.

use std::path::Path;

use portreeve_broker::account::group_id;
use portreeve_model::GroupRef;
use portreeve_model::config::GroupsConfig;

use super::{Finding, Installation};

/// All that the portal sees of the user database.
const GROUPS: &str = "/etc/group";

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let never = &at.config.groups.never;
    let file = match std::fs::read_to_string(GROUPS) {
        Ok(file) => file,
        Err(error) => {
            return vec![Finding::unreadable(Path::new(GROUPS), &error, "it belongs to the system")];
        }
    };
    let in_file = |name: &str| file.lines().any(|line| line.split(':').next() == Some(name));
    let default = GroupsConfig::default().never;
    let lacking = never.iter().filter_map(|group| match group {
        // Those of the default do no harm where there is no such group.
        GroupRef::Name(name) if !default.contains(group) && !in_file(name) => Some(of_name(name)),
        GroupRef::Name(_) | GroupRef::Gid(_) => None,
    });
    let mut findings: Vec<Finding> = lacking.collect();
    if findings.is_empty() {
        findings.push(Finding::fine("all of groups.never is known"));
    }
    findings
}

fn of_name(name: &str) -> Finding {
    let what = format!(
        "groups.never has {name:?}, which is not in {GROUPS}: the portal can't look it up, and does not start"
    );
    match group_id(name) {
        Some(gid) => Finding::problem(what, format!("write its gid, {gid}, without quotes")),
        None => Finding::problem(what, "remove it: the system does not know it either"),
    }
}
