//! The firewall on an installed site while it is stopped, killed, restarted, slow, lied to, reloaded, or only tried.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::await_holding_lock,
    reason = "that others wait is what it is held for; each has a thread of its own"
)]

use std::time::Duration;

use portreeve_tests::world::site::{CHECK_FIREWALL, PROGRAMS, Player, Site, guarded};
use portreeve_tests::world::skip;

/// A SYN is sent again after one second, two more, and four more.
const RETRANSMITTED: Duration = Duration::from_secs(9);
const REFUSED: &str = "EHOSTUNREACH";
const START: &str = "systemctl start portreeve-firewall";
const STOP: &str = "systemctl stop portreeve-firewall";

/// Begins when no other test of this file runs.
macro_rules! alone {
    ($site:ident) => {
        let _alone = $site.alone();
    };
}

/// Begins to connect and waits until the first packet is lost for certain.
fn begins_in_vain(player: &mut Player, to: (&str, u16)) {
    player.must(&format!("begin('b', '{}', {})", to.0, to.1), "begun");
    player.must("connected('b', 1.3)", "timeout");
}

#[test]
fn where_nobody_answers_a_connection_waits_and_comes_about_later() {
    guarded("where_nobody_answers_a_connection_waits", |site| async {
        alone!(site);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("::");
        for what in ["dead", "slow"] {
            let mut people = ["alice", "bob"].map(|user| site.player("c2", user, None));
            let pid = site.main_pid("c2", "portreeve-firewall");
            let broken = match what {
                "dead" => site.breaks("c2", STOP, START),
                _ => site.breaks("c2", &format!("kill -STOP {pid}"), &format!("kill -CONT {pid}")),
            };
            for player in &mut people {
                begins_in_vain(player, ("10.77.0.11", port));
            }
            // Within the node nobody else is asked.
            assert_eq!(site.player("c1", "alice", None).connects(("10.77.0.11", port)).said, "connected");
            broken.mend();
            let [alice, bob] = &mut people;
            let took = alice.must("connected('b')", "connected");
            println!("    the connecting node's firewall was {what}: connected {took:?} after it was back");
            assert!(took < RETRANSMITTED);
            bob.must("connected('b')", REFUSED);
        }
    });
}

#[test]
fn without_its_daemon_a_node_lets_nothing_new_in_and_what_is_open_goes_on() {
    guarded("without_its_daemon_a_node_lets_nothing_new_in", |site| async {
        alone!(site);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut alice = site.player("c2", "alice", None);
        let mut bob = site.player("c2", "bob", None);
        assert_eq!(alice.connects(("10.77.0.11", port)).said, "connected");
        listener.must("accept('l', 'a')", "accepted");
        let stopped = site.breaks("c1", STOP, START);
        alice.must("say('c', 'still there')", "said");
        listener.must("hear('a')", "still there");
        begins_in_vain(&mut alice, ("10.77.0.11", port));
        begins_in_vain(&mut bob, ("10.77.0.11", port));
        stopped.mend();
        alice.must("connected('b')", "connected");
        bob.must("connected('b')", REFUSED);
        alice.must("say('c', 'and now')", "said");
        listener.must("hear('a')", "and now");
    });
}

#[test]
fn what_was_open_before_the_firewall_goes_on_and_nothing_new_joins_it() {
    guarded("what_was_open_before_the_firewall_goes_on", |site| async {
        alone!(site);
        let off = site.breaks("c1", &format!("{STOP}; portreeve-agent rules remove"), START);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut bob = site.player("c2", "bob", None);
        assert_eq!(bob.connects(("10.77.0.11", port)).said, "connected");
        listener.must("accept('l', 'a')", "accepted");
        off.mend();
        for word in ["one", "two"] {
            bob.must(&format!("say('c', '{word}')"), "said");
            listener.must("hear('a')", word);
            listener.must(&format!("say('a', '{word}')"), "said");
            bob.must("hear('c')", word);
        }
        // And what it would say to that connection today.
        let from = format!("c2:{}", bob.port_of("c"));
        let why = site.why("c1", "bob", &from, &format!("c1:{port}"));
        assert_eq!(why.status, 1, "{why:?}");
        assert!(why.err.contains("refused (other-user)"), "{why:?}");
        assert!(why.out.contains("On c2, the program at") && why.out.contains("is uid 20002's"), "{why:?}");
        assert_eq!(bob.does(&format!("connect('n', '10.77.0.11', {port})")).said, REFUSED);
    });
}

