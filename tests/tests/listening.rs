//! `portreeve listening` and `portreeve nodes`: what they show, whom they ask, and whom they believe.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use portreeve_model::wire::{ControlReply, ControlRequest, MAX_FRAME, decode, encode_bare};
use portreeve_tests::world::{App, Finished, Portal, Reply, full, portreeve, text};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_seqpacket::UnixSeqpacketListener;

/// Plays the broker: answers every question with this.
struct LoginSocket {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<ControlRequest>>>,
    task: JoinHandle<()>,
}

impl Drop for LoginSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LoginSocket {
    fn answering(reply: ControlReply) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut listener = UnixSeqpacketListener::bind(dir.path().join("login.sock")).unwrap();
        let asked: Arc<Mutex<Vec<ControlRequest>>> = Arc::default();
        let heard = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let caller = listener.accept().await.unwrap();
                let mut buffer = vec![0; MAX_FRAME];
                let length = caller.recv(&mut buffer).await.unwrap().bytes_read();
                heard.lock().unwrap().push(decode(&buffer[..length]).unwrap());
                caller.send(&encode_bare(&reply).unwrap()).await.unwrap();
            }
        });
        Self { dir, asked, task }
    }

    fn with_address(url: String) -> Self {
        Self::answering(ControlReply::Address { url })
    }

    fn path(&self) -> String {
        self.dir.path().join("login.sock").display().to_string()
    }

    fn asked(&self) -> Vec<ControlRequest> {
        self.asked.lock().unwrap().clone()
    }
}

/// A certificate for these names, and the file that a client trusts it by.
fn certificate(dir: &Path, name: &str) -> (Arc<ServerConfig>, PathBuf) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), file)
}

const LISTENING: &str = r#"[
  {"node":"c1","rows":[{"address":"10.0.0.11","port":12001,"command":"jupyter-lab","job":17,
    "open":"https://portal/fw2/c1:12001/"},{"address":"127.0.0.1","port":8000,"command":"\u001b[31mred","job":null}],
   "more":true},
  {"node":"c2","problem":"its agent is not connected"}]"#;

/// Plays the portal: one session, whose cookie is `T`.
async fn portal(config: Arc<ServerConfig>, listening: &'static str, status: StatusCode) -> App {
    App::https(config, move |request| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let origin = format!("https://{}", header("host"));
        let is_signed_in = header("cookie") == "__Host-portreeve=T";
        match (&parts.method, parts.uri.path()) {
            (&Method::POST, "/-/enter") if body == "code=C0de-_" && header("origin") == origin => {
                see_other(Some("__Host-portreeve=T; Path=/; Secure; HttpOnly"))
            }
            (&Method::GET, "/-/listening") if is_signed_in => {
                let mut reply = text(listening);
                *reply.status_mut() = status;
                reply
            }
            (&Method::POST, "/-/sign-out") if is_signed_in && header("origin") == origin => see_other(None),
            _ => {
                let mut reply = text(r#"{"title":"Not so","detail":"This is refused."}"#);
                *reply.status_mut() = StatusCode::FORBIDDEN;
                reply
            }
        }
    })
    .await
}

fn see_other(cookie: Option<&str>) -> Reply {
    let mut response = Response::builder().status(303).header("location", "/");
    if let Some(cookie) = cookie {
        response = response.header("set-cookie", "__Host-portreeve-next=; Max-Age=0");
        response = response.header("set-cookie", cookie);
    }
    response.body(full("")).unwrap()
}

fn paths(app: &App) -> Vec<String> {
    app.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
}

const VISIT: [&str; 3] = ["POST /-/enter", "GET /-/listening", "POST /-/sign-out"];

