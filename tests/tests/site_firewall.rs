//! The firewall on an installed site: who reaches whose port, on one node and between two, and what whoever is refused is
//! told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::world::site::{Outcome, guarded};
use portreeve_tests::world::testbed::pause;

/// A refusal is told at once: whoever is told waits for no retransmission, the first of which would come after a second.
const AT_ONCE: Duration = Duration::from_millis(900);
/// Whose processes hold a listener is looked for anew so often, at the least.
const LOOKED: Duration = Duration::from_secs(4);
/// ICMP "administratively prohibited", as programs see it.
const PROHIBITED: &str = "EHOSTUNREACH";
const PROHIBITED_6: &str = "EACCES";

/// Whoever connected was told at once that this is prohibited.
#[track_caller]
fn assert_refused(outcome: &Outcome, address: &str) {
    assert_eq!(outcome.said, if address.contains(':') { PROHIBITED_6 } else { PROHIBITED }, "{address}");
    assert!(outcome.took < AT_ONCE, "{address}: {outcome:?}");
}

/// Waits until it comes out so.
#[track_caller]
fn until(what: &mut dyn FnMut() -> [String; 2], expected: [&str; 2]) {
    let began = std::time::Instant::now();
    loop {
        let now = what();
        if now == expected {
            return;
        }
        assert!(began.elapsed() < LOOKED, "{now:?}, not {expected:?}");
        // Nobody accepts these connections: there is room for so many.
        pause();
    }
}

/// The addresses by which a node is reached from itself and from the other one, and at which its program listens.
const PLACES: [(&str, &str, &str); 12] = [
    ("c1", "127.0.0.1", "127.0.0.1"),
    ("c1", "::1", "::1"),
    ("c1", "10.77.0.11", "0.0.0.0"),
    ("c1", "fd77::11", "::"),
    ("c1", "10.77.0.11", "::"),
    ("c1", "127.0.0.1", "::"),
    ("c2", "10.77.0.11", "10.77.0.11"),
    ("c2", "10.77.0.11", "0.0.0.0"),
    ("c2", "10.77.0.11", "::"),
    ("c2", "fd77::11", "::"),
    ("c2", "fd77::111", "fd77::111"),
    ("c2", "10.77.0.111", "10.77.0.111"),
];

#[test]
fn whoever_listens_is_reached_by_their_own_programs_alone() {
    guarded("whoever_listens_is_reached_by_their_own_programs_alone", |site| async {
        let mut listener = site.player("c1", "alice", None);
        let mut people: Vec<_> = ["c1", "c2"]
            .into_iter()
            .flat_map(|node| {
                ["alice", "bob", "carol", "root"].map(|user| (node, user, site.player(node, user, None)))
            })
            .collect();
        for (node, address, at) in PLACES {
            let port = listener.listens(at);
            for (_, user, player) in people.iter_mut().filter(|person| person.0 == node) {
                let outcome = player.connects((address, port));
                let expected = match *user {
                    "alice" | "root" => "connected",
                    _ if address.contains(':') => PROHIBITED_6,
                    _ => PROHIBITED,
                };
                assert_eq!(outcome.said, expected, "{user} on {node} to {address}, {at}");
                assert!(outcome.took < AT_ONCE, "{user} on {node} to {address}, {at}: {outcome:?}");
            }
        }
    });
}

#[test]
fn a_listener_that_runs_with_a_projects_group_is_reached_by_the_project() {
    guarded("a_listener_that_runs_with_a_projects_group_is_reached_by_the_project", |site| async {
        let mut of_proj = site.player("c1", "alice", Some("proj"));
        let port = of_proj.listens("::");
        let mut bobs = ["c1", "c2"].map(|node| site.player(node, "bob", None));
        let mut carols = ["c1", "c2"].map(|node| site.player(node, "carol", None));
        for address in ["10.77.0.11", "fd77::11"] {
            for bob in &mut bobs {
                assert_eq!(bob.connects((address, port)).said, "connected");
            }
            for carol in &mut carols {
                assert_refused(&carol.connects((address, port)), address);
            }
        }
        // A child that holds it runs with the same group.
        of_proj.does("child()");
        assert_eq!(bobs[1].connects(("10.77.0.11", port)).said, "connected");
        // Whoever connects need not run with it, and that alone opens nothing.
        let mut alice = site.player("c1", "alice", None);
        let own = alice.listens("0.0.0.0");
        let mut in_proj = site.player("c2", "bob", Some("proj"));
        assert_refused(&in_proj.connects(("10.77.0.11", own)), "10.77.0.11");
    });
}

