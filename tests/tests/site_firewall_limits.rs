//! The firewall on an installed site at its limits: a queue that is full, a port that two users share, a control socket that one
//! user wants for themselves, the first port that is asked about, root without its exemption, and nftables.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::await_holding_lock,
    reason = "that others wait is what it is held for; each has a thread of its own"
)]

use std::time::Duration;

use portreeve_tests::world::site::guarded;
use portreeve_tests::world::{Finished, skip};

const REFUSED: &str = "EHOSTUNREACH";
const REFUSED_6: &str = "EACCES";
/// Packets that wait in a queue, at the most.
const QUEUE: u64 = 8192;
/// A look every two seconds, and a busy machine.
const WHERE_IT_BEGAN: Duration = Duration::from_secs(4);
const ASK: &str = "ask('d', 'hello', 0.2)";

#[test]
fn while_a_queue_is_full_nothing_gets_through_and_then_it_goes_on() {
    guarded("while_a_queue_is_full_nothing_gets_through", |site| async {
        let _alone = site.alone();
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let [mut alice, mut bob, mut root] =
            ["alice", "bob", "root"].map(|user| site.player("c2", user, None));
        let lost = || site.firewalls_count("c1", "lost_full_total{queue=\"0\"}");
        let let_through = || site.firewalls_count("c1", "let_through_total{rule=\"same-user\"}");
        let before = (lost(), let_through());
        let pid = site.main_pid("c1", "portreeve-firewall");
        let stuck = site.breaks("c1", &format!("kill -STOP {pid}"), &format!("kill -CONT {pid}"));
        // A queue may hold some more than are seen to wait, on their way to the daemon.
        root.must(&format!("flood('10.77.0.12', 20000, 16000, '10.77.0.11', {port})"), "sent");
        let state = site.root("c1", "cat /proc/net/netfilter/nfnetlink_queue");
        let state: Vec<u64> = state.split_whitespace().map(|word| word.parse().unwrap()).collect();
        println!("    {} packets wait, {} were lost", state[2], state[5]);
        assert!(state[0] == 0 && state[2] == QUEUE && state[5] >= 16_000 - QUEUE, "{state:?}");
        // What comes now is lost as well, whoever sends it.
        for player in [&mut alice, &mut bob] {
            player.must(&format!("begin('b', '10.77.0.11', {port})"), "begun");
            player.must("connected('b', 0.5)", "timeout");
        }
        listener.must("accept('l', 'a', 0.05)", "timeout");
        let Finished { out: said, status, .. } = site.checks_firewall("c1");
        assert!(status == 1 && said.contains("did not answer in time"), "{said}");
        assert!(said.contains("its rules are in force, so nobody gets in"), "{said}");
        stuck.mend();
        // A SYN is sent again after one, two, four and eight seconds.
        let took = alice.must("connected('b')", "connected");
        bob.must("connected('b')", REFUSED);
        println!("    connected {took:?} after it went on");
        listener.must("accept('l', 'a')", "accepted");
        listener.must("accept('l', 'none', 0.05)", "timeout");
        let after = (lost(), let_through());
        assert!(after.0 >= before.0 + 16_000 - QUEUE, "{before:?} {after:?}");
        assert_eq!(after.1, before.1 + 1, "hers alone");
        let Finished { out: said, status, .. } = site.checks_firewall("c1");
        assert!(status == 0 && said.contains("warning: queue 0 lost "), "{said}");
        assert_eq!(site.main_pid("c1", "portreeve-firewall"), pid);
    });
}

