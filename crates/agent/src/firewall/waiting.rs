//! Packets that wait for an answer or a look, and what is made of what is known of one. Before and after: `gate`;
//! `control` judges by the same, so that it says what the gate would do.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use portreeve_model::firewall::{Connector, ConnectorGroups, Judgement, Refused, judge_connection};
use portreeve_model::wire::firewall::Flow;
use portreeve_model::{LoginGroup, OwnerGroups};
use tokio::sync::mpsc;

use super::peers::{Peers, Reply};
use super::settings::Settings;
use crate::lookup::End;

/// A packet that waits for an answer or a look.
pub(super) struct Waiting {
    pub(super) id: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) flow: Flow,
    /// The node that it comes from ([`Settings::origin`]), once that is asked.
    pub(super) origin: Option<IpAddr>,
    pub(super) since: Instant,
    pub(super) interface: u32,
    /// Whom it may go to.
    pub(super) to: Vec<End>,
    /// Whom it comes from, if that is this node.
    pub(super) from: Option<End>,
    pub(super) connector: Option<Connector>,
    pub(super) listener: Option<(OwnerGroups, Option<LoginGroup>)>,
    pub(super) looking: bool,
    /// Something was asked or looked for.
    pub(super) asked: bool,
}

/// What was found, for a packet that waits.
pub(super) enum Found {
    Listener(u64, OwnerGroups, Option<LoginGroup>),
    Connector(u64, ConnectorGroups),
}

/// What a thread has while it serves.
pub(super) struct Work {
    pub(super) settings: Arc<Settings>,
    pub(super) peers: Peers,
    pub(super) replies: mpsc::UnboundedSender<Reply>,
    pub(super) found: mpsc::UnboundedSender<Found>,
    /// By the order in which they came.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// How many of them come from each node that was asked: one that does not answer must not have all places.
    pub(super) from_one: HashMap<IpAddr, usize>,
    pub(super) next: u64,
}

impl Work {
    pub(super) fn keep(&mut self, waiting: Waiting) -> u64 {
        self.next += 1;
        if let Some(origin) = waiting.origin {
            *self.from_one.entry(origin).or_default() += 1;
        }
        self.waiting.insert(self.next, waiting);
        self.next
    }

    pub(super) fn take(&mut self, of: u64) -> Option<Waiting> {
        let taken = self.waiting.remove(&of)?;
        if let Some(origin) = taken.origin
            && let Entry::Occupied(mut count) = self.from_one.entry(origin)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(taken)
    }
}

/// Whoever connects, where it makes no difference who: all whom the packet goes to may be reached by everybody, so that
/// nobody is asked.
pub(super) fn whoever(to: &[End], settings: &Settings) -> Option<Connector> {
    let all = to.iter().all(|end| settings.exempt.may_be_reached(end.uid));
    all.then_some(Connector { uid: u32::MAX, groups: ConnectorGroups::NotLooked })
}

/// Where only groups could open it, and it goes to sockets of several users: no group is looked for.
pub(super) fn of_several(connector: &Connector, to: &[End]) -> Option<Refused> {
    let several = to.windows(2).any(|two| two[0].uid != two[1].uid);
    let other = to.iter().find(|end| end.uid != connector.uid).filter(|_| several)?;
    Some(Refused::OtherUser { connector: connector.uid, listener: other.uid })
}

/// The judgement of all whom the packet goes to: it is let through only if each of them is reached by a rule. `listener`
/// is what was found of their group, and of their owner's login group.
pub(super) fn judgement(
    connector: &Connector,
    to: &[End],
    listener: Option<(OwnerGroups, Option<LoginGroup>)>,
    settings: &Settings,
) -> Judgement {
    let (groups, login) = listener.unwrap_or((OwnerGroups::NotLooked, None));
    let mut rule = None;
    for end in to {
        let mut owner = end.owner();
        owner.groups = groups;
        match judge_connection(connector, &owner, &settings.exempt, &settings.groups, login) {
            Judgement::Let(found) => rule = rule.or(Some(found)),
            other => return other,
        }
    }
    rule.map_or(Judgement::Refuse(Refused::NoListener), Judgement::Let)
}
