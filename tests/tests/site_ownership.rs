//! Whose socket is it? On a cluster's nodes, where users share addresses and ports come and go: what is said of one socket
//! holds for no other one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::world::site::{Site, SiteApp, outside};
use portreeve_tests::world::{Client, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ALICES: &str = "I am uid 20001\n";
const BOBS: &str = "I am uid 20002\n";

/// All addresses of c1, in the map's order.
const C1: [&str; 4] = ["10.77.0.11", "10.77.0.111", "[fd77::11]", "[fd77::111]"];

async fn alice_and_bob(site: &Site) -> [Client; 2] {
    [site.sign_in("alice").await, site.sign_in("bob").await]
}

/// An application of this user's on a port that somebody else has at another address, or had a moment ago.
fn on_the_same_port(site: &Site, user: &str, listen: &str, port: u16) -> SiteApp {
    site.app("c1", user, None, &listen.replace("PORT", &port.to_string()))
}

/// One more application, whoever asks for it being its owner.
async fn assert_says(client: &Client, path: &str, says: &str) {
    let answer = client.get(path).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, says), "{path}: {answer:?}");
}

#[test]
fn one_port_number_at_two_addresses_is_two_users() {
    outside("one_port_number_at_two_addresses_is_two_users", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut alices = site.app("c1", "alice", None, "10.77.0.11:0");
        let port = alices.port();
        let mut bobs = on_the_same_port(site, "bob", "10.77.0.111:PORT", port);
        let (first, second) = (alices.at("10.77.0.11"), bobs.at("10.77.0.111"));
        bob.get(&first).await.assert_refused(403, "not-yours");
        alice.get(&second).await.assert_refused(403, "not-yours");
        alices.assert_untouched();
        bobs.assert_untouched();
        // By the node's name the first address at which somebody listens is meant, whoever that is.
        let by_name = alices.at("c1");
        bob.get(&by_name).await.assert_refused(403, "not-yours");
        let page = bob.clone().browser().get(&by_name).await.text();
        assert!(page.contains("open that address"), "{page}");
        alices.assert_untouched();
        bobs.assert_untouched();
        for _ in 0..3 {
            assert_says(&alice, &first, ALICES).await;
            assert_says(&bob, &second, BOBS).await;
            assert_says(&alice, &by_name, ALICES).await;
            alice.get(&second).await.assert_refused(403, "not-yours");
            bob.get(&first).await.assert_refused(403, "not-yours");
        }
        // With the first one gone it is the second one's, and alice's connections lead nowhere else.
        alices.end();
        alice.get(&by_name).await.assert_refused(403, "not-yours");
        assert_says(&bob, &by_name, BOBS).await;
        let mut again = on_the_same_port(site, "alice", "10.77.0.11:PORT", port);
        assert_says(&alice, &first, ALICES).await;
        assert_says(&alice, &by_name, ALICES).await;
        let before = again.report();
        bob.get(&first).await.assert_refused(403, "not-yours");
        again.assert_nothing_since(before);
    });
}

#[test]
fn ipv6_and_dual_stack_listeners_are_judged_too() {
    outside("ipv6_and_dual_stack_listeners_are_judged_too", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut six = site.app("c1", "alice", None, "[fd77::111]:0");
        bob.get(&six.at("[fd77::111]")).await.assert_refused(403, "not-yours");
        bob.get(&six.at("c1")).await.assert_refused(403, "not-yours");
        six.assert_untouched();
        assert_says(&alice, &six.at("[fd77::111]"), ALICES).await;
        assert_says(&alice, &six.at("[fd77:0:0::111]"), ALICES).await;
        assert_says(&alice, &six.at("c1"), ALICES).await;
        alice.get(&six.at("[fd77::11]")).await.assert_refused(503, "not-listening");

        let mut dual = site.app("c1", "alice", None, "[::]:0");
        for node in C1.into_iter().chain(["c1"]) {
            bob.get(&dual.at(node)).await.assert_refused(403, "not-yours");
        }
        dual.assert_untouched();
        for node in C1.into_iter().chain(["c1"]) {
            assert_says(&alice, &dual.at(node), ALICES).await;
        }
        let tunnel = bob.tunnel(&dual.at("10.77.0.11"), "echo").await;
        tunnel.unwrap_err().assert_refused(403, "not-yours");
    });
}

