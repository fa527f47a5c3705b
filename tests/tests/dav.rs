//! WebDAV through the portal: who gets in, what comes out, and what a browser can't be made to do with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use portreeve_portal::limits::{FILES, WATCHERS};
use portreeve_tests::world::{Answer, Client, Portal, until};

async fn ask(
    client: &Client,
    method: &str,
    path: &Path,
    fields: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = client.prepare(method, &format!("/dav{}", path.display()));
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    client.request(request, body).await
}

#[tokio::test]
async fn a_program_reads_writes_moves_and_lists() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let at = |name: &str| dir.path().join(name);
    let options = ask(&client, "OPTIONS", Path::new("/"), &[], "").await;
    options.assert_status(200);
    assert_eq!((options.header("dav"), options.header("ms-author-via")), ("1, 2, 3", "DAV"));
    assert!(options.header("allow").contains("PROPPATCH"));
    ask(&client, "MKCOL", &at("d"), &[], "").await.assert_status(201);
    let large = vec![7; 5_000_000];
    ask(&client, "PUT", &at("d/large"), &[], large.clone()).await.assert_status(201);
    assert!(std::fs::read(at("d/large")).unwrap() == large);
    let part = ask(&client, "GET", &at("d/large"), &[("range", "bytes=4999998-")], "").await;
    part.assert_status(206);
    assert_eq!((part.body.len(), part.header("content-range")), (2, "bytes 4999998-4999999/5000000"));
    let whole = ask(&client, "GET", &at("d/large"), &[], "").await;
    assert!(whole.body == large && whole.header("accept-ranges") == "bytes");
    let seen = [("if-none-match", whole.header("etag"))];
    ask(&client, "GET", &at("d/large"), &seen, "").await.assert_status(304);
    let destination = format!("{}/dav{}", client.origin(), at("moved").display());
    ask(&client, "MOVE", &at("d/large"), &[("destination", &destination)], "").await.assert_status(201);
    let elsewhere = [("destination", "https://elsewhere.example/dav/tmp/x")];
    ask(&client, "MOVE", &at("moved"), &elsewhere, "").await.assert_status(502);
    let listed = ask(&client, "PROPFIND", dir.path(), &[("depth", "1")], "").await;
    listed.assert_status(207);
    assert!(listed.header("content-type").starts_with("application/xml"));
    for name in ["/d/</D:href>", "/moved</D:href>"] {
        assert!(listed.text().contains(name), "{}", listed.text());
    }
    ask(&client, "PROPFIND", dir.path(), &[("depth", "infinity")], "").await.assert_status(403);
    let xml =
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><D:propfind xmlns:D=\"DAV:\"><D:allprop/></D:propfind>";
    let refused = ask(&client, "PROPFIND", dir.path(), &[("depth", "0")], xml).await;
    assert!(refused.status == 403 && !refused.text().contains("root:"), "{refused:?}");
    ask(&client, "DELETE", &at("d"), &[], "").await.assert_status(204);
    ask(&client, "FROBNICATE", &at("moved"), &[], "").await.assert_status(405);
    // A lock is the server's for as long as it lasts, whichever way the file is reached.
    let info = "<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>";
    let lock = ask(&client, "LOCK", &at("moved"), &[("depth", "0")], info).await;
    lock.assert_status(200);
    assert!(lock.header("lock-token").starts_with("<urn:uuid:"));
    ask(&client, "PUT", &at("moved"), &[], "x").await.assert_status(423);
    let api = client.prepare("PUT", &format!("/api/v1/files{}", at("moved").display()));
    client.request(api, "x").await.assert_status(409);
    let shown = format!("({})", lock.header("lock-token"));
    ask(&client, "PUT", &at("moved"), &[("if", &shown)], "x").await.assert_status(204);
}

#[tokio::test]
async fn a_directory_of_thousands_is_listed_whole() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    for number in 0..3000 {
        std::fs::write(dir.path().join(format!("{number:05}-{}", "n".repeat(40))), "").unwrap();
    }
    let listed = ask(&client, "PROPFIND", dir.path(), &[("depth", "1")], "").await;
    assert_eq!(listed.text().matches("<D:response>").count(), 3001);
    assert!(listed.text().ends_with("</D:multistatus>\n"));
}

