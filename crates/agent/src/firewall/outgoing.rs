//! Flows of UDP that began on this node. What comes back on them is an answer, and nobody is asked about it; so it must not
//! go on when the port here has another owner. Before: the gates note whose socket had the port when a datagram left. After:
//! every two seconds the kernel's table is read, and it forgets each flow whose socket is another one by now, or gone.
//! Invariant: a flow for whose note there was no room does not go on: it is forgotten at the next look, and what comes then is
//! asked about. One that the gates were not asked about is taken up at the first look that finds it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portreeve_model::wire::firewall::{Flow, Transport};
use portreeve_sys::Connections;

use super::audit::Seldom;
use super::{Shared, limits};
use crate::lookup::Lookup;
use crate::own_addresses::OwnAddresses;

/// No socket's cookie: whoever sent it had closed, or is exempt and need not have the port.
pub(super) const NOBODY: u64 = 0;

/// Whose socket had the port when a flow began.
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
    /// [`NOBODY`] also where it has ended: it must not be taken up again while the kernel knows it.
    cookie: u64,
    /// The last look before it was noted, or that found the flow in the kernel's table.
    look: u64,
}

impl Sent {
    /// A datagram of the flow leaves, and this socket of this user's has the port.
    pub(super) fn note(&self, flow: &Flow, uid: u32, cookie: u64) {
        let mut known = self.known();
        // Whoever had the port before: an answer is whose datagram was the last.
        known.strike(flow);
        known.has_overflowed |= !known.take_up(flow, uid, cookie);
    }