#[test]
fn whoever_shares_a_flows_port_by_an_interface_gets_no_answers_for_long() {
    guarded("whoever_shares_a_flows_port_by_an_interface", |site| async {
        let _alone = site.alone();
        let mut there = site.player("c2", "alice", None);
        let port = there.takes_datagrams("0.0.0.0");
        let mut own = site.player("c1", "alice", None);
        let from: u16 = own.does("shared('d')").said.parse().unwrap();
        there.begins("told('d')");
        own.must(&format!("say_to('d', 'hello', '10.77.0.12', {port})"), "said");
        own.must("hear('d')", "olleh");
        assert_eq!(there.ends("told").said, "hello");
        // Asked without the interface, the kernel names hers; what comes by it goes to his.
        let mut bob = site.player("c1", "bob", None);
        bob.must(&format!("shared('d', {from}, 'inside')"), &from.to_string());
        there.must(&format!("towards('d', '10.77.0.11', {from})"), "towards");
        println!(
            "    two users have the port; refused after {:?}",
            there.until(ASK, REFUSED, WHERE_IT_BEGAN)
        );
        bob.until("hear('d', 0.05)", "timeout", WHERE_IT_BEGAN);
        for _ in 0..3 {
            there.must(ASK, REFUSED);
        }
        bob.must("hear('d', 0.05)", "timeout");
        // What looks at them has its own thread.
        let pid = site.main_pid("c1", "portreeve-firewall");
        let threads = site.root("c1", &format!("cat /proc/{pid}/task/*/comm"));
        assert!(threads.lines().any(|name| name == "udp-flows"), "{threads}");
    });
}

#[test]
fn whoever_takes_all_places_of_the_control_socket_takes_nobody_elses() {
    guarded("whoever_takes_all_places_of_the_control_socket", |site| async {
        let _alone = site.alone();
        let knocks = "knocks('/run/portreeve-firewall/control.sock', 40)";
        let mut alice = site.player("c1", "alice", None);
        alice.must(knocks, "4");
        let metrics = "/usr/sbin/portreeve-agent firewall --metrics";
        let hers = site.shell("c1", "alice", metrics);
        assert!(hers.status == 1 && hers.err.contains("is asked too much at once"), "{hers:?}");
        assert_eq!(site.shell("c1", "bob", metrics).status, 0);
        // All of them together leave root's.
        for user in ["bob", "carol", "dave"] {
            site.player("c1", user, None).must(knocks, "4");
        }
        assert_eq!(site.shell("c1", "root", metrics).status, 0);
    });
}

#[test]
fn the_first_port_is_the_rules_and_the_daemons() {
    guarded("the_first_port_is_the_rules_and_the_daemons", |site| async {
        let _alone = site.alone();
        let first = site.restarted("c1", "first_port", "3000");
        let mut alice = site.player("c1", "alice", None);
        let mut bob = site.player("c2", "bob", None);
        for (port, outcome) in [(2999, "connected"), (3000, REFUSED)] {
            alice.must(&format!("listen('l', '0.0.0.0', {port})"), &port.to_string());
            assert_eq!(bob.connects(("10.77.0.11", port)).said, outcome, "{port}");
            let why = site.why("c1", "root", "c2:3333", &format!("c1:{port}"));
            let is_asked = outcome == REFUSED;
            assert_eq!(why.out.contains("is not asked about"), !is_asked, "{why:?}");
            assert_eq!(why.status, i32::from(is_asked), "{why:?}");
        }
        drop(first);
        alice.must("listen('l', '0.0.0.0', 2999)", "2999");
        assert_eq!(bob.connects(("10.77.0.11", 2999)).said, REFUSED);
    });
}