/// Whoever has a stolen token and takes the answers slowly does not close the workspace to its owner.
#[tokio::test]
async fn one_session_leaves_room_for_the_others() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let (slow, owner) = (portal.sign_in().await.program(), portal.sign_in().await);
    // More than all that stands between takes on its own; it needs no room on the disk.
    std::fs::File::create(dir.path().join("large")).unwrap().set_len(1 << 32).unwrap();
    let large = format!("/dav{}", dir.path().join("large").display());
    let mut downloads = Vec::new();
    for _ in 0..FILES {
        let answer = slow.stream(&large).await;
        assert_eq!(answer.status(), 200, "{}", downloads.len());
        downloads.push(answer);
    }
    for path in [large.as_str(), "/api/v1/files/"] {
        slow.get(path).await.assert_refused(429, "too-many-requests");
    }
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let answer = slow.stream("/api/v1/events").await;
        assert_eq!(answer.status(), 200, "{}", watchers.len());
        watchers.push(answer);
    }
    slow.get("/api/v1/events").await.assert_refused(429, "too-many-requests");
    for who in [&slow, &owner] {
        who.clone().browser().get("/").await.assert_status(200);
    }
    let owner = owner.program();
    owner.get("/api/v1/files/").await.assert_status(200);
    assert_eq!(owner.stream(&large).await.status(), 200);
    assert_eq!(owner.stream("/api/v1/events").await.status(), 200);
    // Who goes, or has read to the end, makes room.
    drop(downloads.pop());
    until("a place that is given back", Duration::from_secs(20), || async {
        (slow.get("/api/v1/files/").await.status == 200).then_some(())
    })
    .await;
    slow.get("/api/v1/files/").await.assert_status(200);
}

