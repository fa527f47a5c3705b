//! Forward files in a directory that a whole cluster shares, as users make them: by hand, in jobs, and with `portreeve
//! forward`. Execute permission decides who may use one; what it leads to must belong to whoever answers for the file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use portreeve_tests::world::Client;
use portreeve_tests::world::site::{Site, SiteApp, outside};
use tokio::io::AsyncReadExt;

const DIRECTORY: &str = "/home/portal-forwards";
const ALICES: &str = "I am uid 20001\n";

/// What users of other portals have in their job scripts, but for the directory.
const FOUR_LINES: &str = r#"
cat >step <<'STEP'
PORTAL_FWNAME="$(id -un | tr '[A-Z]' '[a-z]')-tensorboard"
PORTAL_FWFILE="/home/portal-forwards/${PORTAL_FWNAME}"
echo "http://$(hostname -s):${SLURM_STEP_RESV_PORTS}" >> $PORTAL_FWFILE
chmod u+x ${PORTAL_FWFILE}
exec @PROGRAM@ --listen "$(hostname -s)":${SLURM_STEP_RESV_PORTS} <>told >said
STEP
umask 022
exec srun --resv-ports=1 bash step
"#;

const PROGRAM: &str = "/opt/portreeve/debug/portreeve-test-app";

/// As a user, on the login node, in the directory of forwards.
fn by_hand(site: &Site, user: &str, script: &str) {
    let done = site.shell("login", user, &format!("set -e; umask 022; cd {DIRECTORY}; {script}"));
    assert_eq!(done.status, 0, "{user}: {script}: {}{}", done.out, done.err);
}

/// Writes the forwards of a test anew: NAME, MODE, GROUP, and where all of them lead.
fn put(site: &Site, user: &str, target: &str, files: &[(&str, &str, &str)]) {
    for (name, mode, group) in files {
        by_hand(
            site,
            user,
            &format!("rm -f {name}; echo '{target}' >{name}; chgrp {group} {name}; chmod {mode} {name}"),
        );
    }
}

async fn people<const N: usize>(site: &Site, names: [&str; N]) -> [Client; N] {
    let mut clients = Vec::new();
    for name in names {
        clients.push(site.sign_in(name).await);
    }
    clients.try_into().unwrap()
}

async fn assert_each(client: &Client, expected: &[(&str, u16, &str)]) {
    for (name, status, says) in expected {
        let answer = client.get(&format!("/fw/{name}/")).await;
        let said = if answer.status == 200 { answer.text() } else { answer.error().to_owned() };
        assert_eq!((answer.status.as_u16(), said.trim()), (*status, *says), "{name}: {answer:?}");
    }
}

#[test]
fn the_four_lines_of_a_job_make_a_forward_that_is_shared_with_a_group() {
    outside("the_four_lines_of_a_job", |site| async {
        by_hand(site, "alice", "rm -f alice-tensorboard; echo http://c2:1/ >alice-tensorboard");
        let script = FOUR_LINES.replace("@PROGRAM@", PROGRAM);
        let mut job = site.job("alice", "c1", &script);
        let [alice, bob, carol] = people(site, ["alice", "bob", "carol"]).await;
        let name = "/fw/alice-tensorboard/";
        // The older line is there still; the last one counts.
        let answer = site.until_status(&alice, name, 200).await;
        assert_eq!(answer.text(), ALICES);
        let before = job.app.report();
        for client in [&bob, &carol] {
            client.get(name).await.assert_refused(403, "not-executable");
        }
        by_hand(site, "alice", "chgrp proj alice-tensorboard; chmod g+x alice-tensorboard");
        job.app.assert_nothing_since(before);
        let answer = site.until_status(&bob, name, 200).await;
        assert_eq!((answer.text().as_str(), answer.header("content-security-policy")), (ALICES, "sandbox"));
        carol.get(name).await.assert_refused(403, "not-executable");
        site.until_refused(&bob.clone().browser(), name, "foreign-application").await;
        // The forward shares what it leads to under its own name only.
        bob.get(&job.app.at("c1")).await.assert_refused(403, "not-yours");
        // x without r for the group: the broker reads it for bob.
        by_hand(site, "alice", "chmod 0710 alice-tensorboard");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(bob.get(name).await.text(), ALICES);
        // A live tunnel ends with the permission.
        let mut tunnel = bob.tunnel(name, "echo").await.unwrap();
        by_hand(site, "alice", "chmod g-x alice-tensorboard");
        site.until_refused(&bob, name, "not-executable").await;
        let mut nothing = [0];
        let ended = tokio::time::timeout(Duration::from_secs(10), tunnel.read(&mut nothing)).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "the tunnel ends");
        // Truncated, it is switched off, and the name stays hers.
        by_hand(site, "alice", ": >alice-tensorboard");
        let page = site.until_refused(&alice, name, "disabled").await;
        assert_eq!(page.status, 410);
        let taken = site.shell(
            "login",
            "bob",
            &format!("cd {DIRECTORY}; rm -f alice-tensorboard; : >alice-tensorboard"),
        );
        assert_ne!(taken.status, 0, "first to create a name owns it");
        alice.get(&job.app.at("c1")).await.assert_status(200);
    });
}

