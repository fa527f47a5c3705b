//! Who may connect: the pure judgement. Before: the socket lookup's `Owner`. After: forwarding, or a page that says why
//! not. Invariant: `Allow` is reached only through a rule named in `Why`; unknown means deny, and no group opens a
//! socket of root's.
//!
//! The rules are those of the user-based firewall (equal uid, or the listener's effective group), made narrower: a
//! group that everybody is in grants nothing.

use crate::owner::{Owner, OwnerGroups, UnknownGroup, Unowned};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The outcome of a judgement.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The visitor may use the connection, by this rule.
    Allow(Why),
    /// The visitor may not, for this reason.
    Deny(Refusal),
}

impl Decision {
    /// Whether the visitor may use the connection.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// The rule that allowed. Display is a clause for the audit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    /// The visitor owns the listening process.
    #[error("the visitor owns the application")]
    Owner,
    /// The visitor is a member of the listening process's effective group.
    #[error("the visitor is in the application's group {0}")]
    OwnersGroup(u32),
    /// The forward file's owner owns the listening process.
    #[error("the forward's owner owns the application")]
    ForwardOwner,
    /// The listening process runs with the forward file's group.
    #[error("the application runs with the forward's group {0}")]
    ForwardGroup(u32),
    /// Root's sticky forward, listed by the sysadmin.
    #[error("the forward is the administrators' own")]
    AdminForward,
}

impl Why {
    /// A short name for logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::OwnersGroup(_) => "owners-group",
            Self::ForwardOwner => "forward-owner",
            Self::ForwardGroup(_) => "forward-group",
            Self::AdminForward => "admin-forward",
        }
    }
}

/// Why a visitor may not connect. Display is one plain sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Another user's, and no group rule applies.
    #[error(
        "This application belongs to another user (uid {owner}), and does not run with a group that you are in."
    )]
    NotYours {
        /// The listening process's uid.
        owner: u32,
    },
    /// Root's socket.
    #[error("This application runs as root, which nobody else may connect to.")]
    RootSocket,
    /// The group fits, but must not count.
    #[error(
        "This application is shared with group {gid} only, and that group is too general to grant access."
    )]
    GroupGrantsNothing {
        /// The listening process's effective gid.
        gid: u32,
    },
    /// The group could decide, and could not be found out.
    #[error("The group that this application runs with is not known: {0}.")]
    GroupUnknown(UnknownGroup),
    /// The group could decide, and nobody has looked yet: a caller that skipped the look is denied.
    #[error("The group that this application runs with has not been looked up.")]
    GroupNotLooked,
    /// The forward file is group- or world-writable, so its owner does not answer for its content.
    #[error("This forward can be changed by others than its owner; its owner should run chmod go-w on it.")]
    ForwardWritable,
    /// The forward leads to a process of somebody else.
    #[error(
        "This forward belongs to uid {file_uid}, but the application that it leads to belongs to uid {owner}."
    )]
    ForwardOwnerDiffers {
        /// The forward file's uid.
        file_uid: u32,
        /// The listening process's uid.
        owner: u32,
    },
    /// Nobody could be named as the owner of the connection.
    #[error("It is not known who owns this application: {0}.")]
    UnknownOwner(Unowned),
    /// The visitor has no execute permission on the forward file.
    #[error("This forward is not shared with you: you have no execute permission on it.")]
    NotExecutable,
    /// A port below 1024.
    #[error("Ports below 1024 belong to the system and are not forwarded.")]
    PrivilegedPort,
}

impl Refusal {
    /// A short name for logs, metrics and the page.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotYours { .. } => "not-yours",
            Self::RootSocket => "root-socket",
            Self::GroupGrantsNothing { .. } => "group-grants-nothing",
            Self::GroupUnknown(_) => "group-unknown",
            Self::GroupNotLooked => "group-not-looked",
            Self::ForwardWritable => "forward-writable",
            Self::ForwardOwnerDiffers { .. } => "forward-owner-differs",
            Self::UnknownOwner(_) => "unknown-owner",
            Self::NotExecutable => "not-executable",
            Self::PrivilegedPort => "privileged-port",
        }
    }
}

impl From<Unowned> for Refusal {
    fn from(unowned: Unowned) -> Self {
        Self::UnknownOwner(unowned)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(why) => why.fmt(f),
            Self::Deny(refusal) => refusal.fmt(f),
        }
    }
}

/// Who wants to connect. The groups come from the user database, never from a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor<'a> {
    /// The uid.
    pub uid: u32,
    /// Effective and supplementary gids.
    pub groups: &'a [u32],
}

/// A forward file's owner and mode, of the very descriptor whose execute permission the reader checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardStat {
    /// st_uid.
    pub uid: u32,
    /// st_gid.
    pub gid: u32,
    /// st_mode, at least its permission bits.
    pub mode: u32,
}

impl ForwardStat {
    /// Whether its group, or everybody, may write it: then its owner does not answer for what it says.
    #[must_use]
    pub fn is_writable_by_others(&self) -> bool {
        self.mode & 0o022 != 0
    }

    fn is_sticky(&self) -> bool {
        self.mode & 0o1000 != 0
    }
}

/// An application's owner in the user database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The login name.
    pub user: String,
    /// The login group.
    pub group: LoginGroup,
}

/// The login group of an application's owner, from the user database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginGroup {
    /// Its gid.
    pub gid: u32,
    /// Whether it is a user-private group: named like the user, and no member listed but the user. Others whose login group it is
    /// are not listed (getgrgid(3)).
    pub private: bool,
}

/// Which groups may grant access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupRules {
    /// Gids that never do, listed by the sysadmin.
    pub never: Vec<u32>,
}

