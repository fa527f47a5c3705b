//! `/fw/NAME/`: what a forward file may be and say, who may use it, and how soon a change counts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use portreeve_tests::world::{
    App, Client, ForeignApp, Person, Portal, PortalOptions, WebSocket, server_config, skip, system, text,
    until,
};
use tokio_tungstenite::tungstenite::Message;

fn put(portal: &Portal, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = portal.forwards().join(name);
    std::fs::write(&path, content).unwrap();
    chmod(&path, mode);
    path
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_a_file_says_decides_where_it_leads() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let port = app.port();
    let own = portal.port();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let good = format!("http://localhost:{port}/");
    let huge = format!("{}{good}\n", "http://localhost:1/\n".repeat(4000));
    let many = format!("{}{good}\n", "http://localhost:1/\n".repeat(3000));
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("plain", format!("{good}\n").into(), 200, ""),
        ("no-newline", good.clone().into(), 200, ""),
        ("no-slash", format!("http://localhost:{port}\n").into(), 200, ""),
        ("crlf", format!("{good}\r\n").into(), 200, ""),
        ("blank-lines-after", format!("{good}\n\n \t\r\n\n").into(), 200, ""),
        ("the-last-line-counts", format!("http://localhost:1/\nnonsense\n{good}\n").into(), 200, ""),
        ("many-lines", many.into(), 200, ""),
        ("by-address", format!("http://127.0.0.1:{port}/\n").into(), 200, ""),
        ("dotted.name-with_all", format!("{good}\n").into(), 200, ""),
        ("empty", "".into(), 410, "disabled"),
        ("blank", " \n\t\r\n\n".into(), 410, "disabled"),
        ("last-line-bad", format!("{good}\nnonsense\n").into(), 502, "bad-forward"),
        ("huge", huge.into(), 502, "bad-forward"),
        ("binary", b"http://localhost:\xff\xfe/\n".to_vec(), 502, "bad-forward"),
        ("nul", format!("http://localhost:{port}/\0\n").into(), 502, "bad-forward"),
        ("other-scheme", "ftp://localhost:8888/\n".into(), 502, "bad-forward"),
        ("no-scheme", format!("localhost:{port}\n").into(), 502, "bad-forward"),
        ("file-scheme", "file:///etc/passwd\n".into(), 502, "bad-forward"),
        ("port-zero", "http://localhost:0/\n".into(), 502, "bad-forward"),
        ("port-large", "http://localhost:65536/\n".into(), 502, "bad-forward"),
        ("bad-host", "http://local host:8888/\n".into(), 502, "bad-forward"),
        ("dot-segments", format!("http://localhost:{port}/a/../b/\n").into(), 502, "bad-forward"),
        ("query", format!("http://localhost:{port}/?x=1\n").into(), 502, "bad-forward"),
        ("two-on-a-line", format!("{good} {good}\n").into(), 502, "bad-forward"),
        ("pin-on-http", format!("{good} pin=sha256:{}\n", "0".repeat(64)).into(), 502, "bad-forward"),
        ("unspecified", format!("http://0.0.0.0:{port}/\n").into(), 502, "bad-forward"),
        ("privileged", "http://localhost:80/\n".into(), 403, "privileged-port"),
        ("another-machine", "http://c17:8888/\n".into(), 404, "unknown-node"),
        ("the-portal", format!("http://localhost:{own}/\n").into(), 403, "ourselves"),
        ("nobody-there", "http://localhost:1025/\n".into(), 503, "not-listening"),
    ];
    for (name, content, status, code) in cases {
        put(&portal, name, content, 0o700);
        let answer = client.get(&format!("/fw/{name}/x")).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (status, code), "{name}: {answer:?}");
        if status == 200 {
            assert_eq!(answer.json()["path"], "/x", "{name}");
        }
    }
    // The machine's own name is where the documentation's scripts point; what listens on the loopback is not there.
    put(&portal, "by-name", format!("http://{host}:{port}/\n"), 0o700);
    let status = client.get("/fw/by-name/").await.status.as_u16();
    assert!(matches!(status, 200 | 503), "{status}");
}

