//! Flows of UDP that began on this node. What comes back on them is an answer, and nobody is asked about it; so it must not
//! go on when another user could get it. Before: the gates note whose datagram left. After: every two seconds the kernel's
//! table is read, and it forgets each flow of which what comes back does not go to that user alone.
//! Invariant: a flow for whose note there was no room does not go on: it is forgotten at the next look, and what comes then is
//! asked about. One that the gates were not asked about is taken up at the first look that finds it. Where the sockets can't be
//! read, no flow goes on.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portreeve_model::Port;
use portreeve_model::wire::firewall::{Flow, Transport};
use portreeve_sys::Connections;

use super::audit::Seldom;
use super::{Shared, limits};
use crate::lookup::{Lookup, Takers};
use crate::own_addresses::OwnAddresses;

/// Whose datagrams began the flows.
#[derive(Default)]
pub(super) struct Sent(Mutex<Known>);

#[derive(Default)]
struct Known {
    notes: HashMap<Flow, Note>,
    /// How many of them are a user's.
    of_one: HashMap<u32, usize>,
    /// The number of the last look.
    look: u64,
    /// Whether there has been no room for a note since then.
    has_overflowed: bool,
}

#[derive(Clone, Copy)]
struct Note {
    uid: u32,
    /// It must not be taken up again while the kernel knows it.
    has_ended: bool,
    /// The last look that began before it was noted, or that found the flow in the kernel's table.
    look: u64,
}

impl Sent {
    /// A datagram of the flow leaves, and this user sent it.
    pub(super) fn note(&self, flow: &Flow, uid: u32) {
        let mut known = self.known();
        // Whoever had the port before: an answer is whose datagram was the last.
        known.strike(flow);
        known.has_overflowed |= !known.take_up(flow, uid);
    }

    /// Looks at the flows that the kernel knows. `read` finds them, and the one user who gets what comes back on each.
    ///
    /// # Errors
    /// What `read` failed with, or `forget` first: all the others have been looked at.
    fn look<O: Fn(&Flow) -> Option<u32>>(
        &self,
        read: impl FnOnce() -> io::Result<(Vec<Flow>, O)>,
        mut forget: impl FnMut(&Flow) -> io::Result<()>,
    ) -> io::Result<()> {
        let has_overflowed = {
            let mut known = self.known();
            known.look += 1;
            std::mem::take(&mut known.has_overflowed)
        };
        let (flows, owner) = read().inspect_err(|_| self.known().has_overflowed |= has_overflowed)?;
        let mut outcome = Ok(());
        for flow in flows {
            let goes_on = {
                let mut known = self.known();
                match (known.notes.get(&flow).copied(), owner(&flow)) {
                    // Another datagram began it while the sockets were read: that is for the next look.
                    (Some(note), _) if note.look == known.look => !note.has_ended,
                    (Some(note), Some(uid)) if uid == note.uid && !note.has_ended => known.seen(&flow),
                    // It began at a port that the rules leave alone, or is known to the kernel by the address that was
                    // translated.
                    (None, Some(uid)) if !has_overflowed => known.take_up(&flow, uid),
                    _ => known.end(&flow),
                }
            };
            if !goes_on {
                outcome = outcome.and(forget(&flow));
            }
        }
        self.known().strike_ended();
        outcome
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Notes a flow of which there is no note, and says whether there was room.
    fn take_up(&mut self, flow: &Flow, uid: u32) -> bool {
        let of_one = self.of_one.get(&uid).copied().unwrap_or(0);
        let has_room = self.notes.len() < limits::OUTGOING && of_one < limits::OUTGOING_OF_ONE;
        if has_room {
            self.notes.insert(*flow, Note { uid, has_ended: false, look: self.look });
            self.of_one.insert(uid, of_one + 1);
        }
        has_room
    }

    /// It goes on.
    fn seen(&mut self, flow: &Flow) -> bool {
        if let Some(note) = self.notes.get_mut(flow) {
            note.look = self.look;
        }
        true
    }

    /// It does not go on.
    fn end(&mut self, flow: &Flow) -> bool {
        if let Some(note) = self.notes.get_mut(flow) {
            (note.look, note.has_ended) = (self.look, true);
        }
        false
    }

    /// Those that the kernel does not know any more. What was noted while its table was read may not have been in it yet,
    /// so that a note is kept until two looks have not found its flow.
    fn strike_ended(&mut self) {
        let ended: Vec<Flow> =
            self.notes.iter().filter(|(_, note)| note.look + 1 < self.look).map(|(flow, _)| *flow).collect();
        for flow in ended {
            self.strike(&flow);
        }
    }

    fn strike(&mut self, flow: &Flow) {
        let Some(Note { uid, .. }) = self.notes.remove(flow) else { return };
        match self.of_one.get_mut(&uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.of_one.remove(&uid);
            }
        }
    }
}

