//! The control socket: how it goes, and why a connection would be let through or refused. SEQPACKET, one question for each
//! connection. Counts are for everybody on the node; who owns a socket elsewhere is told to root, and to who owns an end
//! ([`Owners::may_hear`]). Before: `asking`. After: `waiting` judges, as it does for the gates.
//! Invariant: who owns an end on another node is asked for, and told, only where a gate would ask.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use portreeve_model::firewall::{Connector, ConnectorGroups, Judgement, LetThrough, Refused};
use portreeve_model::wire::firewall::{ControlAnswer, ControlQuestion, Explained, Flow, Groups, Status};
use portreeve_model::wire::{self, firewall::Transport};
use portreeve_model::{LoginGroup, OwnerGroups, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::looks::Looks;
use super::packet::goes_to_many;
use super::peers::{Failure, ask_once};
use super::settings::Settings;
use super::waiting::{judgement, of_several, whoever};
use super::{Shared, limits};
use crate::lookup::{End, Lookup, NoEnd};
use crate::own_addresses::OwnAddresses;
use crate::seqpacket::{accept, listen_at};
use crate::shares::{Share, Shares};

/// The socket, and what answers.
pub(super) struct ControlDesk {
    socket: UnixListener,
    lookup: Lookup,
    looks: Looks,
    own: OwnAddresses,
    /// As the rules have it that were installed at the start.
    first_port: Port,
    shared: Arc<Shared>,
}

/// Places for questions. No user has all of them, and root has as many again: whoever looks after the node is answered
/// whatever its users do.
#[derive(Default)]
struct Places {
    of_one: Shares<u32>,
    /// Root's, and everybody else's.
    of_all: Shares<bool>,
}

impl Places {
    fn take(&self, uid: u32) -> Option<(Share<u32>, Share<bool>)> {
        let is_root = uid == 0;
        let most = if is_root { limits::CONTROLS } else { limits::CONTROLS_OF_ONE };
        Some((self.of_one.take(uid, most)?, self.of_all.take(is_root, limits::CONTROLS)?))
    }
}

/// Whose the ends of a flow are, as far as it was found out.
#[derive(Default)]
struct Owners {
    listeners: Vec<u32>,
    connector: Option<u32>,
    /// It was asked who connects.
    asked: bool,
}

impl Owners {
    /// Whether this user may be told what was found out of the flow, or why not.
    fn may_hear(&self, uid: u32, flow: Flow) -> Result<(), &'static str> {
        let connects = self.connector == Some(uid);
        match flow.transport {
            // Who listens here, or that nobody does, everybody on the node can see.
            _ if uid == 0 || !self.asked || connects => Ok(()),
            Transport::Tcp if self.listeners.contains(&uid) => Ok(()),
            Transport::Tcp => Err("neither end is yours: ask who owns one of them, or root"),
            // Nothing shows that there is such a flow at all: naming a port tells nobody whose it is.
            Transport::Udp => Err("the end that sends is not yours: ask who owns it, or root"),
        }
    }
}