    /// Looks at the flows that the kernel knows. `owner`: whose socket gets what comes back on it now, and its cookie.
    ///
    /// # Errors
    /// What `forget` failed with first: all the others have been looked at.
    fn look(
        &self,
        flows: impl IntoIterator<Item = Flow>,
        owner: impl Fn(&Flow) -> Option<(u32, u64)>,
        mut forget: impl FnMut(&Flow) -> io::Result<()>,
    ) -> io::Result<()> {
        let has_overflowed = {
            let mut known = self.known();
            known.look += 1;
            std::mem::take(&mut known.has_overflowed)
        };
        let mut outcome = Ok(());
        for flow in flows {
            let before = self.known().cookie(&flow);
            let now = owner(&flow);
            let goes_on = {
                let mut known = self.known();
                // Another datagram may have begun it anew.
                let is_as_before = known.cookie(&flow) == before;
                match (before, now) {
                    (Some(before), Some((_, cookie))) if before == cookie => known.seen(&flow),
                    // It began at a port that the rules leave alone, or is known to the kernel by the address that was
                    // translated.
                    (None, Some((uid, cookie))) if is_as_before && !has_overflowed => {
                        known.take_up(&flow, uid, cookie)
                    }
                    _ if is_as_before => known.end(&flow),
                    _ => false,
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
    fn cookie(&self, flow: &Flow) -> Option<u64> {
        self.notes.get(flow).map(|note| note.cookie)
    }

    /// Notes a flow of which there is no note, and says whether there was room.
    fn take_up(&mut self, flow: &Flow, uid: u32, cookie: u64) -> bool {
        let of_one = self.of_one.get(&uid).copied().unwrap_or(0);
        let has_room = self.notes.len() < limits::OUTGOING && of_one < limits::OUTGOING_OF_ONE;
        if has_room {
            self.notes.insert(*flow, Note { uid, cookie, look: self.look });
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
            (note.look, note.cookie) = (self.look, NOBODY);
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
    shared: Arc<Shared>,
    failed: Seldom,
}

impl Outgoing {
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            connections: Connections::open()?,
            lookup: Lookup::open()?,
            own: OwnAddresses::default(),
            shared: Arc::clone(shared),
            failed: Seldom::new(),
        })
    }

    /// Looks for as long as the firewall runs.
    pub(super) async fn watch(mut self) {
        loop {
            tokio::time::sleep(limits::OUTGOING_LOOK).await;
            // A large table takes milliseconds to read.
            let looked = tokio::task::spawn_blocking(move || {
                let looked = self.look();
                (self, looked)
            });
            let Ok((back, looked)) = looked.await else {
                tracing::error!("what looks at flows of UDP that began here has ended");
                std::process::exit(1);
            };
            self = back;
            if let Err(error) = looked
                && self.failed.now()
            {
                tracing::warn!(%error, "flows of UDP that began here can't be looked at: they go on as they are");
            }
        }
    }

    fn look(&self) -> io::Result<()> {
        let flows = self.connections.udp_flows()?.into_iter().filter(|(from, _)| {
            from.port() >= portreeve_model::wire::agent::FIRST_PORT && self.own.has(from.ip())
        });
        self.shared.sent.look(
            flows.map(|(from, to)| flow(from, to)),
            |sent| {
                // Whoever gets what comes back.
                let end = self.lookup.datagrams_go_to(&flow(sent.to, sent.from));
                end.ok().map(|end| (end.uid, end.cookie))
            },
            |sent| self.connections.forget_udp(sent.from, sent.to).map(drop),
        )
    }
}

fn flow(from: SocketAddr, to: SocketAddr) -> Flow {
    Flow { transport: Transport::Udp, from, to }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::firewall::tests::{ALICE, BOB};

    /// The flow of this number, to one place.
    fn nth(number: usize) -> Flow {
        let number = u32::try_from(number).unwrap();
        let from = Ipv4Addr::from(0x0A00_0000 + (number >> 8));
        let port = 30_000 + u16::try_from(number & 0xFF).unwrap();
        flow((from, port).into(), ([192, 0, 2, 9], 53).into())
    }

    /// What is forgotten of these flows, each of which has a socket now.
    fn forgotten(sent: &Sent, now: &[(Flow, Option<u64>)]) -> Vec<Flow> {
        let mut forgotten = Vec::new();
        let cookie = |flow: &Flow| now.iter().find(|(of, _)| of == flow).and_then(|(_, cookie)| *cookie);
        let owner = |flow: &Flow| cookie(flow).map(|cookie| (ALICE, cookie));
        let forget = |flow: &Flow| {
            forgotten.push(*flow);
            Ok(())
        };
        sent.look(now.iter().map(|(flow, _)| *flow), owner, forget).unwrap();
        forgotten
    }

    /// How many notes there are, and of how many users.
    fn counts(sent: &Sent) -> (usize, usize) {
        let known = sent.known();
        (known.notes.len(), known.of_one.len())
    }

    #[test]
    fn a_flow_goes_on_while_the_same_socket_has_its_port() {
        let sent = Sent::default();
        let flow = nth(1);
        sent.note(&flow, ALICE, 7);
        for _ in 0..3 {
            assert_eq!(forgotten(&sent, &[(flow, Some(7))]), []);
        }
        assert_eq!(forgotten(&sent, &[(flow, Some(8))]), [flow], "another socket");
        assert_eq!(forgotten(&sent, &[(flow, Some(8))]), [flow], "nobody has noted it since");
        sent.note(&flow, ALICE, 8);
        assert_eq!(forgotten(&sent, &[(flow, Some(8))]), []);
        assert_eq!(forgotten(&sent, &[(flow, None)]), [flow], "it is gone");
        for cookie in [8, NOBODY] {
            sent.note(&flow, ALICE, cookie);
        }
        assert_eq!(forgotten(&sent, &[(flow, Some(8))]), [flow], "who sent last had no socket");
        for _ in 0..2 {
            forgotten(&sent, &[]);
        }
        assert_eq!(counts(&sent), (0, 0));
    }

    #[test]
    fn a_flow_that_the_gates_were_not_asked_about_is_whose_socket_has_the_port_at_first() {
        let sent = Sent::default();
        for (now, ends) in
            [(Some(7), false), (Some(7), false), (Some(8), true), (Some(8), true), (None, true)]
        {
            assert_eq!(forgotten(&sent, &[(nth(1), now)]).len(), usize::from(ends), "{now:?}");
        }
        assert_eq!(forgotten(&sent, &[(nth(2), None)]), [nth(2)]);
    }

    #[test]
    fn whoever_has_too_many_flows_loses_their_own_alone() {
        let sent = Sent::default();
        let (first, most) = (nth(0), limits::OUTGOING_OF_ONE);
        sent.note(&first, BOB, 1);
        for number in 1..=most + 1 {
            sent.note(&nth(number), ALICE, 2);
        }
        assert_eq!(counts(&sent), (1 + most, 2));
        // One more of hers, and another one of his.
        let (over, second) = (nth(most + 1), nth(most + 2));
        sent.note(&second, BOB, 1);
        let now = [(first, Some(1)), (over, Some(2)), (second, Some(1)), (nth(most), Some(2))];
        assert_eq!(forgotten(&sent, &now), [over]);
        // Where the table is full, nobody's note has made room for another's.
        for uid in 0..4 {
            for number in 0..most {
                sent.note(&nth((uid + 2) * limits::OUTGOING + number), u32::try_from(uid).unwrap(), 3);
            }
        }
        assert_eq!(counts(&sent).0, limits::OUTGOING);
        // What is noted already stays so when its owner sends again.
        let third = nth(most + 3);
        for flow in [&first, &third] {
            sent.note(flow, BOB, 1);
        }
        assert_eq!(forgotten(&sent, &[(first, Some(1)), (third, Some(1)), (second, Some(1))]), [third]);
        assert_eq!(forgotten(&sent, &[(first, Some(1)), (second, Some(1))]), []);
        // All other notes have ended by now, and there is room.
        assert_eq!(counts(&sent), (2, 1));
        sent.note(&third, BOB, 1);
        assert_eq!(forgotten(&sent, &[(third, Some(1))]), []);
    }

    #[test]
    fn a_note_outlives_one_look_that_came_before_its_flow() {
        let sent = Sent::default();
        sent.note(&nth(1), ALICE, 7);
        assert_eq!(forgotten(&sent, &[]), []);
        assert_eq!(forgotten(&sent, &[(nth(1), Some(7))]), []);
        for _ in 0..2 {
            assert_eq!((forgotten(&sent, &[]), counts(&sent)), (vec![], (1, 1)));
            sent.note(&nth(1), ALICE, 7);
        }
        for _ in 0..2 {
            forgotten(&sent, &[]);
        }
        assert_eq!(counts(&sent), (0, 0));
    }

    #[test]
    fn a_flow_that_cant_be_forgotten_keeps_none_from_it_and_is_tried_again() {
        let sent = Sent::default();
        for number in [1, 2] {
            sent.note(&nth(number), ALICE, 7);
        }
        for _ in 0..2 {
            let mut tried = Vec::new();
            let looked = sent.look(
                [nth(1), nth(2)],
                |_| Some((ALICE, 8)),
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