/// What looks at them.
pub(super) struct Outgoing {
    connections: Connections,
    lookup: Lookup,
    own: OwnAddresses,
    /// The rules ask about no lower one, and the gates note no flow from there.
    first_port: Port,
    shared: Arc<Shared>,
    failed: Seldom,
}

impl Outgoing {
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            connections: Connections::open()?,
            lookup: Lookup::open()?,
            own: OwnAddresses::default(),
            first_port: shared.settings.load().config.first_port,
            shared: Arc::clone(shared),
            failed: Seldom::new(),
        })
    }

    /// Looks until the process ends, or ends it: flows that nobody looks at would be anybody's. On a thread of its own, since a
    /// large table takes a while, and answers must not wait for it.
    pub(super) fn serve(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let ended = runtime.map(|runtime| runtime.block_on(runtime.spawn(self.watch())));
        tracing::error!(?ended, "what looks at flows of UDP that began here has ended");
        std::process::exit(1);
    }

    async fn watch(mut self) {
        loop {
            tokio::time::sleep(limits::OUTGOING_LOOK).await;
            if let Err(error) = self.look()
                && self.failed.now()
            {
                tracing::warn!(%error, "flows of UDP that began here can't be looked at as they should");
            }
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let Self { connections, lookup, own, first_port, shared, .. } = self;
        let mut seen = Ok(());
        let known = connections.udp_flows();
        let looked = shared.sent.look(
            || {
                let flows = known?
                    .into_iter()
                    .filter(|(from, _)| from.port() >= first_port.get() && own.has(from.ip()));
                let flows: Vec<Flow> = flows.map(|(from, to)| flow(from, to)).collect();
                let takers = lookup.takers(flows.iter().map(|sent| sent.from.port()));
                let takers = takers.unwrap_or_else(|error| {
                    seen = Err(error);
                    Takers::default()
                });
                // What comes back goes the other way.
                Ok((flows, move |sent: &Flow| takers.user(&flow(sent.to, sent.from))))
            },
            |sent| connections.forget_udp(sent.from, sent.to).map(drop),
        );
        seen.and(looked)
    }
}