#[tokio::test]
async fn names_that_no_forward_can_have() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    put(&portal, ".hidden", "http://localhost:8888/\n", 0o700);
    for name in [
        ".",
        "..",
        ".hidden",
        "a%2Fb",
        "%2e%2e",
        "a%20b",
        "a:b",
        "%00",
        "a%0ab",
        "-%2F",
        "a~",
        &"a".repeat(300),
    ] {
        let answer = client.get(&format!("/fw/{name}/")).await;
        assert!(matches!(answer.error(), "bad-name" | "not-found"), "{name}: {answer:?}");
        answer.assert_status(404);
    }
    client.get("/fw/nobody-made-it/").await.assert_refused(404, "no-such-forward");
    let moved = client.get("/fw/nobody-made-it?x=1").await;
    assert_eq!((moved.status.as_u16(), moved.location()), (308, "/fw/nobody-made-it/?x=1"));
}

#[tokio::test]
async fn only_a_plain_file_with_one_name_is_followed() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let target = format!("http://localhost:{}/\n", app.port());
    let real = put(&portal, "real", &target, 0o700);
    client.get("/fw/real/").await.assert_status(200);
    let dir = portal.forwards();
    symlink("real", dir.join("link")).unwrap();
    symlink(&real, dir.join("absolute-link")).unwrap();
    symlink("/nonexistent", dir.join("broken-link")).unwrap();
    std::fs::create_dir(dir.join("dir")).unwrap();
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    for name in ["link", "absolute-link", "broken-link", "dir", "fifo", "socket"] {
        let asked = Instant::now();
        client.get(&format!("/fw/{name}/")).await.assert_refused(403, "forward-refused");
        assert!(asked.elapsed() < Duration::from_secs(1), "{name} made it wait");
    }
    std::fs::hard_link(&real, dir.join("second-name")).unwrap();
    client.get("/fw/second-name/").await.assert_refused(403, "forward-refused");
    // What lies in the directory's subdirectories is nobody's forward.
    std::fs::write(dir.join("dir/inner"), &target).unwrap();
    client.get("/fw/dir%2Finner/").await.assert_status(404);
}

#[tokio::test]
async fn execute_permission_decides() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let target = format!("http://localhost:{}/\n", app.port());
    for (mode, allowed) in [
        (0o700, true),
        (0o755, true),
        (0o750, true),
        (0o500, true),
        (0o711, true),
        (0o600, false),
        (0o644, false),
        (0o444, false),
    ] {
        let name = format!("mode-{mode:o}");
        put(&portal, &name, &target, mode);
        let answer = client.get(&format!("/fw/{name}/")).await;
        let expected = if allowed { (200, "") } else { (403, "not-executable") };
        assert_eq!((answer.status.as_u16(), answer.error()), expected, "{mode:o}");
    }
    let page = client.browser().get("/fw/mode-600/").await;
    assert!(page.text().contains("chmod u+x"), "the page says what to do: {}", page.text());
}

#[tokio::test]
async fn access_control_lists_count() {
    let test = "access_control_lists_count";
    let (alice, bob) = match (Person::known("alice"), Person::known("bob")) {
        (Ok(alice), Ok(bob)) => (alice, bob),
        (Err(why), _) | (_, Err(why)) => return skip(test, &why),
    };
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o1777);
    let file = dir.path().join("listed");
    let app = ForeignApp::of(&bob);
    std::fs::write(&file, format!("http://localhost:{}/\n", app.port())).unwrap();
    bob.own(&file);
    chmod(&file, 0o700);
    let options = PortalOptions {
        person: Some(alice),
        forwards: Some(dir.path().to_owned()),
        ..PortalOptions::default()
    };
    let portal = Portal::start(options);
    let client = portal.sign_in().await;
    client.get("/fw/listed/").await.assert_refused(403, "not-executable");
    let path = file.display().to_string();
    match system("setfacl", &["-m", "u:alice:rx", &path]) {
        None => return skip(test, "needs setfacl (Debian: acl)"),
        Some(output) if !output.status.success() => {
            return skip(test, "this file system has no access control lists");
        }
        Some(_) => {}
    }
    until("the list to count", Duration::from_millis(1500), || async {
        (client.get("/fw/listed/").await.status == 200).then_some(())
    })
    .await;
    // Named, but without x.
    assert!(system("setfacl", &["-m", "u:alice:r", &path]).unwrap().status.success());
    until("the list to count again", Duration::from_millis(1500), || async {
        (client.get("/fw/listed/").await.error() == "not-executable").then_some(())
    })
    .await;
}

