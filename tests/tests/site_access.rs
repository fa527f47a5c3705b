//! Who reaches which application on a cluster, from outside: one's own, in a job; a group's; and none of the places that
//! are nobody's. What is refused gets no byte, by the application's own count.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::Client;
use portreeve_tests::world::site::{SiteApp, outside};

/// Refused by this code, however it is asked for, and untouched.
async fn assert_refused(client: &Client, app: &mut SiteApp, path: &str, code: &str) {
    let before = app.report();
    for client in [client.clone(), client.clone().http2(), client.clone().browser()] {
        client.get(&format!("{path}secret")).await.assert_refused(403, code);
    }
    let upload = client.request(client.prepare("POST", path), vec![b'x'; 100_000]).await;
    upload.assert_refused(403, code);
    let socket = client.websocket(path).await.unwrap_err();
    assert_eq!(socket.status(), 403);
    client.tunnel(path, "echo").await.unwrap_err().assert_refused(403, code);
    app.assert_nothing_since(before);
}

#[test]
fn a_job_is_opened_by_its_owner_and_by_nobody_else() {
    outside("a_job_is_opened_by_its_owner_and_by_nobody_else", |site| async {
        let script = "exec /opt/portreeve/debug/portreeve-test-app --listen $(hostname -s):0 <>told >said";
        let mut job = site.job("alice", "c1", script);
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        let path = job.app.at("c1");
        assert_refused(&bob, &mut job.app, &path, "not-yours").await;
        job.app.assert_untouched();
        let answer = alice.get(&path).await;
        answer.assert_status(200);
        assert_eq!(answer.text(), "I am uid 20001\n");
        assert_eq!(alice.clone().browser().http2().get(&path).await.text(), "I am uid 20001\n");
        // What alice has open opens nothing for others.
        let tunnel = alice.tunnel(&path, "echo").await.unwrap();
        for _ in 0..3 {
            bob.get(&path).await.assert_refused(403, "not-yours");
        }
        drop(tunnel);
        // Nor does it without a session, or with the cookie of one that is over.
        let stranger = site.stranger();
        let before = job.app.report();
        stranger.get(&path).await.assert_refused(401, "not-signed-in");
        assert_eq!(alice.post("/-/sign-out", "").await.status, 303);
        alice.get(&path).await.assert_refused(401, "not-signed-in");
        job.app.assert_nothing_since(before);
        let page = bob.browser().get(&path).await;
        assert!(page.text().contains("belongs to another user (uid 20001)"), "{}", page.text());
        let audit =
            site.root("login", "journalctl --no-pager --unit portreeve-portal --grep 'verdict=\"deny\"'");
        let port = job.app.port();
        let of_this =
            |line: &&str| line.contains(&format!("what=/fw2/c1:{port}")) && line.contains("user=bob");
        let record = audit.lines().find(of_this).unwrap_or_else(|| panic!("no record: {audit}"));
        for field in
            ["owner=20001", "reason=\"not-yours\"", "from=10.77.0.1:", &format!("to=10.77.0.11:{port}")]
        {
            assert!(record.contains(field), "{field} is missing: {record}");
        }
    });
}

#[test]
fn a_groups_application_is_opened_by_its_members() {
    outside("a_groups_application_is_opened_by_its_members", |site| async {
        let mut app = site.app("c1", "alice", Some("proj"), "10.77.0.11:0");
        let path = app.at("c1");
        let (bob, carol) = (site.sign_in("bob").await, site.sign_in("carol").await);
        assert_refused(&carol, &mut app, &path, "not-yours").await;
        app.assert_untouched();
        let answer = bob.get(&path).await;
        answer.assert_status(200);
        assert_eq!(answer.text(), "I am uid 20001\n");
        assert_eq!(answer.header("content-security-policy"), "sandbox");
        bob.tunnel(&path, "echo").await.unwrap();
        // A window, or a page, would act in bob's name from the portal's own address.
        let before = app.report();
        let window = bob.clone().browser().get(&path).await;
        window.assert_refused(403, "foreign-application");
        assert!(window.text().contains("This application needs an address of its own"), "{}", window.text());
        assert!(!window.text().contains("localhost"), "{}", window.text());
        let in_a_page = bob.clone().with("sec-fetch-mode", "cors").with("sec-fetch-site", "same-origin");
        in_a_page.get(&path).await.assert_refused(403, "foreign-application");
        let worker = bob.with("service-worker", "script").get(&path).await;
        assert!(worker.text().contains("registration.unregister()"), "{worker:?}");
        app.assert_nothing_since(before);
    });
}