#[test]
fn the_two_families_of_one_port_may_be_two_users() {
    outside("the_two_families_of_one_port_may_be_two_users", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut four = site.app("c1", "alice", None, "0.0.0.0:0");
        let mut six = on_the_same_port(site, "bob", "[::]:PORT --v6only", four.port());
        for node in ["10.77.0.11", "10.77.0.111", "c1"] {
            bob.get(&four.at(node)).await.assert_refused(403, "not-yours");
        }
        for node in ["[fd77::11]", "[fd77::111]"] {
            alice.get(&six.at(node)).await.assert_refused(403, "not-yours");
        }
        four.assert_untouched();
        six.assert_untouched();
        assert_says(&alice, &four.at("c1"), ALICES).await;
        assert_says(&alice, &four.at("10.77.0.111"), ALICES).await;
        assert_says(&bob, &six.at("[fd77::111]"), BOBS).await;
        alice.get(&six.at("[fd77::111]")).await.assert_refused(403, "not-yours");
    });
}

#[test]
fn an_application_that_accepts_late_is_judged_by_its_listener() {
    outside("an_application_that_accepts_late_is_judged_by_its_listener", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        // Nothing is accepted before data comes: until then the kernel's record has no inode, and on older kernels uid 0.
        let mut deferred = site.listener("c1", "alice", None, "10.77.0.11:0 --defer");
        let path = deferred.at("c1");
        bob.get(&path).await.assert_refused(403, "not-yours");
        deferred.assert_untouched();
        for _ in 0..3 {
            assert_says(&alice, &path, ALICES).await;
            bob.get(&path).await.assert_refused(403, "not-yours");
        }
        // One that never accepts is judged, too.
        let mut deaf = site.app("c1", "alice", None, "10.77.0.11:0 --deaf");
        let refusal = tokio::time::timeout(Duration::from_secs(5), bob.get(&deaf.at("c1"))).await;
        refusal.expect("a refusal does not wait").assert_refused(403, "not-yours");
        deaf.assert_untouched();
    });
}

#[test]
fn roots_sockets_are_nobodys() {
    outside("roots_sockets_are_nobodys", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut roots = site.app("c1", "root", None, "10.77.0.11:0");
        // Root's group opens nothing either, nor any other that it runs with.
        let mut roots_proj = site.app("c1", "root", Some("proj"), "10.77.0.11:0");
        for client in [&alice, &bob] {
            client.get(&roots.at("c1")).await.assert_refused(403, "root-socket");
            client.get(&roots_proj.at("c1")).await.assert_refused(403, "root-socket");
        }
        roots.assert_untouched();
        roots_proj.assert_untouched();
        // Made by root, listened on as alice: root's by the kernel's record, alice's once accepted.
        let mut dropped = site.app("c1", "root", None, "10.77.0.11:0 --drop 20001");
        // Made and listened on by root, and handed to alice, as an inetd does.
        let mut handed = site.listener("c1", "root", None, "10.77.0.11:0 --made-by 0 --accepted-by 20001");
        for app in [&mut dropped, &mut handed] {
            for client in [&alice, &bob] {
                let answer = client.get(&app.at("c1")).await;
                assert_eq!(answer.status, 403, "{answer:?}");
                assert!(matches!(answer.error(), "root-socket" | "unknown-owner"), "{answer:?}");
            }
            app.assert_untouched();
        }
    });
}

#[test]
fn a_listener_that_was_passed_on_is_neither_ones() {
    outside("a_listener_that_was_passed_on_is_neither_ones", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut app = site.listener("c1", "root", None, "10.77.0.11:0 --made-by 20001 --accepted-by 20002");
        let path = app.at("c1");
        for _ in 0..5 {
            // Bob's process answers; what alice asks for might reach it, which she passed her socket to, but no answer
            // of its comes back.
            alice.get(&path).await.assert_refused(403, "unknown-owner");
            let answer = bob.get(&path).await;
            assert_eq!(answer.status, 403, "{answer:?}");
            assert!(matches!(answer.error(), "not-yours" | "unknown-owner"), "{answer:?}");
        }
        let before = app.report();
        bob.get(&path).await.assert_status(403);
        app.assert_nothing_since(before);
    });
}