#[tokio::test]
async fn credentials_and_paths_of_the_target_are_used() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let port = app.port();
    put(&portal, "secret", format!("http://user:p%40ss@localhost:{port}/\n"), 0o700);
    let said = client.get("/fw/secret/").await.text();
    assert!(said.contains("Basic dXNlcjpwQHNz"), "user:p@ss: {said}");
    // Of the password, nothing appears anywhere else.
    assert!(!portal.stderr().contains("p@ss") && !portal.stderr().contains("p%40ss"));

    put(&portal, "deep", format!("http://localhost:{port}/base/dir/\n"), 0o700);
    assert_eq!(client.get("/fw/deep/x?y=1").await.json()["path"], "/base/dir/x?y=1");
    // Started with its base URL at the prefix, an application keeps it.
    put(&portal, "kept", format!("http://localhost:{port}/fw/kept/\n"), 0o700);
    let kept = client.get("/fw/kept/x").await;
    assert_eq!(kept.json()["path"], "/fw/kept/x");
    assert!(kept.text().contains("\"x-forwarded-prefix\",\"/fw/kept\""), "{}", kept.text());
    // What holds below one prefix says nothing about another, also on the same pooled connection.
    for _ in 0..8 {
        let direct = client.get(&format!("/fw2/localhost:{port}/x")).await;
        assert_eq!(direct.json()["path"], "/x");
        assert_eq!(client.get("/fw/kept/x").await.json()["path"], "/fw/kept/x");
    }
}

#[tokio::test]
async fn tls_targets_and_their_pins() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let (config, hash) = server_config();
    let app = App::https(config, |_| async { text("over TLS") }).await;
    let address = format!("https://localhost:{}/", app.port());
    let wrong = "0".repeat(64);
    for (name, line, status, code) in [
        ("unpinned", address.clone(), 200, ""),
        ("pinned", format!("{address} pin=sha256:{hash}"), 200, ""),
        ("wrong-pin", format!("{address} pin=sha256:{wrong}"), 502, "application-tls"),
        ("no-tls-spoken", format!("http://localhost:{}/", app.port()), 502, "broke-off"),
    ] {
        put(&portal, name, format!("{line}\n"), 0o700);
        let answer = client.get(&format!("/fw/{name}/")).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (status, code), "{name}: {answer:?}");
    }
    let plain = App::echo().await;
    put(&portal, "plain", format!("https://localhost:{}/\n", plain.port()), 0o700);
    client.get("/fw/plain/").await.assert_refused(502, "application-tls");
    assert!(plain.seen().is_empty());
    for pin in [&hash, &format!("sha256:{hash}")] {
        let added = portal.command(&["forward", "add", "by-command", &address, "--pin", pin]);
        assert_eq!(added.status, 0, "{added:?}");
        client.get("/fw/by-command/").await.assert_status(200);
    }
    let refused = portal.command(&["forward", "add", "nonsense", "8888", "--pin", &format!("sha256:{hash}")]);
    assert!(refused.status != 0 && refused.err.contains("https"), "{refused:?}");
}

#[tokio::test]
async fn a_change_counts_within_a_second_for_requests() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let (one, two) =
        (App::start(|_| async { text("one") }).await, App::start(|_| async { text("two") }).await);
    let path = put(&portal, "app", format!("http://localhost:{}/\n", one.port()), 0o700);
    let says = async |expected: &str, status: u16| {
        let changed = Instant::now();
        until(&format!("{status} {expected}"), Duration::from_millis(1100), || async {
            let answer = client.get("/fw/app/").await;
            let said = if status == 200 { answer.text() } else { answer.error().to_owned() };
            ((answer.status.as_u16(), said.as_str()) == (status, expected)).then_some(())
        })
        .await;
        assert!(changed.elapsed() < Duration::from_millis(1100), "{:?}", changed.elapsed());
    };
    says("one", 200).await;
    std::fs::write(&path, format!("http://localhost:{}/\n", two.port())).unwrap();
    says("two", 200).await;
    chmod(&path, 0o600);
    says("not-executable", 403).await;
    chmod(&path, 0o700);
    says("two", 200).await;
    std::fs::write(&path, "").unwrap();
    says("disabled", 410).await;
    std::fs::remove_file(&path).unwrap();
    says("no-such-forward", 404).await;
}

