//! The interface for programs, `/api/v1/`: its document is a good one and says what there is, and whatever is asked, the answer is one
//! that the document has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use portreeve_tests::world::testbed::{repository, target};
use portreeve_tests::world::{Client, Portal, skip, until};
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
        (r#"{"values": {"text": "a", "text": "b"}}"#, 400),
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
    for query in ["limit=0", "limit=1001", "limit=x", "limit=", "offset=-1", "state=null"] {
        let answer = client.api("GET", &format!("jobs?{query}"), Value::Null).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "*/*"] {
        let mut request = client.prepare("POST", "/api/v1/apps/harmless/jobs");
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        assert_eq!(client.request(request, "{}").await.status, 415, "{kind:?}");
    }
    for (path, status) in [
        ("apps/harmless?system=none", 422),
        ("files/tmp/%zz", 422),
        ("files/tmp/%", 422),
        ("files/tmp/%4", 422),
        ("apps/harmles%73", 404),
    ] {
        let answer = client.api("GET", path, Value::Null).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(client.api("GET", "jobs", Value::Null).await.json()["found"], json!(0));
    let id = job_that_is_over(&client).await;
    for query in ["stream=x", "stream=", "offset=", "offset=-1", "offset=9223372036854775808"] {
        let answer = client.api("GET", &format!("jobs/{id}/output?{query}"), Value::Null).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    let beyond =
        client.api("GET", &format!("jobs/{id}/output?offset=9223372036854775807"), Value::Null).await;
    assert_eq!(
        (beyond.status.as_u16(), beyond.text().as_str(), beyond.header("x-portreeve-end")),
        (200, "", "5")
    );
}

#[tokio::test]
async fn nobody_is_answered_without_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let (stranger, document) = (portal.stranger().program(), document());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let answer = stranger.api(&method.to_uppercase(), path.trim_start_matches('/'), json!({})).await;
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
            assert!(!answer.header("www-authenticate").is_empty() && answer.json()["error"].is_string());
        }
    }
    let bearer = stranger.with("authorization", "Bearer ptr_abcdefghijklmnopqrstuvwxyz234567");
    bearer.api("GET", "apps", Value::Null).await.assert_refused(401, "bad-token");
}

#[tokio::test]
async fn a_refusal_is_read_whatever_was_sent_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await.program();
    let file = format!("/api/v1/files{}", dir.path().join("harmless.toml").display());
    let (large, most) = (vec![b'x'; 8 << 20], vec![b' '; 1 << 20]);
    for _ in 0..10 {
        let mut request = client.prepare("PUT", &file);
        request.headers_mut().insert("if-none-match", "*".parse().unwrap());
        assert_eq!(client.request(request, large.clone()).await.status, 412);
        let request = client.prepare("POST", "/api/v1/jobs/20260101t000000-abcdefgh/cancel");
        assert_eq!(client.request(request, most.clone()).await.status, 404);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("harmless.toml")).unwrap(), HARMLESS);
    // What is announced is refused before it comes.
    let mut announced = client.prepare("POST", "/api/v1/apps/harmless/preview");
    announced.headers_mut().insert("content-length", "1048577".parse().unwrap());
    let body = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let answer =
        tokio::time::timeout(Duration::from_secs(10), client.send(announced.map(|()| body.boxed()))).await;
    assert_eq!(answer.expect("it is not waited for").status(), 413);
}

#[tokio::test]
async fn who_does_not_send_the_rest_is_late() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await.program();
    let file = dir.path().join("half");
    let begin = |method, path: &str| {
        let rest = futures_util::stream::pending();
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        let body = StreamBody::new(futures_util::StreamExt::chain(first, rest));
        client.prepare(method, path).map(|()| body.boxed())
    };
    let answered = async |request| {
        let mut link = client.link().await;
        tokio::time::timeout(Duration::from_secs(40), link.send(request)).await.unwrap().unwrap().status()
    };
    let (put, post) = tokio::join!(
        answered(begin("PUT", &format!("/api/v1/files{}", file.display()))),
        answered(begin("POST", "/api/v1/apps/harmless/preview")),
    );
    assert_eq!((put.as_u16(), post.as_u16()), (408, 408));
    assert!(!file.exists());
}

/// The document, of what there is here: the application, a job that is over, and files of this directory alone.
fn document_of(job: &str, files: &Path) -> Value {
    let mut document = document();
    // The session's cookie stands in for a token.
    for operations in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in operations.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut) {
            operation.remove("security");
        }
    }
    document["components"].as_object_mut().unwrap().remove("securitySchemes");
    let parameters = &mut document["components"]["parameters"];
    parameters["app"]["schema"] = json!({ "enum": ["harmless", "absent"] });
    parameters["id"]["schema"] = json!({ "enum": [job, "20260101t000000-abcdefgh"] });
    let paths = document["paths"].as_object_mut().unwrap();
    let mut file = paths.remove("/files/{path}").unwrap();
    file["parameters"][0]["example"] = json!("file");
    let mut directory = file.clone();
    directory.as_object_mut().unwrap().remove("parameters");
    for method in ["get", "put"] {
        directory[method]["operationId"] = json!(format!("{method}Directory"));
    }
    let files = format!("/files{}/", files.display());
    paths.insert(format!("{files}{{path}}"), file);
    paths.insert(files, directory);
    document
}

