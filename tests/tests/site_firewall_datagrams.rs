//! The firewall on an installed site, and UDP: datagrams have no connection, and yet go between one user's programs alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::world::site::{Player, Site, guarded};

/// What goes over from one owner of a socket to the next at the most: a look a second, and a busy machine.
const SECONDS: Duration = Duration::from_secs(3);
/// `udp_again` of the guarded nodes, and the same.
const AGAIN: Duration = Duration::from_secs(5);
/// See [`SECONDS`], on the node where a flow began: a look every two seconds.
const WHERE_IT_BEGAN: Duration = Duration::from_secs(4);
const ASK: &str = "ask('d', 'hello', 0.2)";

/// A program that sends datagrams to a port, and hears what comes back.
fn sender(site: &Site, node: &str, user: &str, to: (&str, u16)) -> Player {
    let mut player = site.player(node, user, None);
    player.takes_datagrams(if to.0.contains(':') { "::" } else { "0.0.0.0" });
    player.must(&format!("towards('d', '{}', {})", to.0, to.1), "towards");
    player
}

/// One datagram there and one back.
#[track_caller]
fn talk(sender: &mut Player, receiver: &mut Player) {
    receiver.begins("told('d')");
    sender.must("ask('d', 'hello', 3)", "olleh");
    assert_eq!(receiver.ends("told").said, "hello");
}

#[test]
fn nobody_sends_with_anothers_port() {
    guarded("nobody_sends_with_anothers_port", |site| async {
        let mut alice = site.player("c2", "alice", None);
        let mut there = site.player("c1", "alice", None);
        let (from, to) = (alice.takes_datagrams("10.77.0.12"), there.takes_datagrams("0.0.0.0"));
        let mut bob = site.player("c2", "bob", None);
        let forged = format!("write_as('10.77.0.12', '127.0.0.1', {from}, '10.77.0.11', {to})");
        assert_eq!(bob.does(&forged).said, "sent", "as far as he hears");
        there.must("hear('d', 0.5)", "timeout");
        assert!(site.firewalls_count("c2", "refused_total{reason=\"not-the-sender\"}") > 0);
        // Her own goes there and back.
        alice.must(&format!("towards('d', '10.77.0.11', {to})"), "towards");
        talk(&mut alice, &mut there);
    });
}

#[test]
fn datagrams_go_between_one_users_programs_alone() {
    guarded("datagrams_go_between_one_users_programs_alone", |site| async {
        let mut alice = site.player("c1", "alice", None);
        let mut of_proj = site.player("c1", "alice", Some("proj"));
        let mut root = site.player("c1", "root", None);
        for (node, address, at, refused) in [
            ("c1", "127.0.0.1", "0.0.0.0", "EHOSTUNREACH"),
            ("c1", "::1", "::", "EACCES"),
            ("c2", "10.77.0.11", "0.0.0.0", "EHOSTUNREACH"),
            ("c2", "10.77.0.11", "::", "EHOSTUNREACH"),
            // Of a node's two addresses, an answer from a socket of `::` has the other one.
            ("c2", "fd77::11", "fd77::11", "EACCES"),
            ("c2", "10.77.0.111", "10.77.0.111", "EHOSTUNREACH"),
        ] {
            let case = format!("{node} {address} {at}");
            let port = alice.takes_datagrams(at);
            let mut own = sender(site, node, "alice", (address, port));
            talk(&mut own, &mut alice);
            talk(&mut own, &mut alice);
            for user in ["bob", "carol"] {
                assert_eq!(
                    sender(site, node, user, (address, port)).does(ASK).said,
                    refused,
                    "{case} {user}"
                );
            }
            alice.must("hear('d', 0.05)", "timeout");
            let shared = of_proj.takes_datagrams(at);
            talk(&mut sender(site, node, "bob", (address, shared)), &mut of_proj);
            assert_eq!(sender(site, node, "carol", (address, shared)).does(ASK).said, refused, "{case}");
            let roots = root.takes_datagrams(at);
            talk(&mut sender(site, node, "carol", (address, roots)), &mut root);
            talk(&mut sender(site, node, "root", (address, port)), &mut alice);
            alice.must("close('d')", "closed");
            assert_eq!(own.does(ASK).said, "ECONNREFUSED", "{case}");
        }
    });
}