async fn tunnel(client: &Client, path: &str) -> WebSocket {
    let mut socket = client.websocket(path).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    socket
}

/// Waits for the tunnel's end; chatters meanwhile, so that it can't be taken for idle.
async fn ends_within(mut socket: WebSocket, patience: Duration) {
    let over = async {
        loop {
            if socket.send(Message::text("still there")).await.is_err() {
                return;
            }
            match socket.next().await {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, over).await.expect("the tunnel ends");
}

#[tokio::test]
async fn a_change_counts_within_five_seconds_for_tunnels() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let other = App::echo().await;
    let target = format!("http://localhost:{}/\n", app.port());
    let file = |name| put(&portal, name, &target, 0o700);
    let (closed, moved, removed, _kept) = (file("closed"), file("moved"), file("removed"), file("kept"));
    let mut sockets = Vec::new();
    for name in ["closed", "moved", "removed", "kept"] {
        sockets.push(tunnel(&client, &format!("/fw/{name}/socket")).await);
    }
    let mut kept = sockets.pop().unwrap();
    chmod(&closed, 0o600);
    std::fs::write(&moved, format!("http://localhost:{}/\n", other.port())).unwrap();
    std::fs::remove_file(&removed).unwrap();
    let changed = Instant::now();
    futures_util::future::join_all(
        sockets.into_iter().map(|socket| ends_within(socket, Duration::from_millis(5300))),
    )
    .await;
    assert!(changed.elapsed() < Duration::from_millis(5300));
    kept.send(Message::text("alive")).await.unwrap();
    assert_eq!(
        kept.next().await.unwrap().unwrap(),
        Message::text("alive"),
        "an unchanged forward keeps its tunnel"
    );
    portal.logged(&["audit", "verdict=\"end\"", "/fw/closed"]).await;
}

#[tokio::test]
async fn one_right_does_not_serve_another() {
    // The pool keys by user and target: the connection is shared, the right is asked for at every request. On one
    // thread, since each believes what it read of a file for a moment.
    let portal = Portal::with_config("threads = 1\n");
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let path = put(&portal, "app", format!("http://localhost:{}/\n", app.port()), 0o700);
    client.get("/fw/app/").await.assert_status(200);
    client.get(&app.path("/")).await.assert_status(200);
    chmod(&path, 0o600);
    until("the forward to be refused", Duration::from_millis(1100), || async {
        (client.get("/fw/app/").await.status == 403).then_some(())
    })
    .await;
    client.get(&app.path("/")).await.assert_status(200);
    client.get("/fw/app/").await.assert_refused(403, "not-executable");
}

#[tokio::test]
async fn the_command_and_the_hand_agree() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let port = app.port().to_string();
    let run = |arguments: &[&str]| {
        let finished = portal.command(&[&["forward"], arguments].concat());
        assert_eq!(finished.status, 0, "{arguments:?}: {finished:?}");
        finished.out
    };
    let dir = portal.forwards();
    // By the command, read by hand.
    assert!(run(&["add", "tb", &port]).contains("added /fw/tb/"));
    assert_eq!(std::fs::read_to_string(dir.join("tb")).unwrap(), format!("http://localhost:{port}/\n"));
    client.get("/fw/tb/").await.assert_status(200);
    // By hand as the documentation of other portals says, read by the command.
    std::fs::write(dir.join("by-hand"), format!("http://localhost:1/\nhttp://localhost:{port}\n")).unwrap();
    chmod(&dir.join("by-hand"), 0o755);
    client.get("/fw/by-hand/").await.assert_status(200);
    let list = run(&["list"]);
    assert!(list.contains(&format!("tb\thttp://localhost:{port}/")), "{list}");
    assert!(list.contains("by-hand\t") && list.contains("last one counts"), "{list}");
    // Each changes what the other made.
    assert!(run(&["add", "by-hand", &format!("localhost:{port}")]).contains("changed"));
    assert_eq!(std::fs::metadata(dir.join("by-hand")).unwrap().permissions().mode() & 0o777, 0o755);
    std::fs::write(dir.join("tb"), "").unwrap();
    assert!(run(&["list"]).contains("tb\tdisabled"));
    run(&["disable", "by-hand"]);
    assert_eq!(std::fs::read(dir.join("by-hand")).unwrap(), b"");
    until("both to be disabled", Duration::from_millis(1200), || async {
        let both =
            [client.get("/fw/tb/").await.status.as_u16(), client.get("/fw/by-hand/").await.status.as_u16()];
        (both == [410, 410]).then_some(())
    })
    .await;
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap().unwrap().name;
    run(&["share", "tb", "--group", &group]);
    assert_eq!(std::fs::metadata(dir.join("tb")).unwrap().permissions().mode() & 0o777, 0o750);
    run(&["remove", "tb"]);
    assert!(!dir.join("tb").exists());
    for (arguments, why) in [
        (&["remove", "tb"][..], "no forward called tb"),
        (&["disable", "tb"], "no forward called tb"),
        (&["share", "by-hand", "--group", "no-such-group"], "no group called"),
        (&["add", "tb", "80"], "below 1024"),
        (&["add", "tb", "ftp://localhost:8888/"], "http"),
        (&["add", "../tb", "8888"], "../tb"),
        (&["add", ".tb", "8888"], ".tb"),
    ] {
        let refused = portal.command(&[&["forward"], arguments].concat());
        assert!(refused.status != 0 && refused.err.contains(why), "{arguments:?}: {refused:?}");
    }
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["by-hand"], "nothing is left behind");
}

