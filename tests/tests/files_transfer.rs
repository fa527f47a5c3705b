//! Files as they come and go: uploads in parts, archives out and in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use portreeve_tests::world::{Answer, Client, Portal, streaming, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// `/PREFIX/PATH` of a path in plain characters.
fn at(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.display())
}

async fn begin(client: &Client, path: &Path, size: usize, replace: bool) -> Answer {
    client.api("POST", "uploads", json!({ "path": path, "size": size, "replace": replace })).await
}

async fn part(client: &Client, id: &str, offset: usize, bytes: impl Into<Bytes>) -> Answer {
    client.request(client.prepare("PUT", &format!("/api/v1/uploads/{id}?offset={offset}")), bytes).await
}

#[tokio::test]
async fn an_upload_goes_on_where_its_connection_broke_off() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let path = dir.path().join("file");
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let begun = begin(&client, &path, content.len(), false).await;
    begun.assert_status(201);
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let state = async || client.get(&format!("/api/v1/uploads/{id}")).await;
    part(&client, &id, 0, content[..1_000_000].to_vec()).await.assert_status(200);
    assert!(!path.exists(), "nothing is there before all of it is");
    for wrong in [0, 999_999, 1_000_001] {
        part(&client, &id, wrong, "x").await.assert_status(409);
    }
    // A connection that breaks off: what came is kept.
    let (sender, body) = streaming();
    let body = body.map_err(|error| -> std::convert::Infallible { panic!("{error}") }).boxed();
    let (mut parts, ()) = client.prepare("PUT", &format!("/api/v1/uploads/{id}?offset=1000000")).into_parts();
    parts.headers.insert("content-length", 2_000_000.into());
    let sending = {
        let client = client.clone();
        tokio::spawn(async move { client.send(http::Request::from_parts(parts, body)).await.status() })
    };
    sender.send(content[1_000_000..1_600_000].to_vec().into()).await.unwrap();
    until("the part to come", PATIENCE, || async { (state().await.status == 409).then_some(()) }).await;
    drop(sender);
    sending.abort();
    let offset =
        until("what came to be kept", PATIENCE, || async { state().await.json()["offset"].as_u64() }).await;
    let offset = usize::try_from(offset).unwrap();
    assert!((1_000_000..=1_600_000).contains(&offset), "{offset}");
    part(&client, &id, offset, content[offset..].to_vec()).await.assert_status(201);
    assert!(std::fs::read(&path).unwrap() == content);
    // Whoever did not hear that it is complete asks, or sends the end once more.
    assert_eq!(state().await.json()["offset"].as_u64(), Some(3_000_000));
    part(&client, &id, 3_000_000, "").await.assert_status(201);
    part(&client, &id, offset, "x").await.assert_status(409);
    begin(&client, &path, 1, false).await.assert_status(412);
    let again = begin(&client, &path, 3, true).await.json()["id"].as_str().unwrap().to_owned();
    part(&client, &again, 0, "more than three").await.assert_status(400);
    let kept = client.get(&format!("/api/v1/uploads/{again}")).await.json();
    assert_eq!(kept["offset"], json!(0), "nothing of it was taken");
    let nowhere =
        client.api("POST", "uploads", json!({ "path": dir.path().join("none/x"), "size": 1 })).await;
    assert!(nowhere.status == 404 && nowhere.text().contains("make it first"), "{}", nowhere.text());
    assert!(std::fs::read(&path).unwrap() == content);
    part(&client, &again, 0, "new").await.assert_status(201);
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    // What is replaced is what was there when somebody said so.
    for (replace, name) in [(true, "file"), (false, "made meanwhile")] {
        let path = dir.path().join(name);
        let late = begin(&client, &path, 3, replace).await.json()["id"].as_str().unwrap().to_owned();
        std::fs::write(&path, "another's").unwrap();
        part(&client, &late, 0, "new").await.assert_status(412);
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::write(&path, "new").unwrap();
    let given_up =
        begin(&client, &dir.path().join("x"), 3, false).await.json()["id"].as_str().unwrap().to_owned();
    client.api("DELETE", &format!("uploads/{given_up}"), Value::Null).await.assert_status(204);
    part(&client, &given_up, 0, "new").await.assert_status(404);
    // Also while its end comes.
    let late =
        begin(&client, &dir.path().join("late"), 3, false).await.json()["id"].as_str().unwrap().to_owned();
    let (sender, body) = streaming();
    let body = body.map_err(|error| -> std::convert::Infallible { panic!("{error}") }).boxed();
    let request = client.prepare("PUT", &format!("/api/v1/uploads/{late}?offset=0")).map(|()| body);
    let sending = {
        let client = client.clone();
        tokio::spawn(async move { client.send(request).await.status() })
    };
    let coming = async || client.get(&format!("/api/v1/uploads/{late}")).await.status == 409;
    until("its end to come", PATIENCE, || async { coming().await.then_some(()) }).await;
    client.api("DELETE", &format!("uploads/{late}"), Value::Null).await.assert_status(204);
    sender.send("new".into()).await.unwrap();
    drop(sender);
    assert_eq!(sending.await.unwrap(), 404);
    assert!(!dir.path().join("late").exists());
    let empty =
        begin(&client, &dir.path().join("empty"), 0, false).await.json()["id"].as_str().unwrap().to_owned();
    part(&client, &empty, 0, "").await.assert_status(201);
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for (value, status) in [
        (json!({ "path": "relative", "size": 1 }), 422),
        (json!({ "path": "/a/../b", "size": 1 }), 422),
        (json!({ "size": 1 }), 400),
    ] {
        client.api("POST", "uploads", value).await.assert_status(status);
    }
}