#[test]
fn whoever_takes_a_receivers_port_gets_no_datagrams_of_its_owner() {
    guarded("whoever_takes_a_receivers_port_gets_no_datagrams", |site| async {
        let (mut alice, mut carol) = (site.player("c2", "alice", None), site.player("c2", "carol", None));
        let port = alice.takes_datagrams("0.0.0.0");
        let mut flowing = sender(site, "c1", "alice", ("10.77.0.12", port));
        talk(&mut flowing, &mut alice);
        alice.must("close('d')", "closed");
        carol.must(&format!("datagrams('d', '0.0.0.0', {port})"), &port.to_string());
        println!("    another has the port; refused after {:?}", flowing.until(ASK, "EHOSTUNREACH", SECONDS));
        // And it stays so, for whoever begins anew and for her own.
        carol.does("hear('d', 0.05)");
        for _ in 0..3 {
            flowing.must(ASK, "EHOSTUNREACH");
        }
        carol.must("hear('d', 0.05)", "timeout");
        talk(&mut sender(site, "c1", "carol", ("10.77.0.12", port)), &mut carol);
    });
}

#[test]
fn whoever_takes_a_senders_port_is_asked_about() {
    guarded("whoever_takes_a_senders_port_is_asked_about", |site| async {
        let mut alice = site.player("c2", "alice", None);
        let port = alice.takes_datagrams("0.0.0.0");
        let mut own = sender(site, "c1", "alice", ("10.77.0.12", port));
        talk(&mut own, &mut alice);
        let from = own.port_of("d");
        own.must("close('d')", "closed");
        let mut bob = site.player("c1", "bob", None);
        bob.must(&format!("datagrams('d', '0.0.0.0', {from})"), &from.to_string());
        bob.must(&format!("towards('d', '10.77.0.12', {port})"), "towards");
        println!(
            "    another sends from the port; refused after {:?}",
            bob.until(ASK, "EHOSTUNREACH", AGAIN)
        );
        alice.until("hear('d', 0.05)", "timeout", SECONDS);
        bob.must(ASK, "EHOSTUNREACH");
        alice.must("hear('d', 0.05)", "timeout");
    });
}

#[test]
fn whoever_takes_the_port_from_which_a_flow_began_gets_no_answers_on_it() {
    guarded("whoever_takes_the_port_from_which_a_flow_began", |site| async {
        let mut there = site.player("c2", "alice", None);
        let port = there.takes_datagrams("0.0.0.0");
        let mut own = sender(site, "c1", "alice", ("10.77.0.12", port));
        talk(&mut own, &mut there);
        let from = own.port_of("d");
        own.must("close('d')", "closed");
        let mut bob = site.player("c1", "bob", None);
        bob.must(&format!("datagrams('d', '0.0.0.0', {from})"), &from.to_string());
        // He never sends: on his side the flow is still the one that she began. Until the next look it goes on.
        there.must(&format!("towards('d', '10.77.0.11', {from})"), "towards");
        println!(
            "    another has the port; refused after {:?}",
            there.until(ASK, "EHOSTUNREACH", WHERE_IT_BEGAN)
        );
        // And it stays so.
        bob.until("hear('d', 0.05)", "timeout", SECONDS);
        for _ in 0..3 {
            there.must(ASK, "EHOSTUNREACH");
        }
        bob.must("hear('d', 0.05)", "timeout");
        // His own programs reach him there.
        talk(&mut sender(site, "c2", "bob", ("10.77.0.11", from)), &mut bob);
    });
}

#[test]
fn a_flow_that_goes_on_is_asked_about_again_and_loses_nothing() {
    guarded("a_flow_that_goes_on_is_asked_about_again", |site| async {
        let mut alice = site.player("c2", "alice", None);
        let port = alice.takes_datagrams("0.0.0.0");
        let mut own = sender(site, "c1", "alice", ("10.77.0.12", port));
        let before = site.firewalls_count("c1", "answered_total");
        let began = std::time::Instant::now();
        let mut datagrams = 0;
        while began.elapsed() < AGAIN || site.firewalls_count("c1", "answered_total") < before + 3 {
            talk(&mut own, &mut alice);
            datagrams += 1;
            assert!(began.elapsed() < 3 * AGAIN, "nobody asks again");
        }
        println!("    {datagrams} datagrams there and back in {:?}", began.elapsed());
    });
}

/// Addresses for many, and what a socket is bound to that sends to them.
const GROUPS: [(&str, &str); 2] = [("239.77.0.1", "0.0.0.0"), ("ff15::77", "::")];
const INSIDE: &str = "inside";

/// A program that sends datagrams to a group.
fn sender_to_many(site: &Site, node: &str, user: &str, group: (&str, &str), port: u16) -> Player {
    let mut player = site.player(node, user, None);
    player.takes_datagrams(group.1);
    player.must(&format!("towards_many('d', '{}', {port}, '{INSIDE}')", group.0), "towards");
    player
}