/// Runs it beside what it asks.
async fn ask(arguments: &[&str]) -> Finished {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let run = move || portreeve(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), None);
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn all_nodes_are_asked_for_at_the_portal_and_the_session_ends_with_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = certificate(dir.path(), "localhost");
    let file = file.display().to_string();
    let app = portal(config, LISTENING, StatusCode::OK).await;
    let login = LoginSocket::with_address(format!("https://localhost:{}/-/enter?code=C0de-_", app.port()));
    let socket = login.path();
    let asked = ["listening", "--all-nodes", "--socket", &socket, "--cacert", &file];
    let said = ask(&asked).await;
    assert_eq!(said.status, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("NODE  LISTENS ON"), "{said:?}");
    assert!(lines[1].contains("10.0.0.11:12001") && lines[1].contains("jupyter-lab"), "{said:?}");
    assert!(lines[1].contains(" 17 ") && lines[1].ends_with("https://portal/fw2/c1:12001/"), "{said:?}");
    assert!(lines[2].contains("?[31mred") && lines[2].contains("loopback"), "no escape: {said:?}");
    assert!(said.err.contains("c1: there are more"), "{said:?}");
    assert!(said.err.contains("c2: not known: its agent is not connected"), "{said:?}");
    assert_eq!(paths(&app), VISIT);
    assert_eq!(login.asked(), [ControlRequest::Login]);
    let said = ask(&[&asked[..], &["--json"]].concat()).await;
    let nodes: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((nodes[0]["rows"][0]["job"].as_u64(), nodes[1]["node"].as_str()), (Some(17), Some("c2")));
}

