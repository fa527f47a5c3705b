//! Who asks on the login socket, beyond the uid that the kernel tells.

use std::fs;

/// A control group whose name begins so is a worker's.
const WORKER_GROUP: &str = "portreeve-worker";

/// Whether the process belongs to a user's worker: whatever runs in there was let in with a ticket, and must not make itself
/// another that lasts longer. What can't be told counts as yes.
pub(super) fn is_of_a_worker(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).map_or(true, |groups| names_a_worker(&groups))
}

/// The same, of the content of `/proc/PID/cgroup` (cgroups(7)): lines of `HIERARCHY:CONTROLLERS:PATH`.
fn names_a_worker(groups: &str) -> bool {
    groups.lines().any(|line| {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        path.split('/').any(|part| part.starts_with(WORKER_GROUP))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_group_is_known_however_deep() {
        for (groups, expected) in [
            ("0::/user.slice/user-1000.slice/session-3.scope\n", false),
            ("0::/\n", false),
            ("", false),
            ("0::/system.slice/portreeve-worker-1000.scope\n", true),
            ("0::/system.slice/portreeve-worker.slice/portreeve-worker@alice.service/app\n", true),
            ("12:pids:/\n1:name=systemd:/a/portreeve-worker-7.scope/x:y\n", true),
            ("0::/user.slice/not-portreeve-worker.scope\n", false),
        ] {
            assert_eq!(names_a_worker(groups), expected, "{groups}");
        }
    }

    #[test]
    fn a_process_that_is_gone_counts_as_one() {
        assert!(is_of_a_worker(i32::MAX));
    }
}