impl GroupRules {
    /// Whether this group, as the effective group of a process whose owner's login group is `login`, grants access through a
    /// forward file of this group. False for gid 0, for a listed one, for the login group unless it is private, and when `login` is not known.
    #[must_use]
    pub fn grants(&self, gid: u32, login: Option<LoginGroup>) -> bool {
        self.may_grant(gid) && login.is_some_and(|login| login.gid != gid || login.private)
    }

    /// What is certain without the owner's login group.
    fn may_grant(&self, gid: u32) -> bool {
        gid != 0 && !self.never.contains(&gid)
    }
}

/// Judges a connection to NODE:PORT: the visitor owns the listening process, or is in its effective group, which is not its
/// owner's login group.
/// `login` is the login group of the *application's* owner.
pub fn judge_direct(
    visitor: Visitor<'_>,
    owner: &Owner,
    rules: &GroupRules,
    login: Option<LoginGroup>,
) -> Decision {
    if owner.uid == 0 && visitor.uid != 0 {
        return Decision::Deny(Refusal::RootSocket);
    }
    if owner.uid == visitor.uid {
        return Decision::Allow(Why::Owner);
    }
    let deny = match owner.groups {
        OwnerGroups::Egid(gid) if visitor.groups.contains(&gid) => {
            // The visitor is in it, so the owner's login group is not private, whatever the database lists: it lists nobody
            // whose own login group it is.
            if rules.may_grant(gid) && login.is_some_and(|login| login.gid != gid) {
                return Decision::Allow(Why::OwnersGroup(gid));
            }
            Refusal::GroupGrantsNothing { gid }
        }
        OwnerGroups::Egid(_) => Refusal::NotYours { owner: owner.uid },
        // A group could decide only for who is in one that may grant.
        _ if !visitor.groups.iter().any(|&gid| rules.may_grant(gid)) => {
            Refusal::NotYours { owner: owner.uid }
        }
        OwnerGroups::Unknown(why) => Refusal::GroupUnknown(why),
        OwnerGroups::NotLooked => Refusal::GroupNotLooked,
    };
    Decision::Deny(deny)
}

/// Whether [`judge_direct`] could turn out otherwise if the holders' group were looked for. Never with equal uid.
#[must_use]
pub fn direct_needs_group(visitor: Visitor<'_>, owner: &Owner, rules: &GroupRules) -> bool {
    owner.groups == OwnerGroups::NotLooked
        && owner.uid != visitor.uid
        && owner.uid != 0
        && visitor.groups.iter().any(|&gid| rules.may_grant(gid))
}

/// Whether [`judge_forward`] allows this file's connections whoever owns them: root's own, sticky, listed by the
/// sysadmin (`admin_forward`), and writable by root alone. Then no owner need be looked for.
#[must_use]
pub fn skips_owner(file: &ForwardStat, admin_forward: bool) -> bool {
    // Writable by others, it would lead everybody wherever those others like, with no check left.
    admin_forward && file.uid == 0 && file.is_sticky() && !file.is_writable_by_others()
}

/// Judges a connection through a forward file on which the visitor has execute permission: the file's owner owns the
/// listening process and alone may write the file, or the process runs with the file's group.
/// `login` is the login group of the *application's* owner; `admin_forward` says that the sysadmin lists this name.
pub fn judge_forward(
    visitor: Visitor<'_>,
    file: &ForwardStat,
    owner: &Owner,
    rules: &GroupRules,
    login: Option<LoginGroup>,
    admin_forward: bool,
) -> Decision {
    if skips_owner(file, admin_forward) {
        return Decision::Allow(Why::AdminForward);
    }
    if owner.uid == 0 && visitor.uid != 0 {
        return Decision::Deny(Refusal::RootSocket);
    }
    let same_owner = owner.uid == file.uid;
    if same_owner && !file.is_writable_by_others() {
        return Decision::Allow(Why::ForwardOwner);
    }
    let owner_rule_failed = if same_owner {
        Refusal::ForwardWritable
    } else {
        Refusal::ForwardOwnerDiffers { file_uid: file.uid, owner: owner.uid }
    };
    let deny = match owner.groups {
        OwnerGroups::Egid(gid) if gid == file.gid && rules.grants(gid, login) => {
            return Decision::Allow(Why::ForwardGroup(gid));
        }
        // The writable file is what its owner can mend, so that is said rather than the group's trouble.
        OwnerGroups::Egid(gid) if gid == file.gid && !same_owner => Refusal::GroupGrantsNothing { gid },
        OwnerGroups::Egid(_) => owner_rule_failed,
        _ if same_owner || !rules.may_grant(file.gid) => owner_rule_failed,
        OwnerGroups::Unknown(why) => Refusal::GroupUnknown(why),
        OwnerGroups::NotLooked => Refusal::GroupNotLooked,
    };
    Decision::Deny(deny)
}

/// Whether [`judge_forward`] could turn out otherwise if the holders' group were looked for.
#[must_use]
pub fn forward_needs_group(
    visitor: Visitor<'_>,
    file: &ForwardStat,
    owner: &Owner,
    rules: &GroupRules,
    admin_forward: bool,
) -> bool {
    let owner_rule_decides = owner.uid == file.uid && !file.is_writable_by_others();
    let root_socket_decides = owner.uid == 0 && visitor.uid != 0;
    owner.groups == OwnerGroups::NotLooked
        && !skips_owner(file, admin_forward)
        && !owner_rule_decides
        && !root_socket_decides
        && rules.may_grant(file.gid)
}

#[cfg(test)]
mod tests;
