//! What changes while somebody is in: groups, the portal's configuration, and a node's rules for addresses. What was
//! allowed before is not allowed still.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use portreeve_tests::world::Tunnel;
use portreeve_tests::world::site::{Site, SiteApp, outside};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ALICES: &str = "I am uid 20001\n";
const BOBS: &str = "I am uid 20002\n";
/// Where users and groups are looked up, and applications run.
const NODES: [&str; 2] = ["login", "c1"];
/// From a change in the user database until no request counts on what was: what the broker remembers, how often the portal
/// asks (both 2 s here), and a busy machine.
const GROUPS_CHANGE: Duration = Duration::from_secs(15);
/// The same for tunnels, which are judged again every 4 s.
const TUNNELS_END: Duration = Duration::from_secs(20);

/// A line of the user database, on login and c1 until it is dropped.
struct Line {
    site: &'static Site,
    file: &'static str,
    name: String,
}

impl Line {
    fn put(site: &'static Site, file: &'static str, line: &str) -> Self {
        let name = line.split(':').next().unwrap().to_owned();
        let this = Self { site, file, name };
        this.change(&format!("; echo '{line}'"));
        this
    }

    /// Others of these tests change the same files.
    fn change(&self, and: &str) {
        let _alone = self.site.alone();
        let Self { site, file, name } = self;
        for node in NODES {
            site.root(node, &format!("(grep -v '^{name}:' {file}{and}) >{file}.new; mv {file}.new {file}"));
        }
    }

    /// Puts another one in its place.
    fn becomes(&self, line: &str) {
        self.change(&format!("; echo '{line}'"));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.change("");
    }
}

/// The time until the tunnel ended. It is in use meanwhile.
async fn ends(mut tunnel: Tunnel) -> Duration {
    let started = Instant::now();
    let over = async {
        let mut chunk = [0; 64];
        while tunnel.write_all(b"still there").await.is_ok() {
            match tunnel.read(&mut chunk).await {
                Ok(1..) => tokio::time::sleep(Duration::from_millis(50)).await,
                Ok(0) | Err(_) => return,
            }
        }
    };
    tokio::time::timeout(TUNNELS_END, over).await.expect("the tunnel ends");
    started.elapsed()
}

