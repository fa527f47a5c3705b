//! One queue, on a thread of its own: packets in, verdicts out. Begin reading at `Gate::arrived`. Before: the packet
//! filter. After: the packet goes on, or is gone.
//! Invariant: a packet is let through at one place (`Gate::decide`), by a judgement that names its rule; or by `dry_run`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use portreeve_model::firewall::{Connector, ConnectorGroups, Judgement, LetThrough, Refused, Reply as Told};
use portreeve_model::wire::firewall::{Flow, Groups, NoConnector, Transport};
use portreeve_sys::nfqueue::{Queue, Verdict};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use super::audit::{Audit, Seldom};
use super::flows::Flows;
use super::looks::Looks;
use super::packet;
use super::peers::{Failure, Peers, Reply};
use super::refuse::Refuser;
use super::settings::Asked;
use super::waiting::{Found, Waiting, Work, judgement, of_several, whoever};
use super::{Shared, limits};
use crate::lookup::{Lookup, NoEnd};
use crate::own_addresses::OwnAddresses;

/// One queue.
pub(super) struct Gate {
    queue: Queue,
    lookup: Lookup,
    looks: Arc<Looks>,
    flows: Flows,
    refuser: Refuser,
    own: OwnAddresses,
    /// The loopback interface's number.
    loopback: u32,
    audit: Audit,
    lost: Seldom,
    shared: Arc<Shared>,
}

/// A packet as it came.
struct Arrived {
    id: u32,
    interface: Option<u32>,
    leaves: bool,
    uid: Option<u32>,
    bytes: Vec<u8>,
}

impl Gate {
    /// Takes the queue of this number.
    pub(super) fn open(number: u16, shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            queue: Queue::open(number, limits::QUEUE_LENGTH, limits::PACKET_BYTES)?,
            lookup: Lookup::open()?,
            looks: Arc::new(Looks::open()?),
            flows: Flows::open()?,
            refuser: Refuser::open()?,
            own: OwnAddresses::default(),
            loopback: if_nametoindex("lo")?,
            audit: Audit::new(Instant::now()),
            lost: Seldom::new(),
            shared: Arc::clone(shared),
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.queue.number()
    }

