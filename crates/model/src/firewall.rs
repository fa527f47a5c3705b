//! What becomes of a new connection between two programs: the pure judgement of the user-based firewall. Before: who owns
//! its two ends. After: the packet goes on, or is refused.
//! Invariant: a connection is let through only by a rule of [`LetThrough`]; unknown means refused.
//!
//! The rules, in this order: one user on both ends; an exempt connector; an exempt listener; the group that the listener
//! runs with is among the connector's groups, and may open something. The last one is that of the portal
//! ([`judge_direct`]), so that what the portal shows to a group, the group's programs reach as well.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, GroupRules, LoginGroup, Refusal, Visitor, Why, judge_direct};
use crate::owner::{Owner, OwnerGroups, UnknownGroup};

/// The end that connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// The socket's uid.
    pub uid: u32,
    /// The groups of the processes that hold it.
    pub groups: ConnectorGroups,
}

/// The groups of whoever connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectorGroups {
    /// Nobody has looked: one user on both ends needs no look at processes.
    NotLooked,
    /// Effective and supplementary gids that all processes have which hold the socket.
    Gids(Vec<u32>),
    /// Somebody looked, and there is no answer.
    Unknown(UnknownGroup),
}

/// Who is exempt, by uid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exempt {
    /// They may connect to everybody.
    pub connectors: Vec<RangeInclusive<u32>>,
    /// Everybody may connect to them.
    pub listeners: Vec<RangeInclusive<u32>>,
}

impl Exempt {
    /// Whether this user may connect to everybody.
    #[must_use]
    pub fn may_connect(&self, uid: u32) -> bool {
        self.connectors.iter().any(|uids| uids.contains(&uid))
    }

    /// Whether everybody may connect to this user.
    #[must_use]
    pub fn may_be_reached(&self, uid: u32) -> bool {
        self.listeners.iter().any(|uids| uids.contains(&uid))
    }
}

/// The rule by which a connection is let through. Display is a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum LetThrough {
    /// One user on both ends.
    #[error("both ends are one user's")]
    SameUser,
    /// Whoever connects may connect to everybody.
    #[error("whoever connects is exempt")]
    ExemptConnector,
    /// Everybody may connect to whoever listens.
    #[error("whoever listens is exempt")]
    ExemptListener,
    /// The listener runs with this group, and whoever connects is in it.
    #[error("whoever connects is in group {0}, which the listener runs with")]
    Group(u32),
    /// A datagram leaves, and no other user has the port that it names as its source.
    #[error("whoever sends it has the port that it comes from")]
    OwnPort,
}

impl LetThrough {
    /// Every rule's short name, as `code` says it.
    pub const CODES: [&'static str; 5] =
        ["same-user", "exempt-connector", "exempt-listener", "group", "own-port"];

    /// A short name for logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SameUser => "same-user",
            Self::ExemptConnector => "exempt-connector",
            Self::ExemptListener => "exempt-listener",
            Self::Group(_) => "group",
            Self::OwnPort => "own-port",
        }
    }
}

/// Why a connection is not let through. Display is one plain sentence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// Two users, and no group joins them.
    #[error(
        "The listener belongs to another user (uid {listener}, the connector is uid {connector}), and does not run with a group of the connector's."
    )]
    OtherUser {
        /// uid of the end that connects.
        connector: u32,
        /// uid of the end that listens.
        listener: u32,
    },
    /// Root's socket, where root is not exempt.
    #[error("The listener is root's, and root is not exempt.")]
    RootSocket,
    /// The group would join them, and must not.
    #[error("The two ends have group {gid} in common only, which is too general to open anything.")]
    GroupGrantsNothing {
        /// The listener's effective gid.
        gid: u32,
    },
    /// The listener's group could decide, and is not known.
    #[error("The group that the listener runs with is not known: {0}.")]
    ListenerGroupUnknown(UnknownGroup),
    /// The connector's groups could decide, and are not known.
    #[error("The groups of whoever connects are not known: {0}.")]
    ConnectorGroupsUnknown(UnknownGroup),
    /// Nothing listens there.
    #[error("Nothing listens there.")]
    NoListener,
    /// Who listens can't be said.
    #[error("It is not known who listens: {0}.")]
    ListenerUnknown(String),
    /// The other node knows no such connection: its address was made up, or it is over, or it comes from a network
    /// namespace of its own.
    #[error("The node at {0} knows of no program that connects from there.")]
    NoConnector(std::net::IpAddr),
    /// No node has the address.
    #[error("{0} is no address of a node that can be asked.")]
    UnknownNode(std::net::IpAddr),
    /// The other node did not answer in time.
    #[error("The node at {0} did not answer in time.")]
    NoAnswer(std::net::IpAddr),
    /// While the other node was asked, another socket took its place.
    #[error("Who listens there has changed this very moment.")]
    Changed,
    /// A datagram leaves with another user's port as its source.
    #[error("A program of uid {0} sent it with another user's port as its source.")]
    NotTheSender(u32),
    /// It came by an interface by which it can't have come.
    #[error("It has an address of this node, and came from outside.")]
    Forged,
    /// It can't be read.
    #[error("The packet is no TCP or UDP, or is cut short.")]
    Malformed,
    /// There is too much to decide at once.
    #[error("Too many connections wait to be decided.")]
    Overload,
}