#[test]
fn the_files_owner_and_group_must_be_the_applications() {
    outside("the_files_owner_and_group_must_be_the_applications", |site| async {
        let mut own = site.app("c1", "alice", None, "10.77.0.11:0");
        let mut of_proj = site.app("c1", "alice", Some("proj"), "10.77.0.11:0");
        let [alice, bob] = people(site, ["alice", "bob"]).await;
        let target = |app: &SiteApp| format!("http://c1:{}/", app.port());
        put(
            site,
            "alice",
            &target(&own),
            &[
                ("owner-private", "0700", "alice"),
                ("owner-no-x", "0640", "proj"),
                ("owner-all", "0755", "proj"),
                ("owner-group-writable", "0770", "proj"),
                ("owner-world-writable", "0757", "proj"),
            ],
        );
        // Bob may execute his own files; they lead to what is not his.
        put(site, "bob", &target(&own), &[("bobs-to-alice", "0755", "proj")]);
        put(
            site,
            "bob",
            &target(&of_proj),
            &[("bobs-to-proj", "0755", "bob"), ("bobs-of-proj", "0750", "proj")],
        );
        assert_each(
            &bob,
            &[
                ("owner-private", 403, "not-executable"),
                ("owner-no-x", 403, "not-executable"),
                ("owner-group-writable", 403, "forward-writable"),
                ("owner-world-writable", 403, "forward-writable"),
                ("bobs-to-alice", 403, "forward-owner-differs"),
                ("bobs-to-proj", 403, "forward-owner-differs"),
            ],
        )
        .await;
        assert_each(
            &alice,
            &[
                ("owner-no-x", 403, "not-executable"),
                ("owner-group-writable", 403, "forward-writable"),
                // Her own application, but bob answers for where the file leads.
                ("bobs-to-alice", 403, "forward-owner-differs"),
                ("bobs-to-proj", 403, "forward-owner-differs"),
            ],
        )
        .await;
        own.assert_untouched();
        of_proj.assert_untouched();
        let says = ALICES.trim();
        assert_each(&bob, &[("owner-all", 200, says), ("bobs-of-proj", 200, says)]).await;
        assert_each(&alice, &[("owner-private", 200, says), ("bobs-of-proj", 200, says)]).await;
        let page = bob.browser().get("/fw/owner-group-writable/").await.text();
        assert!(page.contains("chmod go-w"), "{page}");
    });
}

