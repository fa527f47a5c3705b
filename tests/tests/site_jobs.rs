//! Applications as jobs of a real Slurm, started from the workspace: they become ready and are opened, compile and run on two
//! nodes, fail, wait, run out of time, and are nobody else's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::world::Client;
use portreeve_tests::world::site::{Site, Started, outside};
use serde_json::{Value, json};

/// A web program that needs nothing.
const SERVER: &str = "exec python3 -m http.server {port} --bind {host} --directory \"$HOME\"";

fn write(site: &Site, user: &str, path: &str, content: &str) {
    let path = format!("/home/{user}/{path}");
    as_user(site, user, &format!("mkdir -p $(dirname {path})"));
    site.write("login", user, &path, content.as_bytes());
}

fn as_user(site: &Site, user: &str, script: &str) -> String {
    let done = site.shell("login", user, script);
    assert_eq!(done.status, 0, "{user}: {script}: {}{}", done.out, done.err);
    done.out
}

/// Where it is opened, as it looks to its owner.
async fn opened(client: &Client, job: &Started) -> String {
    let answer = client.clone().browser().get(&format!("/jobs/{}/open", job.id)).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.location().to_owned()
}

#[test]
fn an_application_is_started_opened_shared_and_ended() {
    outside("an_application_is_started_opened_shared_and_ended", |site| async {
        let [alice, bob] = [site.sign_in("alice").await, site.sign_in("bob").await];
        write(site, "alice", "shown/here.txt", "so it is\n");
        let command = SERVER.replace("\"$HOME\"", "\"$HOME/shown\"");
        let job = Started::new(&alice, "command", json!({ "command": command, "path": "here.txt" })).await;
        let ready = job.until_state("ready").await;
        assert!(ready["slurm_job"].as_u64() > Some(0) && ready["deadline"].as_i64() > Some(0), "{ready:#}");
        let place = opened(&alice, &job).await;
        let answer = site.until_status(&alice, &place, 200).await;
        assert_eq!(answer.text(), "so it is\n");
        // Nothing of it is bob's.
        bob.get(&place).await.assert_refused(403, "not-yours");
        for what in ["", "/output", "/script"] {
            assert_eq!(bob.api("GET", &job.path(what), Value::Null).await.status, 404, "{what}");
        }
        for (what, body) in [
            ("/cancel", Value::Null),
            ("/extend", json!({ "minutes": 60 })),
            ("/share", json!({ "name": "bob-taken", "group": "proj" })),
        ] {
            let answer = bob.api("POST", &job.path(what), body).await;
            assert_eq!(answer.status, 404, "{what}: {}", answer.text());
        }
        let number = ready["slurm_job"].as_u64().unwrap();
        let system = ready["system"].as_str().unwrap();
        let answer = bob.api("POST", &format!("queue/{system}/{number}/cancel"), Value::Null).await;
        assert_ne!(answer.status, 204, "it is alice's: {}", answer.text());
        for list in ["jobs", "queue", "servers"] {
            let said = bob.api("GET", list, Value::Null).await.text();
            assert!(!said.contains(&job.id) && !said.contains("here.txt"), "{list}: {said}");
        }
        assert_eq!(job.now().await["state"], "ready");
        // Shared with a group, until it is not.
        let name = "alice-shown-by-a-job";
        assert_eq!(job.ask("share", json!({ "name": name, "group": "nosuch" })).await.0, 422);
        assert_eq!(job.ask("share", json!({ "name": name, "group": "proj" })).await.0, 204);
        let path = format!("/fw/{name}/here.txt");
        assert_eq!(site.until_status(&bob, &path, 200).await.text(), "so it is\n");
        assert_eq!(alice.api("POST", &format!("forwards/{name}/unshare"), Value::Null).await.status, 204);
        site.until_status(&bob, &path, 404).await;
        // A name that leads elsewhere is not taken for it, and one that was taken for it goes with it.
        as_user(site, "alice", "portreeve forward add alice-own-forward http://c2:4711/");
        let (status, why) = job.ask("share", json!({ "name": "alice-own-forward", "group": "proj" })).await;
        assert!(status == 409 && why.contains("already"), "{status} {why}");
        let forwards = as_user(site, "alice", "portreeve forward list");
        assert!(forwards.contains("http://c2:4711/"), "{forwards}");
        for _ in 0..2 {
            assert_eq!(job.ask("share", json!({ "name": name, "group": "proj" })).await.0, 204);
        }
        site.until_status(&bob, &path, 200).await;
        // The time that it has left.
        let before = ready["deadline"].as_i64().unwrap();
        let asked = job.ask("extend", json!({ "minutes": 30 })).await;
        match asked.0 {
            204 => drop(job.until("extended", |now| now["deadline"].as_i64() >= Some(before + 1800)).await),
            // Slurm lets its administrators alone have more.
            502 => assert!(asked.1.contains("Access") || asked.1.contains("ermi"), "{}", asked.1),
            _ => panic!("{asked:?}"),
        }
        // By a token, for what it is good for.
        let create = |scope: &str| {
            let name = format!("jobs-{scope}");
            as_user(site, "alice", &format!("portreeve token revoke {name} >/dev/null 2>&1 || true"));
            as_user(
                site,
                "alice",
                &format!("portreeve token create --name {name} --scope {scope} 2>/dev/null"),
            )
        };
        let bearer = |token: &str| site.stranger().with("authorization", &format!("Bearer {}", token.trim()));
        let (by_api, by_files) = (bearer(&create("api")), bearer(&create("files")));
        assert_eq!(by_api.api("GET", &job.path(""), Value::Null).await.json()["state"], "ready");
        by_files.api("GET", &job.path(""), Value::Null).await.assert_refused(403, "scope");
        let file = "files/home/alice/shown/here.txt";
        assert_eq!(by_files.api("GET", file, Value::Null).await.text(), "so it is\n");
        by_api.api("GET", file, Value::Null).await.assert_refused(403, "scope");
        // From a terminal, by its number in Slurm.
        let typed = |command: &str| {
            as_user(site, "alice", &format!("portreeve {command} --cacert /etc/portreeve/ca.pem"))
        };
        assert!(typed("jobs").contains(&job.id));
        typed(&format!("cancel {number}"));
        let ended = job.until_state("ended").await;
        assert!(ended["reason"].as_str().unwrap().contains("you"), "{ended:#}");
        assert!(job.output("errors").await.contains("GET /here.txt"));
        alice.get(&place).await.assert_refused(503, "not-listening");
        site.until_status(&bob, &path, 404).await;
        as_user(site, "alice", "portreeve forward remove alice-own-forward");
        assert!(!as_user(site, "alice", "portreeve forward list").contains(name));
    });
}