#[tokio::test]
async fn nothing_of_a_users_runs_on_the_portals_origin() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.browser();
    for name in ["page.html", "x.svg", "x.xhtml", "x.js", "x.mjs", "x.css", "x.xml", "x.wasm", "x.pdf", "x"] {
        let path = dir.path().join(name);
        std::fs::write(&path, "<script>alert(1)</script>").unwrap();
        let answer = ask(&client, "GET", &path, &[], "").await;
        answer.assert_status(200);
        let kind = answer.header("content-type");
        assert!(
            !["html", "svg", "xml", "script", "css", "wasm"].iter().any(|bad| kind.contains(bad)),
            "{name}: {kind}"
        );
        assert!(answer.header("content-disposition").starts_with("attachment;"), "{name}");
        assert!(answer.header("content-security-policy").contains("sandbox"), "{name}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn a_browsers_page_of_somebody_else_does_nothing() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await;
    let path = dir.path().join("file");
    std::fs::write(&path, "kept").unwrap();
    let destination = format!("{}/dav{}", client.origin(), dir.path().join("moved").display());
    let script = client.clone().program().with("sec-fetch-mode", "cors").with("sec-fetch-dest", "empty");
    let application = script.clone().with("sec-fetch-site", "same-origin").with("origin", &client.origin());
    let stranger = script.with("sec-fetch-site", "cross-site").with("origin", "https://elsewhere.example");
    let old = client.clone().program().with("origin", "https://elsewhere.example");
    for (who, browser) in
        [("an application", &application), ("another site", &stranger), ("an old browser", &old)]
    {
        for method in ["PUT", "DELETE", "MOVE", "COPY", "PROPPATCH", "LOCK", "MKCOL"] {
            let answer = ask(browser, method, &path, &[("destination", &destination)], "x").await;
            assert_eq!(answer.status, 403, "{who}: {method}: {answer:?}");
        }
    }
    ask(&application, "GET", &path, &[], "").await.assert_refused(403, "for-windows");
    ask(&application, "PROPFIND", &path, &[("depth", "0")], "").await.assert_refused(403, "for-windows");
    // A window is led there by whoever wants; it changes nothing.
    let window = client.browser().with("sec-fetch-site", "cross-site");
    ask(&window, "DELETE", &path, &[], "").await.assert_refused(403, "cross-site");
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn who_shows_nothing_is_asked_for_a_token_and_a_browser_is_not() {
    let portal = Portal::plain();
    let program = portal.stranger().program();
    let answer = ask(&program, "PROPFIND", Path::new("/"), &[("depth", "0")], "").await;
    answer.assert_status(401);
    assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{answer:?}");
    let elsewhere = program.get("/api/v1/jobs").await;
    assert_eq!((elsewhere.status.as_u16(), elsewhere.header("www-authenticate")), (401, "Portreeve-Session"));
    let script = program.with("sec-fetch-mode", "cors").with("sec-fetch-site", "same-origin");
    let answer = ask(&script, "GET", Path::new("/etc/passwd"), &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Portreeve-Session"));
    let window = portal.stranger().browser();
    ask(&window, "GET", Path::new("/etc/passwd"), &[], "").await.assert_status(303);
}

/// curl 7.88 looks at no answer that came just before it was told to send no more.
#[tokio::test]
async fn who_is_refused_while_sending_hears_it() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let file = dir.path().join("large");
    std::fs::write(&file, vec![0; 5_000_000]).unwrap();
    let address = format!("{}/dav{}/new", portal.stranger().origin(), dir.path().display());
    for version in ["--http2", "--http1.1"] {
        for _ in 0..5 {
            let curl = tokio::process::Command::new("curl")
                .args([
                    "--silent",
                    "--insecure",
                    version,
                    "--output",
                    "/dev/null",
                    "--write-out",
                    "%{http_code}",
                    "--upload-file",
                ])
                .args([file.as_os_str(), address.as_ref()])
                .output();
            let Ok(done) = curl.await else { return println!("SKIPPED: curl is not installed") };
            assert_eq!(String::from_utf8_lossy(&done.stdout), "401", "{version}: {done:?}");
        }
    }
}

/// What Windows' client sends when a drive is mapped, in its order: the root first, without a password, then the directory, with one
/// after it was asked; then `Depth: 1,noroot`, times in properties of its own, `Translate: f`.
#[tokio::test]
async fn windows_maps_a_drive() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let windows =
        portal.stranger().with("user-agent", "Microsoft-WebDAV-MiniRedir/10.0.22631").with("translate", "f");
    let root = windows.request(windows.prepare("OPTIONS", "/"), "").await;
    root.assert_status(200);
    assert_eq!((root.header("dav"), root.header("ms-author-via")), ("1, 2, 3", "DAV"));
    assert!(root.body.is_empty());
    let asked = ask(&windows, "PROPFIND", dir.path(), &[("depth", "0")], "").await;
    asked.assert_status(401);
    assert!(asked.header("www-authenticate").starts_with("Basic "), "{asked:?}");
    // A page's question whether it may ask is none of a program's.
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-mode", "cors")] {
        let page = windows.clone().with(name, value);
        let answer = page.request(page.prepare("OPTIONS", "/"), "").await;
        assert!(answer.status != 200 && answer.header("dav").is_empty(), "{answer:?}");
    }
    for (method, path) in [("PROPFIND", "/"), ("OPTIONS", "/files/"), ("PUT", "/")] {
        let answer = windows.request(windows.prepare(method, path), "").await;
        assert!(answer.status.is_client_error(), "{method} {path}: {answer:?}");
    }
    let known = portal.sign_in().await.program().with("translate", "f");
    ask(&known, "PUT", &dir.path().join("file.txt"), &[], "content").await.assert_status(201);
    let times = "<?xml version=\"1.0\" encoding=\"utf-8\" ?><D:propertyupdate xmlns:D=\"DAV:\" xmlns:Z=\"urn:schemas-microsoft-com:\"><D:set><D:prop>\
        <Z:Win32CreationTime>Mon, 22 Nov 2021 09:12:11 GMT</Z:Win32CreationTime><Z:Win32LastModifiedTime>Mon, 22 Nov 2021 09:12:11 GMT</Z:Win32LastModifiedTime>\
        <Z:Win32FileAttributes>00000020</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>";
    ask(&known, "PROPPATCH", &dir.path().join("file.txt"), &[], times).await.assert_status(207);
    let members = ask(&known, "PROPFIND", dir.path(), &[("depth", "1,noroot")], "").await;
    assert!(members.status == 207 && members.text().matches("<D:response>").count() == 1, "{members:?}");
}

#[tokio::test]
async fn only_the_directories_that_the_site_names_are_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("shown")).unwrap();
    std::fs::write(dir.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink("../secret", dir.path().join("shown/link")).unwrap();
    let config = format!("[workspace]\nroots = [\"{}\"]\n", dir.path().join("shown").display());
    let portal = Portal::with_config(&config);
    let client = portal.sign_in().await.program();
    ask(&client, "PUT", &dir.path().join("shown/a"), &[], "x").await.assert_status(201);
    for (path, status) in [("secret", 404), ("shown/link", 403), ("shown/../secret", 400)] {
        let answer = ask(&client, "PROPFIND", &dir.path().join(path), &[("depth", "0")], "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    for path in ["/etc/passwd", "/proc/self/environ", "/"] {
        let api = client.get(&format!("/api/v1/files{path}")).await;
        let only_the_way =
            path == "/" && api.json()["entries"].as_array().is_some_and(|entries| entries.len() == 1);
        assert!(only_the_way || api.status == 404, "{path}: {api:?}");
    }
    let listed = ask(&client, "PROPFIND", Path::new("/"), &[("depth", "1")], "").await;
    assert_eq!(listed.text().matches("<D:response>").count(), 2, "{}", listed.text());
}