#[test]
fn a_file_that_others_write_counts_only_for_the_group_that_the_application_runs_with() {
    outside("a_file_that_others_write_counts_only_for_the_group", |site| async {
        let mut own = site.app("c1", "alice", None, "10.77.0.11:0");
        let of_proj = site.app("c1", "alice", Some("proj"), "10.77.0.11:0");
        let mut of_everyone = site.app("c1", "alice", Some("everyone"), "10.77.0.11:0");
        let mut carols = site.app("c1", "carol", None, "10.77.0.11:0");
        let [alice, bob, carol] = people(site, ["alice", "bob", "carol"]).await;
        let target = |port: u16| format!("http://c1:{port}/");
        let put = |app: u16, file| put(site, "alice", &target(app), &[file]);
        put(of_proj.port(), ("writable-proj", "0770", "proj"));
        put(of_everyone.port(), ("writable-everyone", "0775", "everyone"));
        put(of_everyone.port(), ("plain-everyone", "0755", "everyone"));
        put(carols.port(), ("to-carol", "0755", "everyone"));
        // Bob may write it, and lets it lead to what alice shares with nobody.
        put(of_proj.port(), ("rewritten", "0770", "proj"));
        by_hand(site, "bob", &format!("echo {} >>rewritten", target(own.port())));
        assert_each(&bob, &[("rewritten", 403, "forward-writable")]).await;
        own.assert_untouched();
        let says = ALICES.trim();
        assert_each(&bob, &[("writable-proj", 200, says), ("writable-everyone", 403, "forward-writable")])
            .await;
        assert_each(
            &carol,
            &[("writable-proj", 403, "not-executable"), ("writable-everyone", 403, "forward-writable")],
        )
        .await;
        of_everyone.assert_untouched();
        // A group that everybody is in vouches for nobody; the owner, who alone writes the file, does.
        assert_each(&alice, &[("to-carol", 403, "forward-owner-differs")]).await;
        carols.assert_untouched();
        assert_each(&carol, &[("plain-everyone", 200, says)]).await;
    });
}

#[test]
fn only_a_plain_file_with_one_name_is_a_forward() {
    outside("only_a_plain_file_with_one_name_is_a_forward", |site| async {
        let mut app = site.app("c1", "alice", None, "10.77.0.11:0");
        let [alice] = people(site, ["alice"]).await;
        put(site, "alice", &format!("http://c1:{}/", app.port()), &[("odd-real", "0700", "alice")]);
        by_hand(
            site,
            "alice",
            "rm -rf odd-link odd-home odd-hard odd-fifo odd-directory ~/forward
             ln -s odd-real odd-link; cp -p odd-real ~/forward; ln -s ~/forward odd-home
             mkfifo -m 700 odd-fifo; mkdir odd-directory; cp -p odd-real odd-directory/inner",
        );
        for name in ["odd-link", "odd-home", "odd-fifo", "odd-directory"] {
            let asked = Instant::now();
            alice.get(&format!("/fw/{name}/")).await.assert_refused(403, "forward-refused");
            assert!(asked.elapsed() < Duration::from_secs(3), "{name} made it wait");
        }
        alice.get("/fw/odd-directory%2Finner/").await.assert_status(404);
        alice.get("/fw/..%2Falice%2Fforward/").await.assert_status(404);
        app.assert_untouched();
        assert_each(&alice, &[("odd-real", 200, ALICES.trim())]).await;
        by_hand(site, "alice", "ln odd-real odd-hard");
        site.until_refused(&alice, "/fw/odd-hard/", "forward-refused").await;
        site.until_refused(&alice, "/fw/odd-real/", "forward-refused").await;
        by_hand(site, "alice", "rm odd-hard");
        site.until_status(&alice, "/fw/odd-real/", 200).await;
    });
}

#[test]
fn files_that_lead_nowhere_say_why() {
    outside("files_that_lead_nowhere_say_why", |site| async {
        let [alice] = people(site, ["alice"]).await;
        for (name, line, status, code) in [
            ("nowhere-local", "http://localhost:8888/", 404, "unknown-node"),
            ("nowhere-loopback", "http://127.0.0.1:8888/", 404, "unknown-node"),
            ("nowhere-outside", "http://10.78.0.2:8888/", 404, "unknown-node"),
            ("nowhere-privileged", "http://c1:22/", 403, "privileged-port"),
            ("nowhere-garbage", "c1 8888", 502, "bad-forward"),
            ("nowhere-empty", "", 410, "disabled"),
        ] {
            put(site, "alice", line, &[(name, "0700", "alice")]);
            alice.get(&format!("/fw/{name}/")).await.assert_refused(status, code);
        }
        alice.get("/fw/nowhere-at-all/").await.assert_refused(404, "no-such-forward");
        // A line of somebody's file does not come back in a page.
        let page = alice.clone().browser().get("/fw/nowhere-garbage/").await.text();
        assert!(!page.contains("c1 8888"), "{page}");
    });
}