#[tokio::test]
async fn so_many_uploads_begin_and_no_more() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let paths: Vec<_> = (0..100).map(|number| dir.path().join(format!("f{number}"))).collect();
    let mut begun = Vec::new();
    // As many at once as a session may ask.
    for paths in paths.chunks(25) {
        begun.extend(
            futures_util::future::join_all(paths.iter().map(|path| begin(&client, path, 1, false))).await,
        );
    }
    let began: Vec<_> = begun.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(began.len(), 64);
    assert!(begun.iter().all(|answer| matches!(answer.status.as_u16(), 201 | 409)));
    let id = began[0].json()["id"].as_str().unwrap().to_owned();
    part(&client, &id, 0, "x").await.assert_status(201);
    begin(&client, &dir.path().join("one more"), 1, false).await.assert_status(201);
}

#[tokio::test]
async fn an_archive_comes_and_goes() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let large = vec![7_u8; 3_000_000];
    std::fs::create_dir_all(dir.path().join("d/e")).unwrap();
    std::fs::write(dir.path().join("d/large"), &large).unwrap();
    std::fs::write(dir.path().join("d/e/run"), "program").unwrap();
    std::fs::set_permissions(dir.path().join("d/e/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("large", dir.path().join("d/link")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("d/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let here = at("/api/v1/files", dir.path());
    let answer = client.get(&format!("{here}/?zip=d")).await;
    answer.assert_status(200);
    assert_eq!(
        (answer.header("content-type"), answer.header("content-disposition")),
        ("application/zip", "attachment; filename*=UTF-8''d.zip")
    );
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(answer.body.to_vec())).unwrap();
    let mut names: Vec<_> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["NOT-INCLUDED.txt", "d/", "d/e/", "d/e/run", "d/large", "d/link"]);
    let mut content = Vec::new();
    archive.by_name("d/large").unwrap().read_to_end(&mut content).unwrap();
    assert!(content == large);
    assert!(archive.by_name("d/link").unwrap().is_symlink());
    let mut left_out = String::new();
    archive.by_name("NOT-INCLUDED.txt").unwrap().read_to_string(&mut left_out).unwrap();
    assert!(left_out.contains("d/pipe: it is a FIFO"), "{left_out}");
    let whole = client.get(&format!("{here}/d/?zip=")).await;
    assert!(whole.status == 200 && whole.header("content-disposition").ends_with("d.zip"));
    client.get(&format!("{here}/?zip=..%2Fx")).await.assert_status(422);

    std::fs::write(dir.path().join("a.zip"), &answer.body).unwrap();
    let unpack = async |name: &str, to: &str| {
        let to = dir.path().join(to).display().to_string();
        let asked = json!({ "do": "unpack", "to": to });
        client.api("POST", &at("files", &dir.path().join(name)), asked).await
    };
    unpack("a.zip", "out").await.assert_status(204);
    assert!(std::fs::read(dir.path().join("out/d/large")).unwrap() == large);
    assert_eq!(
        std::fs::metadata(dir.path().join("out/d/e/run")).unwrap().permissions().mode() & 0o100,
        0o100
    );
    unpack("a.zip", "out").await.assert_status(412);
    // What was private stays so, and dates are what they were, to the two seconds of the format.
    let private = dir.path().join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::write(private.join("key"), "secret").unwrap();
    std::fs::set_permissions(private.join("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    let answer = client.get(&format!("{here}/?zip=private")).await;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(answer.body.to_vec())).unwrap();
    assert!(archive.by_name("private/key").unwrap().last_modified().unwrap().year() >= 2026);
    std::fs::write(dir.path().join("p.zip"), &answer.body).unwrap();
    unpack("p.zip", "opened").await.assert_status(204);
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("opened/private"), mode("opened/private/key")), (0o700, 0o600));
    std::fs::create_dir(dir.path().join("usual")).unwrap();
    assert_eq!(mode("opened"), mode("usual"), "as any new folder");
    // In a folder whose group what is made there gets, it gets it, and the folder goes on so.
    std::fs::create_dir(dir.path().join("team")).unwrap();
    std::fs::set_permissions(dir.path().join("team"), std::fs::Permissions::from_mode(0o2775)).unwrap();
    unpack("a.zip", "team/out").await.assert_status(204);
    for name in ["team/out", "team/out/d/e"] {
        assert_eq!(
            std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o2000,
            0o2000,
            "{name}"
        );
    }
    let asked = json!({ "do": "mode", "mode": "770" });
    client.api("POST", &at("files", &dir.path().join("team")), asked).await.assert_status(204);
    assert_eq!(std::fs::metadata(dir.path().join("team")).unwrap().permissions().mode() & 0o7777, 0o2770);
}

