//! The interface for programs, `/api/v1/`: its document is a good one and says what there is, and whatever is asked, the answer is one
//! that the document has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use portreeve_tests::world::testbed::{repository, target};
use portreeve_tests::world::{Portal, skip};
use serde_json::{Value, json};

/// Starts nothing but what can do no harm, whatever is filled in.
const HARMLESS: &str = r##"
title = "Harmless"
script = '''#!/bin/sh
printf '%s\n' "$APP_TEXT"
'''
[[field]]
name = "text"
label = "Text"
max_length = 1000
[[field]]
name = "count"
label = "Count"
kind = "number"
min = 1
max = 9
default = 1
"##;

fn document() -> Value {
    let text = std::fs::read_to_string(repository().join("docs/openapi.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn python(program: &str) -> Option<PathBuf> {
    let found = target().join("tests/venv/bin").join(program);
    found.exists().then_some(found)
}

/// A portal that offers the harmless application alone.
fn portal(dir: &Path) -> Portal {
    for shipped in std::fs::read_dir(repository().join("proxy-config/apps")).unwrap() {
        std::fs::write(dir.join(shipped.unwrap().file_name()), "disabled = true\n").unwrap();
    }
    std::fs::write(dir.join("harmless.toml"), HARMLESS).unwrap();
    Portal::with_config(&format!("[workspace]\napps = {:?}\nown_apps = false\n", dir.display().to_string()))
}

#[test]
fn the_document_says_what_there_is() {
    // What `api.rs` takes apart: ["jobs", id, "cancel"] if ...
    let source = std::fs::read_to_string(repository().join("crates/worker/src/routes/api.rs")).unwrap();
    let routes: BTreeSet<String> = source
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix('[')?.split_once("] if ")?.0))
        .map(|segments| {
            let segments = segments
                .split(", ")
                .map(|one| one.strip_prefix('"').map_or("*", |word| &word[..word.len() - 1]));
            segments.collect::<Vec<_>>().join("/")
        })
        .collect();
    let document = document();
    let paths: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(|path| {
            let segments = path.trim_start_matches('/').split('/');
            segments.map(|one| if one.starts_with('{') { "*" } else { one }).collect::<Vec<_>>().join("/")
        })
        .collect();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(routes, paths);
}

