//! Who somebody is: name, uid and groups, from the system's own records.

use std::sync::Arc;

use nix::unistd::{Gid, Group, Uid, User, getgroups};
use portreeve_model::{LoginGroup, UserName};

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

/// The login group of `uid`, and whether it is that user's alone: named like the user, with nobody else listed as
/// a member. `None` when the user database can't tell, which the judgement treats as "grants nothing".
#[must_use]
pub fn login_group(uid: u32) -> Option<LoginGroup> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    let group = Group::from_gid(user.gid).ok().flatten()?;
    let private = group.name == user.name && group.mem.iter().all(|member| *member == user.name);
    Some(LoginGroup { gid: user.gid.as_raw(), private })
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
