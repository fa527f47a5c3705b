//! What becomes of jobs where a node is drained, and where Slurm's controller is away: it is said, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::site::{Started, outside};
use serde_json::{Value, json};

#[test]
fn slurm_away_or_short_of_nodes_is_said_and_loses_nothing() {
    outside("slurm_away_or_short_of_nodes_is_said_and_loses_nothing", |site| async {
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
        assert!(
            reason.contains("DRAINED") || reason.contains("not available") || reason.contains("free nodes"),
            "{reason}"
        );
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
