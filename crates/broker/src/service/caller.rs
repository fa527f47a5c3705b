//! Who asks on the login socket, beyond the uid that the kernel tells.

use std::fs;

use portreeve_sys::PeerProcess;

/// The process that asks.
pub(super) struct Caller {
    /// `None` in a namespace that we can't see.
    pub(super) pid: Option<i32>,
    pub(super) process: PeerProcess,
}

impl Caller {
    /// See [`is_of_a_worker`]. One that has ended counts as one: its number may be another's, and what is said of that one
    /// says nothing about who asks.
    pub(super) fn is_of_a_worker(&self, workers: &[u32]) -> bool {
        self.pid.is_none_or(|pid| is_of_a_worker(pid, workers)) || self.process.has_ended()
    }
}

/// Whatever is in a control group whose name begins so was started by the broker: its own service's, where a worker is
/// if PAM moves it nowhere else, and one that a site makes for workers.
const OURS: [&str; 2] = ["portreeve-broker", "portreeve-worker"];

/// Whether the process belongs to a user's worker: whatever runs in there was let in with a ticket, and must not make itself
/// another that lasts longer. What can't be told counts as yes. `workers` are the processes that hold workers' PAM
/// sessions: pam_systemd puts each with all that comes of it into the session's control group.
fn is_of_a_worker(pid: i32, workers: &[u32]) -> bool {
    let Ok(groups) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return true };
    names_ours(&groups)
        || workers.iter().any(|worker| {
            // One that is gone has nothing in its session any more.
            fs::read_to_string(format!("/proc/{worker}/cgroup"))
                .is_ok_and(|session| is_in_session(&groups, &session))
        })
}

/// The hierarchies and paths of `/proc/PID/cgroup` (cgroups(7)): lines of `HIERARCHY:CONTROLLERS:PATH`.
fn paths(groups: &str) -> impl Iterator<Item = (&str, &str)> {
    groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    })
}

fn names_ours(groups: &str) -> bool {
    paths(groups).any(|(_, path)| path.split('/').any(|part| OURS.iter().any(|ours| part.starts_with(ours))))
}

/// Whether one process is in or below the login session of another, if that has one of its own.
fn is_in_session(groups: &str, session: &str) -> bool {
    let of_a_login = |path: &&str| {
        path.rsplit('/').next().is_some_and(|last| last.starts_with("session-") && last.ends_with(".scope"))
    };
    paths(session).filter(|(_, path)| of_a_login(path)).any(|(hierarchy, scope)| {
        paths(groups).any(|(same, path)| {
            let below = path.strip_prefix(scope);
            same == hierarchy && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
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
            ("0::/system.slice/portreeve-broker.service\n", true),
            ("0::/system.slice/portreeve-portal.service\n", false),
        ] {
            assert_eq!(names_ours(groups), expected, "{groups}");
        }
    }

    #[test]
    fn the_session_of_a_worker_is_known_and_what_is_below_it() {
        let worker = "1:name=systemd:/user.slice/user-7.slice/session-3.scope\n0::/x\n";
        for (groups, expected) in [
            (worker, true),
            ("1:name=systemd:/user.slice/user-7.slice/session-3.scope/below\n0::/\n", true),
            ("1:name=systemd:/user.slice/user-7.slice/session-30.scope\n0::/x\n", false),
            ("1:name=systemd:/user.slice/user-7.slice\n0::/x\n", false),
            ("0::/user.slice/user-7.slice/session-3.scope\n", false),
            ("", false),
        ] {
            assert_eq!(is_in_session(groups, worker), expected, "{groups}");
        }
        assert!(!is_in_session("0::/\n", "0::/\n"), "no session of its own");
    }

    #[test]
    fn who_has_ended_counts_as_one() {
        let caller = |process| Caller { pid: Some(1), process };
        assert!(caller(PeerProcess::Gone).is_of_a_worker(&[]), "its number is another's now");
        assert!(Caller { pid: None, process: PeerProcess::Untold }.is_of_a_worker(&[]));
        let own = is_of_a_worker(1, &[]);
        assert_eq!(caller(PeerProcess::Untold).is_of_a_worker(&[]), own);
    }

    #[test]
    fn a_process_that_is_gone_counts_as_one() {
        assert!(is_of_a_worker(i32::MAX, &[]));
    }
}
