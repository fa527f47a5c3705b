//! A portal's life: start, reload, drain, restart; and what it says when it can't.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use nix::sys::signal::Signal;
use portreeve_tests::world::{
    App, Client, Finished, Portal, PortalOptions, portreeve, skip, streaming, system, text, until,
};

/// A start that must fail.
fn refused(options: PortalOptions) -> Finished {
    match Portal::try_start(options) {
        Err(finished) => {
            assert_eq!(finished.status, 1, "{finished:?}");
            assert_eq!(finished.out, "", "nothing on standard output: {finished:?}");
            assert!(finished.err.contains("portreeve: "), "{finished:?}");
            finished
        }
        Ok(portal) => panic!("it started: {}", portal.url()),
    }
}

#[tokio::test]
async fn standard_output_has_two_lines_and_no_more() {
    let mut portal = Portal::plain();
    assert!(portal.url().starts_with("https://localhost:"), "{}", portal.url());
    assert!(portal.sign_in_address().starts_with(&format!("{}-/enter?code=", portal.url())));
    let client = portal.sign_in().await;
    client.get("/").await.assert_status(200);
    client.get("/fw2/localhost:1025/").await.assert_status(503);
    assert_eq!(portal.process().line(Duration::from_millis(300)), None);
    let code = portal.sign_in_address().rsplit_once('=').unwrap().1;
    assert!(!portal.stderr().contains(code), "codes are not for the log");
    assert!(!portal.stderr().contains(client.ticket()), "tickets are not for the log");
}

#[tokio::test]
async fn a_second_portal_on_the_same_state_says_where_the_first_one_is() {
    let portal = Portal::plain();
    let second =
        refused(PortalOptions { state: Some(portal.state().to_owned()), ..PortalOptions::default() });
    for text in
        ["already running", portal.url(), &portal.pid().to_string(), &portal.state().display().to_string()]
    {
        assert!(second.err.contains(text), "{text} is missing: {second:?}");
    }
    portal.sign_in().await;
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(PortalOptions { listen: Some(address.clone()), ..PortalOptions::default() });
    assert!(said.err.contains(&address) && said.err.contains("--listen 127.0.0.1:0"), "{said:?}");
}

#[tokio::test]
async fn nobody_else_sits_on_the_other_loopback_address() {
    let Ok(squatter) = TcpListener::bind("[::1]:0") else {
        return skip("nobody_else_sits_on_the_other_loopback_address", "needs IPv6");
    };
    let port = squatter.local_addr().unwrap().port();
    let said =
        refused(PortalOptions { listen: Some(format!("127.0.0.1:{port}")), ..PortalOptions::default() });
    assert!(said.err.contains("another program listens there"), "{said:?}");
    let portal = Portal::plain();
    assert!(TcpListener::bind(("::1", portal.port())).is_err(), "the portal has both");
}