#[test]
fn without_its_exemption_roots_port_is_roots_alone() {
    guarded("without_its_exemption_roots_port_is_roots_alone", |site| async {
        let _alone = site.alone();
        let none = site.reconfigured("c1", "exempt_listeners", "[]");
        let (mut root, mut of_proj) =
            (site.player("c1", "root", None), site.player("c1", "root", Some("proj")));
        let cursor = site.journals_end("c1");
        for listener in [&mut root, &mut of_proj] {
            let port = listener.listens("::");
            for (node, user) in [("c1", "alice"), ("c2", "bob"), ("c2", "root")] {
                let mut player = site.player(node, user, None);
                for (address, refused) in [("10.77.0.11", REFUSED), ("fd77::11", REFUSED_6)] {
                    let expected = if user == "root" { "connected" } else { refused };
                    let outcome = player.connects((address, port)).said;
                    assert_eq!(outcome, expected, "{user} on {node} to {address}");
                }
            }
        }
        let datagrams = root.takes_datagrams("0.0.0.0");
        let mut bob = site.player("c2", "bob", None);
        bob.takes_datagrams("0.0.0.0");
        bob.must(&format!("towards('d', '10.77.0.11', {datagrams})"), "towards");
        bob.must(ASK, REFUSED);
        root.must("hear('d', 0.05)", "timeout");
        let records = site.refusals("c1", &cursor);
        assert_eq!(records.len(), 9, "{records:#?}");
        assert!(records.iter().all(|line| line.contains("reason=\"root-socket\"")), "{records:#?}");
        drop(none);
        let port = root.listens("0.0.0.0");
        assert_eq!(bob.connects(("10.77.0.11", port)).said, "connected");
    });
}

#[test]
fn rules_for_a_queue_that_nobody_serves_are_a_problem() {
    guarded("rules_for_a_queue_that_nobody_serves", |site| async {
        let _alone = site.alone();
        let install = "portreeve-agent rules install";
        let others = site.breaks("c2", &format!("{install} --queues 7 --without-daemon"), install);
        let Finished { out: said, status, .. } = site.checks_firewall("c2");
        assert!(status == 1 && said.contains("into queue 7, which nobody serves"), "{said}");
        others.mend();
        let Finished { out: said, status, .. } = site.checks_firewall("c2");
        assert!(status == 0 && !said.contains("nobody serves"), "{said}");
    });
}

#[test]
fn rules_of_nftables_hand_over_what_those_of_iptables_do() {
    let name = "rules_of_nftables_hand_over_what_those_of_iptables_do";
    guarded(name, move |site| async move {
        let _alone = site.alone();
        let install = "portreeve-agent rules install --backend nftables";
        let back = "portreeve-agent rules remove && portreeve-agent rules install";
        let done = site.shell("c1", "root", install);
        if done.status != 0 {
            assert!(done.err.contains("nftables: refused, and nothing was changed"), "{done:?}");
            let why = done.err.lines().last().unwrap_or_default();
            return skip(name, &format!("needs a kernel with nftables' queue statement: {why}"));
        }
        let installed = site.breaks("c1", "nft list table inet portreeve | grep --quiet queue", back);
        site.root("c1", "! iptables --table mangle --list-rules | grep PORTREEVE");
        let mut alice = site.player("c1", "alice", None);
        let (port, datagrams) = (alice.listens("::"), alice.takes_datagrams("0.0.0.0"));
        for node in ["c1", "c2"] {
            let [mut own, mut bob] = ["alice", "bob"].map(|user| site.player(node, user, None));
            for (address, refused) in [("10.77.0.11", REFUSED), ("fd77::11", REFUSED_6)] {
                assert_eq!(own.connects((address, port)).said, "connected", "{node} {address}");
                assert_eq!(bob.connects((address, port)).said, refused, "{node} {address}");
            }
            for player in [&mut own, &mut bob] {
                player.takes_datagrams("0.0.0.0");
                player.must(&format!("towards('d', '10.77.0.11', {datagrams})"), "towards");
            }
            alice.begins("told('d')");
            own.must("ask('d', 'hello', 3)", "olleh");
            assert_eq!(alice.ends("told").said, "hello");
            bob.must(ASK, REFUSED);
        }
        let Finished { out: said, status, .. } = site.checks_firewall("c1");
        assert_eq!(status, 0, "{said}");
        installed.mend();
        assert_eq!(site.player("c2", "bob", None).connects(("10.77.0.11", port)).said, REFUSED);
    });
}
