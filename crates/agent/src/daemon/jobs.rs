//! The Slurm job that something belongs to, by its control group. For show: an answer without one is as good.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use portreeve_sys::ControlGroups;

use super::limits;

/// Longer than any `/proc/PID/cgroup`, in bytes.
const CGROUP_BYTES: u64 = 16 * 1024;

/// Names jobs, and remembers them.
pub(super) struct Jobs {
    groups: Option<ControlGroups>,
    /// Ids are not used again while the node is up.
    known: Mutex<LruCache<u64, Option<u32>>>,
}

impl Jobs {
    pub(super) fn open() -> Self {
        let most = NonZeroUsize::new(limits::JOBS).unwrap_or(NonZeroUsize::MIN);
        let groups = ControlGroups::open()
            .inspect_err(|error| tracing::debug!(%error, "no cgroup v2: jobs are not named"))
            .ok();
        Self { groups, known: Mutex::new(LruCache::new(most)) }
    }

    /// The job whose processes are in this group.
    pub(super) fn of_group(&self, id: Option<u64>) -> Option<u32> {
        let (groups, id) = (self.groups.as_ref()?, id?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.get_or_insert(id, || {
            let path =
                groups.path(id).inspect_err(|error| tracing::debug!(%error, id, "no such control group"));
            job_in(path.ok()?.to_str()?)
        })
    }
}

/// The job that this process belongs to now.
pub(super) fn of_process(pid: u32) -> Option<u32> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/cgroup")).ok()?.take(CGROUP_BYTES).read_to_string(&mut text).ok()?;
    text.lines().find_map(job_in)
}

/// Slurm's directories are `.../slurmstepd.scope/job_7/step_0/...` (v2) and `/slurm/uid_1000/job_7/...` (v1). A user may
/// make directories below their own; none of those stands right below Slurm's.
fn job_in(path: &str) -> Option<u32> {
    let mut below_slurm = false;
    for part in path.split('/') {
        if let Some(number) = part.strip_prefix("job_").filter(|_| below_slurm) {
            return number.parse().ok();
        }
        below_slurm |= part.contains("slurm");
        if below_slurm && !(part.contains("slurm") || part.starts_with("uid_")) {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_named_by_slurms_directories_alone() {
        for (path, job) in [
            ("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_12/step_0/user/task_0", Some(12)),
            ("0::/system.slice/c1_slurmstepd.scope/job_7/step_batch", Some(7)),
            ("4:memory:/slurm/uid_1000/job_99/step_1/task_0", Some(99)),
            ("4:memory:/slurm_c1/uid_1000/job_99", Some(99)),
            ("0::/user.slice/user-1000.slice/user@1000.service/job_5", None),
            ("0::/system.slice/slurmstepd.scope/system/job_5", None),
            ("0::/system.slice/slurmstepd.scope/job_x", None),
            ("0::/system.slice/slurmstepd.scope/job_99999999999", None),
            ("0::/", None),
            ("", None),
        ] {
            assert_eq!(job_in(path), job, "{path}");
        }
        assert_eq!(of_process(std::process::id()), None);
        let jobs = Jobs::open();
        assert_eq!(jobs.of_group(Some(u64::MAX)), None);
        assert_eq!(jobs.of_group(None), None);
    }
}