#[tokio::test]
async fn an_archive_goes_out_while_it_is_made() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    // Larger than what may be held of it, and not compressed.
    std::fs::File::create(dir.path().join("large.gz")).unwrap().set_len(400_000_000).unwrap();
    let request = client.prepare("GET", &format!("/api/v1{}/?zip=large.gz", at("/files", dir.path())));
    let before = portal.resident_kib();
    let answer = client
        .send(request.map(|()| http_body_util::Empty::new().map_err(|never| match never {}).boxed()))
        .await;
    assert_eq!(answer.status(), 200);
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
    }
    assert!(bytes > 400_000_000, "{bytes}");
    let grown = portal.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is stored");
}

#[tokio::test]
async fn an_archive_neither_leads_out_nor_bursts() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let archive = |entries: &[(&str, &[u8])]| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, content) in entries {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    let mut linked = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    linked.add_symlink("way", "..", options).unwrap();
    linked.start_file("way/escaped", options).unwrap();
    linked.write_all(b"x").unwrap();
    let zeros = vec![0; 90_000_000];
    for (number, bytes, status) in [
        (1, archive(&[("good", b"x"), ("../escaped", b"x")]), 409),
        (2, archive(&[("/escaped", b"x")]), 204),
        (3, archive(&[("zeros", &zeros)]), 409),
        (4, linked.finish().unwrap().into_inner(), 204),
        (5, b"no archive".to_vec(), 409),
        (6, archive(&[(&"d/".repeat(201), b""), ("x", b"x")]), 409),
    ] {
        std::fs::write(dir.path().join("a.zip"), bytes).unwrap();
        let out = dir.path().join(format!("out{number}"));
        let asked = json!({ "do": "unpack", "to": out });
        let answer = client.api("POST", &at("files", &dir.path().join("a.zip")), asked).await;
        assert_eq!(answer.status, status, "{number}: {}", answer.text());
        assert_eq!(out.exists(), status == 204, "{number}");
        assert!(!dir.path().join("escaped").exists() && !Path::new("/escaped").exists());
        // Nothing is left of what was given up.
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names.iter().all(|name| name == "a.zip" || name.starts_with("out")), "{names:?}");
    }
    assert!(dir.path().join("out4/way").is_dir(), "what would be a link is a directory of its own");
}