#[test]
fn what_is_sent_to_many_comes_if_all_who_may_hear_it_are_the_senders_own() {
    guarded("what_is_sent_to_many_comes", |site| async {
        for group in GROUPS {
            let (mut alice, mut second, mut bob) = (
                site.player("c1", "alice", None),
                site.player("c1", "alice", None),
                site.player("c1", "bob", None),
            );
            let joins = |port| format!("member('m', '{}', '{INSIDE}', {port})", group.0);
            let port: u16 = alice.does(&joins(0)).said.parse().unwrap();
            second.must(&joins(port), &port.to_string());
            // From the node itself as well: what is sent to many is heard there, too.
            for node in ["c2", "c1"] {
                let case = format!("{} from {node}", group.0);
                let mut own = sender_to_many(site, node, "alice", group, port);
                let mut others = sender_to_many(site, node, "bob", group, port);
                let hears = "hear('m', 3)";
                for word in ["one", "two"] {
                    own.must(&format!("say('d', '{word}')"), "said");
                    alice.must(hears, word);
                    second.must(hears, word);
                }
                let refused = |reason: &str| {
                    site.firewalls_count("c1", &format!("refused_total{{reason=\"{reason}\"}}"))
                };
                // Another's datagram, and then her own with another among those who would hear it.
                let before = refused("other-user");
                others.must("say('d', 'from bob')", "said");
                alice.must("hear('m', 0.3)", "timeout");
                second.must("hear('m', 0.05)", "timeout");
                assert!(refused("other-user") > before, "{case}");
                bob.must(&joins(port), &port.to_string());
                let before = refused("other-user");
                for sender in [&mut own, &mut others] {
                    sender.must("say('d', 'to both')", "said");
                }
                for hearer in [&mut alice, &mut second, &mut bob] {
                    hearer.must("hear('m', 0.3)", "timeout");
                }
                assert!(refused("other-user") >= before + 2, "{case}");
                // He leaves, and she is heard again, by the flow of before as well.
                bob.must("close('m')", "closed");
                own.must("say('d', 'three')", "said");
                alice.must(hears, "three");
                second.must(hears, "three");
            }
        }
    });
}

/// The kernel takes packets of IPv4 in that come from outside with an address of its own; those of IPv6 it takes anyway.
const TAKES_OWN: &str = "cd /proc/sys/net/ipv4/conf && cat all/rp_filter inside/rp_filter >/run/rp_filter && echo 0 >all/rp_filter && echo 0 >inside/rp_filter && echo 1 >inside/accept_local";
const TAKES_NONE: &str = "cd /proc/sys/net/ipv4/conf && echo 0 >inside/accept_local && { read all; read inside; } </run/rp_filter && echo $all >all/rp_filter && echo $inside >inside/rp_filter && rm /run/rp_filter";

#[test]
fn whoever_writes_a_nodes_own_address_on_a_packet_from_outside_is_not_heard() {
    guarded("whoever_writes_a_nodes_own_address", |site| async {
        let _takes = site.breaks("c1", TAKES_OWN, TAKES_NONE);
        let mut root = site.player("c2", "root", None);
        let refused = || site.firewalls_count("c1", "refused_total{reason=\"forged\"}");
        for address in ["10.77.0.11", "fd77::11"] {
            let any = if address.contains(':') { "::" } else { "0.0.0.0" };
            let (mut alice, mut other) = (site.player("c1", "alice", None), site.player("c1", "alice", None));
            let (to, from) = (alice.takes_datagrams(any), other.takes_datagrams(any));
            let cursor = site.journals_end("c1");
            let before = refused();
            // As if another program of alice's had sent it, on the same node.
            root.must(&format!("forge('udp', '{address}', {from}, '{address}', {to})"), "sent");
            alice.must("hear('d', 0.5)", "timeout");
            assert_eq!(refused(), before + 1, "{address}");
            let port = alice.listens(any);
            root.must(&format!("forge('tcp', '{address}', {from}, '{address}', {port})"), "sent");
            alice.must("accept('l', 'a', 0.5)", "timeout");
            assert_eq!(refused(), before + 2, "{address}");
            let records = site.refusals("c1", &cursor);
            for transport in ["Udp", "Tcp"] {
                let is_it = |line: &&String| {
                    line.contains("reason=\"forged\"") && line.contains(&format!("transport={transport}"))
                };
                assert_eq!(records.iter().filter(is_it).count(), 1, "{transport}: {records:#?}");
            }
            // The program itself is heard: what was lost was another's.
            other.must(&format!("towards('d', '{address}', {to})"), "towards");
            talk(&mut other, &mut alice);
        }
    });
}