/// What whoever connects is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// ICMP "administratively prohibited": trying again is of no use.
    Prohibited,
    /// ICMP "port unreachable": as if there were no firewall, so that programs try again later.
    PortUnreachable,
    /// Nothing: the packet is sent again, and then judged again.
    Silence,
}

impl Refused {
    /// Every reason's short name, as `code` says it.
    pub const CODES: [&'static str; 15] = [
        "other-user",
        "root-socket",
        "group-grants-nothing",
        "listener-group-unknown",
        "connector-groups-unknown",
        "no-listener",
        "listener-unknown",
        "no-connector",
        "unknown-node",
        "no-answer",
        "changed",
        "not-the-sender",
        "forged",
        "malformed",
        "overload",
    ];

    /// A short name for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherUser { .. } => "other-user",
            Self::RootSocket => "root-socket",
            Self::GroupGrantsNothing { .. } => "group-grants-nothing",
            Self::ListenerGroupUnknown(_) => "listener-group-unknown",
            Self::ConnectorGroupsUnknown(_) => "connector-groups-unknown",
            Self::NoListener => "no-listener",
            Self::ListenerUnknown(_) => "listener-unknown",
            Self::NoConnector(_) => "no-connector",
            Self::UnknownNode(_) => "unknown-node",
            Self::NoAnswer(_) => "no-answer",
            Self::Changed => "changed",
            Self::NotTheSender(_) => "not-the-sender",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::Overload => "overload",
        }
    }

    /// What whoever connects is told.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::NoListener => Reply::PortUnreachable,
            Self::NoAnswer(_)
            | Self::Changed
            | Self::NotTheSender(_)
            | Self::Forged
            | Self::Malformed
            | Self::Overload => Reply::Silence,
            _ => Reply::Prohibited,
        }
    }
}

/// What can be said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The connection is let through.
    Let(LetThrough),
    /// It is not.
    Refuse(Refused),
    /// Only a group could open it: look for the groups of both ends, and judge again.
    LookForGroups,
}

