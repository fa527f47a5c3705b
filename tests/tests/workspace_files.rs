//! Files through the workspace: what is written is there whole or not at all, what is read is what is there, and only its owner's
//! own pages and programs do either.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use http_body_util::BodyExt;
use portreeve_tests::world::spawner::eventually;
use portreeve_tests::world::{Answer, Client, Portal, streaming};
use serde_json::json;

fn address(path: &Path) -> String {
    let plain = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    format!(
        "/api/v1/files{}",
        path.as_os_str().as_bytes().iter().map(|byte| plain(*byte)).collect::<String>()
    )
}

async fn put(
    client: &Client,
    path: &Path,
    fields: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = client.prepare("PUT", &address(path));
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client.request(request, body).await
}

/// Refused by the workspace, which says why.
fn assert_not_done(answer: &Answer, status: u16, code: &str) {
    let said = (answer.status.as_u16(), answer.json()["error"].as_str().unwrap_or_default().to_owned());
    assert_eq!(said, (status, code.to_owned()), "{answer:?}");
}

/// Names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_written_is_read_again_whatever_it_is_called() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    for (name, content) in [
        ("plain.txt", "one\ntwo\n".as_bytes().to_vec()),
        ("empty", Vec::new()),
        ("a b'c\"d;e\n%2e%2e ünïcode", b"odd".to_vec()),
        ("large", vec![7; 5_000_000]),
    ] {
        let path = dir.path().join(name);
        put(&client, &path, &[("if-none-match", "*")], content.clone()).await.assert_status(201);
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name}");
        let answer = client.get(&address(&path)).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, content.len()), "{name}");
        let kind = if name.ends_with(".txt") { "text/plain" } else { "application/octet-stream" };
        assert!(answer.body == content && answer.header("content-type") == kind, "{name}");
        let disposition = answer.header("content-disposition").to_owned();
        let encoded = address(Path::new(&format!("/{name}"))).rsplit('/').next().unwrap().to_owned();
        assert_eq!(disposition, format!("attachment; filename*=UTF-8''{encoded}"));
        assert!(answer.header("content-security-policy").contains("sandbox"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    put(&client, &dir.path().join("new/"), &[], "").await.assert_status(201);
    std::os::unix::fs::symlink("plain.txt", dir.path().join("link")).unwrap();
    let listed = client.get(&(address(dir.path()) + "/")).await.json();
    let entries = listed["entries"].as_array().unwrap();
    let short: Vec<_> = entries
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), entry["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(short[0], ("new", "directory"), "directories come first");
    assert!(
        short.contains(&("link", "file")) && short.contains(&("a b'c\"d;e\n%2e%2e ünïcode", "file")),
        "{short:?}"
    );
    assert_eq!((short.len(), &listed["more"]), (6, &json!(false)));
    let odd = entries.iter().find(|entry| entry["name"].as_str().unwrap().starts_with("a b")).unwrap();
    let again = client.get(&format!("{}/{}", address(dir.path()), odd["segment"].as_str().unwrap())).await;
    assert_eq!((again.text().as_str(), &odd["size"]), ("odd", &json!(3)));
}

#[tokio::test]
async fn conditions_are_kept() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let path = dir.path().join("file");
    let first = put(&client, &path, &[], "first").await;
    first.assert_status(204);
    for (field, value) in
        [("if-none-match", "*"), ("if-none-match", "\"x\""), ("if-match", "\"nonsense\""), ("if-match", "*")]
    {
        assert_not_done(&put(&client, &path, &[(field, value)], "second").await, 412, "precondition");
    }
    let tag = client.get(&address(&path)).await.header("etag").to_owned();
    assert_eq!(tag, first.header("etag"));
    put(&client, &path, &[("if-match", &tag)], "second").await.assert_status(204);
    assert_not_done(&put(&client, &path, &[("if-match", &tag)], "third").await, 412, "precondition");
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    for (path, status, code) in [
        (dir.path().join("none/file"), 404, "no-file"),
        (path.join("below"), 409, "not-now"),
        (dir.path().to_owned(), 409, "not-now"),
    ] {
        assert_not_done(&put(&client, &path, &[], "x").await, status, code);
    }
    assert_eq!(names(dir.path()), ["file"]);
    for (asked, status) in [
        ("/api/v1/files/etc/%2e%2e/etc/passwd", 422),
        ("/api/v1/files/etc%2Fpasswd", 422),
        ("/api/v1/files/a%00b", 422),
        ("/api/v1/files//etc/passwd", 422),
        ("/api/v1/files/proc/self/root/etc/passwd", 409),
        ("/api/v1/files/dev/null", 403),
        ("/api/v1/files/none", 404),
        ("/api/v1/files", 200),
    ] {
        let answer = client.get(asked).await;
        assert_eq!(answer.status, status, "{asked}: {}", answer.text());
    }
}

#[tokio::test]
async fn one_that_breaks_off_leaves_nothing() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let path = dir.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let (sender, body) = streaming();
    let body = body.map_err(|error| -> std::convert::Infallible { panic!("{error}") }).boxed();
    let (mut parts, ()) = client.prepare("PUT", &address(&path)).into_parts();
    parts.headers.insert("content-length", 1_000_000.into());
    let sending = {
        let client = client.clone();
        tokio::spawn(async move { client.send(http::Request::from_parts(parts, body)).await.status() })
    };
    sender.send(vec![1; 300_000].into()).await.unwrap();
    eventually("it has begun", || (names(dir.path()).len() == 2 || !sending.is_finished()).then_some(()));
    sending.abort();
    drop(sender);
    eventually("nothing is left", || (names(dir.path()) == ["file"]).then_some(()));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}

#[tokio::test]
async fn nobody_elses_page_reads_or_writes() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await;
    let path = dir.path().join("file");
    std::fs::write(&path, "secret").unwrap();
    let script = client.clone().program().with("sec-fetch-mode", "cors").with("sec-fetch-dest", "empty");
    let own = script.clone().with("sec-fetch-site", "same-origin");
    own.get(&address(&path)).await.assert_refused(403, "for-windows");
    put(&own.clone().with("origin", &client.origin()), &path, &[], "x")
        .await
        .assert_refused(403, "for-windows");
    let other = script.with("sec-fetch-site", "cross-site").with("origin", "https://elsewhere.example");
    assert_eq!(put(&other, &path, &[], "x").await.status, 403);
    let guessed = other.with("x-portreeve-page", "guessed");
    assert_eq!(put(&guessed, &path, &[], "x").await.status, 403);
    let stranger = portal.stranger();
    assert_eq!(put(&stranger, &path, &[], "x").await.status, 401);
    assert_eq!(
        (std::fs::read(&path).unwrap(), names(dir.path())),
        (b"secret".to_vec(), vec!["file".to_owned()])
    );
}