#[test]
fn a_listener_of_a_shell_that_newgrp_began_is_reached_by_the_project() {
    guarded("a_listener_of_a_shell_that_newgrp_began", |site| async {
        let mut bobs = ["c1", "c2"].map(|node| site.player(node, "bob", None));
        let mut carols = ["c1", "c2"].map(|node| site.player(node, "carol", None));
        // As it is typed: the second line is read by the shell that newgrp begins, the rest by its program.
        let typed = "{ echo \"exec python3 $file\"; exec cat; } | newgrp proj";
        let mut alice = site.player_by("c1", "alice", typed);
        assert_eq!(alice.does("os.getegid()").said, "20100");
        let port = alice.listens("::");
        for address in ["10.77.0.11", "fd77::11"] {
            for bob in &mut bobs {
                assert_eq!(bob.connects((address, port)).said, "connected");
            }
            for carol in &mut carols {
                assert_refused(&carol.connects((address, port)), address);
            }
        }
        assert_eq!(site.player("c2", "alice", None).connects(("10.77.0.11", port)).said, "connected");
        // A shell without it opens nothing.
        let mut plain = site.player_by("c1", "alice", "{ echo \"exec python3 $file\"; exec cat; } | bash");
        let own = plain.listens("::");
        assert_refused(&bobs[1].connects(("10.77.0.11", own)), "10.77.0.11");
    });
}

#[test]
fn a_login_group_shares_nothing() {
    guarded("a_login_group_shares_nothing", |site| async {
        // Alice and bob are in carol's login group.
        let mut carol = site.player("c1", "carol", None);
        let port = carol.listens("0.0.0.0");
        for node in ["c1", "c2"] {
            assert_refused(&site.player(node, "alice", None).connects(("10.77.0.11", port)), "10.77.0.11");
        }
    });
}

#[test]
fn roots_port_is_everybodys_and_root_reaches_everybody() {
    guarded("roots_port_is_everybodys_and_root_reaches_everybody", |site| async {
        let mut root = site.player("c1", "root", None);
        let port = root.listens("::");
        for (node, user) in [("c1", "bob"), ("c2", "carol"), ("login", "alice"), ("c2", "root")] {
            let mut player = site.player(node, user, None);
            for address in ["10.77.0.11", "fd77::11"] {
                assert_eq!(
                    player.connects((address, port)).said,
                    "connected",
                    "{user} on {node} to {address}"
                );
            }
        }
    });
}

#[test]
fn where_nobody_listens_that_is_said_at_once() {
    guarded("where_nobody_listens_that_is_said_at_once", |site| async {
        let mut alice = site.player("c1", "alice", None);
        let port = alice.listens("::");
        alice.must("close('l')", "closed");
        for (node, address) in [
            ("c1", "127.0.0.1"),
            ("c1", "::1"),
            ("c2", "10.77.0.11"),
            ("c2", "fd77::11"),
            ("c2", "10.77.0.111"),
        ] {
            let outcome = site.player(node, "bob", None).connects((address, port));
            assert_eq!(outcome.said, "ECONNREFUSED", "{node} {address}");
            assert!(outcome.took < AT_ONCE, "{node} {address}: {outcome:?}");
        }
        // As MPI's programs do that start at different times: try until the other one is there.
        let mut other = site.player("c2", "alice", None);
        let expression = format!("connect('c', '10.77.0.11', {port})");
        other.must(&expression, "ECONNREFUSED");
        alice.must(&format!("listen('l', '0.0.0.0', {port})"), &port.to_string());
        other.must(&expression, "connected");
    });
}