#[test]
fn the_document_is_a_good_one() {
    let Some(validator) = python("python") else {
        return skip("the_document_is_a_good_one", "needs openapi-spec-validator in target/tests/venv");
    };
    let mut command = Command::new(validator);
    command.args(["-m", "openapi_spec_validator"]).arg(repository().join("docs/openapi.json"));
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[tokio::test]
async fn every_address_names_its_methods() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await.program();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        let mut expected: BTreeSet<String> = methods
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
            .map(|key| key.to_uppercase())
            .collect();
        if expected.contains("GET") {
            expected.insert("HEAD".to_owned());
        }
        let path = path
            .replace("{name}", "harmless")
            .replace("{id}", "20260101t000000-abcdefgh")
            .replace("{system}", "none")
            .replace("{job}", "1")
            .replace("{path}", "none");
        let answer = client.api("PATCH", path.trim_start_matches('/'), Value::Null).await;
        assert_eq!(answer.status, 405, "{path}: {}", answer.text());
        let allowed: BTreeSet<String> = answer.header("allow").split(", ").map(str::to_owned).collect();
        assert_eq!(allowed, expected, "{path}");
    }
    for nowhere in [
        "",
        "nowhere",
        "jobs/20260101t000000-abcdefgh/nowhere",
        "apps/harmless/jobs/more",
        "jobs/",
        "jobs/../apps",
    ] {
        let answer = client.api("GET", nowhere, Value::Null).await;
        assert_eq!(answer.status, 404, "{nowhere:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn nonsense_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await.program();
    let deep = "[".repeat(100_000);
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("null", 400),
        ("[]", 400),
        (deep.as_str(), 400),
        (r#"{"values": {"text": [1]}}"#, 400),
        (r#"{"values": {"text": null}}"#, 400),
        (r#"{"values": {}, "more": 1}"#, 400),
        (r#"{"values": {}, "values": {}}"#, 400),
        (r#"{"idle_minutes": -1}"#, 400),
        (r#"{"values": {"count": 10}}"#, 422),
        (r#"{"values": {"count": 1.5}}"#, 422),
        (r#"{"values": {"text": "\u0000"}}"#, 422),
        (r#"{"values": {"uid": "0"}}"#, 422),
        (r#"{"system": "none"}"#, 422),
    ] {
        let answer =
            client.request(client.prepare("POST", "/api/v1/apps/harmless/jobs"), body.to_owned()).await;
        assert_eq!(answer.status, status, "{body:.60}: {}", answer.text());
        let said = answer.json();
        assert!(said["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body:.60}: {said}");
    }
    for query in ["limit=0", "limit=1001", "limit=x", "offset=-1", "state=null"] {
        let answer = client.api("GET", &format!("jobs?{query}"), Value::Null).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    assert_eq!(client.api("GET", "jobs", Value::Null).await.json()["found"], json!(0));
}

#[tokio::test]
async fn whatever_is_asked_is_answered_as_the_document_says() {
    let Some(schemathesis) = python("schemathesis") else {
        return skip("whatever_is_asked", "needs schemathesis in target/tests/venv");
    };
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await;
    // Here the session's cookie stands in for a token.
    let mut document = document();
    document.as_object_mut().unwrap().remove("security");
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let is_long = std::env::var_os("PORTREEVE_TESTS_ALL").is_some_and(|all| all == "1");
    let mut command = Command::new(schemathesis);
    command
        .current_dir(dir.path())
        .args([
            "run",
            "--no-color",
            "--tls-verify",
            "false",
            "--request-timeout",
            "20",
            "--continue-on-failure",
        ])
        .args([
            "--phases",
            "coverage,fuzzing",
            "--seed",
            "1",
            "--max-examples",
            if is_long { "200" } else { "15" },
        ])
        // What means more than a schema can say: that a group exists, that a text is a number.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance,ignored_auth"])
        // A stream without an end; and what would write wherever the tests may.
        .args(["--exclude-operation-id", "getEvents", "--exclude-operation-id", "putFilesPath"])
        .args(["--url", &format!("{}/api/v1", client.origin())])
        .args(["--header", &format!("Cookie: {}", client.cookie_line())])
        .arg(&file);
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    let summary: Vec<&str> =
        said.lines().filter(|line| line.contains("generated") || line.contains("Tested:")).collect();
    println!("{}", summary.join(", "));
    assert!(said.contains("Tested: "), "{said}");
}

#[tokio::test]
async fn what_is_over_is_read_once_and_a_bad_record_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await.program();
    let start = json!({ "values": { "text": "kept" } });
    let id = client.api("POST", "apps/harmless/jobs", start).await.json()["id"].as_str().unwrap().to_owned();
    let started = std::time::Instant::now();
    while client.api("GET", &format!("jobs/{id}"), Value::Null).await.json()["state"] != "ended" {
        assert!(started.elapsed().as_secs() < 20, "it does not end");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let jobs = portal.state().join("jobs");
    std::fs::write(jobs.join(&id).join("entry.json"), "{").unwrap();
    let other = jobs.join("20260101t000000-abcdefgh");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("entry.json"), "{").unwrap();
    // Until the list is made anew.
    let said = loop {
        let said = client.api("GET", "jobs", Value::Null).await.json();
        if said["trouble"].as_array().unwrap().len() == 1 {
            break said;
        }
        assert!(started.elapsed().as_secs() < 30, "{said}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    // Of 10,000 that are over, none is read again.
    assert_eq!((&said["found"], &said["jobs"][0]["values"]["text"]), (&json!(1), &json!("kept")));
    assert!(said["trouble"][0].as_str().unwrap().contains("20260101t000000-abcdefgh"), "{said}");
}