/// Judges a new connection. `login` is the login group of the listener's owner; it is needed only once groups were looked
/// for, and without it no group opens anything.
#[must_use]
pub fn judge_connection(
    connector: &Connector,
    listener: &Owner,
    exempt: &Exempt,
    rules: &GroupRules,
    login: Option<LoginGroup>,
) -> Judgement {
    if connector.uid == listener.uid {
        return Judgement::Let(LetThrough::SameUser);
    }
    if exempt.may_connect(connector.uid) {
        return Judgement::Let(LetThrough::ExemptConnector);
    }
    if exempt.may_be_reached(listener.uid) {
        return Judgement::Let(LetThrough::ExemptListener);
    }
    let groups = match &connector.groups {
        ConnectorGroups::NotLooked => return Judgement::LookForGroups,
        _ if listener.groups == OwnerGroups::NotLooked => return Judgement::LookForGroups,
        ConnectorGroups::Gids(gids) => gids,
        ConnectorGroups::Unknown(why) => {
            return Judgement::Refuse(Refused::ConnectorGroupsUnknown(*why));
        }
    };
    let visitor = Visitor { uid: connector.uid, groups };
    match judge_direct(visitor, listener, rules, login) {
        Decision::Allow(Why::OwnersGroup(gid)) => Judgement::Let(LetThrough::Group(gid)),
        Decision::Deny(Refusal::RootSocket) => Judgement::Refuse(Refused::RootSocket),
        Decision::Deny(Refusal::GroupGrantsNothing { gid }) => {
            Judgement::Refuse(Refused::GroupGrantsNothing { gid })
        }
        Decision::Deny(Refusal::GroupUnknown(why)) => Judgement::Refuse(Refused::ListenerGroupUnknown(why)),
        // No other rule is judge_direct's, and no other opens anything here.
        Decision::Allow(_) | Decision::Deny(_) => {
            Judgement::Refuse(Refused::OtherUser { connector: connector.uid, listener: listener.uid })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::ListenerId;

    fn connector(uid: u32, gids: Option<&[u32]>) -> Connector {
        let groups = gids.map_or(ConnectorGroups::NotLooked, |gids| ConnectorGroups::Gids(gids.into()));
        Connector { uid, groups }
    }

    fn listener(uid: u32, groups: OwnerGroups) -> Owner {
        Owner { uid, groups, listener: ListenerId(1), accepted: false }
    }

    #[test]
    fn the_rules_in_their_order() {
        use OwnerGroups::{Egid, NotLooked};
        let exempt = Exempt { connectors: vec![0..=0, 33..=33], listeners: vec![0..=0, 50..=59] };
        let rules = GroupRules { never: vec![100] };
        let login = Some(LoginGroup { gid: 2000, private: true });
        let unknown = OwnerGroups::Unknown(UnknownGroup::Disagree);
        let other = |connector, listener| Judgement::Refuse(Refused::OtherUser { connector, listener });
        for (from, to, expected) in [
            (connector(1, None), listener(1, NotLooked), Judgement::Let(LetThrough::SameUser)),
            (connector(33, None), listener(1, NotLooked), Judgement::Let(LetThrough::ExemptConnector)),
            (connector(0, None), listener(1, NotLooked), Judgement::Let(LetThrough::ExemptConnector)),
            (connector(1, None), listener(59, NotLooked), Judgement::Let(LetThrough::ExemptListener)),
            (connector(1, None), listener(60, NotLooked), Judgement::LookForGroups),
            (connector(1, Some(&[])), listener(60, NotLooked), Judgement::LookForGroups),
            (connector(1, None), listener(60, Egid(7)), Judgement::LookForGroups),
            (connector(1, Some(&[5, 7])), listener(60, Egid(7)), Judgement::Let(LetThrough::Group(7))),
            (connector(1, Some(&[5])), listener(60, Egid(7)), other(1, 60)),
            (connector(1, Some(&[])), listener(60, Egid(7)), other(1, 60)),
            // Groups that open nothing: gid 0, a listed one, the login group of whoever listens.
            (
                connector(1, Some(&[0])),
                listener(60, Egid(0)),
                Judgement::Refuse(Refused::GroupGrantsNothing { gid: 0 }),
            ),
            (
                connector(1, Some(&[100])),
                listener(60, Egid(100)),
                Judgement::Refuse(Refused::GroupGrantsNothing { gid: 100 }),
            ),
            (
                connector(1, Some(&[2000])),
                listener(60, Egid(2000)),
                Judgement::Refuse(Refused::GroupGrantsNothing { gid: 2000 }),
            ),
            (
                connector(1, Some(&[7])),
                listener(60, unknown),
                Judgement::Refuse(Refused::ListenerGroupUnknown(UnknownGroup::Disagree)),
            ),
            (
                Connector { uid: 1, groups: ConnectorGroups::Unknown(UnknownGroup::NoHolderSeen) },
                listener(60, Egid(7)),
                Judgement::Refuse(Refused::ConnectorGroupsUnknown(UnknownGroup::NoHolderSeen)),
            ),
        ] {
            assert_eq!(judge_connection(&from, &to, &exempt, &rules, login), expected, "{from:?} {to:?}");
        }
        // Without the owner's login group no group opens anything.
        let (from, to) = (connector(1, Some(&[7])), listener(60, Egid(7)));
        let judged = judge_connection(&from, &to, &exempt, &rules, None);
        assert_eq!(judged, Judgement::Refuse(Refused::GroupGrantsNothing { gid: 7 }));
        // Root's sockets, where root is not exempt.
        let (from, to) = (connector(1, Some(&[7])), listener(0, Egid(7)));
        let judged = judge_connection(&from, &to, &Exempt::default(), &rules, login);
        assert_eq!(judged, Judgement::Refuse(Refused::RootSocket));
    }

    #[test]
    fn every_code_is_listed() {
        let ip = "10.0.0.1".parse().unwrap();
        let refused = [
            Refused::OtherUser { connector: 1, listener: 2 },
            Refused::RootSocket,
            Refused::GroupGrantsNothing { gid: 1 },
            Refused::ListenerGroupUnknown(UnknownGroup::Disagree),
            Refused::ConnectorGroupsUnknown(UnknownGroup::Disagree),
            Refused::NoListener,
            Refused::ListenerUnknown("x".to_owned()),
            Refused::NoConnector(ip),
            Refused::UnknownNode(ip),
            Refused::NoAnswer(ip),
            Refused::Changed,
            Refused::NotTheSender(1),
            Refused::Forged,
            Refused::Malformed,
            Refused::Overload,
        ];
        assert_eq!(refused.map(|why| why.code()), Refused::CODES);
        let rules = [
            LetThrough::SameUser,
            LetThrough::ExemptConnector,
            LetThrough::ExemptListener,
            LetThrough::Group(1),
            LetThrough::OwnPort,
        ];
        assert_eq!(rules.map(LetThrough::code), LetThrough::CODES);
    }
}