#[test]
fn a_port_number_of_two_users_on_two_addresses_is_each_ones() {
    guarded("a_port_number_of_two_users_on_two_addresses_is_each_ones", |site| async {
        let (mut alice, mut bob) = (site.player("c1", "alice", None), site.player("c1", "bob", None));
        let port = alice.listens("10.77.0.11");
        bob.must(&format!("listen('l', '10.77.0.111', {port})"), &port.to_string());
        let mut elsewhere = ["alice", "bob"].map(|user| site.player("c2", user, None));
        let outcomes: Vec<String> = ["10.77.0.11", "10.77.0.111"]
            .into_iter()
            .flat_map(|address| {
                elsewhere.iter_mut().map(|player| player.connects((address, port)).said).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(outcomes, ["connected", PROHIBITED, PROHIBITED, "connected"]);
    });
}

#[test]
fn several_listeners_of_one_user_are_theirs_and_in_a_group_only_if_all_are() {
    guarded("several_listeners_of_one_user_are_theirs", |site| async {
        let (mut one, mut two) =
            (site.player("c1", "alice", Some("proj")), site.player("c1", "alice", Some("proj")));
        let listened = one.does("listen('l', '0.0.0.0', 0, True)");
        let port: u16 = listened.said.parse().unwrap();
        two.must(&format!("listen('l', '0.0.0.0', {port}, True)"), &port.to_string());
        let mut people = ["alice", "bob", "carol"].map(|user| site.player("c2", user, None));
        for _ in 0..4 {
            let outcomes = people.each_mut().map(|player| player.connects(("10.77.0.11", port)).said);
            assert_eq!(outcomes, ["connected", "connected", PROHIBITED]);
        }
        // Which of them gets a connection, only the kernel knows.
        let mut third = site.player("c1", "alice", None);
        third.must(&format!("listen('l', '0.0.0.0', {port}, True)"), &port.to_string());
        for _ in 0..6 {
            let outcomes = people.each_mut().map(|player| player.connects(("10.77.0.11", port)).said);
            assert_eq!(outcomes, ["connected", PROHIBITED, PROHIBITED]);
        }
        third.must("close('l')", "closed");
        people[1].until(&format!("connect('c', '10.77.0.11', {port})"), "connected", LOOKED);
    });
}

#[test]
fn a_listener_that_was_passed_on_is_its_makers() {
    guarded("a_listener_that_was_passed_on_is_its_makers", |site| async {
        let mut people = ["alice", "bob"].map(|user| site.player("c2", user, None));
        let mut reach = |port| people.each_mut().map(|player| player.connects(("10.77.0.11", port)).said);
        for (to, group, case) in [("bob", None, "others"), ("alice", None, "own")] {
            let (mut alice, mut other) =
                (site.player("c1", "alice", Some("proj")), site.player("c1", to, group));
            let port = alice.listens("0.0.0.0");
            assert_eq!(reach(port), ["connected", "connected"], "{case}");
            let path = format!("/tmp/passed-{case}");
            alice.must(&format!("offer('l', '{path}')"), "offered");
            other.must(&format!("take('t', '{path}')"), "there");
            alice.must("give()", "given");
            other.must("taken('t')", "taken");
            // Bob's process holds it, too, and does not count; another of alice's own with another group does.
            let bob = if to == "bob" { "connected" } else { PROHIBITED };
            until(&mut || reach(port), ["connected", bob]);
            // Held by that process alone it is alice's all the same, and in no group.
            alice.must("close('l', 'offered')", "closed");
            until(&mut || reach(port), ["connected", PROHIBITED]);
        }
    });
}

#[test]
fn a_node_that_only_answers_guards_nothing_of_its_own() {
    guarded("a_node_that_only_answers_guards_nothing_of_its_own", |site| async {
        let mut on_login = site.player("login", "alice", None);
        let open = on_login.listens("0.0.0.0");
        assert_eq!(site.player("c1", "bob", None).connects(("10.77.0.1", open)).said, "connected");
        let mut on_c1 = site.player("c1", "alice", None);
        let port = on_c1.listens("0.0.0.0");
        assert_eq!(on_login.connects(("10.77.0.11", port)).said, "connected");
        assert_refused(&site.player("login", "bob", None).connects(("10.77.0.11", port)), "10.77.0.11");
    });
}

#[test]
fn whoever_takes_a_port_is_asked_about_even_by_a_client_of_before() {
    guarded("whoever_takes_a_port_is_asked_about", |site| async {
        let (mut alice, mut carol) = (site.player("c1", "alice", None), site.player("c1", "carol", None));
        let (mut client, mut bob) = (site.player("c2", "alice", None), site.player("c2", "bob", None));
        for reset in ["False", "True"] {
            let port = alice.listens("0.0.0.0");
            assert_refused(&bob.connects(("10.77.0.11", port)), "10.77.0.11");
            assert_eq!(client.connects(("10.77.0.11", port)).said, "connected");
            let from = client.port_of("c");
            alice.must("accept('l', 'a')", "accepted");
            // The server resets it, or closes it in peace.
            alice.must(&format!("close('l', 'a', reset={reset})"), "closed");
            client.must("close('c', reset=True)", "closed");
            carol.must(&format!("listen('l', '0.0.0.0', {port})"), &port.to_string());
            let again = format!("connect('c', '10.77.0.11', {port}, ('10.77.0.12', {from}))");
            assert_refused(&client.does(&again), "10.77.0.11");
            let mut own = site.player("c2", "carol", None);
            assert_eq!(own.connects(("10.77.0.11", port)).said, "connected");
            carol.must("close('l')", "closed");
        }
    });
}