#[test]
fn a_restart_under_load_wrongs_nobody() {
    guarded("a_restart_under_load_wrongs_nobody", |site| async {
        alone!(site);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut accepting = site.player("c1", "alice", None);
        let busy = accepting.listens("0.0.0.0");
        accepting.must("accept_all('l')", "accepting");
        let mut all = Vec::new();
        for (node, user) in [("c2", "alice"), ("c1", "alice"), ("c2", "bob"), ("c1", "bob")] {
            let mut player = site.player(node, user, None);
            player.begins(&format!("connects_for(8, '10.77.0.11', {busy}, 15)"));
            all.push((node, user, player));
        }
        for way in ["systemctl restart portreeve-firewall", "systemctl kill --signal KILL portreeve-firewall"]
        {
            site.root("c1", way);
            site.until("c1", "systemctl is-active portreeve-firewall", "active");
            assert_eq!(
                site.player("c2", "alice", None).connects(("10.77.0.11", port)).said,
                "connected",
                "{way}"
            );
            site.root("c2", way);
            site.until("c2", "systemctl is-active portreeve-firewall", "active");
        }
        for (node, user, mut player) in all {
            let outcome = player.ends("connects").said;
            println!("    {user} on {node}: {outcome}");
            let outcomes: Vec<&str> = outcome.split(' ').map(|one| one.split(':').next().unwrap()).collect();
            match user {
                "alice" => assert_eq!(outcomes, ["connected"], "{user} on {node}"),
                _ => assert_eq!(outcomes, [REFUSED], "{user} on {node}"),
            }
        }
    });
}

#[test]
fn a_daemon_that_was_killed_comes_back_and_nothing_gets_through_meanwhile() {
    guarded("a_daemon_that_was_killed_comes_back", |site| async {
        alone!(site);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut people =
            [("c1", "bob"), ("c2", "bob"), ("c2", "carol")].map(|(node, user)| site.player(node, user, None));
        for player in &mut people {
            player.begins(&format!("connects_for(4, '10.77.0.11', {port}, 0.2)"));
        }
        for _ in 0..3 {
            let pid = site.main_pid("c1", "portreeve-firewall");
            site.root("c1", &format!("kill -KILL {pid}"));
            let other = format!(
                "pid=$(systemctl show --value --property MainPID portreeve-firewall); [ $pid != {pid} ] && [ $pid != 0 ] && systemctl is-active portreeve-firewall"
            );
            site.until("c1", &other, "active");
        }
        for player in &mut people {
            let outcome = player.ends("connects").said;
            println!("    {outcome}");
            assert!(!outcome.contains("connected"), "{outcome}");
        }
        assert_eq!(site.player("c2", "alice", None).connects(("10.77.0.11", port)).said, "connected");
    });
}

#[test]
fn whoever_has_another_nodes_key_is_not_believed() {
    guarded("whoever_has_another_nodes_key_is_not_believed", |site| async {
        alone!(site);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut bob = site.player("c2", "bob", None);
        let stopped = site.breaks("c2", STOP, START);
        let others = site.read("login", "/etc/portreeve/agent-keys/login.toml");
        site.write("c2", "root", "/root/others-key.toml", &others);
        let lie = |key: &str| {
            let liar = site.start(
                "c2",
                "root",
                &format!("exec {PROGRAMS}/portreeve-test-firewall {key} answers 20001"),
            );
            assert_eq!(liar.line(Duration::from_secs(10)).as_deref(), Some("ready"), "{}", liar.stderr());
            liar
        };
        let liar = lie("--key /root/others-key.toml");
        let outcome = bob.does(&format!("connect('c', '10.77.0.11', {port}, None, 2.5)"));
        assert_eq!(outcome.said, "timeout", "nobody answers, as far as c1 knows");
        let seen = liar.line(Duration::from_secs(5)).unwrap();
        assert!(seen.starts_with("turned away"), "{seen}");
        drop(liar);
        // With the node's own key, which is root's there, it would be: this is no test of nothing.
        let liar = lie("");
        bob.until(&format!("connect('c', '10.77.0.11', {port}, None, 2.5)"), "connected", RETRANSMITTED);
        assert!(liar.line(Duration::from_secs(5)).unwrap().starts_with("asked: 10.77.0.12:"));
        drop(liar);
        site.root("c2", "rm /root/others-key.toml");
        stopped.mend();
        bob.until(&format!("connect('c', '10.77.0.11', {port}, None, 2.5)"), REFUSED, RETRANSMITTED);
    });
}

