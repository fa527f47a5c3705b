//! Root becomes somebody else: for good, or for a question that only they can ask.
//! Invariant: what was asked for is read back from the kernel before anything is done under the new name; a difference is
//! an error, after which the caller ends the process.

use std::io;

use capctl::caps::{CapState, ambient, bounding};
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgid, getgroups, getresgid, getresuid, getuid, setgroups, setresgid,
    setresuid,
};

/// Why this process is not who it should be. Nothing may be done with it but to end it.
#[derive(Debug, thiserror::Error)]
pub enum BecomeError {
    /// Root, or the number that stands for "no change".
    #[error("no process is made for uid {uid} and gid {gid}")]
    Refused {
        /// Asked for.
        uid: u32,
        /// Asked for.
        gid: u32,
    },
    /// The system refused.
    #[error("can't {doing}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The system said yes, and it is not so.
    #[error("the kernel shows another {0} than was asked for")]
    Differs(&'static str),
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> BecomeError {
    move |source| BecomeError::Failed { doing, source: source.into() }
}

/// The number that leaves an id as it is, or stands for none (setresuid(2), credentials(7)).
const NO_ID: u32 = u32::MAX;

/// Becomes this user for good: real, effective and saved ids, these groups and no other, no capability, no way to gain
/// privileges by exec, and closed to the user's own debuggers (`PR_SET_DUMPABLE`), who could otherwise take over what
/// root left in memory and what is handed to this process later.
///
/// The process must be single-threaded, and root or able to set ids.
///
/// # Errors
/// See [`BecomeError`]. The process may then be anything in between.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), BecomeError> {
    if uid == 0 || uid == NO_ID || gid == NO_ID || groups.contains(&NO_ID) {
        return Err(BecomeError::Refused { uid, gid });
    }
    // The kernel sets "dumpable" anew at each change of ids, from fs.suid_dumpable. While capabilities are left, the user
    // can't attach whatever it says (ptrace(2)), so they go last.
    prctl::set_keepcaps(true).map_err(failed("keep capabilities for a moment"))?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&gids(groups)).map_err(failed("set the groups"))?;
    setresgid(group, group, group).map_err(failed("set the group"))?;
    setresuid(user, user, user).map_err(failed("set the user"))?;
    prctl::set_dumpable(false).map_err(failed("close the process to debuggers"))?;
    ambient::clear().map_err(failed("drop the capabilities"))?;
    CapState::empty().set_current().map_err(failed("drop the capabilities"))?;
    prctl::set_keepcaps(false).map_err(failed("stop keeping capabilities"))?;
    prctl::set_no_new_privs().map_err(failed("forbid new privileges"))?;
    check_ids(uid, uid, gid, groups)?;
    check_no_capability()?;
    check(!prctl::get_dumpable().map_err(failed("look at itself"))?, "dumpable flag")?;
    check(prctl::get_no_new_privs().map_err(failed("look at itself"))?, "no_new_privs flag")?;
    // The proof of the pudding.
    let root = Uid::from_raw(0);
    check(setresuid(root, root, root).is_err() && setresuid(user, root, user).is_err(), "way back")
}

/// While it lasts, this process is somebody else to the file system and to everything that asks for its user and groups.
#[must_use = "it lasts until it is stopped"]
#[derive(Debug)]
pub struct Acting {
    groups: Vec<Gid>,
}

/// Root takes somebody's real and effective ids and groups, keeping only the saved uid to come back with. The user can't
/// get at the process meanwhile: its saved uid is not theirs.
///
/// # Errors
/// See [`BecomeError`].
pub fn act_as(uid: u32, gid: u32, groups: &[u32]) -> Result<Acting, BecomeError> {
    if uid == 0 || uid == NO_ID || gid == NO_ID || groups.contains(&NO_ID) {
        return Err(BecomeError::Refused { uid, gid });
    }
    check(getuid().is_root() && geteuid().is_root(), "user, who must be root")?;
    check(getgid().as_raw() == 0 && getegid().as_raw() == 0, "group, which must be root's")?;
    let before = getgroups().map_err(failed("read the groups"))?;
    let (user, group, root) = (Uid::from_raw(uid), Gid::from_raw(gid), Uid::from_raw(0));
    setgroups(&gids(groups)).map_err(failed("set the groups"))?;
    setresgid(group, group, group).map_err(failed("set the group"))?;
    setresuid(user, user, root).map_err(failed("set the user"))?;
    check_ids(uid, 0, gid, groups)?;
    // The kernel took them out of effect as the effective uid left 0 (capabilities(7)).
    let state = CapState::get_current().map_err(failed("read the capabilities"))?;
    check(state.effective.is_empty(), "set of capabilities in effect")?;
    Ok(Acting { groups: before })
}

impl Acting {
    /// Is root again.
    ///
    /// # Errors
    /// See [`BecomeError`].
    pub fn stop(self) -> Result<(), BecomeError> {
        let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
        // First the effective uid alone: it brings the capabilities back that the rest needs.
        setresuid(Uid::from_raw(NO_ID), root, Uid::from_raw(NO_ID)).map_err(failed("be root again"))?;
        setresuid(root, root, root).map_err(failed("be root again"))?;
        setresgid(group, group, group).map_err(failed("be root's group again"))?;
        setgroups(&self.groups).map_err(failed("set the groups again"))?;
        let groups: Vec<u32> = self.groups.into_iter().map(Gid::as_raw).collect();
        check_ids(0, 0, 0, &groups)
    }
}