#[tokio::test]
async fn a_forward_can_say_how_paths_and_host_are_told() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::echo().await;
    let port = app.port();
    let base = format!("http://localhost:{port}/");
    let added = portal.command(&["forward", "add", "kept", &base, "--mode", "keep"]);
    assert!(added.out.contains(&format!("-> {base} mode=keep")), "{added:?}");
    let added = portal.command(&["forward", "add", "told", &base, "--target-host"]);
    assert!(added.out.contains(&format!("-> {base} host=target")), "{added:?}");
    let bad = portal.command(&["forward", "add", "bad", &base, "--mode", "both"]);
    assert!(bad.status != 0 && bad.err.contains("mode=keep or mode=strip"), "{bad:?}");
    put(&portal, "stripped", format!("http://localhost:{port}/fw/stripped/ mode=strip\n"), 0o700);
    put(&portal, "plain", &base, 0o700);

    let mode = |path: &str| {
        let (client, path) = (client.clone(), format!("/-/mode?path={path}"));
        async move {
            let answer = client.get(&path).await;
            answer.assert_status(200);
            let said = answer.json();
            assert_eq!(said["mode"], answer.header("x-portreeve-mode"));
            format!("{}: {}", said["mode"].as_str().unwrap(), said["reason"].as_str().unwrap())
        }
    };
    assert_eq!(mode("/fw/kept/").await, "keep: its forward says so");
    assert_eq!(mode("/fw/stripped/").await, "strip: its forward says so");
    assert_eq!(mode("/fw/plain/x").await, "unknown: it has answered nothing yet that tells");
    for path in ["", "/", "/fw/plain", "/-/mode", "https://elsewhere/fw/plain/"] {
        client.get(&format!("/-/mode?path={path}")).await.assert_refused(400, "bad-request");
    }
    client.get("/-/mode?path=/fw/nothing/").await.assert_refused(404, "no-such-forward");
    portal.stranger().get("/-/mode?path=/fw/plain/").await.assert_refused(401, "not-signed-in");
    assert_eq!(app.seen().len(), 0, "asking says nothing to the application");

    let window = client.clone().browser();
    assert_eq!(window.get("/fw/kept/x").await.json()["path"], "/fw/kept/x");
    assert_eq!(window.get("/fw/plain/x").await.json()["path"], "/x");
    assert_eq!(mode("/fw/plain/").await, "strip: its answers told");
    let page = window.get("/").await.text();
    assert!(page.contains("gets its paths whole") && page.contains("links are rewritten"), "{page}");

    let post = client.clone().with("origin", &client.origin());
    let post = post.with("referer", &format!("{}/fw/told/form?x", client.origin()));
    post.post("/fw/told/x", "a=b").await.assert_status(200);
    let seen = app.seen().pop().unwrap();
    let field = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    assert_eq!(
        [field("host"), field("origin"), field("referer"), field("x-forwarded-host")],
        [
            format!("localhost:{port}"),
            format!("http://localhost:{port}"),
            format!("http://localhost:{port}/form?x"),
            client.authority()
        ]
    );
}
