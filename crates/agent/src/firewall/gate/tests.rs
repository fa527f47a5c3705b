//! Packets as the queue would hand them over, to a gate in a network namespace of its own.

use super::*;
use crate::firewall::tests::{
    ALICE, BOB, alone, given, identity, listener_of, one_of, settings, shared, skip,
};
use crate::lookup::tests::FORKS;
use crate::lookup::tests::other_users::Other;
use portreeve_model::{AgentKey, OwnerGroups};
use std::net::{SocketAddr, TcpStream};

const HERE: &str = "10.9.0.1";

/// Runs the test with a gate of c1, whose address is [`HERE`]. No other node answers.
fn with_gate(test: impl FnOnce(&mut Gate, &mut Work) + Send) {
    alone(&["10.9.0.1/32"], || {
        let key = || identity().public();
        let nodes: [(&str, AgentKey, &[&str]); 5] = [
            ("c2", key(), &["10.9.0.2", "10.8.0.2"]),
            ("c3", key(), &["10.9.0.3"]),
            ("c4", key(), &["10.9.0.4"]),
            ("c5", key(), &["10.9.0.5"]),
            ("c6", key(), &["10.9.0.6"]),
        ];
        let shared = shared(settings(&identity(), &nodes));
        let mut gate = match Gate::open(0, &shared) {
            Ok(gate) => gate,
            Err(error) => return skip(&format!("needs a kernel that queues packets: {error}")),
        };
        let settings = shared.settings.load_full();
        let ((replies, _replied), (found, _looked)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let mut work = Work {
            peers: Peers::new(Arc::clone(&settings), replies.clone()),
            settings,
            replies,
            found,
            waiting: BTreeMap::new(),
            from_one: HashMap::new(),
            next: 0,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async { test(&mut gate, &mut work) });
    });
}

impl Gate {
    /// A packet comes in by this interface.
    fn gets(&mut self, work: &mut Work, transport: Transport, from: &str, to: SocketAddr, interface: u32) {
        let bytes = packet::tests::made(transport, from, &to.to_string());
        let arrived = Arrived { id: 1, interface: Some(interface), leaves: false, uid: None, bytes };
        self.arrived(work, arrived).unwrap();
    }

    /// The other node says that the connector of the packet which waits is this user.
    fn hears(&mut self, work: &mut Work, uid: u32) {
        let of = *work.waiting.first_key_value().unwrap().0;
        let found = Ok(Connector { uid, groups: ConnectorGroups::NotLooked });
        self.replied(work, Reply { of, found }).unwrap();
    }

    /// The other node says so, and which groups the connector has.
    fn hears_groups(&mut self, work: &mut Work, uid: u32, gids: &[u32]) {
        let of = *work.waiting.first_key_value().unwrap().0;
        let found = Ok(Connector { uid, groups: ConnectorGroups::Gids(gids.into()) });
        self.replied(work, Reply { of, found }).unwrap();
    }

    /// What was decided so far.
    fn decided(&self) -> Vec<(String, u64)> {
        self.shared.counts.so_far().into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::new(HERE.parse().unwrap(), port)
}

fn said(code: &str, count: u64) -> (String, u64) {
    (code.to_owned(), count)
}

#[test]
fn one_silent_node_leaves_places_for_the_others() {
    with_gate(|gate, work| {
        let listener = listener_of(ALICE, here(0));
        let at = listener.local_addr().unwrap();
        let outside = gate.loopback + 1;
        let comes = |gate: &mut Gate, work: &mut Work, from: &str, count: usize| {
            for port in 2000..2000 + count {
                gate.gets(work, Transport::Tcp, &format!("{from}:{port}"), at, outside);
            }
        };
        comes(gate, work, "10.9.0.2", limits::WAITING_OF_ONE);
        comes(gate, work, "10.8.0.2", 5);
        assert_eq!(work.waiting.len(), limits::WAITING_OF_ONE);
        assert_eq!(gate.decided(), [said("overload", 5)]);
        // Another one's wait all the same, until all places are taken.
        for other in ["10.9.0.3", "10.9.0.4", "10.9.0.5"] {
            comes(gate, work, other, limits::WAITING_OF_ONE);
        }
        assert_eq!((work.waiting.len(), gate.decided()), (limits::WAITING, vec![said("overload", 5)]));
        comes(gate, work, "10.9.0.6", 1);
        assert_eq!((work.waiting.len(), gate.decided()), (limits::WAITING, vec![said("overload", 6)]));
        gate.hears(work, ALICE);
        comes(gate, work, "10.9.0.2", 1);
        assert_eq!(work.waiting.len(), limits::WAITING);
        assert_eq!(gate.decided(), [said("overload", 6), said("same-user", 1)]);
    });
}

#[test]
fn a_listener_that_took_the_others_place_gets_nothing() {
    with_gate(|gate, work| {
        let _quiet = FORKS.read().unwrap();
        let outside = gate.loopback + 1;
        let first = listener_of(ALICE, here(0));
        let at = first.local_addr().unwrap();
        gate.gets(work, Transport::Tcp, "10.9.0.2:2000", at, outside);
        gate.hears(work, ALICE);
        assert_eq!(gate.decided(), [said("same-user", 1)]);
        gate.gets(work, Transport::Tcp, "10.9.0.2:2001", at, outside);
        drop(first);
        let _second = listener_of(BOB, at);
        gate.hears(work, ALICE);
        assert_eq!(gate.decided(), [said("changed", 1), said("same-user", 1)]);
        assert!(work.waiting.is_empty());
    });
}

#[test]
fn an_answer_after_patience_lets_nothing_through() {
    with_gate(|gate, work| {
        let listener = listener_of(ALICE, here(0));
        let at = listener.local_addr().unwrap();
        gate.gets(work, Transport::Tcp, "10.9.0.2:2000", at, gate.loopback + 1);
        let late = *work.waiting.first_key_value().unwrap().0;
        gate.give_up(work, work.settings.config.patience).unwrap();
        assert_eq!(work.waiting.len(), 1, "it has time yet");
        gate.give_up(work, Duration::ZERO).unwrap();
        assert_eq!((work.waiting.len(), gate.decided()), (0, vec![said("no-answer", 1)]));
        // Neither the late answer is of any use, nor one for the copy that comes next and has a number of its own.
        let found = || Ok(Connector { uid: ALICE, groups: ConnectorGroups::NotLooked });
        gate.replied(work, Reply { of: late, found: found() }).unwrap();
        gate.gets(work, Transport::Tcp, "10.9.0.2:2000", at, gate.loopback + 1);
        gate.replied(work, Reply { of: late, found: found() }).unwrap();
        assert_eq!((work.waiting.len(), gate.decided()), (1, vec![said("no-answer", 1)]));
        gate.hears(work, ALICE);
        assert_eq!(gate.decided(), [said("no-answer", 1), said("same-user", 1)]);
    });
}

#[test]
fn our_own_address_from_outside_is_forged() {
    with_gate(|gate, work| {
        let listener = listener_of(ALICE, here(0));
        let at = listener.local_addr().unwrap();
        let client = given(TcpStream::connect(at).unwrap(), ALICE);
        let from = client.local_addr().unwrap().to_string();
        gate.gets(work, Transport::Tcp, &from, at, gate.loopback);
        assert_eq!(gate.decided(), [said("same-user", 1)]);
        for (count, from) in [(1, &*from), (2, "10.9.0.1:2000"), (3, "127.0.0.1:2000")] {
            gate.gets(work, Transport::Tcp, from, at, gate.loopback + 1);
            assert_eq!(gate.decided(), [said("forged", count), said("same-user", 1)], "{from}");
        }
        assert!(work.waiting.is_empty());
    });
}

#[test]
fn a_flow_to_many_is_not_known_to_whoever_joins_them() {
    with_gate(|gate, work| {
        let outside = gate.loopback + 1;
        let alices = one_of(ALICE, 0);
        let port = alices.local_addr().unwrap().port();
        let many = SocketAddr::from(([224, 0, 0, 251], port));
        gate.gets(work, Transport::Udp, "10.9.0.2:2000", many, outside);
        gate.hears(work, ALICE);
        gate.gets(work, Transport::Udp, "10.9.0.2:2000", many, outside);
        assert_eq!(gate.decided(), [said("same-user", 1)]);
        assert_eq!((work.waiting.len(), gate.shared.counts.remembered.get()), (0, 1));
        // Bob would hear what comes for alice.
        let _bobs = one_of(BOB, port);
        gate.gets(work, Transport::Udp, "10.9.0.2:2000", many, outside);
        assert_eq!((work.waiting.len(), gate.shared.counts.remembered.get()), (1, 1));
        gate.hears(work, ALICE);
        assert_eq!(gate.decided(), [said("other-user", 1), said("same-user", 1)]);
    });
}

/// Bob has no account, so that no group opens anything of his: what decides is seen all the same.
#[test]
fn where_groups_decided_a_moment_ago_they_do_at_once() {
    with_gate(|gate, work| {
        let listener = listener_of(BOB, here(0));
        let holder = Other::holds(&listener, BOB, 7);
        let at = listener.local_addr().unwrap();
        let outside = gate.loopback + 1;
        gate.gets(work, Transport::Tcp, "10.9.0.2:2000", at, outside);
        gate.hears_groups(work, ALICE, &[7]);
        let (_, waiting) = work.waiting.first_key_value().expect("nobody knows who holds the listener");
        let (flow, to) = (waiting.flow, waiting.to.clone());
        assert!(!gate.looks.expects_groups(&to));
        assert_eq!(gate.looks.listener_at_a_glance(&flow, outside, &to), None);
        // What the thread does which it waits for.
        let (group, login) = gate.looks.listener(&flow, outside, &to);
        assert_eq!(group, OwnerGroups::Egid(7));
        assert!(gate.looks.expects_groups(&to));
        assert_eq!(gate.looks.listener_at_a_glance(&flow, outside, &to), Some((group, login)));
        let of = *work.waiting.first_key_value().unwrap().0;
        gate.looked(work, Found::Listener(of, group, login)).unwrap();
        assert_eq!((work.waiting.len(), gate.decided()), (0, vec![said("group-grants-nothing", 1)]));
        // The next one: no thread, no second question.
        let asked = gate.shared.counts.asked.get();
        gate.gets(work, Transport::Tcp, "10.9.0.2:2001", at, outside);
        gate.hears_groups(work, ALICE, &[7]);
        assert_eq!((work.waiting.len(), gate.decided()), (0, vec![said("group-grants-nothing", 2)]));
        assert_eq!(gate.shared.counts.asked.get(), asked + 1);
        // It is asked for all the same where the other node told none.
        gate.gets(work, Transport::Tcp, "10.9.0.2:2002", at, outside);
        gate.hears(work, ALICE);
        assert_eq!((work.waiting.len(), gate.shared.counts.asked.get()), (1, asked + 3));
        gate.hears_groups(work, ALICE, &[7]);
        assert_eq!(gate.decided(), [said("group-grants-nothing", 3)]);
        // And of another one that listens there now nothing was seen.
        drop((holder, listener));
        let _second = listener_of(BOB, at);
        gate.gets(work, Transport::Tcp, "10.9.0.2:2003", at, outside);
        gate.hears_groups(work, ALICE, &[7]);
        assert_eq!((work.waiting.len(), gate.decided()), (1, vec![said("group-grants-nothing", 3)]));
    });
}
