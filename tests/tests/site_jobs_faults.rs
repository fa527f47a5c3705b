//! What becomes of jobs where a node is drained, and where Slurm's controller is away: it is said, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::site::{Started, outside};
use serde_json::{Value, json};

#[test]
fn slurm_away_or_short_of_nodes_is_said_and_loses_nothing() {
    outside("slurm_away_or_short_of_nodes_is_said_and_loses_nothing", |site| async {
        let _alone = site.alone();
        let alice = site.sign_in("alice").await;
        site.root("login", "su alice -c 'mkdir -p ~/away; rm -f ~/away/go'");
        let waits = b"#!/bin/sh\nuntil [ -e go ]; do sleep 0.2; done\necho went\n";
        site.write("login", "alice", "/home/alice/away/waits.sh", waits);
        site.root("login", "chmod +x /home/alice/away/waits.sh");
        let values = json!({ "program": "away/waits.sh", "directory": "away", "time": "10m" });
        let job = Started::new(&alice, "run", values.clone()).await;
        job.until_state("running").await;
        // A node is drained: what needs both waits, and says so.
        site.root("login", "scontrol update nodename=c2 state=drain reason=test");
        let mut both = values.clone();
        both["nodes"] = json!(2);
        let waiting = Started::new(&alice, "run", both).await;
        let queued = waiting.until("queued", |now| now["state"] == "queued" && now["reason"] != "").await;
        let reason = queued["reason"].as_str().unwrap().to_owned();
        let page = alice.clone().browser().get("/jobs").await.text();
        site.root("login", "scontrol update nodename=c2 state=resume");
        assert!(reason.contains("drained") || reason.contains("not available"), "{reason}");
        assert!(page.contains(reason.split(" (").next().unwrap()), "{reason}: {page}");
        assert_eq!(waiting.ask("cancel", Value::Null).await.0, 204);
        waiting.until_state("ended").await;
        site.root("login", "systemctl stop slurmctld");
        let doubtful = job.until("doubtful", |now| now["doubt"].is_string()).await;
        let list = alice.api("GET", "jobs", Value::Null).await.json();
        let refused = alice.api("POST", "apps/run/jobs", json!({ "values": values })).await;
        let cancelled = job.ask("cancel", Value::Null).await;
        let page = alice.clone().browser().get("/").await;
        site.root("login", "su alice -c 'touch ~/away/go'");
        site.root("login", "systemctl start slurmctld");
        assert_eq!(doubtful["state"], "running", "{doubtful:#}");
        assert!(list["trouble"][0].as_str().unwrap().contains("Slurm"), "{list:#}");
        assert_eq!(refused.status, 502, "{}", refused.text());
        assert!(refused.text().contains("Slurm can't be asked"), "{}", refused.text());
        assert_eq!((cancelled.0, page.status.as_u16()), (502, 200), "{}", cancelled.1);
        let ended = job.until("over", |now| now["state"] == "ended").await;
        assert_eq!(ended["exit_code"], 0, "{ended:#}");
        assert!(job.output("output").await.contains("went"));
    });
}