#[test]
fn who_leaves_a_group_loses_what_it_opened() {
    outside("who_leaves_a_group_loses_what_it_opened", |site| async move {
        let lab = Line::put(site, "/etc/group", "lab:x:20300:alice,bob");
        let mut app = site.app("c1", "alice", Some("lab"), "10.77.0.11:0");
        let path = app.at("c1");
        let file = "/home/portal-forwards/changes-lab";
        let write = format!(
            "rm -f {file}; echo http://c1:{}/ >{file}; chgrp lab {file}; chmod 0710 {file}",
            app.port()
        );
        assert_eq!(site.shell("login", "alice", &format!("sg lab -c '{write}'")).status, 0);
        let bob = site.sign_in("bob").await;
        let mut link = bob.link().await;
        for path in [path.as_str(), "/fw/changes-lab/"] {
            assert_eq!(bob.get_on(&mut link, path).await.text(), ALICES, "{path}");
        }
        let direct = bob.tunnel(&path, "echo").await.unwrap();
        let forwarded = bob.tunnel("/fw/changes-lab/", "echo").await.unwrap();
        lab.becomes("lab:x:20300:alice");
        let left = Instant::now();
        let tunnels = async { tokio::join!(ends(direct), ends(forwarded)) };
        let requests = async {
            // The pooled connection is there all the time.
            while bob.get_on(&mut link, &path).await.status == 200 {
                assert!(left.elapsed() < GROUPS_CHANGE, "bob's requests are answered still");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            while bob.get_on(&mut link, "/fw/changes-lab/").await.status == 200 {
                assert!(left.elapsed() < GROUPS_CHANGE, "bob's requests are answered still");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::join!(tunnels, requests);
        let before = app.report();
        bob.get_on(&mut link, &path).await.assert_refused(403, "not-yours");
        bob.get_on(&mut link, "/fw/changes-lab/").await.assert_refused(403, "not-executable");
        bob.tunnel(&path, "echo").await.unwrap_err().assert_refused(403, "not-yours");
        assert_eq!(app.report().bytes, before.bytes);
        // Back again, without signing in anew.
        lab.becomes("lab:x:20300:alice,bob");
        site.until_status(&bob, &path, 200).await;
        site.until_status(&bob, "/fw/changes-lab/", 200).await;
    });
}

#[test]
fn a_login_group_that_others_are_in_grants_nothing() {
    outside("a_login_group_that_others_are_in_grants_nothing", |site| async move {
        // In no list of the sysadmin's: that others are in it is enough.
        let _guests = Line::put(site, "/etc/group", "guests:x:20400:alice,bob");
        let _frank = Line::put(site, "/etc/passwd", "frank:x:20006:20400:Frank:/:/bin/bash");
        let mut franks = site.app("c1", "frank", None, "10.77.0.11:0");
        // Alice has a login group of her own, and chose this one.
        let alices = site.app("c1", "alice", Some("guests"), "10.77.0.11:0");
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        for client in [&alice, &bob] {
            client.get(&franks.at("c1")).await.assert_refused(403, "group-grants-nothing");
        }
        franks.assert_untouched();
        let page = alice.browser().get(&franks.at("c1")).await.text();
        assert!(page.contains("too general to grant access"), "{page}");
        assert_eq!(bob.get(&alices.at("c1")).await.text(), ALICES);
    });
}

/// Rules of a node's firewall, which are taken out again.
struct Rules {
    site: &'static Site,
    node: &'static str,
    rules: Vec<String>,
}

impl Rules {
    fn add(site: &'static Site, node: &'static str, rules: &[String]) -> Self {
        let mut this = Self { site, node, rules: Vec::new() };
        for rule in rules {
            site.root(node, &format!("iptables --wait --table nat --append {rule}"));
            this.rules.push(rule.clone());
        }
        this
    }
}

/// Who is met at a port of c1's by somebody on the portal's node.
fn met(site: &Site, port: u16) -> String {
    site.root("login", &format!("curl --silent --max-time 5 http://10.77.0.11:{port}/"))
}

impl Drop for Rules {
    fn drop(&mut self) {
        for rule in &self.rules {
            drop(self.site.shell(self.node, "root", &format!("iptables --wait --table nat --delete {rule}")));
        }
    }
}

#[test]
fn a_redirected_port_is_nobodys() {
    outside("a_redirected_port_is_nobodys", |site| async move {
        if site.shell("c1", "root", "iptables --wait --table nat --list").status != 0 {
            return portreeve_tests::world::skip("a_redirected_port_is_nobodys", "no iptables with nat here");
        }
        let mut bobs = site.app("c1", "bob", None, "0.0.0.0:0");
        let mut roots = site.app("c1", "root", None, "10.77.0.111:0");
        // Nobody listens on two of these; on the third alice does, whom the kernel names when it knows no such connection.
        let empty = ["10.77.0.11:0"; 2].map(|listen| {
            let app = site.app("c1", "alice", None, listen);
            let port = app.port();
            app.end();
            port
        });
        let mut in_the_way = site.app("c1", "alice", None, "10.77.0.11:0");
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        let at = |port: u16| format!("/fw2/c1:{port}/");
        let [first, second] = empty;
        let redirect = |port: u16, to: &str| {
            format!(
                "PREROUTING --protocol tcp --destination 10.77.0.11 --dport {port} --jump DNAT --to-destination {to}"
            )
        };
        let to_bob = format!("10.77.0.11:{}", bobs.port());
        let _node = Rules::add(
            site,
            "c1",
            &[
                redirect(first, &to_bob),
                redirect(second, &format!("10.77.0.111:{}", roots.port())),
                redirect(in_the_way.port(), &to_bob),
            ],
        );
        for (port, says) in [(first, BOBS), (second, "I am uid 0"), (in_the_way.port(), BOBS)] {
            assert_eq!(met(site, port), says.trim(), "the rule works");
        }
        let (before, roots_before) = (bobs.report(), roots.report());
        for client in [&alice, &bob] {
            for port in [first, second, in_the_way.port()] {
                client.get(&at(port)).await.assert_refused(403, "unknown-owner");
            }
        }
        bobs.assert_nothing_since(before);
        roots.assert_nothing_since(roots_before);
        in_the_way.assert_untouched();
    });
}

#[test]
fn connections_whose_addresses_are_rewritten_on_the_way_are_nobodys() {
    outside("connections_whose_addresses_are_rewritten_on_the_way", |site| async move {
        let test = "connections_whose_addresses_are_rewritten_on_the_way_are_nobodys";
        if site.shell("login", "root", "iptables --wait --table nat --list").status != 0 {
            return portreeve_tests::world::skip(test, "no iptables with nat here");
        }
        let mut bobs = site.app("c1", "bob", None, "0.0.0.0:0");
        let mut alices = site.app("c1", "alice", None, "10.77.0.11:0");
        let mut own = site.app("c1", "alice", None, "10.77.0.11:0");
        let rule = |chain: &str, port: u16, jump: &str| {
            format!("{chain} --protocol tcp --destination 10.77.0.11 --dport {port} --jump {jump}")
        };
        let _rules = Rules::add(
            site,
            "login",
            &[
                // Where connections begin: alice's port is bob's.
                rule("OUTPUT", alices.port(), &format!("DNAT --to-destination 10.77.0.11:{}", bobs.port())),
                // Her own, but from another port than the portal knows of.
                rule("POSTROUTING", own.port(), "SNAT --to-source 10.77.0.1:61000-61999"),
            ],
        );
        assert_eq!([alices.port(), own.port()].map(|port| met(site, port)), [BOBS, ALICES].map(str::trim));
        let before = [&mut bobs, &mut alices, &mut own].map(SiteApp::report);
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        for client in [&alice, &bob] {
            for app in [&alices, &own] {
                client.get(&app.at("c1")).await.assert_refused(403, "unknown-owner");
            }
        }
        for (app, before) in [&mut bobs, &mut alices, &mut own].into_iter().zip(before) {
            app.assert_nothing_since(before);
        }
    });
}

/// A moment when a neighbour's `usermod` puts a new /etc/group in place is none to bind it in, and systemd says so.
const RELOAD: &str = "systemctl reload portreeve-portal 2>/dev/null || systemctl reload portreeve-portal";

#[test]
fn a_forward_of_roots_is_free_only_where_the_configuration_lists_it() {
    outside("a_forward_of_roots_is_free_only_where_the_configuration_lists_it", |site| async move {
        const FILE: &str = "/etc/portreeve/portreeve.toml";
        let mut roots = site.app("c1", "root", None, "10.77.0.11:0");
        let mut bobs = site.app("c1", "bob", None, "10.77.0.11:0");
        for (name, mode, app) in [
            ("admin-status", "1755", &roots),
            ("admin-bobs", "1755", &bobs),
            ("admin-unlisted", "1755", &bobs),
            ("admin-plain", "0755", &bobs),
            ("admin-writable", "1777", &bobs),
        ] {
            let file = format!("/home/portal-forwards/{name}");
            site.root("login", &format!("echo http://c1:{}/ >{file}; chmod {mode} {file}", app.port()));
        }
        let alice = site.sign_in("alice").await;
        let names = ["admin-bobs", "admin-unlisted", "admin-plain", "admin-writable"];
        alice.get("/fw/admin-status/").await.assert_refused(403, "root-socket");
        for name in names {
            alice.get(&format!("/fw/{name}/")).await.assert_refused(403, "forward-owner-differs");
        }
        roots.assert_untouched();
        bobs.assert_untouched();
        let before = String::from_utf8(site.read("login", FILE)).unwrap();
        let listed = r#"admin = ["admin-status", "admin-bobs", "admin-plain", "admin-writable"]"#;
        site.write(
            "login",
            "root",
            FILE,
            before.replace("[forwards]\n", &format!("[forwards]\n{listed}\n")).as_bytes(),
        );
        site.root("login", RELOAD);
        site.until_status(&alice, "/fw/admin-status/", 200).await;
        assert_eq!(alice.get("/fw/admin-bobs/").await.text(), BOBS);
        let reached = bobs.report();
        for name in ["admin-unlisted", "admin-plain", "admin-writable"] {
            alice.get(&format!("/fw/{name}/")).await.assert_refused(403, "forward-owner-differs");
        }
        bobs.assert_nothing_since(reached);
        // Taken from the list again, its live tunnels end.
        let tunnel = alice.tunnel("/fw/admin-bobs/", "echo").await.unwrap();
        site.write("login", "root", FILE, before.as_bytes());
        site.root("login", RELOAD);
        site.until_refused(&alice, "/fw/admin-bobs/", "forward-owner-differs").await;
        ends(tunnel).await;
        site.root("login", "rm /home/portal-forwards/admin-*");
    });
}