#[test]
fn a_node_is_told_only_who_connects_to_it() {
    guarded("a_node_is_told_only_who_connects_to_it", |site| async {
        alone!(site);
        let mut listener = site.player("login", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut alice = site.player("c1", "alice", None);
        assert_eq!(alice.connects(("10.77.0.1", port)).said, "connected");
        let from = alice.port_of("c");
        let asks = |node: &str, to: &str| {
            let ask = format!("{PROGRAMS}/portreeve-test-firewall asks c1 10.77.0.11:{from} {to}:{port}");
            site.root(node, &ask)
        };
        assert_eq!(asks("login", "10.77.0.1"), "uid 20001");
        // From a port that anybody can have, nobody is heard: no user of a node takes the places of others.
        let heard = "bash -c 'exec 3<>/dev/tcp/10.77.0.11/849 && read -t 5 -u 3; echo $?'";
        assert_eq!(site.shell("login", "alice", heard).out.trim(), "1", "closed at once");
        assert_eq!(asks("c2", "10.77.0.1"), "the question was refused: 10.77.0.1 is not an address of c2");
        assert_eq!(asks("c2", "10.77.0.12"), "no program connects from there");
    });
}

#[test]
fn a_trial_refuses_nothing_and_says_what_it_would() {
    guarded("a_trial_refuses_nothing_and_says_what_it_would", |site| async {
        alone!(site);
        let mut listener = site.player("c1", "alice", None);
        let port = listener.listens("0.0.0.0");
        let mut bob = site.player("c2", "bob", None);
        assert_eq!(bob.connects(("10.77.0.11", port)).said, REFUSED);
        let (cursor, pid) = (site.journals_end("c1"), site.main_pid("c1", "portreeve-firewall"));
        let mut alice = site.player("c2", "alice", None);
        assert_eq!(alice.connects(("10.77.0.11", port)).said, "connected");
        listener.must("accept('l', 'a')", "accepted");
        let trial = site.reconfigured("c1", "dry_run", "true");
        assert_eq!(bob.connects(("10.77.0.11", port)).said, "connected");
        // Of the first one there was a record a moment ago.
        let other: u16 = listener.does("listen('other', '0.0.0.0')").said.parse().unwrap();
        assert_eq!(bob.connects(("10.77.0.11", other)).said, "connected");
        assert_eq!(site.firewalls_count("c1", "spared_total"), 2);
        let refusals = site.refusals("c1", &cursor);
        let would = |line: &String| {
            line.contains("outcome=\"would-be-refused\"") && line.contains("reason=\"other-user\"")
        };
        assert!(refusals.iter().any(would), "{refusals:?}");
        let live = site.shell("c1", "root", "portreeve check --live");
        assert!(live.out.contains("it refuses nothing (dry_run)"), "{live:?}");
        drop(trial);
        assert_eq!(bob.connects(("10.77.0.11", port)).said, REFUSED);
        // Nothing that was open is the worse for it, nor was anything restarted.
        alice.must("say('c', 'still there')", "said");
        listener.must("hear('a')", "still there");
        assert_eq!(site.main_pid("c1", "portreeve-firewall"), pid);
    });
}

#[test]
fn a_reload_takes_exemptions_into_use_and_refuses_nonsense() {
    guarded("a_reload_takes_exemptions_into_use", |site| async {
        alone!(site);
        let (mut alice, mut carol) = (site.player("c1", "alice", None), site.player("c1", "carol", None));
        let (alices, carols) = (alice.listens("0.0.0.0"), carol.listens("0.0.0.0"));
        let mut bob = site.player("c2", "bob", None);
        let mut reach = |port| bob.connects(("10.77.0.11", port)).said;
        assert_eq!([reach(alices), reach(carols)], [REFUSED, REFUSED]);
        let exempt = site.reconfigured("c1", "exempt_listeners", "['root', 'carol']");
        assert_eq!([reach(alices), reach(carols)], [REFUSED, "connected"]);
        drop(exempt);
        let exempt = site.reconfigured("c1", "exempt_connectors", "['20002']");
        assert_eq!([reach(alices), reach(carols)], ["connected", "connected"]);
        // With a slip of the pen everything stays as it is.
        site.configure_firewall("c1", "dry_run = 7\n");
        let cursor = site.journals_end("c1");
        site.root("c1", "systemctl reload portreeve-firewall");
        let said = format!(
            "journalctl --unit portreeve-firewall --after-cursor '{cursor}' | grep --count 'not reloaded'"
        );
        site.until("c1", &said, "1");
        assert_eq!([reach(alices), reach(carols)], ["connected", "connected"]);
        drop(exempt);
        assert_eq!([reach(alices), reach(carols)], [REFUSED, REFUSED]);
        // Root is no connector of c1 either without an exemption.
        let nobody = site.reconfigured("c1", "exempt_connectors", "[]");
        assert_eq!(site.player("c2", "root", None).connects(("10.77.0.11", alices)).said, REFUSED);
        drop(nobody);
    });
}

#[test]
fn a_flood_of_refusals_leaves_few_records_and_is_counted() {
    guarded("a_flood_of_refusals_leaves_few_records", |site| async {
        alone!(site);
        let mut alice = site.player("c1", "alice", None);
        let port = alice.listens("0.0.0.0");
        let other = site.player("c1", "alice", None).does("listen('m', '0.0.0.0')");
        let cursor = site.journals_end("c1");
        let count = |name: &str| site.firewalls_count("c1", name);
        let before = count("refused_total{reason=\"other-user\"}");
        let mut bob = site.player("c2", "bob", None);
        // More errors than are sent in a second are not to be heard: the client waits then.
        let outcome = bob.does(&format!("connects(1000, '10.77.0.11', {port}, 3)"));
        assert_eq!(outcome.said, format!("{REFUSED}:1000"), "{outcome:?}");
        println!("    1000 refusals in {:?}", outcome.took);
        // A SYN whose error is late is sent again, and refused again.
        let counted = count("refused_total{reason=\"other-user\"}") - before;
        assert!((1000..1010).contains(&counted), "{counted}");
        // The next record says how many there were.
        let second = alice.does("listen('m', '0.0.0.0')").said.parse().unwrap();
        assert_eq!(bob.connects(("10.77.0.11", second)).said, REFUSED);
        let records = site.refusals("c1", &cursor);
        assert!((2..=3).contains(&records.len()), "{records:#?}");
        let last = records.last().unwrap();
        let withheld =
            last.split("withheld=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        assert!(withheld.is_some_and(|withheld| (998..=counted).contains(&withheld)), "{records:#?}");
        for part in ["outcome=\"refused\"", "from=10.77.0.12:", "reason=\"other-user\"", "transport=Tcp"] {
            assert!(last.contains(part), "{part}: {last}");
        }
        drop(other);
        assert!(count("let_through_total{rule=\"group\"}") < 1000);
    });
}

#[test]
fn whoever_asks_is_told_what_was_counted() {
    guarded("whoever_asks_is_told_what_was_counted", |site| async {
        alone!(site);
        let metrics = "/usr/sbin/portreeve-agent firewall --metrics";
        let mut alice = site.player("c1", "alice", None);
        let port = alice.listens("0.0.0.0");
        let count = |name: &str| site.firewalls_count("c1", name);
        let names =
            ["let_through_total{rule=\"same-user\"}", "refused_total{reason=\"no-listener\"}", "asked_total"];
        let before = names.map(count);
        let mut own = site.player("c2", "alice", None);
        assert_eq!(own.connects(("10.77.0.11", port)).said, "connected");
        alice.must("close('l')", "closed");
        assert_eq!(own.connects(("10.77.0.11", port)).said, "ECONNREFUSED");
        // Whoever connects to nobody is not asked about.
        assert_eq!(names.map(count), [before[0] + 1, before[1] + 1, before[2] + 1]);
        let all = site.shell("c1", "carol", metrics);
        assert!(all.status == 0 && all.out.ends_with("# EOF\n"), "{all:?}");
        assert!(!all.out.contains("10.77.") && !all.out.contains("2000"), "{}", all.out);
        let stopped = site.breaks("c1", STOP, START);
        let gone = site.shell("c1", "carol", metrics);
        assert!(gone.status == 1 && gone.err.contains("is portreeve-firewall started?"), "{gone:?}");
        stopped.mend();
    });
}

#[test]
fn where_a_group_opened_a_port_a_moment_ago_one_question_is_enough() {
    guarded("where_a_group_opened_a_port_a_moment_ago", |site| async {
        alone!(site);
        let mut of_proj = site.player("c1", "alice", Some("proj"));
        let port = of_proj.listens("0.0.0.0");
        let mut bob = site.player("c2", "bob", None);
        let mut questions = || {
            let before = site.firewalls_count("c1", "asked_total");
            assert_eq!(bob.connects(("10.77.0.11", port)).said, "connected");
            site.firewalls_count("c1", "asked_total") - before
        };
        // Who connects, and once that is another user, with which groups. Two seconds may be over on a busy machine.
        assert_eq!(questions(), 2);
        let later: Vec<u64> = (0..10).map(|_| questions()).collect();
        assert!(later.contains(&1) && later.iter().all(|count| [1, 2].contains(count)), "{later:?}");
    });
}

#[test]
fn the_check_sees_a_daemon_that_is_stuck_or_dead() {
    guarded("the_check_sees_a_daemon_that_is_stuck_or_dead", |site| async {
        alone!(site);
        let checked = |site: &Site| site.checks_firewall("c2");
        let fine = checked(site);
        assert!(fine.status == 0 && fine.out.contains("firewall: ok: queue 0"), "{fine:?}");
        let pid = site.main_pid("c2", "portreeve-firewall");
        let stuck = site.breaks("c2", &format!("kill -STOP {pid}"), &format!("kill -CONT {pid}"));
        let hanging = checked(site);
        assert!(
            hanging.status == 1
                && hanging.out.contains("problem: ")
                && hanging.out.contains("did not answer in time"),
            "{hanging:?}"
        );
        stuck.mend();
        site.until("c2", &format!("({CHECK_FIREWALL}) | grep --count 'firewall: ok: queue'"), "1");
        let dead = site.breaks("c2", STOP, START);
        // Not enabled: it is missed by its rules.
        let stopped = checked(site);
        assert!(
            stopped.status == 1 && stopped.out.contains("its rules are in force, so nobody gets in"),
            "{stopped:?}"
        );
        // As it is where it starts at boot.
        let enabled = site.breaks(
            "c2",
            "systemctl enable --quiet portreeve-firewall",
            "systemctl disable --quiet portreeve-firewall",
        );
        let gone = checked(site);
        assert!(gone.status == 1 && gone.out.contains("is portreeve-firewall started?"), "{gone:?}");
        enabled.mend();
        dead.mend();
        assert_eq!(checked(site).status, 0);
    });
}

#[test]
fn two_queues_decide_as_one_does() {
    let name = "two_queues_decide_as_one_does";
    guarded(name, move |site| async move {
        alone!(site);
        let two = site.restarted("c1", "queues", "\"0-1\"");
        let live = site.shell("c1", "root", "portreeve check --live");
        assert_eq!(live.status, 0, "{live:?}");
        for queue in ["firewall: ok: queue 0: ", "firewall: ok: queue 1: "] {
            assert!(live.out.contains(queue), "{queue}: {live:?}");
        }
        let mut alice = site.player("c1", "alice", None);
        let mut of_proj = site.player("c1", "alice", Some("proj"));
        let ports = [&mut alice, &mut of_proj].map(|listener| {
            let port = listener.listens("0.0.0.0");
            listener.must("accept_all('l')", "accepting");
            port
        });
        // The kernel picks a queue by the processor on which a packet comes: here the one on which it was sent.
        let mut callers = Vec::new();
        for parity in [0, 1] {
            for node in ["c1", "c2"] {
                for user in ["alice", "bob", "carol"] {
                    let mut caller = site.player(node, user, None);
                    if caller.does(&format!("on_processors({parity})")).said != "there" {
                        return skip(name, "needs two processors, to fill two queues");
                    }
                    callers.push((node, user, caller));
                }
            }
        }
        let packets =
            || [0, 1].map(|queue| site.firewalls_count("c1", &format!("packets_total{{queue=\"{queue}\"}}")));
        let before = packets();
        for (port, bobs) in [(ports[0], REFUSED), (ports[1], "connected")] {
            for (_, _, caller) in &mut callers {
                caller.begins(&format!("connects(40, '10.77.0.11', {port})"));
            }
            for (node, user, caller) in &mut callers {
                let expected = match *user {
                    "alice" => "connected",
                    "bob" => bobs,
                    _ => REFUSED,
                };
                assert_eq!(caller.ends("connects").said, format!("{expected}:40"), "{user} on {node}");
            }
        }
        let after = packets();
        println!("    packets of the two queues: {before:?}, then {after:?}");
        for (before, after) in before.into_iter().zip(after) {
            // Half of 12 callers, twice 40 connections each.
            assert!(after - before >= 480, "{after} - {before}");
        }
        drop(two);
        let live = site.shell("c1", "root", "portreeve check --live");
        assert!(live.out.contains("queue 0: ") && !live.out.contains("queue 1: "), "{live:?}");
    });
}