#[tokio::test]
async fn the_session_ends_also_when_the_question_fails() {
    for (answer, status, why) in [
        (r#"{"title":"Too much","detail":"Later."}"#, StatusCode::SERVICE_UNAVAILABLE, "Too much: Later."),
        ("", StatusCode::NOT_FOUND, "another version"),
        ("<html>", StatusCode::OK, "not understood"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (config, file) = certificate(dir.path(), "localhost");
        let app = portal(config, answer, status).await;
        let login =
            LoginSocket::with_address(format!("https://localhost:{}/-/enter?code=C0de-_", app.port()));
        let file = file.display().to_string();
        let said = ask(&["listening", "--all-nodes", "--socket", &login.path(), "--cacert", &file]).await;
        assert!(said.status == 1 && said.out.is_empty() && said.err.contains(why), "{said:?}");
        assert_eq!(paths(&app), VISIT);
    }
}

#[tokio::test]
async fn a_code_goes_to_nobody_who_does_not_prove_to_be_the_portal() {
    let dir = tempfile::tempdir().unwrap();
    let (config, right) = certificate(dir.path(), "localhost");
    let (_, wrong) = certificate(dir.path(), "another");
    let app = portal(config, LISTENING, StatusCode::OK).await;
    let address = |host: &str| format!("https://{host}:{}/-/enter?code=C0de-_", app.port());
    for (address, cacert) in [
        (address("localhost"), None),
        (address("localhost"), Some(&wrong)),
        // The certificate is genuine, and another's.
        (address("127.0.0.1"), Some(&right)),
        (address("localhost").replace("https", "http"), Some(&right)),
    ] {
        let login = LoginSocket::with_address(address.clone());
        let socket = login.path();
        let cacert = cacert.map(|file| file.display().to_string());
        let mut asked = vec!["listening", "--all-nodes", "--socket", &socket];
        asked.extend(cacert.iter().flat_map(|file| ["--cacert", file]));
        let said = ask(&asked).await;
        assert!(said.status == 1 && said.out.is_empty() && !said.err.contains("C0de"), "{address}: {said:?}");
        assert_eq!(paths(&app), [""; 0], "{address}");
    }
}

#[tokio::test]
async fn a_refused_sign_in_says_what_the_portal_said() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = certificate(dir.path(), "localhost");
    let app = portal(config, LISTENING, StatusCode::OK).await;
    let login = LoginSocket::with_address(format!("https://localhost:{}/-/enter?code=other", app.port()));
    let file = file.display().to_string();
    let said = ask(&["listening", "--all-nodes", "--socket", &login.path(), "--cacert", &file]).await;
    assert!(said.status == 1 && said.err.contains("Not so: This is refused."), "{said:?}");
    assert_eq!(paths(&app), ["POST /-/enter"]);
}

/// A real portal, which has no nodes: the way in and out is the real one.
#[tokio::test]
async fn the_visit_is_one_that_a_portal_understands() {
    let portal = Portal::plain();
    let login = LoginSocket::with_address(portal.login());
    let certificate = portal.state().join("certificate.pem").display().to_string();
    let said = ask(&["listening", "--all-nodes", "--socket", &login.path(), "--cacert", &certificate]).await;
    assert!(said.status == 0 && said.err.contains("nothing of yours listens"), "{said:?}");
    let log = portal.stderr();
    assert!(log.contains("event=\"sign-in\"") && log.contains("event=\"sign-out\""), "{log}");
}

#[tokio::test]
async fn on_this_machine_ones_own_portal_opens_what_is_listed() {
    let portal = Portal::plain();
    let state = portal.state().display().to_string();
    let app = App::start(|_| async { text("hello") }).await;
    let said = ask(&["listening", "--state", &state]).await;
    assert_eq!(said.status, 0, "{said:?}");
    let opened = format!("{}fw2/localhost:{}/", portal.url(), app.port());
    let row = said.out.lines().find(|line| line.ends_with(&opened));
    assert!(
        row.is_some_and(|row| row.contains(&format!(" 127.0.0.1:{} ", app.port()))),
        "{opened}: {said:?}"
    );
    assert!(!said.out.contains(&format!(":{} ", portal.port())), "the portal itself: {said:?}");
    for wrong in [&["--all-nodes"][..], &["--cacert", "/x"]] {
        let said = ask(&[&["listening", "--state", &state], wrong].concat()).await;
        assert_eq!(said.status, 1, "{said:?}");
    }
}

#[tokio::test]
async fn on_a_cluster_s_node_the_loopback_is_said_not_to_be_reached() {
    let url = "https://portal.example.org/".to_owned();
    let broker = LoginSocket::answering(ControlReply::Portal { url, pid: 7 });
    let agent = LoginSocket::answering(ControlReply::Refused { reason: "only sign-in addresses".to_owned() });
    let (inside, outside) =
        (App::start(|_| async { text("") }).await, App::start_on("0.0.0.0:0", |_| async { text("") }).await);
    for (login, before) in [(&broker, "https://portal.example.org/fw2/"), (&agent, "/fw2/")] {
        let said = ask(&["listening", "--socket", &login.path()]).await;
        let of = |app: &App| said.out.lines().find(|line| line.contains(&format!(":{} ", app.port())));
        assert!(
            of(&inside).is_some_and(|row| row.ends_with("loopback alone: not from elsewhere")),
            "{said:?}"
        );
        let end = format!(":{}/", outside.port());
        assert!(of(&outside).is_some_and(|row| row.contains(before) && row.ends_with(&end)), "{said:?}");
    }
}

const NODES: &str = r#"[{"node":"c1","addresses":["10.0.0.11"],"key":"ed25519:00","agent":"connected",
 "since":"2026-11-25T10:00:00Z","latency_us":150,"problem":null},
 {"node":"c2","addresses":["10.0.0.12","fd00::12"],"key":null,"agent":"away","since":null,"latency_us":null,
  "problem":"it has no key\u0007","younger":true}]"#;

fn check_nodes(said: &Finished) {
    assert_eq!(said.status, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("NODE  ADDRESSES"), "{said:?}");
    assert!(lines[1].contains("connected") && lines[1].contains("0.150 ms"), "{said:?}");
    assert!(lines[2].contains("10.0.0.12,fd00::12") && lines[2].ends_with("it has no key?"), "{said:?}");
}