#[test]
fn what_is_typed_is_data() {
    outside("what_is_typed_is_data", |site| async {
        let alice = site.sign_in("alice").await;
        write(site, "alice", "hostile/said.sh", "#!/bin/sh\nprintf '<%s>' \"$@\" >said\nenv >environment\n");
        as_user(site, "alice", "chmod +x ~/hostile/said.sh; rm -f ~/hostile/pwned*");
        let nasty = [
            "$(touch pwned1)",
            "`touch pwned2`",
            "; touch pwned3",
            "a\" \"b'c",
            "--wrap=touch pwned4",
            "*",
            "\\n",
        ];
        let quoted: Vec<String> =
            nasty.iter().map(|word| format!("'{}'", word.replace('\'', "'\"'\"'"))).collect();
        let values = json!({
            "program": "hostile/said.sh",
            "arguments": quoted.join(" "),
            "environment": "A=$(touch pwned5)\nB=`touch pwned6`",
            "directory": "hostile",
            "time": "5m",
        });
        let job = Started::new(&alice, "run", values).await;
        job.until("over", |now| now["state"] == "ended").await;
        let said = as_user(site, "alice", "cat ~/hostile/said");
        let expected: String = nasty.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(said.trim_end(), expected);
        let environment = as_user(site, "alice", "cat ~/hostile/environment");
        assert!(environment.contains("A=$(touch pwned5)\nB=`touch pwned6`"), "{environment}");
        assert!(!environment.contains("PORTREEVE_TOKEN"), "{environment}");
        assert_eq!(as_user(site, "alice", "ls ~/hostile | grep pwned; true"), "");
        // Half a quote is no command line, and nothing of it is run.
        let half = json!({ "program": "hostile/said.sh", "arguments": "all 'but the last", "directory": "hostile", "time": "5m" });
        as_user(site, "alice", "rm ~/hostile/said");
        let job = Started::new(&alice, "run", half).await;
        let failed = job.until_state("failed").await;
        assert!(failed["last_words"].as_str().unwrap().contains("quote"), "{failed:#}");
        assert_eq!(as_user(site, "alice", "ls ~/hostile | grep said$; true"), "");
        // What does not fit is refused in words, field by field, and nothing is started.
        let before = alice.api("GET", "jobs?app=run", Value::Null).await.json()["found"].clone();
        let long = "x".repeat(900_000);
        for (app, field, value) in [
            ("run", "nodes", "2 --uid=0"),
            ("run", "nodes", "2\n#SBATCH --uid=0"),
            ("run", "tasks", "0"),
            ("run", "time", "5m; touch pwned"),
            ("run", "partition", "debug,$(id)"),
            ("run", "partition", "--help"),
            ("run", "account", "no\nsuch"),
            ("run", "memory", "-1"),
            ("run", "memory", "99999999999999999999"),
            ("run", "modules", "gcc;id"),
            ("run", "launcher", "sh -c id"),
            ("run", "directory", "../../root"),
            ("run", "directory", "/nowhere"),
            ("run", "program", "a\nb"),
            ("run", "program", "/etc/shadow\u{0}"),
            ("run", "arguments", &long),
            ("compile", "output", "../a.out"),
            ("compile", "output", "-o"),
            ("compile", "compiler", "cc"),
            ("jupyter", "environment", "/home/bob/venv"),
            ("tensorboard", "logs", "/home/alice/none"),
        ] {
            let mut values =
                json!({ "program": "hostile/said.sh", "source": "hostile/said.sh", "logs": "hostile" });
            values[field] = json!(value);
            let answer = alice.api("POST", &format!("apps/{app}/jobs"), json!({ "values": values })).await;
            let text = answer.text();
            assert_eq!(answer.status, 422, "{app}.{field}={value:.40}: {text}");
            assert!(answer.json()["fields"][field].is_string(), "{app}.{field}={value:.40}: {text}");
            assert!(text.len() < 4000, "what was typed is not said back at length");
        }
        let huge = json!({ "values": { "arguments": "x".repeat(3_000_000) } });
        alice.api("POST", "apps/run/jobs", huge).await.assert_refused(413, "too-large");
        // Slurm would let it wait for ever.
        let days = json!({ "values": { "program": "hostile/said.sh", "time": "72h" } });
        let answer = alice.api("POST", "apps/run/jobs", days).await;
        assert_eq!(answer.status, 422);
        let few = json!({ "values": { "program": "hostile/said.sh", "nodes": 2, "tasks": 1, "time": "5m" } });
        let few = alice.api("POST", "apps/run/jobs", few).await;
        assert!(few.json()["fields"]["tasks"].as_str().unwrap().contains("2 nodes"), "{}", few.text());
        assert!(answer.json()["fields"]["time"].as_str().unwrap().contains("at most"), "{}", answer.text());
        assert_eq!(alice.api("GET", "jobs?app=run", Value::Null).await.json()["found"], before);
    });
}