fn flow(from: SocketAddr, to: SocketAddr) -> Flow {
    Flow { transport: Transport::Udp, from, to }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use std::net::UdpSocket;

    use nix::sys::socket::{setsockopt, sockopt};

    use crate::firewall::tests::{ALICE, BOB, alone, given, identity, one_of, settings, shared, shell, skip};
    use crate::lookup::tests::FORKS;

    /// The flow of this number, to one place.
    fn nth(number: usize) -> Flow {
        let number = u32::try_from(number).unwrap();
        let from = Ipv4Addr::from(0x0A00_0000 + (number >> 8));
        let port = 30_000 + u16::try_from(number & 0xFF).unwrap();
        flow((from, port).into(), ([192, 0, 2, 9], 53).into())
    }

    /// What is forgotten of these flows, each of which is one user's now.
    fn forgotten(sent: &Sent, now: &[(Flow, Option<u32>)]) -> Vec<Flow> {
        let mut forgotten = Vec::new();
        let owner = |flow: &Flow| now.iter().find(|(of, _)| of == flow).and_then(|(_, uid)| *uid);
        let forget = |flow: &Flow| {
            forgotten.push(*flow);
            Ok(())
        };
        sent.look(|| Ok((now.iter().map(|(flow, _)| *flow).collect(), owner)), forget).unwrap();
        forgotten
    }

    /// How many notes there are, and of how many users.
    fn counts(sent: &Sent) -> (usize, usize) {
        let known = sent.known();
        (known.notes.len(), known.of_one.len())
    }

    #[test]
    fn a_flow_goes_on_while_its_senders_sockets_alone_have_its_port() {
        let sent = Sent::default();
        let flow = nth(1);
        sent.note(&flow, ALICE);
        for _ in 0..3 {
            assert_eq!(forgotten(&sent, &[(flow, Some(ALICE))]), []);
        }
        assert_eq!(forgotten(&sent, &[(flow, Some(BOB))]), [flow], "another's socket");
        assert_eq!(forgotten(&sent, &[(flow, Some(BOB))]), [flow], "nobody has noted it since");
        assert_eq!(forgotten(&sent, &[(flow, Some(ALICE))]), [flow], "nor she");
        sent.note(&flow, BOB);
        assert_eq!(forgotten(&sent, &[(flow, Some(BOB))]), []);
        assert_eq!(forgotten(&sent, &[(flow, None)]), [flow], "it is gone, or several users'");
        for uid in [BOB, ALICE] {
            sent.note(&flow, uid);
        }
        assert_eq!(forgotten(&sent, &[(flow, Some(BOB))]), [flow], "who sent last does not have it");
        for _ in 0..2 {
            forgotten(&sent, &[]);
        }
        assert_eq!(counts(&sent), (0, 0));
    }

    #[test]
    fn a_flow_that_the_gates_were_not_asked_about_is_whose_socket_has_the_port_at_first() {
        let sent = Sent::default();
        for (now, ends) in [
            (Some(ALICE), false),
            (Some(ALICE), false),
            (Some(BOB), true),
            (Some(BOB), true),
            (Some(ALICE), true),
            (None, true),
        ] {
            assert_eq!(forgotten(&sent, &[(nth(1), now)]).len(), usize::from(ends), "{now:?}");
        }
        assert_eq!(forgotten(&sent, &[(nth(2), None)]), [nth(2)]);
    }

    #[test]
    fn whoever_has_too_many_flows_loses_their_own_alone() {
        let sent = Sent::default();
        let (first, most) = (nth(0), limits::OUTGOING_OF_ONE);
        sent.note(&first, BOB);
        for number in 1..=most + 1 {
            sent.note(&nth(number), ALICE);
        }
        assert_eq!(counts(&sent), (1 + most, 2));
        // One more of hers, and another one of his.
        let (over, second) = (nth(most + 1), nth(most + 2));
        sent.note(&second, BOB);
        let now = [(first, Some(BOB)), (over, Some(ALICE)), (second, Some(BOB)), (nth(most), Some(ALICE))];
        assert_eq!(forgotten(&sent, &now), [over]);
        // Where the table is full, nobody's note has made room for another's.
        for uid in 0..4 {
            for number in 0..most {
                sent.note(&nth((uid + 2) * limits::OUTGOING + number), u32::try_from(uid).unwrap());
            }
        }
        assert_eq!(counts(&sent).0, limits::OUTGOING);
        // What is noted already stays so when its owner sends again.
        let third = nth(most + 3);
        for flow in [&first, &third] {
            sent.note(flow, BOB);
        }
        let bobs = |flow| (flow, Some(BOB));
        assert_eq!(forgotten(&sent, &[first, third, second].map(bobs)), [third]);
        assert_eq!(forgotten(&sent, &[first, second].map(bobs)), []);
        // All other notes have ended by now, and there is room.
        assert_eq!(counts(&sent), (2, 1));
        sent.note(&third, BOB);
        assert_eq!(forgotten(&sent, &[bobs(third)]), []);
    }

    #[test]
    fn a_note_outlives_one_look_that_came_before_its_flow() {
        let sent = Sent::default();
        sent.note(&nth(1), ALICE);
        assert_eq!(forgotten(&sent, &[]), []);
        assert_eq!(forgotten(&sent, &[(nth(1), Some(ALICE))]), []);
        for _ in 0..2 {
            assert_eq!((forgotten(&sent, &[]), counts(&sent)), (vec![], (1, 1)));
            sent.note(&nth(1), ALICE);
        }
        for _ in 0..2 {
            forgotten(&sent, &[]);
        }
        assert_eq!(counts(&sent), (0, 0));
    }

    #[test]
    fn whoever_shares_the_port_by_an_interface_of_their_own_ends_the_kernels_flow() {
        alone(&["10.9.0.1/32", "10.9.0.2/32"], || {
            // With this, the kernel keeps its table here.
            if !shell("iptables -t mangle -A INPUT -p udp -m conntrack --ctstate NEW") {
                return skip("needs iptables and conntrack");
            }
            let _quiet = FORKS.read().unwrap();
            let shared = shared(settings(&identity(), &[]));
            let mut outgoing = Outgoing::open(&shared).unwrap();
            let alices = one_of(ALICE, 0);
            let port = alices.local_addr().unwrap().port();
            let there = given(UdpSocket::bind("10.9.0.2:0").unwrap(), 0);
            let begins = |outgoing: &mut Outgoing| {
                alices.send_to(b"x", there.local_addr().unwrap()).unwrap();
                let flows = outgoing.connections.udp_flows().unwrap();
                let [(from, to)] = flows[..] else { panic!("{flows:?}") };
                shared.sent.note(&flow(from, to), ALICE);
                outgoing.look().unwrap();
                outgoing.connections.udp_flows().unwrap()
            };
            assert_eq!(begins(&mut outgoing).len(), 1, "hers alone");
            let bobs = one_of(BOB, port);
            setsockopt(&bobs, sockopt::BindToDevice, &"lo".into()).unwrap();
            outgoing.look().unwrap();
            assert_eq!(outgoing.connections.udp_flows().unwrap(), []);
            drop(bobs);
            assert_eq!(begins(&mut outgoing).len(), 1, "hers alone again");
            // Below the first port the gates were asked about nothing.
            let _bobs = one_of(BOB, port);
            outgoing.first_port = Port::new(port + 1).unwrap();
            outgoing.look().unwrap();
            assert_eq!(outgoing.connections.udp_flows().unwrap().len(), 1);
        });
    }

    #[test]
    fn what_begins_while_the_sockets_are_read_is_for_the_next_look() {
        let sent = Sent::default();
        sent.note(&nth(1), ALICE);
        let alices = |_: &Flow| Some(ALICE);
        let read = || {
            // He has the port by now, and his datagram began it anew; of hers is what was read before.
            sent.note(&nth(1), BOB);
            Ok((vec![nth(1)], alices))
        };
        sent.look(read, |flow| panic!("{flow:?} is forgotten")).unwrap();
        assert_eq!(forgotten(&sent, &[(nth(1), Some(ALICE))]), [nth(1)], "but then it is looked at");
    }

    #[test]
    fn a_look_that_failed_does_not_make_room() {
        let sent = Sent::default();
        for number in 0..=limits::OUTGOING_OF_ONE {
            sent.note(&nth(number), ALICE);
        }
        let failing = || Err::<(Vec<Flow>, fn(&Flow) -> Option<u32>), _>(io::ErrorKind::Other.into());
        sent.look(failing, |flow| panic!("{flow:?} is forgotten")).unwrap_err();
        // By now there is room, and it was not noted all the same.
        sent.known().strike(&nth(0));
        let over = nth(limits::OUTGOING_OF_ONE);
        assert_eq!(forgotten(&sent, &[(over, Some(ALICE))]), [over]);
    }

    #[test]
    fn a_flow_that_cant_be_forgotten_keeps_none_from_it_and_is_tried_again() {
        let sent = Sent::default();
        for number in [1, 2] {
            sent.note(&nth(number), ALICE);
        }
        for _ in 0..2 {
            let mut tried = Vec::new();
            let looked = sent.look(
                || Ok((vec![nth(1), nth(2)], |_: &Flow| Some(BOB))),
                |flow| {
                    tried.push(*flow);
                    if *flow == nth(1) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
                },
            );
            assert!(looked.is_err());
            assert_eq!(tried, [nth(1), nth(2)]);
        }
    }
}
