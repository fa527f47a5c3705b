//! What users type on a cluster's machines, and what the portal makes of it: `portreeve forward`, `portreeve listening`, and
//! the workspace's page.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use portreeve_portal::limits::LISTENING_FRESH;
use portreeve_tests::world::Finished;
use portreeve_tests::world::site::{Site, outside};

const ALICES: &str = "I am uid 20001\n";
const CONFIG: &str = "/etc/portreeve/portreeve.toml";
/// Where the command line is on all nodes; the packages have it on the portal's.
const EVERYWHERE: &str = "/opt/portreeve/debug/portreeve";

fn typed(site: &Site, node: &str, user: &str, command: &str) -> Finished {
    site.shell(node, user, &command.replace("portreeve ", &format!("{EVERYWHERE} ")))
}

/// What it says, where it must succeed.
fn says(site: &Site, node: &str, user: &str, command: &str) -> String {
    let done = typed(site, node, user, command);
    assert_eq!(done.status, 0, "{node}: {user}: {command}: {}{}", done.out, done.err);
    done.out
}

/// Whoever controls what runs in a worker must not make themselves a session that lasts longer than the one it was let in by.
#[test]
fn what_runs_in_the_session_of_a_worker_gets_no_address() {
    outside("what_runs_in_the_session_of_a_worker_gets_no_address", |site| async {
        let alice = site.sign_in("alice").await;
        alice.browser().get("/").await.assert_status(200);
        // As a terminal of the workspace would be: a process of alice's in the control group of her worker.
        let script = "worker=$(pgrep -u alice -x portreeve-worke) || exit 9\n\
            group=$(sed -n 's/^0:://p' /proc/$worker/cgroup | grep . || sed -n 's/^[0-9]*:name=systemd://p' /proc/$worker/cgroup)\n\
            for root in /sys/fs/cgroup/unified /sys/fs/cgroup /sys/fs/cgroup/systemd; do\n\
              [ -e $root$group/cgroup.procs ] && echo $$ >$root$group/cgroup.procs && break\n\
            done\n\
            exec setpriv --reuid alice --regid alice --init-groups portreeve login";
        let inside = site.shell("login", "root", script);
        assert!(inside.status == 1 && inside.err.contains("terminal that the portal opened"), "{inside:?}");
        assert_eq!(site.run("login", "alice", &["portreeve", "login"]).status, 0);
    });
}

#[test]
fn forwards_are_made_shared_and_removed_by_command() {
    outside("forwards_are_made_shared_and_removed_by_command", |site| async {
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        // A site whose nodes have the command line gives them the configuration as well.
        site.write("c1", "root", CONFIG, &site.read("login", CONFIG));
        for node in ["login", "c1"] {
            let app = site.app(node, "alice", None, "0.0.0.0:0");
            let name = format!("command-{node}");
            let path = format!("/fw/{name}/");
            let alices = |command: &str| says(site, node, "alice", &format!("portreeve forward {command}"));
            drop(typed(site, node, "alice", &format!("portreeve forward remove {name}")));
            let target = format!("http://{node}:{}/", app.port());
            // A port alone is one of the machine where that is typed.
            assert_eq!(alices(&format!("add {name} {}", app.port())), format!("added {path} -> {target}\n"));
            assert!(alices("list").contains(&format!("{name}\t{target}")));
            assert_eq!(site.until_status(&alice, &path, 200).await.text(), ALICES);
            let page = alice.clone().browser().get("/").await.text();
            assert!(page.contains(&format!("href=\"{path}\"")) && page.contains(&target), "{page}");
            let listening = says(site, node, "alice", "portreeve listening");
            let opened = format!("https://portal.cluster.example{}", app.at(node));
            assert!(listening.lines().any(|line| line.ends_with(&opened)), "{opened}: {listening}");
            // Others see nothing of it.
            let page = bob.clone().browser().get("/").await.text();
            assert!(!page.contains(&name), "{page}");
            assert!(!says(site, node, "bob", "portreeve forward list").contains(&name));
            bob.get(&path).await.assert_refused(403, "not-executable");
            for (command, why) in [
                (format!("add {name} 8888"), "belongs to somebody else (uid 20001)"),
                (format!("disable {name}"), "belongs to somebody else"),
                (format!("remove {name}"), "belongs to somebody else"),
                (format!("share {name} --group proj"), "belongs to somebody else"),
            ] {
                let refused = typed(site, node, "bob", &format!("portreeve forward {command}"));
                assert!(refused.status != 0 && refused.err.contains(why), "{command}: {refused:?}");
            }
            for (command, why) in [
                (format!("add {name} localhost:{}", app.port()), "localhost is no node"),
                (format!("add {name} 22"), "below 1024"),
                (format!("share {name} --group slurm"), "group"),
                (format!("share {name} --group no-such-group"), "no group called"),
            ] {
                let refused = typed(site, node, "alice", &format!("portreeve forward {command}"));
                assert!(refused.status != 0 && refused.err.contains(why), "{command}: {refused:?}");
            }
            alices(&format!("share {name} --group proj"));
            assert!(alices("list").contains("shared with proj"));
            assert_eq!(site.until_status(&bob, &path, 200).await.text(), ALICES);
            alices(&format!("disable {name}"));
            site.until_refused(&bob, &path, "disabled").await;
            let page = alice.clone().browser().get("/").await.text();
            assert!(page.contains(&name) && !page.contains(&format!("href=\"{path}\"")), "{page}");
            // The name stayed hers, and shared.
            alices(&format!("add {name} {}:{}", node, app.port()));
            assert_eq!(site.until_status(&bob, &path, 200).await.text(), ALICES);
            alices(&format!("remove {name}"));
            site.until_refused(&alice, &path, "no-such-forward").await;
        }
        site.root("c1", &format!("rm {CONFIG}"));
    });
}