#[test]
fn a_group_that_everybody_is_in_grants_nothing() {
    outside("a_group_that_everybody_is_in_grants_nothing", |site| async {
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        // Carol's login group is `everyone`, which alice and bob are in; `groups.never` lists it.
        let mut carols = site.app("c1", "carol", None, "10.77.0.11:0");
        // The same when it is chosen.
        let mut alices = site.app("c1", "alice", Some("everyone"), "10.77.0.11:0");
        let path = carols.at("c1");
        for client in [&alice, &bob] {
            assert_refused(client, &mut carols, &path, "group-grants-nothing").await;
        }
        let path = alices.at("c1");
        assert_refused(&bob, &mut alices, &path, "group-grants-nothing").await;
        carols.assert_untouched();
        alices.assert_untouched();
    });
}

#[test]
fn what_listens_on_the_nodes_loopback_alone_is_not_reached_and_its_owner_is_told() {
    outside("what_listens_on_the_nodes_loopback_alone", |site| async {
        let mut app = site.app("c1", "alice", None, "127.0.0.1:0");
        let mut six = site.app("c1", "alice", None, "[::1]:0");
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        for app in [&app, &six] {
            for node in ["c1", "10.77.0.11", "[fd77::11]"] {
                alice.get(&app.at(node)).await.assert_refused(502, "loopback-only");
            }
            let page = alice.clone().browser().get(&app.at("c1")).await.text();
            assert!(page.contains("own node alone, on 127.0.0.1") && page.contains("hostname -s"), "{page}");
            // What others have is nobody's business.
            bob.get(&app.at("c1")).await.assert_refused(503, "not-listening");
            for node in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"] {
                assert_eq!(alice.get(&app.at(node)).await.status, 404, "{node}");
            }
        }
        app.assert_untouched();
        six.assert_untouched();
        // Nothing there at all is another matter: it may come.
        let port = app.port();
        app.end();
        // What was said of it a moment ago is believed for a second.
        let path = format!("/fw2/c1:{port}/");
        site.until_refused(&alice, &path, "not-listening").await.assert_refused(503, "not-listening");
    });
}

#[test]
fn places_that_are_nobodys() {
    outside("places_that_are_nobodys", |site| async {
        let alice = site.sign_in("alice").await;
        for port in [1, 22, 80, 443, 1023] {
            for node in ["c1", "login", "10.77.0.1"] {
                alice.get(&format!("/fw2/{node}:{port}/")).await.assert_refused(403, "privileged-port");
            }
        }
        // No nodes of root's map, whatever a resolver says of them: c1b is c1's other address in /etc/hosts.
        for node in [
            "c9",
            "c1b",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "10.77.0.99",
            "10.78.0.1",
            "10.78.0.2",
            "portal.cluster.example",
            "[fd77::99]",
            "[::ffff:127.0.0.1]",
        ] {
            alice.get(&format!("/fw2/{node}:8888/")).await.assert_refused(404, "unknown-node");
        }
        let page = alice.clone().browser().get("/fw2/c9:8888/").await.text();
        assert!(page.contains("c9 is no node of this cluster"), "{page}");
        for malformed in
            ["c1:0", "c1:65536", "c1:08888", "0.0.0.0:8888", "10.77.11:8888", "0x0a4d000b:8888", "c1"]
        {
            assert_eq!(alice.get(&format!("/fw2/{malformed}/")).await.status, 404, "{malformed}");
        }
        // The portal's own: what agents connect to was made by systemd, and is accepted from by the portal's user.
        for node in ["login", "10.77.0.1", "[fd77::1]"] {
            let answer = alice.get(&format!("/fw2/{node}:8499/")).await;
            let is_known = node != "[fd77::1]";
            assert_eq!(answer.status, if is_known { 403 } else { 404 }, "{node}: {answer:?}");
            assert!(matches!(answer.error(), "root-socket" | "unknown-owner" | "unknown-node"), "{answer:?}");
        }
        // An IPv4 address in IPv6's clothes is that address.
        let mut app = site.app("c1", "bob", None, "10.77.0.11:0");
        alice.get(&app.at("[::ffff:10.77.0.11]")).await.assert_refused(403, "not-yours");
        app.assert_untouched();
    });
}

#[test]
fn applications_on_the_portals_own_node_are_judged_like_all_others() {
    outside("applications_on_the_portals_own_node", |site| async {
        let mut app = site.app("login", "alice", None, "0.0.0.0:0");
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        let path = app.at("login");
        assert_refused(&bob, &mut app, &path, "not-yours").await;
        app.assert_untouched();
        for node in ["login", "10.77.0.1"] {
            assert_eq!(alice.get(&app.at(node)).await.text(), "I am uid 20001\n", "{node}");
        }
        // Its other addresses are not in the map.
        alice.get(&app.at("10.78.0.1")).await.assert_refused(404, "unknown-node");
    });
}