/// These can't be had here: what needs Slurm, another user, an application that listens, or something that is not there yet.
const NEVER_DONE: [&str; 8] = [
    "GET /shared/{id}",
    "GET /shared/{id}/output",
    "GET /shared/{id}/script",
    "POST /forwards/{name}/unshare",
    "POST /jobs/{id}/extend",
    "POST /jobs/{id}/share",
    "POST /jobs/{id}/show",
    "POST /queue/{system}/{job}/cancel",
];
/// These are done or not as chance has it, for the directory is called otherwise each time. `workspace_files.rs`,
/// `files_page.rs` and `files_transfer.rs` do them.
const BY_CHANCE: [&str; 5] = [
    "DELETE /files{directory}/{path}",
    "PUT /files{directory}/",
    "PUT /uploads/{id}",
    "GET /uploads/{id}",
    "DELETE /uploads/{id}",
];

#[tokio::test]
async fn whatever_is_asked_is_answered_as_the_document_says() {
    let Some(schemathesis) = python("schemathesis") else {
        return skip("whatever_is_asked", "needs schemathesis in target/tests/venv");
    };
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let portal = portal(dir.path());
    let client = portal.sign_in().await;
    let job = job_that_is_over(&client.clone().program()).await;
    std::fs::write(files.path().join("file"), "text").unwrap();
    let place = |name| dir.path().join(name);
    std::fs::write(place("openapi.json"), document_of(&job, files.path()).to_string()).unwrap();
    // A condition that is not understood is not met: 412.
    std::fs::write(
        place("schemathesis.toml"),
        "[checks.negative_data_rejection]\nexpected-statuses = [\"4xx\"]\n",
    )
    .unwrap();
    let is_long = std::env::var_os("PORTREEVE_TESTS_ALL").is_some_and(|all| all == "1");
    let examples = if is_long { "100" } else { "10" };
    let mut command = Command::new("timeout");
    command
        .current_dir(dir.path())
        .arg("300")
        .arg(schemathesis)
        .args(["--config-file", "schemathesis.toml", "run", "--no-color", "--tls-verify", "false"])
        .args(["--request-timeout", "20", "--continue-on-failure", "--generation-database", "none"])
        .args(["--phases", "coverage,fuzzing", "--seed", "1", "--max-examples", examples])
        // What means more than a schema can say: that a group exists, that a text is a number. Without a cookie: see above.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance,ignored_auth"])
        // A stream without an end.
        .args(["--exclude-operation-id", "getEvents"])
        .args(["--url", &format!("{}/api/v1", client.origin())])
        .args(["--header", &format!("Cookie: {}", client.cookie_line())])
        .args(["--report-json-path", "report.json", "openapi.json"]);
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(place("report.json")).unwrap()).unwrap();
    println!(
        "{} requests to {} operations",
        report["test_cases"]["generated"], report["operations"]["tested"]
    );
    // Of the others some were done, and their answers looked at.
    let accepted = |phases: &Value| {
        phases.as_object().unwrap().values().filter_map(|phase| phase["accepted"].as_u64()).sum::<u64>()
    };
    let in_vain: BTreeSet<String> = report["valid_rates"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, phases)| accepted(phases) == 0)
        .map(|(name, _)| name.replace(&files.path().display().to_string(), "{directory}"))
        .filter(|name| !BY_CHANCE.contains(&name.as_str()))
        .collect();
    assert_eq!(in_vain, NEVER_DONE.map(str::to_owned).into());
}

/// Starts one and waits for its end.
async fn job_that_is_over(client: &Client) -> String {
    let start = json!({ "values": { "text": "kept" } });
    let started = client.api("POST", "apps/harmless/jobs", start).await.json();
    let id = started["id"].as_str().unwrap();
    until("the job ends", Duration::from_secs(20), || async {
        let job = client.api("GET", &format!("jobs/{id}"), Value::Null).await.json();
        (job["state"] == "ended").then_some(())
    })
    .await;
    id.to_owned()
}

#[tokio::test]
async fn what_is_over_is_read_once_and_a_bad_record_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let portal = portal(dir.path());
    let client = portal.sign_in().await.program();
    let id = job_that_is_over(&client).await;
    let jobs = portal.state().join("jobs");
    std::fs::write(jobs.join(&id).join("entry.json"), "{").unwrap();
    let other = jobs.join("20260101t000000-abcdefgh");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("entry.json"), "{").unwrap();
    // Until the list is made anew.
    let said = until("the bad record is said", Duration::from_secs(10), || async {
        let said = client.api("GET", "jobs", Value::Null).await.json();
        (said["trouble"].as_array().unwrap().len() == 1).then_some(said)
    })
    .await;
    // Of 10,000 that are over, none is read again.
    assert_eq!((&said["found"], &said["jobs"][0]["values"]["text"]), (&json!(1), &json!("kept")));
    assert!(said["trouble"][0].as_str().unwrap().contains("20260101t000000-abcdefgh"), "{said}");
}
