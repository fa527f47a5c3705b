//! A long history: its first list reads each record once, later ones read none of what is over, and what is looked for is found.
//! With `tests/run --all` it has 10,000 jobs, and the times are printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use portreeve_jobs::{Entry, EntryId, History, JobRef, Outcome};
use portreeve_tests::world::{Client, Portal, until};
use serde_json::Value;

const BEGAN: i64 = 1_700_000_000;

fn entry(number: usize) -> Entry {
    let submitted = BEGAN + i64::try_from(number).unwrap() * 600;
    let values = [("command", format!("./simulate --name=seed{number}")), ("cores", "4".to_owned())];
    Entry {
        id: EntryId::new(submitted).unwrap(),
        app: if number.is_multiple_of(10) { "jupyter" } else { "command" }.to_owned(),
        title: "A command".to_owned(),
        system: "cluster".to_owned(),
        values: values.map(|(name, value)| (name.to_owned(), value)).into(),
        arguments: vec!["--cpus-per-task=4".to_owned(), "--time=01:00:00".to_owned()],
        directory: "/home/alice/simulations".to_owned(),
        open: None,
        idle_minutes: None,
        submitted,
        job: Some(JobRef::Slurm(u32::try_from(number).unwrap() + 1)),
    }
}

/// Jobs that are over.
fn fill(history: &History, numbers: Range<usize>) {
    std::thread::scope(|scope| {
        for part in 0..8 {
            let numbers = numbers.clone().skip(part).step_by(8);
            scope.spawn(move || {
                for number in numbers {
                    let entry = entry(number);
                    history.create(&entry, "#!/bin/sh\n./simulate\n").unwrap();
                    let outcome = Outcome {
                        failed: number.is_multiple_of(7),
                        reason: String::new(),
                        started: Some(entry.submitted + 5),
                        ended: entry.submitted + 500,
                        exit_code: Some(0),
                        signal: None,
                        nodes: "c1".to_owned(),
                        usage: None,
                        last_words: "step 1000 of 1000\nenergy -1.2345e+06\n".repeat(10),
                        files: vec!["out.dat".to_owned()],
                    };
                    history.finish(&entry.id, &outcome).unwrap();
                }
            });
        }
    });
}

/// How often it called read(2) so far.
fn reads(portal: &Portal) -> usize {
    let io = std::fs::read_to_string(format!("/proc/{}/io", portal.pid())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

async fn ask(client: &Client, query: &str, what: &str) -> Value {
    let began = Instant::now();
    let answer = client.api("GET", &format!("jobs?{query}"), Value::Null).await;
    println!("{what}: {} ms", began.elapsed().as_millis());
    answer.json()
}

#[tokio::test]
async fn a_long_history_is_read_once() {
    let is_long = std::env::var_os("PORTREEVE_TESTS_ALL").is_some_and(|all| all == "1");
    let many: usize = if is_long { 10_000 } else { 500 };
    let portal = Portal::plain();
    let history = History::below(portal.state());
    fill(&history, 0..many);
    let client = portal.sign_in().await.program();

    let before = reads(&portal);
    let first = ask(&client, "limit=50", &format!("{many} jobs, the first list")).await;
    // As much as a moment allows, and it is said that there is more.
    assert_eq!(first["jobs"].as_array().unwrap().len(), 50);
    assert_eq!(first["jobs"][0]["values"]["command"], format!("./simulate --name=seed{}", many - 1));
    let is_whole = |list: &Value| list["found"] == many && list["trouble"] == Value::Array(Vec::new());
    assert!(
        is_whole(&first) || first["trouble"][0].as_str().unwrap().contains("still being read"),
        "{}",
        first["trouble"]
    );
    until("all of it is read", Duration::from_secs(60), || async {
        is_whole(&client.api("GET", "jobs?limit=1", Value::Null).await.json()).then_some(())
    })
    .await;
    let cold = reads(&portal) - before;
    // Two files of each, to their ends; and a portal reads this and that beside.
    assert!((4 * many..5 * many).contains(&cold), "{cold} reads");

    let before = reads(&portal);
    for (query, what, found) in [
        ("limit=50", "a list", many),
        ("limit=1000&offset=100", "a list of 1000", many),
        (
            "q=SEED77+simulate",
            "words",
            (0..many).filter(|number| number.to_string().starts_with("77")).count(),
        ),
        ("app=jupyter", "an application", many.div_ceil(10)),
        ("state=failed", "those that failed", many.div_ceil(7)),
        ("state=failed&app=jupyter&q=simulate", "all of these", many.div_ceil(70)),
    ] {
        assert_eq!(ask(&client, query, what).await["found"], found, "{query}");
    }
    // One more is seen, and it alone is read.
    fill(&history, many..many + 1);
    let slowest = Cell::new(Duration::ZERO);
    until("it is on the list", Duration::from_secs(10), || async {
        let began = Instant::now();
        let list = client.api("GET", "jobs?limit=50", Value::Null).await.json();
        slowest.set(slowest.get().max(began.elapsed()));
        (list["found"] == many + 1).then_some(())
    })
    .await;
    println!("a list that is made anew: {} ms", slowest.get().as_millis());
    let warm = reads(&portal) - before;
    assert!(warm < many, "{warm} reads, though nothing else changed");
}