    /// Serves until the process ends, or ends it: a queue that nobody serves must be seen.
    pub(super) fn serve(self) {
        let number = self.number();
        let served = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::LOOK_THREADS)
            .build()
            .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, self.run()));
        if let Err(error) = served {
            tracing::error!(queue = number, %error, "the queue failed: nothing passes until the firewall runs again");
        }
        std::process::exit(1);
    }

    async fn run(mut self) -> io::Result<()> {
        // Both hold no more than the packets that wait have asked for.
        let (replies, mut replied) = mpsc::unbounded_channel();
        let (found, mut looked) = mpsc::unbounded_channel();
        let settings = self.shared.settings.load_full();
        let peers = Peers::new(Arc::clone(&settings), replies.clone());
        let mut work = Work {
            settings,
            peers,
            replies,
            found,
            waiting: BTreeMap::new(),
            from_one: HashMap::new(),
            next: 0,
        };
        // Only waited for. Which kind of socket it is makes no difference to that.
        let readable = UnixDatagram::from_std(self.queue.as_fd().try_clone_to_owned()?.into())?;
        let forgotten = self.flows.begin(|end| self.own.has(end.ip()))?;
        tracing::info!(
            queue = self.number(),
            forgotten,
            "serving; flows of UDP from before are asked about anew"
        );
        let mut pulse = tokio::time::interval(Flows::pause().min(limits::PULSE));
        let mut packets = Vec::with_capacity(limits::PACKETS_AT_ONCE);
        loop {
            let patience = work.settings.config.patience;
            let oldest = work.waiting.first_key_value().map(|(_, waiting)| waiting.since + patience);
            let over = async {
                match oldest {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(reply) = replied.recv() => self.replied(&mut work, reply)?,
                Some(found) = looked.recv() => self.looked(&mut work, found)?,
                ready = readable.readable() => {
                    ready?;
                    let read = readable.try_io(Interest::READABLE, || self.receive(&mut packets));
                    if let Err(error) = read && error.kind() != io::ErrorKind::WouldBlock {
                        return Err(error);
                    }
                    if !packets.is_empty() {
                        self.renew(&mut work);
                    }
                    for arrived in packets.drain(..) {
                        self.arrived(&mut work, arrived)?;
                    }
                }
                () = over => self.give_up(&mut work, patience)?,
                _ = pulse.tick() => self.pulse(&mut work),
            }
        }
    }

    /// Reads packets. `WouldBlock`: there are no more now.
    fn receive(&mut self, packets: &mut Vec<Arrived>) -> io::Result<()> {
        while packets.len() < limits::PACKETS_AT_ONCE {
            let read = self.queue.receive(&mut |packet| {
                packets.push(Arrived {
                    id: packet.id,
                    interface: packet.interface,
                    leaves: packet.leaves,
                    uid: packet.uid,
                    bytes: packet.bytes.to_vec(),
                });
            });
            match read {
                Ok(true) => {}
                Ok(false) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    if self.lost.now() {
                        tracing::warn!(
                            queue = self.number(),
                            "packets were lost: more came than could be read"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes other settings into use, if there are some. What waits for an answer goes on with the old ones' lines until
    /// its time is over.
    fn renew(&self, work: &mut Work) {
        if !Arc::ptr_eq(&work.settings, &self.shared.settings.load()) {
            work.settings = self.shared.settings.load_full();
            work.peers = Peers::new(Arc::clone(&work.settings), work.replies.clone());
        }
    }

    /// A packet came.
    fn arrived(&mut self, work: &mut Work, arrived: Arrived) -> io::Result<()> {
        let since = Instant::now();
        let Arrived { id, interface, leaves, uid, bytes } = arrived;
        let Some(flow) = packet::flow(&bytes) else {
            // Nothing of it can be told to anybody.
            self.shared.counts.decided(
                &Err(Refused::Malformed),
                work.settings.config.dry_run,
                since.elapsed(),
            );
            return self.verdict(id, work.settings.config.dry_run);
        };
        let mut waiting = Waiting {
            id,
            bytes,
            flow,
            origin: None,
            since,
            interface: interface.unwrap_or(0),
            to: Vec::new(),
            from: None,
            connector: None,
            listener: None,
            looking: false,
            asked: false,
        };
        if leaves {
            let outcome = self.leaves(work, &flow, uid);
            return self.decide(work, &waiting, outcome);
        }
        match self.ends(work, &mut waiting) {
            Ok(Next::Known) => {
                self.shared.counts.remembered.inc();
                self.verdict(id, true)
            }
            Ok(Next::Judge) => {
                let of = work.keep(waiting);
                self.judge(work, of)
            }
            Ok(Next::Ask(asked)) => {
                let origin = work.settings.origin(flow.from.ip());
                let from_one = work.from_one.get(&origin).copied().unwrap_or(0);
                if work.waiting.len() >= limits::WAITING || from_one >= limits::WAITING_OF_ONE {
                    return self.decide(work, &waiting, Err(Refused::Overload));
                }
                (waiting.origin, waiting.asked) = (Some(origin), true);
                let expects = self.looks.expects_groups(&waiting.to);
                let groups = if expects { Groups::AtAGlance } else { Groups::No };
                let of = work.keep(waiting);
                self.ask(work, asked, of, flow, groups);
                Ok(())
            }
            Err(why) => self.decide(work, &waiting, Err(why)),
        }
    }

    /// A datagram leaves. Whoever gets it asks whose the port is that it comes from, so no other user's may have sent it;
    /// and what comes back for it is let in without a question, so it is kept who sent it. A sender that has closed its
    /// socket already harms nobody.
    fn leaves(&self, work: &Work, flow: &Flow, uid: Option<u32>) -> Result<LetThrough, Refused> {
        self.shared.counts.lookups.inc();
        // The kernel's own sockets have none.
        let uid = uid.unwrap_or(0);
        let rule = match self.lookup.comes_from(flow) {
            Ok(end) if end.uid == uid => LetThrough::OwnPort,
            Err(NoEnd::NoSocket) => LetThrough::OwnPort,
            Ok(_) | Err(_) if work.settings.exempt.may_connect(uid) => LetThrough::ExemptConnector,
            Ok(_) | Err(NoEnd::Ambiguous | NoEnd::Nobody) => return Err(Refused::NotTheSender(uid)),
            Err(NoEnd::Lookup(error)) => return Err(Refused::ListenerUnknown(error.to_string())),
        };
        self.shared.sent.note(flow, uid);
        Ok(rule)
    }

    /// Finds the ends on this node, and the other one if that is here as well.
    fn ends(&mut self, work: &Work, waiting: &mut Waiting) -> Result<Next, Refused> {
        let flow = waiting.flow;
        let is_ours = self.own.has(flow.to.ip());
        self.shared.counts.lookups.inc();
        waiting.to = self.lookup.goes_to(&flow, waiting.interface).map_err(|why| match why {
            NoEnd::NoSocket => Refused::NoListener,
            why => Refused::ListenerUnknown(why.to_string()),
        })?;
        if flow.transport == Transport::Udp {
            let cookies: Vec<u64> = waiting.to.iter().map(|end| end.cookie).collect();
            if self.flows.knows(&flow, &cookies, work.settings.config.udp_again) {
                return Ok(Next::Known);
            }
        }
        if let Some(whoever) = whoever(&waiting.to, &work.settings) {
            waiting.connector = Some(whoever);
            return Ok(Next::Judge);
        }
        let from = flow.from.ip();
        if self.own.has(from) {
            // The kernel drops such packets itself, unless it was told not to. What was sent to many comes back by the
            // interface by which it went.
            if is_ours && waiting.interface != self.loopback {
                return Err(Refused::Forged);
            }
            self.shared.counts.lookups.inc();
            let end = self.lookup.comes_from(&flow).map_err(|why| match why {
                NoEnd::Lookup(_) => Refused::NoAnswer(from),
                NoEnd::NoSocket | NoEnd::Ambiguous | NoEnd::Nobody => Refused::NoConnector(from),
            })?;
            waiting.connector = Some(Connector { uid: end.uid, groups: ConnectorGroups::NotLooked });
            waiting.from = Some(end);
            return Ok(Next::Judge);
        }
        work.settings.asked(from).map(Next::Ask).ok_or(Refused::UnknownNode(from))
    }

    fn ask(&self, work: &mut Work, asked: Asked, of: u64, flow: Flow, groups: Groups) {
        self.shared.counts.asked.inc();
        work.peers.ask_by(asked, of, flow, groups);
    }

    /// Another node has answered, or not.
    fn replied(&mut self, work: &mut Work, reply: Reply) -> io::Result<()> {
        // It has waited too long already.
        let Some(waiting) = work.waiting.get_mut(&reply.of) else { return Ok(()) };
        let from = waiting.flow.from.ip();
        match reply.found {
            Ok(connector) => {
                // The groups are of the user that was named before, or this is another socket by now.
                if waiting.connector.as_ref().is_some_and(|before| before.uid != connector.uid) {
                    return self.end(work, reply.of, Err(Refused::NoConnector(from)));
                }
                waiting.connector = Some(connector);
                self.judge(work, reply.of)
            }
            Err(Failure::NoAnswer) => self.end(work, reply.of, Err(Refused::NoAnswer(from))),
            Err(Failure::NoConnector(NoConnector::Lookup(why))) => {
                tracing::debug!(flow = ?waiting.flow, why, "the other node could not find out");
                self.end(work, reply.of, Err(Refused::NoAnswer(from)))
            }
            Err(Failure::NoConnector(why)) => {
                tracing::debug!(flow = ?waiting.flow, %why, "the other node names nobody");
                self.end(work, reply.of, Err(Refused::NoConnector(from)))
            }
        }
    }

    /// A look at processes is done.
    fn looked(&mut self, work: &mut Work, found: Found) -> io::Result<()> {
        let of = match found {
            Found::Listener(of, group, login) => {
                if let Some(waiting) = work.waiting.get_mut(&of) {
                    waiting.listener = Some((group, login));
                }
                of
            }
            Found::Connector(of, groups) => {
                if let Some(connector) =
                    work.waiting.get_mut(&of).and_then(|waiting| waiting.connector.as_mut())
                {
                    connector.groups = groups;
                }
                of
            }
        };
        if work.waiting.contains_key(&of) { self.judge(work, of) } else { Ok(()) }
    }

    /// Judges a packet of which the connector is known.
    fn judge(&mut self, work: &mut Work, of: u64) -> io::Result<()> {
        let Some(waiting) = work.waiting.get(&of) else { return Ok(()) };
        let judged = match &waiting.connector {
            Some(connector) => judgement(connector, &waiting.to, waiting.listener, &work.settings),
            None => Judgement::LookForGroups,
        };
        let outcome = match judged {
            // Another node's answer, or a look, took its time: the packet must still go to whom it was judged for.
            Judgement::Let(_) if waiting.asked && !self.still_goes_to(waiting) => Err(Refused::Changed),
            Judgement::Let(rule) => Ok(rule),
            Judgement::Refuse(why) => Err(why),
            Judgement::LookForGroups if waiting.looking => return Ok(()),
            Judgement::LookForGroups => match self.look(work, of) {
                Ok(true) => return self.judge(work, of),
                Ok(false) => return Ok(()),
                Err(why) => Err(why),
            },
        };
        self.end(work, of, outcome)
    }

    fn still_goes_to(&self, waiting: &Waiting) -> bool {
        self.lookup.goes_to(&waiting.flow, waiting.interface).is_ok_and(|now| now == waiting.to)
    }

    /// Looks for what is not known of both ends' groups: at a glance, else on another thread or on the other node. Whether
    /// all is known now.
    fn look(&self, work: &mut Work, of: u64) -> Result<bool, Refused> {
        let Some(waiting) = work.waiting.get_mut(&of) else { return Ok(false) };
        let Some(connector) = &mut waiting.connector else { return Ok(false) };
        if let Some(why) = of_several(connector, &waiting.to) {
            return Err(why);
        }
        (waiting.looking, waiting.asked) = (true, true);
        let (flow, from, interface) = (waiting.flow, waiting.from, waiting.interface);
        if waiting.listener.is_none() {
            waiting.listener = self.looks.listener_at_a_glance(&flow, interface, &waiting.to);
        }
        if let (ConnectorGroups::NotLooked, Some(from)) = (&connector.groups, &from)
            && let Some(groups) = self.looks.connector_at_a_glance(from)
        {
            connector.groups = groups;
        }
        let of_listener = waiting.listener.is_none().then(|| waiting.to.clone());
        let of_connector = connector.groups == ConnectorGroups::NotLooked;
        let is_all = of_listener.is_none() && !of_connector;
        if let Some(ends) = of_listener {
            self.look_on_a_thread(work, move |looks| {
                let (group, login) = looks.listener(&flow, interface, &ends);
                Found::Listener(of, group, login)
            })?;
        }
        match from {
            _ if !of_connector => {}
            Some(from) => {
                self.look_on_a_thread(work, move |looks| Found::Connector(of, looks.connector(&from)))?;
            }
            None => {
                let from = flow.from.ip();
                let asked = work.settings.asked(from).ok_or(Refused::UnknownNode(from))?;
                self.ask(work, asked, of, flow, Groups::Yes);
            }
        }
        Ok(is_all)
    }

    fn look_on_a_thread(
        &self,
        work: &Work,
        look: impl FnOnce(&Looks) -> Found + Send + 'static,
    ) -> Result<(), Refused> {
        let place = self.looks.place().ok_or(Refused::Overload)?;
        let (looks, found) = (Arc::clone(&self.looks), work.found.clone());
        self.shared.counts.looks.inc();
        tokio::task::spawn_blocking(move || {
            let _kept = place;
            let _ = found.send(look(&looks));
        });
        Ok(())
    }

    /// Those that have waited long enough.
    fn give_up(&mut self, work: &mut Work, patience: Duration) -> io::Result<()> {
        while let Some((of, waiting)) = work.waiting.first_key_value()
            && waiting.since.elapsed() >= patience
        {
            let (of, from) = (*of, waiting.flow.from.ip());
            self.end(work, of, Err(Refused::NoAnswer(from)))?;
        }
        Ok(())
    }

    fn end(&mut self, work: &mut Work, of: u64, outcome: Result<LetThrough, Refused>) -> io::Result<()> {
        match work.take(of) {
            Some(waiting) => self.decide(work, &waiting, outcome),
            None => Ok(()),
        }
    }

    /// Says what becomes of the packet: to the kernel, to whoever sent it, and in the log.
    fn decide(
        &mut self,
        work: &Work,
        waiting: &Waiting,
        outcome: Result<LetThrough, Refused>,
    ) -> io::Result<()> {
        let dry_run = work.settings.config.dry_run;
        let passes = outcome.is_ok() || dry_run;
        if passes && waiting.flow.transport == Transport::Udp && !waiting.to.is_empty() {
            let cookies = waiting.to.iter().map(|end| end.cookie).collect();
            self.flows.remember(&waiting.flow, cookies);
        }
        self.verdict(waiting.id, passes)?;
        if let Err(why) = &outcome {
            self.audit.refused(&waiting.flow, why, dry_run, Instant::now());
            let told =
                if passes || !self.own.has(waiting.flow.to.ip()) { Told::Silence } else { why.reply() };
            self.refuser.tell(told, &waiting.flow, &waiting.bytes);
        }
        self.shared.counts.decided(&outcome, dry_run && outcome.is_err(), waiting.since.elapsed());
        Ok(())
    }

    fn verdict(&self, id: u32, passes: bool) -> io::Result<()> {
        self.queue.decide(id, if passes { Verdict::Accept } else { Verdict::Drop })
    }

    fn pulse(&mut self, work: &mut Work) {
        self.renew(work);
        let forgotten = self.flows.look(&self.lookup, work.settings.config.udp_again);
        let counts = &self.shared.counts;
        counts.forgotten.inc_by(forgotten);
        counts.pulse(self.number(), self.flows.len(), work.waiting.len());
    }
}

/// What comes next for a packet that arrived.
enum Next {
    /// It belongs to a flow that was let through.
    Known,
    /// Both ends are known.
    Judge,
    /// The other node is asked.
    Ask(Asked),
}

#[cfg(test)]
mod tests;