#[test]
fn a_port_of_processes_in_different_groups_is_in_none() {
    outside("a_port_of_processes_in_different_groups_is_in_none", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut of_proj = site.listener("c1", "alice", Some("proj"), "10.77.0.11:0 --reuse");
        let path = of_proj.at("c1");
        let options = format!("10.77.0.11:{} --reuse", of_proj.port());
        let mut own = site.listener("c1", "alice", None, &options);
        // Whichever of the two takes a connection, the kernel's record is the same.
        for _ in 0..6 {
            bob.get(&path).await.assert_refused(403, "group-unknown");
        }
        of_proj.assert_untouched();
        own.assert_untouched();
        assert_says(&alice, &path, ALICES).await;
        own.end();
        assert_eq!(site.until_status(&bob, &path, 200).await.text(), ALICES);
    });
}

/// Whether the tunnel ends, rather than goes on to carry what is written into it.
async fn ends(mut tunnel: Tunnel) -> bool {
    let over = async {
        loop {
            let mut chunk = [0; 16];
            if tunnel.write_all(b"still there").await.is_err() {
                return;
            }
            match tunnel.read(&mut chunk).await {
                Ok(1..) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(0) | Err(_) => return,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over).await.is_ok()
}

#[test]
fn whoever_takes_an_ended_jobs_port_gets_nothing_of_its_owners() {
    outside("whoever_takes_an_ended_jobs_port_gets_nothing", |site| async move {
        let [alice, bob] = alice_and_bob(site).await;
        let script = "exec /opt/portreeve/debug/portreeve-test-app --listen 10.77.0.11:0 <>told >said";
        let job = site.job("alice", "c1", script);
        let (path, port) = (job.app.at("c1"), job.app.port());
        // What stays open towards it: some connections in the pool, a tunnel, and a page that goes on asking.
        let mut link = alice.link().await;
        for _ in 0..3 {
            assert_eq!(alice.get_on(&mut link, &path).await.text(), ALICES);
        }
        let mut tunnel = alice.tunnel(&path, "echo").await.unwrap();
        tunnel.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        tunnel.read_exact(&mut hello).await.unwrap();
        let (asks, page) = (alice.clone(), path.clone());
        let asking = tokio::spawn(async move {
            let mut said = Vec::new();
            while !said.contains(&"not-yours".to_owned()) && said.len() < 2000 {
                let answer = asks.get(&page).await;
                assert!(answer.text() != BOBS, "bob's application answered alice");
                said.push(answer.error().to_owned());
            }
            said
        });
        job.cancel();
        let mut bobs = tokio::task::spawn_blocking(move || {
            // As soon as the port is free.
            let take = format!(
                "until /opt/portreeve/debug/portreeve-test-app --listen 10.77.0.11:{port} 2>/dev/null; do :; done"
            );
            site.app_by("c1", "bob", &take)
        })
        .await
        .unwrap();
        let said = asking.await.unwrap();
        assert!(said.contains(&"not-yours".to_owned()), "alice never met bob's application: {said:?}");
        for _ in 0..3 {
            alice.get_on(&mut link, &path).await.assert_refused(403, "not-yours");
        }
        alice.tunnel(&path, "echo").await.unwrap_err().assert_refused(403, "not-yours");
        assert!(ends(tunnel).await, "the tunnel ends with the job");
        bobs.assert_untouched();
        drop(job);
        assert_says(&bob, &path, BOBS).await;
    });
}

#[test]
fn what_an_application_accepted_before_it_lost_its_port_is_its_own_still() {
    outside("what_an_application_accepted_before_it_lost_its_port", |site| async {
        let [alice, bob] = alice_and_bob(site).await;
        let mut alices = site.listener("c1", "alice", None, "10.77.0.11:0");
        let path = alices.at("c1");
        let port = alices.port();
        let mut link = alice.link().await;
        assert_eq!(alice.get_on(&mut link, &path).await.text(), ALICES);
        alices.close();
        let mut bobs = on_the_same_port(site, "bob", "10.77.0.11:PORT", port);
        // By the connection that alice's application has accepted, which is in the pool.
        for _ in 0..3 {
            assert_eq!(alice.get_on(&mut link, &path).await.text(), ALICES);
        }
        bob.get(&path).await.assert_status(200);
        let before = bobs.report();
        // For a second one at the same time there is none.
        let (one, two) = tokio::join!(alice.get(&path), alice.get_on(&mut link, &path));
        for answer in [one, two] {
            assert!(answer.text() == ALICES || answer.error() == "not-yours", "{answer:?}");
        }
        alices.end();
        for _ in 0..3 {
            alice.get_on(&mut link, &path).await.assert_refused(403, "not-yours");
            alice.get(&path).await.assert_refused(403, "not-yours");
        }
        bobs.assert_nothing_since(before);
        assert_says(&bob, &path, BOBS).await;
    });
}