#[tokio::test]
async fn an_address_that_is_not_ours_is_said() {
    let said = refused(PortalOptions { listen: Some("192.0.2.1:0".into()), ..PortalOptions::default() });
    assert!(said.err.contains("no such address"), "{said:?}");
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn on(state: &Path) -> PortalOptions {
    PortalOptions { state: Some(state.to_owned()), ..PortalOptions::default() }
}

#[tokio::test]
async fn a_state_directory_that_others_can_change_is_refused() {
    let dir = temporary();
    for mode in [0o770, 0o707, 0o1777] {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let said = refused(on(dir.path()));
        assert!(said.err.contains("chmod go-w"), "{mode:o}: {said:?}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(on(&file));
}

#[tokio::test]
async fn what_is_made_is_closed_to_others() {
    let portal = Portal::plain();
    assert_eq!(std::fs::metadata(portal.state()).unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["ticket-key.der", "certificate-key.pem", "lock"] {
        let mode = std::fs::metadata(portal.state().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[tokio::test]
async fn a_damaged_state_says_what_to_do() {
    for (name, content, remedy) in [
        ("ticket-key.der", &b"nonsense"[..], "remove it"),
        ("ticket-key.der", b"", "remove it"),
        ("ended-sessions.json", b"{{{", "remove it"),
    ] {
        let dir = temporary();
        drop(Portal::start(on(dir.path())));
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = refused(on(dir.path()));
        assert!(said.err.contains(remedy) && said.err.contains(name), "{name}: {said:?}");
        std::fs::remove_file(&path).unwrap();
        Portal::start(on(dir.path())).sign_in().await;
    }
    // A key that others could read or replace is not used.
    let dir = temporary();
    drop(Portal::start(on(dir.path())));
    std::fs::set_permissions(dir.path().join("ticket-key.der"), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    let said = refused(on(dir.path()));
    assert!(said.err.contains("chmod 600"), "{said:?}");
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_half_written_stays() {
    let test = "a_full_disk_is_said_and_nothing_half_written_stays";
    if !nix::unistd::Uid::effective().is_root() || std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
        return skip(test, "needs root");
    }
    let dir = temporary();
    let program = std::env::var("PORTREEVE_BIN").unwrap_or_else(|_| {
        let mut path = std::env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.join("portreeve").display().to_string()
    });
    // In a mount namespace of its own: this machine sees nothing of the tiny file system.
    let script = r#"mount -t tmpfs -o size=64k,mode=700 full "$1" || exit 77
        dd if=/dev/zero of="$1/ballast" bs=1k status=none 2>/dev/null
        "$2" up --listen 127.0.0.1:0 --state "$1"; status=$?
        ls -A "$1" >&2; exit $status"#;
    let arguments = [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        &dir.path().display().to_string(),
        &program,
    ];
    let Some(output) = system("unshare", &arguments) else { return skip(test, "needs unshare") };
    if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).contains("unshare failed")
    {
        return skip(test, "no mount namespace can be had here");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left") && output.stdout.is_empty(), "{said}");
    assert!(!said.contains(".new-"), "a temporary file stayed: {said}");
}

#[tokio::test]
async fn a_long_state_path_works() {
    let dir = temporary();
    let long = dir.path().join("s".repeat(120)).join("t".repeat(120));
    let portal = Portal::start(on(&long));
    portal.sign_in().await.get("/").await.assert_status(200);
}

#[tokio::test]
async fn a_session_survives_a_restart_and_login_finds_the_new_portal() {
    let mut portal = Portal::plain();
    let client = portal.sign_in().await;
    let old_code = portal.code();
    portal.restart();
    client.get("/").await.assert_status(200);
    portal.sign_in().await.get("/").await.assert_status(200);
    let answer = portal.stranger().browser().get(&format!("/-/enter?code={old_code}")).await;
    answer.assert_refused(403, "code-unknown");
    assert!(answer.text().contains("portreeve login"));
}

#[tokio::test]
async fn a_portal_that_was_killed_leaves_nothing_in_the_way() {
    let mut portal = Portal::plain();
    let client = portal.sign_in().await;
    portal.signal(Signal::SIGKILL);
    portal.process().wait(Duration::from_secs(2)).unwrap();
    let login = portal.command(&["login"]);
    assert!(login.status != 0 && login.err.contains("no portal is running"), "{login:?}");
    let again = Portal::start(PortalOptions {
        state: Some(portal.state().to_owned()),
        listen: Some(format!("127.0.0.1:{}", portal.port())),
        ..PortalOptions::default()
    });
    client.get("/").await.assert_status(200);
    again.sign_in().await;
}

/// A self-signed certificate and its key in two files; gives the certificate in DER.
fn certificate(dir: &Path, name: &str) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    let key = dir.join(format!("{name}-key.pem"));
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    made.cert.der().to_vec()
}

async fn shown_certificate(portal: &Portal) -> Vec<u8> {
    let stream = portal.tls(&[b"http/1.1"]).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn sighup_takes_a_new_certificate_and_configuration_into_use() {
    let dir = temporary();
    let (first, second) = (certificate(dir.path(), "first"), certificate(dir.path(), "second"));
    let config = |name: &str, rest: &str| {
        let path = dir.path().display();
        format!("{rest}\n[tls]\ncertificate = \"{path}/{name}.pem\"\nkey = \"{path}/{name}-key.pem\"\n")
    };
    let portal = Portal::with_config(&config("first", ""));
    let client = portal.sign_in().await;
    assert_eq!(shown_certificate(&portal).await, first);
    let mut link = client.link().await;
    std::fs::write(portal.config_file(), config("second", "[session]\ncode_lifetime = \"1s\"")).unwrap();
    portal.signal(Signal::SIGHUP);
    portal.logged(&["configuration and certificate reloaded"]).await;
    assert_eq!(shown_certificate(&portal).await, second);
    client.get("/").await.assert_status(200);
    let (parts, ()) = client.prepare("GET", "/").into_parts();
    let kept = link.send(http::Request::from_parts(parts, http_body_util::Full::default().boxed())).await;
    assert_eq!(kept.unwrap().status(), 200, "an open connection lives on");
    let code = portal.code();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    portal.stranger().get(&format!("/-/enter?code={code}")).await.assert_refused(403, "code-expired");
}

#[tokio::test]
async fn sighup_with_a_bad_configuration_changes_nothing() {
    let portal = Portal::with_config("[session]\nidle = \"1h\"\n");
    let client = portal.sign_in().await;
    let shown = shown_certificate(&portal).await;
    for bad in [
        "[session]\nidle = \"1s\"\nnonsense = 1\n",
        "[[[",
        "[tls]\ncertificate = \"/nonexistent\"\nkey = \"/nonexistent\"\n",
    ] {
        std::fs::write(portal.config_file(), bad).unwrap();
        let before = portal.stderr().matches("not reloaded").count();
        portal.signal(Signal::SIGHUP);
        until("the log to say so", Duration::from_secs(3), || async {
            (portal.stderr().matches("not reloaded").count() > before).then_some(())
        })
        .await;
        client.get("/").await.assert_status(200);
        assert_eq!(shown_certificate(&portal).await, shown);
    }
    std::fs::remove_file(portal.config_file()).unwrap();
    portal.signal(Signal::SIGHUP);
    portal.logged(&["not reloaded", "can't be read"]).await;
    client.get("/").await.assert_status(200);
}

/// An application that sends ten pieces, 100 ms apart.
async fn slow_download() -> App {
    App::start(|_| async {
        let (sender, body) = streaming();
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if sender.send(bytes::Bytes::from_static(&[b'x'; 1000])).await.is_err() {
                    return;
                }
            }
        });
        http::Response::new(body)
    })
    .await
}

async fn drains(signal: Signal, client: impl Fn(Client) -> Client) {
    let mut portal = Portal::plain();
    let client = client(portal.sign_in().await);
    let app = slow_download().await;
    let download = client.stream(&app.path("/")).await;
    assert_eq!(download.status(), 200);
    portal.signal(signal);
    portal.logged(&["draining"]).await;
    until("new connections to be refused", Duration::from_secs(2), || async {
        tokio::net::TcpStream::connect(("127.0.0.1", portal.port())).await.is_err().then_some(())
    })
    .await;
    let body = download.into_body().collect().await.expect("what had begun may end").to_bytes();
    assert_eq!(body.len(), 10_000);
    let asked = Instant::now();
    let status = portal.process().wait(Duration::from_secs(5));
    assert_eq!(status, Some(0), "{}", portal.stderr());
    assert!(asked.elapsed() < Duration::from_secs(2), "it left after {:?}", asked.elapsed());
}

#[tokio::test]
async fn sigterm_lets_a_download_end() {
    drains(Signal::SIGTERM, |client| client).await;
}

#[tokio::test]
async fn sigint_lets_a_download_end_over_http2_too() {
    drains(Signal::SIGINT, Client::http2).await;
}

/// A browser that has just connected would show an error: it asks again only on connections that worked before.
#[tokio::test]
async fn who_has_just_connected_is_answered_before_it_stops() {
    let mut portal = Portal::plain();
    let client = portal.stranger();
    let mut link = client.link().await;
    portal.signal(Signal::SIGTERM);
    portal.logged(&["draining"]).await;
    let answer = client.get_on(&mut link, "/-/health").await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
    assert_eq!(portal.process().wait(Duration::from_secs(3)), Some(0), "{}", portal.stderr());
}

#[tokio::test]
async fn an_idle_portal_stops_at_once_and_a_busy_one_at_the_second_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut portal = Portal::plain();
        // An idle connection, as browsers keep them, holds nothing up.
        let client = portal.stranger();
        let mut link = client.link().await;
        client.get_on(&mut link, "/-/health").await;
        let asked = Instant::now();
        portal.signal(signal);
        assert_eq!(portal.process().wait(Duration::from_secs(3)), Some(0), "{}", portal.stderr());
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    let mut portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::live().await;
    let _events = client.stream(&app.path("/")).await;
    portal.signal(Signal::SIGTERM);
    portal.logged(&["draining"]).await;
    portal.signal(Signal::SIGTERM);
    assert_eq!(portal.process().wait(Duration::from_secs(2)), Some(130));
}

#[tokio::test]
async fn a_portal_at_rest_is_small() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = App::start(|_| async { text("x".repeat(1000)) }).await;
    for _ in 0..20 {
        client.get(&app.path("/")).await.assert_status(200);
    }
    let resident = portal.resident_kib();
    println!("resident: {resident} KiB");
    // Most of it is the program itself, without optimization, and what is read of it counts.
    assert!(resident < 34 * 1024, "{resident} KiB");
}

#[tokio::test]
async fn plain_http_is_answered_in_words() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let portal = Portal::plain();
    let mut stream = portal.tcp().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut said)).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("https"), "{said}");
}

#[tokio::test]
async fn another_directory_of_forwards_is_found_by_the_command() {
    let dir = temporary();
    let portal =
        Portal::start(PortalOptions { forwards: Some(dir.path().to_owned()), ..PortalOptions::default() });
    let app = App::echo().await;
    let added = portal.command(&["forward", "add", "here", &app.port().to_string()]);
    assert_eq!(added.status, 0, "{added:?}");
    assert!(dir.path().join("here").exists());
    portal.sign_in().await.get("/fw/here/").await.assert_status(200);
    let file = dir.path().join("here").display().to_string();
    let said = portreeve(
        &[
            "up",
            "--listen",
            "127.0.0.1:0",
            "--state",
            &temporary().path().join("s").display().to_string(),
            "--forwards",
            &file,
        ],
        None,
    );
    assert!(said.status != 0 && said.err.contains("no directory"), "{said:?}");
}