#[test]
fn several_systems_and_the_portals_own_node() {
    outside("several_systems_and_the_portals_own_node", |site| async {
        const FILE: &str = "/etc/portreeve/portreeve.toml";
        const RESTART: &str = "systemctl reset-failed; systemctl restart portreeve-portal portreeve-broker";
        let _alone = site.alone();
        let lines = "[workspace]\\non_portal_node = true\\n[[cluster]]\\nname = \"main\"\\n\
            [[cluster]]\\nname = \"gone\"\\ncommands = \"/nonexistent\"\\n\
            [[cluster]]\\nname = \"odd\"\\ncommands = \"/opt/odd\"\\n\
            [[cluster]]\\nname = \"slow\"\\ncommands = \"/opt/slow\"\\n\
            [[cluster]]\\nname = \"second\"\\nslurm_conf = \"/etc/slurm/second.conf\"\\n";
        let _changed = site.breaks(
            "login",
            &format!(
                "cp -p {FILE} {FILE}.kept; cp /etc/slurm/slurm.conf /etc/slurm/second.conf
                mkdir -p /opt/odd /opt/slow; for command in squeue sinfo sbatch; do
                    echo 'echo the moon is made of it' >/opt/odd/$command; echo 'exec sleep 300' >/opt/slow/$command
                    sed -i '1i #!/bin/sh' /opt/odd/$command /opt/slow/$command; chmod +x /opt/odd/$command /opt/slow/$command
                done
                printf '{lines}' >>{FILE}; {RESTART}"
            ),
            &format!("mv {FILE}.kept {FILE}; rm -rf /etc/slurm/second.conf /opt/odd /opt/slow; {RESTART}"),
        );
        site.settled().await;
        let alice = site.sign_in("alice").await;
        let said = alice.api("GET", "systems", Value::Null).await.json();
        let names: Vec<_> =
            said["systems"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["main", "gone", "odd", "slow", "second", "portal"]);
        let doubt = |at: usize| said["systems"][at]["doubt"].as_str().unwrap_or_default().to_owned();
        assert_eq!((doubt(0), doubt(4)), (String::new(), String::new()), "{said:#}");
        assert!(doubt(1).contains("is not there") && doubt(2).contains("not understood"), "{said:#}");
        assert!(doubt(3).contains("not answer"), "{said:#}");
        let trouble = alice.api("GET", "jobs", Value::Null).await.json()["trouble"].to_string();
        for part in ["Slurm of gone", "Slurm of odd", "Slurm of slow"] {
            assert!(trouble.contains(part), "{part}: {trouble}");
        }
        let server = json!({ "command": "exec python3 -m http.server {port} --bind {host}" });
        let start = |system: &str| json!({ "system": system, "values": server });
        let there = Started::of(&alice, "command", start("second")).await;
        let here = Started::of(&alice, "command", start("portal")).await;
        let ready = [there.until_state("ready").await, here.until_state("ready").await];
        assert_eq!((&ready[0]["system"], &ready[1]["system"]), (&json!("second"), &json!("portal")));
        assert!(ready[0]["slurm_job"].is_u64() && ready[1]["slurm_job"].is_null(), "{ready:#?}");
        let answer = alice.clone().browser().get(&format!("/jobs/{}/open", here.id)).await;
        let place = answer.location().to_owned();
        site.until_status(&alice, &place, 200).await;
        // It is alice's own process there, and in no group that is not hers.
        let port = ready[1]["port"].as_u64().unwrap();
        let owner = site.root("login", &format!("ss -Hltnpe 'sport = :{port}' | grep -o 'uid:[0-9]*'"));
        assert_eq!(owner, format!("uid:{}", site.root("login", "id -u alice")));
        for system in ["gone", "odd", "none"] {
            let answer = alice.api("POST", "apps/command/jobs", start(system)).await;
            assert_eq!(answer.status, if system == "none" { 422 } else { 502 }, "{}", answer.text());
        }
        for job in [&there, &here] {
            assert_eq!(job.ask("cancel", Value::Null).await.0, 204);
            job.until_state("ended").await;
        }
        site.until("login", &format!("ss -Hltn 'sport = :{port}'"), "");
        // What a manifest does not allow there is not started there.
        let forbidden = "title = \"Elsewhere\"\\nscript = \"#!/bin/sh\\\\ntrue\\\\n\"\\n";
        site.root("login", &format!("su alice -c \"mkdir -p ~/.config/portreeve/apps\"; printf '{forbidden}' >/home/alice/.config/portreeve/apps/elsewhere.toml"));
        let answer =
            alice.api("POST", "apps/elsewhere/jobs", json!({ "system": "portal", "values": {} })).await;
        site.root("login", "rm /home/alice/.config/portreeve/apps/elsewhere.toml");
        assert_eq!(answer.status, 422, "{}", answer.text());
    });
}