const OPENMP: &str = "#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    long sum = 0, n = argc > 1 ? atol(argv[1]) : 10;
    #pragma omp parallel for reduction(+:sum)
    for (long i = 1; i <= n; i++) sum += i;
    printf(\"sum %ld of %d threads\\n\", sum, omp_get_max_threads());
    return 0;
}
";

const MPI: &str = "#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, length, sum;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    MPI_Reduce(&rank, &sum, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
    printf(\"rank %d of %d on %s with %s\\n\", rank, size, name, argc > 1 ? argv[1] : \"nothing\");
    if (rank == 0) printf(\"ranks add up to %d\\n\", sum);
    MPI_Finalize();
    return 0;
}
";

#[test]
fn programs_are_compiled_and_run_on_two_nodes_and_run_again() {
    outside("programs_are_compiled_and_run_on_two_nodes_and_run_again", |site| async {
        let alice = site.sign_in("alice").await;
        write(site, "alice", "code/sum.c", OPENMP);
        write(site, "alice", "code/ranks.c", MPI);
        let openmp = json!({
            "source": "code/sum.c", "output": "sum", "openmp": true, "directory": "code",
            "run": true, "arguments": "100", "cores": 2, "time": "5m",
        });
        let job = Started::new(&alice, "compile", openmp).await;
        let built = job.until_state("ended").await;
        let output = job.output("output").await;
        assert!(
            output.contains("Built /home/alice/code/sum") && output.contains("sum 5050 of 2 threads"),
            "{output}"
        );
        assert!(built["files"].as_array().unwrap().contains(&json!("sum")), "{built:#}");
        let mpi = json!({ "compiler": "mpicc", "source": "code/ranks.c", "output": "ranks", "directory": "code", "time": "5m" });
        Started::new(&alice, "compile", mpi).await.until_state("ended").await;
        let run = json!({
            "program": "code/ranks", "arguments": "'an argument'", "launcher": "mpirun", "directory": "code",
            "nodes": 2, "tasks": 2, "time": "5m",
        });
        let first = Started::new(&alice, "run", run).await;
        let done = first.until("over", |now| now["state"] == "ended").await;
        let output = first.output("output").await;
        for line in
            ["rank 0 of 2 on c1 with an argument", "rank 1 of 2 on c2 with an argument", "ranks add up to 1"]
        {
            assert!(output.contains(line), "{line}: {output}\n{}", first.output("errors").await);
        }
        assert_eq!((&done["exit_code"], &done["nodes"]), (&json!(0), &json!("c[1-2]")), "{done:#}");
        // The form is filled in as it was, and says the same again.
        let page = alice.clone().browser().get(&format!("/apps/run?again={}", first.id)).await.text();
        assert!(page.contains("value=\"code/ranks\"") && page.contains("&#39;an argument&#39;"), "{page}");
        let again = Started::new(&alice, "run", done["values"].clone()).await;
        again.until_state("ended").await;
        assert!(again.output("output").await.contains("ranks add up to 1"));
        // Shown to a group, it can be read, and by nobody else.
        let [bob, carol] = [site.sign_in("bob").await, site.sign_in("carol").await];
        let path = format!("shared/{}", first.id);
        assert_eq!(bob.api("GET", &path, Value::Null).await.status, 404);
        assert_eq!(first.ask("show", json!({ "group": "shadow" })).await.0, 502, "she is not in it");
        assert_eq!(first.ask("show", json!({ "group": "proj" })).await.0, 204);
        let shown = bob.api("GET", &path, Value::Null).await.json();
        assert_eq!((&shown["owner"], &shown["group"]), (&json!("alice"), &json!("proj")));
        assert_eq!(shown["values"], done["values"]);
        let said = bob.api("GET", &format!("{path}/output?stream=output"), Value::Null).await.text();
        assert!(said.contains("ranks add up to 1"), "{said}");
        assert!(bob.api("GET", "shared", Value::Null).await.text().contains(&first.id));
        let page = bob.clone().browser().get(&format!("/history/{path}")).await;
        assert!(page.text().contains("alice shows it to proj"), "{}", page.text());
        assert_eq!(bob.api("POST", &first.path("/hide"), Value::Null).await.status, 404);
        for (who, what) in
            [(&carol, path.as_str()), (&bob, &first.path("")), (&alice, "shared/20260101t000000-abcdefgh")]
        {
            assert_eq!(who.api("GET", what, Value::Null).await.status, 404, "{what}");
        }
        assert!(!carol.api("GET", "shared", Value::Null).await.text().contains(&first.id));
        assert_eq!(first.ask("hide", Value::Null).await.0, 204);
        assert_eq!(bob.api("GET", &path, Value::Null).await.status, 404);
        // A source that is wrong is a job that failed, with the compiler's words.
        write(site, "alice", "code/wrong.c", "int main(void) { return nothing; }\n");
        let wrong =
            Started::new(&alice, "compile", json!({ "source": "code/wrong.c", "directory": "code" })).await;
        let failed = wrong.until("failed", |now| now["state"] == "failed").await;
        assert!(failed["last_words"].as_str().unwrap().contains("nothing"), "{failed:#}");
    });
}

#[test]
fn srun_and_mpirun_reach_the_other_nodes_from_inside() {
    outside("srun_and_mpirun_reach_the_other_nodes_from_inside", |site| async {
        let alice = site.sign_in("alice").await;
        write(site, "alice", "inside/ranks.c", MPI);
        let command = format!(
            "cd ~/inside; {{ mpicc -o ranks ranks.c; srun hostname; mpirun --map-by node -n 2 ./ranks; }} >said 2>&1; {SERVER}"
        );
        let job =
            Started::new(&alice, "command", json!({ "command": command, "nodes": 2, "path": "inside/said" }))
                .await;
        job.until_state("ready").await;
        let said = site.until_status(&alice, &opened(&alice, &job).await, 200).await.text();
        for line in ["c1\n", "c2\n", "rank 0 of 2 on c1", "rank 1 of 2 on c2"] {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert_eq!(job.ask("cancel", Value::Null).await.0, 204);
    });
}

#[test]
fn how_jobs_end_badly() {
    outside("how_jobs_end_badly", |site| async {
        let alice = site.sign_in("alice").await;
        write(site, "alice", "bad/fails.sh", "#!/bin/sh\necho 'the reason is this' >&2\nexit 3\n");
        write(site, "alice", "bad/long.sh", "#!/bin/sh\nexec sleep 600\n");
        as_user(site, "alice", "chmod +x ~/bad/*.sh");
        let run = |program: &str, time: &str| json!({ "program": program, "directory": "bad", "time": time });
        // These take a minute each, all at once.
        let long = Started::new(&alice, "run", run("bad/long.sh", "1m")).await;
        let idle = json!({ "values": { "command": SERVER }, "idle_minutes": 1 });
        let unused = Started::of(&alice, "command", idle).await;
        let fails = Started::new(&alice, "run", run("bad/fails.sh", "5m")).await;
        let failed = fails.until("failed", |now| now["state"] == "failed").await;
        assert_eq!(failed["exit_code"], 3, "{failed:#}");
        assert!(failed["last_words"].as_str().unwrap().contains("the reason is this"), "{failed:#}");
        // One that listens to nothing before it ends.
        let mute = Started::new(&alice, "command", json!({ "command": "echo not today; exit 0" })).await;
        let failed = mute.until("failed", |now| now["state"] == "failed").await;
        assert!(failed["last_words"].as_str().unwrap().contains("not today"), "{failed:#}");
        // One that waits, as long as somebody holds it.
        let held = json!({ "program": "bad/fails.sh", "directory": "bad", "time": "5m", "exclusive": true, "nodes": 2 });
        let held = Started::new(&alice, "run", held).await;
        let queued = held.until("queued", |now| now["state"] == "queued" && now["slurm_job"].is_u64()).await;
        assert!(!queued["reason"].as_str().unwrap().is_empty(), "{queued:#}");
        let number = queued["slurm_job"].as_u64().unwrap();
        site.root("login", &format!("su alice -c 'scontrol hold {number}'"));
        let queued = held.until("held", |now| now["reason"].as_str().unwrap().contains("hold")).await;
        assert_eq!(queued["state"], "queued");
        assert_eq!(held.ask("cancel", Value::Null).await.0, 204);
        held.until_state("ended").await;
        // A warning comes first.
        let idle = unused.until("idle", |now| now["idle_stop"].is_i64()).await;
        let page = alice.clone().browser().get(&format!("/jobs/{}", unused.id)).await.text();
        assert!(idle["last_used"].is_i64() && page.contains("Nobody has used it for a while"), "{page}");
        let running = long.until("running", |now| now["state"] == "running").await;
        let page = alice.clone().browser().get(&format!("/jobs/{}", long.id)).await.text();
        assert!(running["deadline"].is_i64() && page.contains("Its time is up in"), "{page}");
        let patience = Duration::from_secs(180);
        let stopped = unused.until_in(patience, "stopped", |now| now["state"] == "ended").await;
        assert!(stopped["reason"].as_str().unwrap().contains("used"), "{stopped:#}");
        let late = long.until_in(patience, "out of time", |now| now["state"] == "failed").await;
        assert!(late["reason"].as_str().unwrap().contains("time"), "{late:#}");
    });
}
