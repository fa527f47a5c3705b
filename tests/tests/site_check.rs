//! `portreeve check --live` on the portal node of an installed site, and configuration files that are not good, reloaded.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::site::{Site, outside};

const CONFIG: &str = "/etc/portreeve/portreeve.toml";
const CHECK: &str = "portreeve check --live 2>&1";

/// What it says, and with which status, as somebody on the portal's node.
fn check(site: &Site, user: &str) -> (String, i32) {
    let said = site.shell("login", user, CHECK);
    (said.out, said.status)
}

#[test]
fn an_installed_site_is_well() {
    outside("an_installed_site_is_well", |site| async {
        let _alone = site.alone();
        let (said, status) = check(site, "root");
        for line in [
            "/etc/portreeve/portreeve.toml: no problems",
            "/etc/portreeve/nodes.toml: no problems",
            "certificate: ok: /etc/portreeve/tls.key is its key",
            "certificate: ok: it is for portal.cluster.example",
            "files: ok: /etc/portreeve/agents-key.pem is root's, mode 0600",
            "groups: ok: ",
            "pam: ok: /etc/pam.d/portreeve has lines for auth and account",
            "forwards: ok: /home/portal-forwards is root's, mode 1777",
            "slurm: ok: it answers, and has 2 node(s)",
            "workspace: ok: 7 applications can be started",
            "broker: ok: it answers, for https://portal.cluster.example/",
            "portal: ok: it answers as portal.cluster.example",
            "agents: ok: 3 of 3 are connected",
        ] {
            assert!(said.contains(line), "{line:?} is missing:\n{said}");
        }
        assert!(status == 0 && !said.contains("problem:"), "{said}");
        // Who is not root hears what everybody may know, and that there is more.
        let (said, _) = check(site, "alice");
        for line in ["broker: ok: ", "portal: ok: ", "agents: not checked: ", "certificate: not checked: "] {
            assert!(said.contains(line), "{line:?} is missing:\n{said}");
        }
    });
}

#[test]
fn what_does_not_run_is_named() {
    outside("what_does_not_run_is_named", |site| async {
        let _alone = site.alone();
        site.root("login", "systemctl stop portreeve-broker");
        let (said, status) = check(site, "root");
        assert!(
            status == 1 && said.contains("broker: problem: nobody answers at /run/portreeve/login.sock"),
            "{said}"
        );
        site.root("login", "systemctl start portreeve-broker");
        site.until("login", "portreeve check --live >/dev/null && echo well", "well");
        site.root("c2", "systemctl stop portreeve-agent");
        site.until("login", &format!("{CHECK} | grep -c 'agents: warning: c2 is not connected'"), "1");
        site.root("c2", "systemctl start portreeve-agent");
        site.wait_for_agents(&["c2"]);
    });
}

#[test]
fn a_broken_file_is_told_and_changes_nothing() {
    outside("a_broken_file_is_told_and_changes_nothing", |site| async {
        let _alone = site.alone();
        let good = site.root("login", &format!("cat {CONFIG}"));
        // Of what is logged from now on: the cluster has had other tests before.
        let journal = format!("journalctl --no-pager --since @{}", site.root("login", "sleep 1; date +%s"));
        let marked = |text: &str| site.write("login", "root", CONFIG, text.as_bytes());
        marked(&format!("{good}\n[session]\nidel = \"1h\"\nlifetime = \"later\"\n"));
        let (said, status) = check(site, "root");
        let problems = [
            "session.idel: there is no such key; did you mean session.idle?",
            "session.lifetime: this is no duration",
        ];
        assert!(status == 1 && problems.iter().all(|line| said.contains(line)), "{said}");
        site.root("login", "systemctl reload portreeve-portal");
        // Portal and broker each say every problem, and go on with what they had.
        for unit in ["portreeve-portal", "portreeve-broker"] {
            for problem in problems {
                let script = format!("{journal} --unit {unit} | grep -cF '{problem}'");
                site.until("login", &script, "1");
            }
        }
        assert!(site.sign_in("carol").await.is_signed_in().await);
        marked(&format!("{good}\n[session]\nlifetime = \"2h\"\n"));
        site.root("login", "systemctl reload portreeve-portal");
        let script = format!("{journal} --unit portreeve-broker | grep -c 'the configuration was reloaded'");
        site.until("login", &script, "1");
        assert!(site.sign_in("carol").await.is_signed_in().await);
        marked(&format!("{good}\n"));
        site.root("login", "systemctl reload portreeve-portal");
        site.until("login", &script, "2");
    });
}
