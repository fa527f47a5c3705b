//! Who somebody is: name, uid and groups, from the system's own records.

use std::sync::Arc;

use nix::unistd::{Gid, Group, Uid, User, getgroups};
use portreeve_model::{Login, LoginGroup, UserName};

/// One person as the system knows them now.
#[derive(Debug, Clone)]
pub struct Account {
    /// The login name.
    pub name: UserName,
    /// The numeric user id.
    pub uid: u32,
    /// Effective and supplementary groups, each once.
    pub groups: Arc<[u32]>,
}

/// Why an account could not be established.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The user database has no entry, or did not answer.
    #[error("the user database has no name for uid {0}: add the account, or run as a user who has one")]
    NoName(u32),
    /// The name is one that this program refuses to handle.
    #[error("the user name {0:?} of uid {1} can't be used here")]
    BadName(String, u32),
    /// The kernel did not tell the groups.
    #[error("the groups of this process can't be read")]
    Groups(#[source] nix::Error),
}

impl Account {
    /// The person this process runs as. The groups are the process's own: what the kernel would grant it.
    ///
    /// # Errors
    /// When the uid has no usable name or the groups can't be read.
    pub fn of_this_process() -> Result<Self, AccountError> {
        let uid = Uid::effective();
        let entry = User::from_uid(uid).ok().flatten().ok_or(AccountError::NoName(uid.as_raw()))?;
        let name = UserName::parse(&entry.name)
            .map_err(|_| AccountError::BadName(entry.name.clone(), uid.as_raw()))?;
        let mut groups: Vec<u32> =
            getgroups().map_err(AccountError::Groups)?.into_iter().map(Gid::as_raw).collect();
        groups.push(Gid::effective().as_raw());
        groups.sort_unstable();
        groups.dedup();
        Ok(Self { name, uid: uid.as_raw(), groups: groups.into() })
    }
}

/// Ids that stand for nobody: the overflow id, and -1 in 16 and in 32 bits.
const NOBODY: [u32; 3] = [65_534, 65_535, u32::MAX];

/// Whether a cluster does anything for a uid: neither root's, nor a system account's, nor a number that stands for nobody.
#[must_use]
pub fn is_person(first_uid: u32, uid: u32) -> bool {
    uid != 0 && uid >= first_uid && !NOBODY.contains(&uid)
}

/// The same for an account, by its login group as well: not root's, and not nobody's.
#[must_use]
pub fn is_served(first_uid: u32, uid: u32, gid: u32) -> bool {
    is_person(first_uid, uid) && gid != 0 && !NOBODY.contains(&gid)
}

/// Name and login group of `uid`, and whether the group is that user's alone: named like the user, with nobody else listed as
/// a member. `None` when the user database can't tell, which the judgement treats as "grants nothing".
#[must_use]
pub fn login(uid: u32) -> Option<Login> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    let group = Group::from_gid(user.gid).ok().flatten()?;
    let private = group.name == user.name && group.mem.iter().all(|member| *member == user.name);
    let group = LoginGroup { gid: user.gid.as_raw(), private };
    Some(Login { user: user.name, group })
}

/// The name of a group.
#[must_use]
pub fn group_name(gid: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name)
}

/// The gid of a group by its name.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_system_accounts_and_nobody_are_not_served() {
        for (first_uid, uid, gid, served) in [
            (1000, 1000, 1000, true),
            (1000, 20001, 20200, true),
            (0, 1, 1, true),
            (1000, 65_533, 65_533, true),
            (1000, 65_536, 65_536, true),
            (1000, 999, 1000, false),
            (1000, 0, 1000, false),
            (0, 0, 1000, false),
            (1000, 65_534, 1000, false),
            (1000, 65_535, 1000, false),
            (1000, u32::MAX, 1000, false),
            (u32::MAX, u32::MAX, 1000, false),
            (1000, 1000, 0, false),
            (1000, 1000, 65_534, false),
            (1000, 1000, 65_535, false),
            (1000, 1000, u32::MAX, false),
        ] {
            assert_eq!(is_served(first_uid, uid, gid), served, "{first_uid} {uid} {gid}");
            assert!(!served || is_person(first_uid, uid), "{first_uid} {uid}");
        }
    }
}
