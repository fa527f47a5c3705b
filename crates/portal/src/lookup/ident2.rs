//! Asks a site's ident2 service whose the far end of a connection is. Before: `lookup`. After: the service, over a
//! connection that the broker makes (`powers/served/ident2.rs`).
//!
//! | seen | taken for |
//! | --- | --- |
//! | the very connection, by its four addresses and ports | evidence; judged again before the answer goes out, unless a process was named |
//! | nothing, or uid 0, but somebody listens there | whose it may be; it must be seen by the four before the answer goes out |
//! | uid 0, nobody, another uid than before, no answer in time, an address of no node | nobody's |
//!
//! Invariants: nothing of what is said has a proof, so no more is made of it than of an agent's word, and less where it says
//! less. It knows no listeners: no two owners have the same listener's id.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portreeve_agent::ident2::client::{AskError, Ident2, Question, is_somebody};
use portreeve_model::wire::ident2::{Flags, Found, Op, Protocol, TcpStates};
use portreeve_model::{ListenerId, Owner, OwnerGroups, Tuple, UnknownGroup, Unowned};
use tokio::time::{Instant, sleep};

use crate::agents::{AgentError, Agents};
use crate::limits;

/// The service, as all threads ask it.
pub struct ByIdent2 {
    client: Ident2,
    /// Of whom the map of nodes is had.
    agents: Arc<Agents>,
    next: AtomicU64,
}

/// What an owner is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The connection itself.
    Exact,
    /// Somebody who listens at its address.
    Listener,
}

/// A uid and perhaps a group, of somebody who can own something.
struct Somebody {
    uid: u32,
    groups: OwnerGroups,
    is_held: bool,
}

impl ByIdent2 {
    /// Without a connection to the service: whoever asks waits for one, and is told that there is no answer.
    #[must_use]
    pub fn new(agents: Arc<Agents>) -> Self {
        Self { client: Ident2::given(), agents, next: AtomicU64::new(1) }
    }

    /// What is asked, to be given connections.
    #[must_use]
    pub fn client(&self) -> &Ident2 {
        &self.client
    }

    pub(super) async fn owner(&self, tuple: &Tuple, group: bool) -> Result<Owner, Unowned> {
        let by = self.begin(tuple)?;
        if let Some(Somebody { uid, groups, is_held }) = self.exact(tuple, group, by).await? {
            return Ok(Owner { uid, groups, listener: self.id(Seen::Exact), accepted: is_held });
        }
        // The service may not know a connection that nobody has accepted yet.
        let nobody = match tuple.server.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let remote = SocketAddr::new(nobody, 0);
        let Some(listener) = self.ask(tuple.server, remote, TcpStates::LISTEN, group, by).await? else {
            return Err(Unowned::NoSuchConnection);
        };
        // Most programs accept at once, and what is seen of the connection is worth more.
        for _ in 0..limits::ACCEPT_LOOKS {
            sleep(limits::ACCEPT_LOOK).await;
            match self.exact(tuple, group, by).await? {
                Some(Somebody { uid, .. }) if uid != listener.uid => {
                    return Err(Unowned::OwnersDiffer { listener: listener.uid, accepted: uid });
                }
                Some(Somebody { uid, groups, is_held }) => {
                    return Ok(Owner { uid, groups, listener: self.id(Seen::Exact), accepted: is_held });
                }
                None => {}
            }
        }
        let Somebody { uid, groups, .. } = listener;
        Ok(Owner { uid, groups, listener: self.id(Seen::Listener), accepted: false })
    }

    pub(super) async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        let group = before.groups != OwnerGroups::NotLooked;
        let seen = seen(before.listener);
        let mut found = self.exact(tuple, group, self.begin(tuple)?).await?;
        if found.is_none() && seen == Seen::Listener {
            // It remembers for a moment that it has not found it.
            sleep(limits::IDENT2_FORGETS).await;
            found = self.exact(tuple, group, self.begin(tuple)?).await?;
        }
        match (found, seen) {
            (Some(Somebody { uid, groups, .. }), _) if uid == before.uid => {
                Ok(Owner { uid, groups, listener: self.id(Seen::Exact), accepted: true })
            }
            (Some(Somebody { uid, .. }), _) => {
                Err(Unowned::OwnersDiffer { listener: before.uid, accepted: uid })
            }
            // Answered and closed at once. Whose queue it was in was seen: whoever accepted it had that from its owner. With
            // which group, nobody saw.
            (None, Seen::Exact) if !group => Ok(Owner { accepted: true, ..*before }),
            (None, Seen::Exact) => Err(Unowned::Closing),
            (None, Seen::Listener) => Err(Unowned::ListenerOnly),
        }
    }

    /// Until when there must be an answer, if the address is one of a node.
    fn begin(&self, tuple: &Tuple) -> Result<Instant, Unowned> {
        let address = tuple.server.ip().to_canonical();
        match self.agents.nodes().at(address) {
            Some(_) => Ok(Instant::now() + limits::AGENT_ANSWER),
            None => Err(Unowned::Lookup(AgentError::NoNode(address).to_string())),
        }
    }

    /// Never the same one.
    fn id(&self, seen: Seen) -> ListenerId {
        let number = self.next.fetch_add(1, Ordering::Relaxed) << 1;
        ListenerId(number | u64::from(seen == Seen::Exact))
    }

    async fn exact(&self, tuple: &Tuple, group: bool, by: Instant) -> Result<Option<Somebody>, Unowned> {
        self.ask(tuple.server, tuple.client, TcpStates::CONNECTED, group, by).await
    }

    async fn ask(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        states: TcpStates,
        group: bool,
        by: Instant,
    ) -> Result<Option<Somebody>, Unowned> {
        let flags = if group { Flags::GID.and(Flags::PROCESS) } else { Flags::default() };
        let question = Question { op: Op::Remote, flags, protocol: Protocol::Tcp, states, local, remote };
        let left = || by.saturating_duration_since(Instant::now());
        let first = self.client.ask(question, left().min(limits::IDENT2_TRY)).await;
        let answer = match first {
            // A datagram is lost now and then.
            Err(AskError::Late) if left() > Duration::ZERO => self.client.ask(question, left()).await,
            other => other,
        };
        match answer {
            Ok(found) => Ok(found.and_then(|found| somebody(found, group))),
            Err(error) => {
                tracing::warn!(server = %local, code = "ident2", %error, "an owner can't be asked for");
                Err(Unowned::Lookup(error.to_string()))
            }
        }
    }
}

fn seen(listener: ListenerId) -> Seen {
    if listener.0 & 1 == 1 { Seen::Exact } else { Seen::Listener }
}

/// `None`: nobody can be told to own it.
fn somebody(found: Found, group: bool) -> Option<Somebody> {
    let Found { uid, gid, pid, groups: _ } = found;
    if !is_somebody(uid) {
        return None;
    }
    let is_held = pid.is_some_and(|pid| pid != 0);
    let groups = match gid.filter(|gid| *gid != u32::MAX && is_held) {
        _ if !group => OwnerGroups::NotLooked,
        Some(gid) => OwnerGroups::Egid(gid),
        None => OwnerGroups::Unknown(UnknownGroup::NoHolderSeen),
    };
    Some(Somebody { uid, groups, is_held: group && is_held })
}

#[cfg(test)]
mod tests;