#[test]
fn what_listens_is_listed_with_the_address_to_open() {
    outside("what_listens_is_listed_with_the_address_to_open", |site| async {
        let script = "exec /opt/portreeve/debug/portreeve-test-app --listen 10.77.0.11:0 <>told >said";
        let job = site.job("alice", "c1", script);
        let on_login = site.app("login", "alice", None, "0.0.0.0:0");
        let hidden = site.app("login", "alice", None, "127.0.0.1:0");
        let bobs = site.app("login", "bob", None, "0.0.0.0:0");
        let url = "https://portal.cluster.example";
        let (on_login_at, job_at) = (on_login.at("login"), format!("/fw2/10.77.0.11:{}/", job.app.port()));
        let line = |text: &str, port: u16| {
            let found = text.lines().find(|line| line.contains(&format!(":{port} ")));
            found.unwrap_or_else(|| panic!("no {port}: {text}")).to_owned()
        };
        // Of this machine the kernel tells.
        let here = site.run("login", "alice", &["portreeve", "listening"]);
        assert_eq!(here.status, 0, "{here:?}");
        assert!(line(&here.out, on_login.port()).ends_with(&format!("{url}{on_login_at}")), "{}", here.out);
        assert!(line(&here.out, hidden.port()).contains("loopback"), "{}", here.out);
        for other in [bobs.port(), job.app.port()] {
            assert!(!here.out.contains(&format!(":{other} ")), "{}", here.out);
        }
        // Of the others the portal.
        let all = ["portreeve", "listening", "--all-nodes", "--cacert", "/etc/portreeve/ca.pem"];
        let asked = Instant::now();
        let everywhere = loop {
            let everywhere = site.run("login", "alice", &all);
            assert_eq!(everywhere.status, 0, "{everywhere:?}");
            // What the portal heard just before is told again: perhaps between the starts of these.
            let heard = |port: u16| everywhere.out.contains(&format!(":{port} "));
            if (heard(job.app.port()) && heard(hidden.port())) || asked.elapsed() > LISTENING_FRESH * 2 {
                break everywhere;
            }
        };
        let of_job = line(&everywhere.out, job.app.port());
        assert!(of_job.starts_with("c1 ") && of_job.contains("portreeve-test"), "{of_job}");
        assert!(of_job.ends_with(&format!("{url}{job_at}")), "{of_job}");
        if site.shell("c1", "root", "grep -q cgroup /etc/slurm/tracking.conf").status == 0 {
            assert!(of_job.contains(&format!(" {} ", job.number)), "{} is missing: {of_job}", job.number);
        }
        assert!(line(&everywhere.out, on_login.port()).ends_with(&format!("{url}{on_login_at}")));
        assert!(!everywhere.out.contains(&format!(":{} ", bobs.port())), "{}", everywhere.out);
        let json = site.run("login", "alice", &[&all[..], &["--json"]].concat());
        let nodes: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        let c1 = nodes.as_array().unwrap().iter().find(|node| node["node"] == "c1").unwrap();
        let rows = c1["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["port"] == job.app.port()).unwrap();
        assert_eq!(row["open"], format!("{url}{job_at}"));
        // These addresses are true.
        let alice = site.sign_in("alice").await;
        for path in [&on_login_at, &job_at] {
            assert_eq!(alice.get(path).await.text(), ALICES, "{path}");
        }
        // The command has signed itself out again.
        let sessions = site.root("login", "portreeve sessions --user alice --json");
        let sessions: serde_json::Value = serde_json::from_str(&sessions).unwrap();
        let is_by_code = |session: &&serde_json::Value| session["how"] == "code";
        assert_eq!(sessions.as_array().unwrap().iter().find(is_by_code), None);
        // Without an authority that vouches for the portal, nothing is sent to it.
        let untrusted = site.run("login", "alice", &["portreeve", "listening", "--all-nodes"]);
        assert!(untrusted.status != 0 && untrusted.err.contains("--cacert"), "{untrusted:?}");
        // The workspace's page has the same.
        let page = alice.browser().get("/").await.text();
        for part in
            [format!("href=\"{job_at}\""), format!("href=\"{on_login_at}\""), "loopback address".to_owned()]
        {
            assert!(page.contains(&part), "{part} is missing: {page}");
        }
        assert!(!page.contains(&format!(":{}/", bobs.port())), "{page}");
    });
}