/// Drops every capability for good, also those that an exec could bring back, and forbids new privileges. Root without any
/// is still uid 0: it owns root's files, and nothing more.
///
/// # Errors
/// See [`BecomeError`].
pub fn drop_capabilities() -> Result<(), BecomeError> {
    prctl::set_no_new_privs().map_err(failed("forbid new privileges"))?;
    bounding::clear().map_err(failed("drop the capabilities"))?;
    ambient::clear().map_err(failed("drop the capabilities"))?;
    CapState::empty().set_current().map_err(failed("drop the capabilities"))?;
    check(bounding::probe().is_empty(), "bounding set of capabilities")?;
    check_no_capability()
}

fn gids(groups: &[u32]) -> Vec<Gid> {
    groups.iter().copied().map(Gid::from_raw).collect()
}

fn check(holds: bool, what: &'static str) -> Result<(), BecomeError> {
    if holds { Ok(()) } else { Err(BecomeError::Differs(what)) }
}

fn check_ids(uid: u32, saved: u32, gid: u32, groups: &[u32]) -> Result<(), BecomeError> {
    let users = getresuid().map_err(failed("read the user"))?;
    let asked = [uid, uid, saved];
    check([users.real, users.effective, users.saved].map(Uid::as_raw) == asked, "user")?;
    let group = getresgid().map_err(failed("read the group"))?;
    check([group.real, group.effective, group.saved].map(Gid::as_raw) == [gid; 3], "group")?;
    let once = |mut ids: Vec<u32>| {
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let found = getgroups().map_err(failed("read the groups"))?.into_iter().map(Gid::as_raw).collect();
    check(once(found) == once(groups.to_vec()), "list of groups")
}

fn check_no_capability() -> Result<(), BecomeError> {
    let state = CapState::get_current().map_err(failed("read the capabilities"))?;
    let none = state.effective.is_empty() && state.permitted.is_empty() && state.inheritable.is_empty();
    // Without support for ambient capabilities there are none.
    check(none && ambient::probe().is_none_or(|set| set.is_empty()), "set of capabilities")
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::process::tests::in_child;

    const ALICE: u32 = 20001;
    const PROJECT: u32 = 20100;

    fn is_root(test: &str) -> bool {
        let root = geteuid().is_root();
        if !root {
            println!("SKIPPED: {test}: needs root");
        }
        root
    }

    fn opens_shadow() -> bool {
        OpenOptions::new().read(true).open("/etc/shadow").is_ok()
    }

    #[test]
    fn nobody_becomes_root_or_nobody() {
        for (uid, gid, groups) in
            [(0, 20001, &[][..]), (NO_ID, 20001, &[]), (20001, NO_ID, &[]), (20001, 20001, &[NO_ID])]
        {
            assert!(matches!(become_user(uid, gid, groups), Err(BecomeError::Refused { .. })), "{uid} {gid}");
            assert!(matches!(act_as(uid, gid, groups), Err(BecomeError::Refused { .. })), "{uid} {gid}");
        }
    }

    #[test]
    fn who_becomes_a_user_is_that_user_and_stays_it() {
        if !is_root("who_becomes_a_user_is_that_user_and_stays_it") {
            return;
        }
        in_child(|| {
            assert!(opens_shadow());
            become_user(ALICE, ALICE, &[PROJECT, ALICE, PROJECT]).unwrap();
            assert!(!opens_shadow());
            for uid in [0, 20002] {
                let uid = Uid::from_raw(uid);
                assert!(setresuid(uid, uid, uid).is_err());
                assert!(nix::unistd::seteuid(uid).is_err());
            }
            assert!(setgroups(&[]).is_err());
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            for line in
                ["Uid:\t20001\t20001\t20001\t20001", "Gid:\t20001\t20001\t20001\t20001", "NoNewPrivs:\t1"]
            {
                assert!(status.contains(line), "{line} in {status}");
            }
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set} in {status}");
            }
            assert!(!prctl::get_dumpable().unwrap());
            // Twice is once too often: it is no root any more.
            assert!(become_user(20002, 20002, &[]).is_err());
        });
    }

    #[test]
    fn who_acts_as_a_user_is_root_again_afterwards() {
        if !is_root("who_acts_as_a_user_is_root_again_afterwards") {
            return;
        }
        in_child(|| {
            let groups = getgroups().unwrap();
            let acting = act_as(ALICE, ALICE, &[PROJECT]).unwrap();
            assert!(!opens_shadow());
            assert_eq!((getuid().as_raw(), geteuid().as_raw(), getegid().as_raw()), (ALICE, ALICE, ALICE));
            assert!(act_as(20002, 20002, &[]).is_err(), "acting does not nest");
            acting.stop().unwrap();
            assert!(opens_shadow());
            assert_eq!(getgroups().unwrap(), groups);
            become_user(ALICE, ALICE, &[]).unwrap();
            assert!(!opens_shadow());
        });
    }

    #[test]
    fn root_without_capabilities_is_kept_out_of_others_files() {
        if !is_root("root_without_capabilities_is_kept_out_of_others_files") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        std::fs::write(&theirs, "").unwrap();
        std::fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&theirs, Some(ALICE), Some(ALICE)).unwrap();
        in_child(move || {
            drop_capabilities().unwrap();
            assert!(std::fs::read(&theirs).is_err());
            assert!(setresuid(Uid::from_raw(ALICE), Uid::from_raw(ALICE), Uid::from_raw(ALICE)).is_err());
            assert!(become_user(ALICE, ALICE, &[]).is_err());
            let ours = theirs.with_file_name("ours");
            // The directory is root's.
            std::fs::write(&ours, "").unwrap();
        });
    }
}