#[tokio::test]
async fn nodes_are_as_the_portal_says() {
    let app = App::start(|request| async move {
        match request.uri().path() {
            "/nodes" => text(NODES),
            _ => Response::builder().status(404).body(full("")).unwrap(),
        }
    })
    .await;
    check_nodes(&ask(&["nodes", "list", "--metrics", &app.address().to_string()]).await);
    // By the path of a socket, as on a cluster.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut caller, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = caller.read(&mut head).await.unwrap();
            assert!(head[..length].starts_with(b"GET /nodes HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{NODES}", NODES.len());
            caller.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let path = path.display().to_string();
    check_nodes(&ask(&["nodes", "list", "--metrics", &path]).await);
    let said = ask(&["nodes", "list", "--metrics", &path, "--json"]).await;
    let nodes: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((nodes[0]["latency_us"].as_u64(), nodes[1]["agent"].as_str()), (Some(150), Some("away")));
    task.abort();
}

#[tokio::test]
async fn without_a_portal_the_node_map_is_shown_and_the_agents_states_are_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    let map = "[[node]]\nname = 'c1'\naddresses = ['10.0.0.11']\n[[node]]\nname = 'c2'\nplain = true\n";
    std::fs::write(dir.path().join("nodes.toml"), map).unwrap();
    // Nobody but root may write there: looking needs no lock.
    for command in [&["nodes", "--dir", &at][..], &["nodes", "list", "--dir", &at]] {
        let said = ask(command).await;
        assert_eq!(said.status, 0, "{said:?}");
        assert!(said.err.contains("what the agents do is not known"), "{said:?}");
        let lines: Vec<&str> = said.out.lines().collect();
        assert!(lines[1].contains("10.0.0.11") && lines[1].contains("not known"), "{said:?}");
        assert!(lines[1].contains("it has no key") && lines[2].contains("it has no address"), "{said:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "looking made a file");
    // A socket that was named is not replaced by a guess.
    let said = ask(&["nodes", "list", "--dir", &at, "--metrics", "/nonexistent/socket"]).await;
    assert!(said.status == 1 && said.out.is_empty() && said.err.contains("/nonexistent/socket"), "{said:?}");
    let said = ask(&["nodes", "list", "--dir", "/nonexistent"]).await;
    assert!(said.status == 1 && said.err.contains("/nonexistent/nodes.toml"), "{said:?}");
}

#[tokio::test]
async fn commands_of_a_cluster_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("login.sock").display().to_string();
    for command in [
        &["login", "--socket", &gone][..],
        &["sign-out", "--everywhere", "--socket", &gone],
        &["sessions", "--socket", &gone],
        &["revoke", "alice", "--socket", &gone],
        &["token", "list", "--socket", &gone],
        &["listening", "--all-nodes", "--socket", &gone],
    ] {
        let said = ask(command).await;
        assert!(said.status == 1 && said.out.is_empty(), "{command:?}: {said:?}");
        assert!(said.err.contains("is not there: this machine is no login node"), "{command:?}: {said:?}");
    }
    // One that is left over.
    drop(UnixSeqpacketListener::bind(&gone).unwrap());
    let said = ask(&["login", "--socket", &gone]).await;
    assert!(said.status == 1 && said.err.contains("portreeve-broker does not run"), "{said:?}");
    for (wrong, why) in [
        (&["token", "create", "--name", "x"][..], "--scope"),
        (&["token", "create", "--name", "x", "--scope", "everything"], "everything"),
        (&["token", "create", "--name", "a b", "--scope", "apps"], "a b"),
        (&["token", "create", "--name", "x", "--scope", "apps", "--expires", "401d"], "400 days"),
        (&["sign-out"], "--everywhere"),
        (&["revoke"], "USER"),
    ] {
        let said = ask(wrong).await;
        assert!(said.status == 2 && said.err.contains(why), "{wrong:?}: {said:?}");
    }
    let said = ask(&["token", "create", "--name", "x", "--scope", "apps", "--scope", "apps"]).await;
    assert!(said.status == 1 && said.err.contains("twice"), "{said:?}");
}