impl ControlDesk {
    pub(super) fn listen(path: &Path, shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            socket: listen_at(path, limits::BACKLOG, 0o666, None)?,
            lookup: Lookup::open()?,
            looks: Looks::open()?,
            own: OwnAddresses::default(),
            first_port: shared.settings.load().config.first_port,
            shared: Arc::clone(shared),
        })
    }

    /// Answers for as long as the firewall runs.
    pub(super) fn serve(self) -> io::Result<impl Future<Output = ()>> {
        let listening = tokio::net::UnixListener::from_std(self.socket.try_clone()?)?;
        let desk = Arc::new(self);
        Ok(async move {
            let places = Places::default();
            let mut callers = JoinSet::new();
            loop {
                while callers.try_join_next().is_some() {}
                let (caller, uid) = accept(&listening, "the control socket", limits::PAUSE).await;
                // With no place left the caller is told by the closed connection.
                let Some(place) = places.take(uid) else { continue };
                let desk = Arc::clone(&desk);
                callers.spawn(async move {
                    let _place = place;
                    if let Err(error) = desk.answer(caller, uid).await {
                        tracing::debug!(%error, "a question on the control socket was not answered");
                    }
                });
            }
        })
    }

    async fn answer(self: &Arc<Self>, mut caller: UnixStream, uid: u32) -> io::Result<()> {
        let mut question = [0; limits::CONTROL_QUESTION];
        let length = timeout(limits::CONTROL, caller.read(&mut question)).await??;
        let counts = &self.shared.counts;
        let answer = match wire::decode(&question[..length]) {
            Ok(ControlQuestion::Status) => {
                let settings = self.shared.settings.load();
                ControlAnswer::Status(Status {
                    node: settings.node.to_string(),
                    dry_run: settings.config.dry_run,
                    queues: counts.queues(),
                    decided: counts.so_far(),
                })
            }
            Ok(ControlQuestion::Metrics) => ControlAnswer::Metrics(counts.text()),
            Ok(ControlQuestion::Why { flow }) => {
                let settings = self.shared.settings.load_full();
                let (explained, owners) = self.explain(&settings, flow).await;
                match owners.may_hear(uid, flow) {
                    Ok(()) => ControlAnswer::Why(Box::new(explained)),
                    Err(reason) => ControlAnswer::Refused { reason: reason.to_owned() },
                }
            }
            Err(error) => ControlAnswer::Refused { reason: error.to_string() },
        };
        let answer = wire::encode_bare(&answer).map_err(io::Error::other)?;
        timeout(limits::CONTROL, caller.write_all(&answer)).await?
    }

    /// What becomes of the flow, step by step, and whose its ends are.
    async fn explain(self: &Arc<Self>, settings: &Settings, flow: Flow) -> (Explained, Owners) {
        let (mut steps, mut owners) = (Vec::new(), Owners::default());
        if let Some(why) = self.not_looked_at(flow) {
            return (Explained { steps: vec![why], verdict: None }, owners);
        }
        let verdict = self.decide(settings, flow, &mut steps, &mut owners).await;
        if settings.config.dry_run && verdict.is_err() {
            steps.push("It is let through all the same: the firewall only tries (dry_run).".to_owned());
        }
        (Explained { steps, verdict: Some(verdict) }, owners)
    }

    /// Whether this node is one of those to which it goes.
    fn comes_here(&self, flow: &Flow) -> bool {
        goes_to_many(flow) || self.own.has(flow.to.ip())
    }

    /// Why no gate of this node ever sees such a flow, where that is so. Which ports the rules protect is not known here.
    fn not_looked_at(&self, flow: Flow) -> Option<String> {
        if !self.comes_here(&flow) {
            return None;
        }
        if !self.shared.counts.guards() {
            return Some(
                "This node guards nothing (queues = \"\"), it only answers others: whoever connects is not looked at."
                    .to_owned(),
            );
        }
        let (port, first) = (flow.to.port(), self.first_port);
        (port < first.get()).then(|| {
            format!("Port {port} is not asked about: the rules leave ports below {first} alone (first_port).")
        })
    }

    async fn decide(
        self: &Arc<Self>,
        settings: &Settings,
        flow: Flow,
        steps: &mut Vec<String>,
        owners: &mut Owners,
    ) -> Result<LetThrough, Refused> {
        let (from, to) = (flow.from.ip(), flow.to.ip());
        if !self.comes_here(&flow) {
            let elsewhere = settings.name_of(to);
            steps.push(format!("{to} is not this node's: ask on {elsewhere}, whose firewall decides it."));
            return Err(Refused::UnknownNode(to));
        }
        let is_for_many = goes_to_many(&flow);
        if is_for_many {
            steps.push(format!(
                "{to} is for many: each node that gets it decides for itself, this one by all its sockets that may hear it. \
                 Who is refused is not told."
            ));
        }
        // With no port to come from, there is no connection yet, and whoever listens is meant.
        let arrives = match (flow.from.port(), flow.transport) {
            (0, transport) if !is_for_many => self.lookup.listens_at(transport, flow.to).map(|end| vec![end]),
            _ => self.lookup.goes_to(&flow, 0),
        };
        let ends = arrives.map_err(|why| {
            steps.push(format!("On this node: {why} for {}.", flow.to));
            match why {
                NoEnd::NoSocket => Refused::NoListener,
                why => Refused::ListenerUnknown(why.to_string()),
            }
        })?;
        for end in &ends {
            let what = match (flow.transport, end.listens) {
                (Transport::Udp, _) => "a socket that may get its datagrams",
                (Transport::Tcp, true) => "the listener",
                (Transport::Tcp, false) => "the connection's own socket",
            };
            steps.push(format!("On this node, {what} at {} is uid {}'s.", flow.to, end.uid));
            owners.listeners.push(end.uid);
        }
        if are_several_users(&ends) {
            steps.push(
                "Sockets of several users may get it: all of them have to be open to whoever connects."
                    .to_owned(),
            );
        }
        if flow.from.port() == 0 {
            steps.push(self.who_may(settings, flow, &ends).await?);
            return Err(Refused::NoConnector(from));
        }
        let connector = match whoever(&ends, settings) {
            Some(whoever) => {
                steps.push("Everybody may connect to it: nobody is asked who does.".to_owned());
                whoever
            }
            None => {
                owners.asked = true;
                let connector = self.connector(settings, flow, Groups::No, steps).await?;
                owners.connector = Some(connector.uid);
                steps.push(format!(
                    "On {}, the program at {} is uid {}'s.",
                    settings.name_of(from),
                    flow.from,
                    connector.uid
                ));
                connector
            }
        };
        let outcome = match judgement(&connector, &ends, None, settings) {
            Judgement::LookForGroups => self.with_groups(settings, flow, (&connector, &ends), steps).await?,
            judged => judged,
        };
        match outcome {
            Judgement::Let(rule) => {
                steps.push(format!("It is let through: {rule}."));
                Ok(rule)
            }
            Judgement::Refuse(why) => Err(why),
            Judgement::LookForGroups => Err(Refused::Overload),
        }
    }

    async fn listeners_group(
        self: &Arc<Self>,
        flow: Flow,
        ends: &[End],
    ) -> Result<(OwnerGroups, Option<LoginGroup>), Refused> {
        let (desk, ends) = (Arc::clone(self), ends.to_vec());
        let looked = tokio::task::spawn_blocking(move || desk.looks.listener(&flow, 0, &ends)).await;
        looked.map_err(|_| Refused::Overload)
    }

    /// Who may connect, whoever does.
    async fn who_may(
        self: &Arc<Self>,
        settings: &Settings,
        flow: Flow,
        ends: &[End],
    ) -> Result<String, Refused> {
        let mut closed = ends.iter().map(|end| end.uid).filter(|uid| !settings.exempt.may_be_reached(*uid));
        let Some(uid) = closed.next() else {
            return Ok("It is exempt: everybody may connect.".to_owned());
        };
        if closed.any(|other| other != uid) {
            return Ok("Whoever is exempt may connect, and nobody else.".to_owned());
        }
        if are_several_users(ends) {
            return Ok(format!("Uid {uid} and whoever is exempt may connect."));
        }
        let (groups, login) = self.listeners_group(flow, ends).await?;
        Ok(match groups {
            OwnerGroups::Egid(gid) if settings.groups.grants(gid, login) => {
                format!(
                    "It runs with group {gid}: uid {uid}, whoever is in that group, and whoever is exempt may connect."
                )
            }
            OwnerGroups::Egid(gid) => {
                format!(
                    "It runs with group {gid}, which opens nothing: uid {uid} and whoever is exempt may connect."
                )
            }
            OwnerGroups::Unknown(why) => {
                format!("Its group is not known ({why}): uid {uid} and whoever is exempt may connect.")
            }
            OwnerGroups::NotLooked => format!("Uid {uid} and whoever is exempt may connect."),
        })
    }

    async fn with_groups(
        self: &Arc<Self>,
        settings: &Settings,
        flow: Flow,
        (before, ends): (&Connector, &[End]),
        steps: &mut Vec<String>,
    ) -> Result<Judgement, Refused> {
        if let Some(why) = of_several(before, ends) {
            return Err(why);
        }
        let (groups, login) = self.listeners_group(flow, ends).await?;
        match groups {
            OwnerGroups::Egid(gid) => steps.push(format!("The listener runs with group {gid}.")),
            OwnerGroups::Unknown(why) => steps.push(format!("The listener's group is not known: {why}.")),
            OwnerGroups::NotLooked => {}
        }
        let connector = self.connector(settings, flow, Groups::Yes, steps).await?;
        if connector.uid != before.uid {
            steps.push("It is another user's by now.".to_owned());
            return Err(Refused::NoConnector(flow.from.ip()));
        }
        match &connector.groups {
            ConnectorGroups::Gids(gids) => steps.push(format!("The connector is in the groups {gids:?}.")),
            ConnectorGroups::Unknown(why) => {
                steps.push(format!("The connector's groups are not known: {why}."))
            }
            ConnectorGroups::NotLooked => {}
        }
        Ok(judgement(&connector, ends, Some((groups, login)), settings))
    }

    async fn connector(
        self: &Arc<Self>,
        settings: &Settings,
        flow: Flow,
        groups: Groups,
        steps: &mut Vec<String>,
    ) -> Result<Connector, Refused> {
        let from = flow.from.ip();
        let nobody = |steps: &mut Vec<String>, why: String| {
            steps.push(format!("On {}: {why} ({}).", settings.name_of(from), flow.from));
            Refused::NoConnector(from)
        };
        if self.own.has(from) {
            let end = self.lookup.comes_from(&flow).map_err(|why| nobody(steps, why.to_string()))?;
            if groups == Groups::No {
                return Ok(Connector { uid: end.uid, groups: ConnectorGroups::NotLooked });
            }
            let desk = Arc::clone(self);
            let looked = tokio::task::spawn_blocking(move || desk.looks.connector(&end)).await;
            let groups = looked.map_err(|_| Refused::Overload)?;
            return Ok(Connector { uid: end.uid, groups });
        }
        let asked = settings.asked(from).ok_or_else(|| {
            steps.push(format!(
                "{from} is no node that can be asked: it is not in the node map, or has no key."
            ));
            Refused::UnknownNode(from)
        })?;
        ask_once(settings, asked, flow, groups).await.map_err(|failure| match failure {
            Failure::NoConnector(why) => nobody(steps, why.to_string()),
            Failure::NoAnswer => {
                steps.push(format!("{} does not answer.", settings.name_of(from)));
                Refused::NoAnswer(from)
            }
        })
    }
}

fn are_several_users(ends: &[End]) -> bool {
    ends.windows(2).any(|two| two[0].uid != two[1].uid)
}

#[cfg(test)]
mod tests;
