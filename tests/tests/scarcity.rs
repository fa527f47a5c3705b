//! A system in distress: no descriptors, no room on the disk. What can't be done is said, and nothing is lost; what does
//! not need it goes on; and once there is enough again, all is as before. File systems that hang are in `hanging.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::http2::whole;
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::{SOON, soon, until};
use portreeve_tests::world::{App, Finished, Portal, PortalOptions, may_mount, portreeve, skip, system};
use serde_json::json;

// --- descriptors ------------------------------------------------------------------------------------------------------

fn have_prlimit(test: &str) -> bool {
    let have = system("prlimit", &["--version"]).is_some_and(|output| output.status.success());
    if !have {
        skip(test, "needs prlimit");
    }
    have
}

/// Soft and hard limit of open files.
fn limits(portal: &Portal) -> [u64; 2] {
    let text = fs::read_to_string(format!("/proc/{}/limits", portal.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    [numbers[0], numbers[1]]
}

#[tokio::test]
async fn a_low_soft_limit_is_raised_and_with_a_low_hard_one_fewer_connections_are_taken() {
    if !have_prlimit("a_low_soft_limit_is_raised_and_with_a_low_hard_one_fewer_connections_are_taken") {
        return;
    }
    let config = "threads = 1\n[limits]\nconnections = 100\n";
    let portal = Portal::start(PortalOptions::under(&["prlimit", "--nofile=40:400"], config));
    assert_eq!(limits(&portal), [400, 400]);
    assert!(!portal.stderr().contains("connections are limited"), "{}", portal.stderr());
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(soon("a connection", portal.tls(&[b"http/1.1"])).await);
    }

    let portal = Portal::start(PortalOptions::under(&["prlimit", "--nofile=40:120"], config));
    let said = portal.logged(&["connections are limited", "ulimit -Hn", "descriptors=120"]).await;
    let most: usize = said.rsplit_once("most=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((16..60).contains(&most), "{said}");
    held.clear();
    for _ in 0..most {
        held.push(soon("a connection", portal.tls(&[b"http/1.1"])).await);
    }
    let mut one_more = Box::pin(portal.tls(&[b"http/1.1"]));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut one_more).await.is_err(), "it waits");
    held.pop();
    soon("the one that waited", one_more).await;
}

/// A gate at which an application's answers wait.
fn gate() -> (tokio::sync::watch::Sender<bool>, tokio::sync::watch::Receiver<bool>) {
    tokio::sync::watch::channel(false)
}

/// Every descriptor is a connection to an application, by one browser's HTTP/2 connection.
#[tokio::test]
async fn without_descriptors_nothing_is_lost_and_service_goes_on() {
    if !have_prlimit("without_descriptors_nothing_is_lost_and_service_goes_on") {
        return;
    }
    let (open, opened) = gate();
    let app = Application::start(move |mut caller, seen| {
        let mut opened = opened.clone();
        async move {
            while let Ok(Some(request)) = caller.request().await {
                seen.note(&request);
                let _ = opened.wait_for(|open| *open).await;
                let _ = caller.send(OK).await;
            }
        }
    })
    .await;
    let rig = Rig::start(app, PortalOptions::under(&["prlimit", "--nofile=80:80"], "threads = 1\n")).await;
    let mut http2 = rig.http2().await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        let (answer, _) = http2.stream(rig.request("GET", "/").body(()).unwrap(), true).await;
        answers.push(tokio::spawn(whole(answer)));
    }
    // Those that found a descriptor wait at the application; the others are refused.
    until("all descriptors are used", SOON, || {
        answers.iter().filter(|answer| answer.is_finished()).count() + rig.app.seen.requests().len() == 100
    })
    .await;
    let waiting = rig.app.seen.requests().len();
    assert!((30..64).contains(&waiting), "{waiting}");

    // A new browser waits in the kernel's queue, and so does who asks for an address; who is connected is served.
    let newcomer = rig.portal.tls(&[b"http/1.1"]);
    tokio::pin!(newcomer);
    assert!(tokio::time::timeout(Duration::from_millis(1700), &mut newcomer).await.is_err());
    let health = || rig.bare_request("GET", "/-/health").body(()).unwrap();
    assert_eq!(http2.ask(health()).await.unwrap().status(), 200);
    let login = rig.portal.command(&["login"]);
    assert!(login.status == 1 && login.err.contains("did not answer"), "{login:?}");

    // Answered, they are kept for the next request: they give way to another application's.
    open.send(true).unwrap();
    let mut refused = 0;
    for answer in answers {
        let answer = answer.await.unwrap().unwrap();
        if answer.status() == 503 {
            assert_eq!(answer.field("x-portreeve-error"), Some("no-descriptor"), "{answer:?}");
            assert!(answer.field("retry-after").is_some());
            refused += 1;
        } else {
            assert_eq!(answer.status(), 200);
        }
    }
    assert_eq!(refused, 100 - waiting);
    assert_eq!(rig.app.seen.open(), waiting, "all of them are kept");
    let other = Application::ok().await;
    let elsewhere = rig
        .bare_request("GET", &format!("/fw2/localhost:{}/", other.port))
        .header("cookie", rig.cookie())
        .body(())
        .unwrap();
    assert_eq!(http2.ask(elsewhere).await.unwrap().status(), 200);

    // There is room again.
    soon("the newcomer", newcomer).await;
    assert_eq!(rig.get("/").await.status(), 200, "the session is what it was");
    rig.portal.sign_in().await.get("/").await.assert_status(200);
    let said = rig.portal.stderr().matches("a connection could not be accepted").count();
    assert!((1..=2).contains(&said), "it is said once, not at every attempt: {said}");
}

// --- the disk ---------------------------------------------------------------------------------------------------------

/// A log that can't be written is nobody's end.
#[tokio::test]
async fn a_log_without_room_ends_nothing() {
    let mut portal = Portal::start(PortalOptions::under(&["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"], ""));
    let app = App::echo().await;
    for _ in 0..3 {
        let client = portal.sign_in().await;
        client.get(&app.path("/")).await.assert_status(200);
        client.get("/fw2/localhost:1025/").await.assert_status(503);
        client.get("/-/sign-out").await.assert_status(303);
        client.get("/").await.assert_status(401);
    }
    portal.signal(Signal::SIGHUP);
    portal.sign_in().await.http2().get(&app.path("/")).await.assert_status(200);
    portal.signal(Signal::SIGTERM);
    until("it ends", SOON, || !portal.process().is_running()).await;
    assert_eq!(portal.process().wait(SOON), Some(0));
}

/// A small file system that only one portal sees mounted. The test has it through a descriptor, also after that
/// portal's end.
struct Disk {
    state: PathBuf,
    _held: File,
}

impl Disk {
    /// The command that makes one, at the path that follows, and then executes the portal.
    const COMMAND: [&str; 7] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        "mount -t tmpfs -o size=256k,mode=700 small \"$0\" && exec \"$@\"",
    ];

    fn of(portal: &Portal, dir: &Path) -> Self {
        let held = File::open(format!("/proc/{}/root{}", portal.pid(), dir.display())).unwrap();
        let state = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd()));
        Self { state, _held: held }
    }

    fn fill(&self) {
        use std::io::Write;
        let mut ballast = File::options().append(true).create(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[b'x'; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.state.join("ballast")
    }

    /// `portreeve` on this state and these forwards.
    fn run(&self, arguments: &[&str]) -> Finished {
        let state = self.state.display().to_string();
        let forwards = self.state.join("forwards").display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--state", &state]);
        if arguments[0] == "forward" {
            all.extend(["--forwards", &forwards]);
        }
        portreeve(&all, None)
    }

    fn entries(&self, below: &str) -> Vec<String> {
        let listed = fs::read_dir(self.state.join(below)).unwrap();
        listed.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

#[tokio::test]
async fn what_does_not_fit_is_507_and_nothing_of_it_stays() {
    if let Err(why) = may_mount() {
        return skip("what_does_not_fit_is_507_and_nothing_of_it_stays", &why);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let command = [&Disk::COMMAND[..], &[&path]].concat();
    let portal = Portal::start(PortalOptions::under(&command, ""));
    let disk = Disk::of(&portal, dir.path());
    let client = portal.sign_in().await.program();
    let put = async |at: &str, length: usize| {
        client.request(client.prepare("PUT", &format!("{at}{path}/new")), vec![b'x'; length]).await.status
    };
    // 256 KiB there are: for what is written in one step, for what is not, and for what was there before.
    for at in ["/dav", "/api/v1/files"] {
        fs::write(disk.state.join("new"), "old").unwrap();
        disk.fill();
        for length in [100_000, 300_000, 3_000_000] {
            assert_eq!(put(at, length).await, 507, "{at} {length}");
            assert_eq!(fs::read(disk.state.join("new")).unwrap(), b"old");
        }
        disk.make_room();
        fs::remove_file(disk.state.join("new")).unwrap();
        assert_eq!(put(at, 300_000).await, 507, "{at}");
        assert!(disk.entries("").is_empty(), "{:?}", disk.entries(""));
    }
    // A part of an upload, and what copies much.
    let begin = async |size: u32| {
        client.api("POST", "uploads", json!({ "path": format!("{path}/up"), "size": size })).await
    };
    let begun = begin(600_000).await;
    let id = begun.json()["id"].as_str().unwrap().to_owned();
    let part = client.prepare("PUT", &format!("/api/v1/uploads/{id}?offset=0"));
    client.request(part, vec![b'x'; 600_000]).await.assert_status(507);
    fs::create_dir(disk.state.join("tree")).unwrap();
    fs::write(disk.state.join("tree/half"), vec![b'x'; 150_000]).unwrap();
    let mut copy = client.prepare("COPY", &format!("/dav{path}/tree"));
    copy.headers_mut().insert("destination", format!("/dav{path}/copy").parse().unwrap());
    client.request(copy, "").await.assert_status(507);
    let asked = json!({ "do": "copy", "to": format!("{path}/copy") });
    client.api("POST", &format!("files{path}/tree"), asked).await.assert_status(507);
    assert_eq!(disk.entries(""), ["tree"]);
    fs::remove_dir_all(disk.state.join("tree")).unwrap();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("zeros", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut archive, &vec![0; 400_000]).unwrap();
    fs::write(disk.state.join("a.zip"), archive.finish().unwrap().into_inner()).unwrap();
    let asked = json!({ "do": "unpack", "to": format!("{path}/out") });
    client.api("POST", &format!("files{path}/a.zip"), asked).await.assert_status(507);
    assert_eq!(disk.entries(""), ["a.zip"]);
}

#[tokio::test]
async fn a_disk_that_fills_up_is_said_loses_nothing_and_recovers() {
    if let Err(why) = may_mount() {
        return skip("a_disk_that_fills_up_is_said_loses_nothing_and_recovers", &why);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let command = [&Disk::COMMAND[..], &[&path]].concat();
    let mut portal = Portal::start(PortalOptions {
        state: Some(dir.path().to_owned()),
        ..PortalOptions::under(&command, "")
    });
    let disk = Disk::of(&portal, dir.path());
    let app = App::echo().await;
    let port = app.port().to_string();
    let sign_in = || async {
        let login = disk.run(&["login"]);
        assert_eq!(login.status, 0, "{login:?}");
        let mut client = portal.stranger();
        let answer =
            client.get(&format!("/-/enter?code={}", login.out.trim().rsplit_once('=').unwrap().1)).await;
        answer.assert_status(303);
        client.take_cookies(&answer);
        client
    };
    let leaver = sign_in().await;
    assert_eq!(disk.run(&["forward", "add", "old", &port]).status, 0);
    let old = fs::read(disk.state.join("forwards/old")).unwrap();
    disk.fill();

    // Signing in needs no room.
    let stayer = sign_in().await;
    stayer.get("/fw/old/").await.assert_status(200);
    for name in ["new", "old"] {
        let added = disk.run(&["forward", "add", name, "1234"]);
        assert!(added.status == 1 && added.err.contains("No space left"), "{added:?}");
        assert_eq!(disk.entries("forwards"), ["old"], "nothing half-written stays");
        assert_eq!(fs::read(disk.state.join("forwards/old")).unwrap(), old);
    }
    let removed = disk.run(&["forward", "list"]);
    assert!(removed.status == 0 && removed.out.contains(&port), "{removed:?}");

    // Signing out is in force at once, and its person is told that a restart would undo it.
    let answer = leaver.get("/-/sign-out").await;
    answer.assert_refused(500, "sign-out-not-kept");
    assert!(answer.set_cookie("__Host-portreeve").is_some_and(|cookie| cookie.contains("Max-Age=0")));
    leaver.get("/").await.assert_status(401);
    stayer.get("/").await.assert_status(200);
    portal.logged(&["sign-out-not-kept", "No space left", "ended-sessions.json"]).await;

    // Reading the configuration again needs no room, unless a certificate has to be made.
    portal.signal(Signal::SIGHUP);
    portal.logged(&["configuration and certificate reloaded"]).await;
    let kept = fs::read(disk.state.join("certificate.pem")).unwrap();
    fs::remove_file(disk.state.join("certificate.pem")).unwrap();
    disk.fill();
    portal.signal(Signal::SIGHUP);
    portal.logged(&["not reloaded", "No space left"]).await;
    stayer.get("/fw/old/").await.assert_status(200);
    assert!(!disk.entries("").iter().any(|name| name.contains(".new-")), "{:?}", disk.entries(""));

    disk.make_room();
    portal_until(&portal, "the sessions that were signed out are written down now", 1).await;
    portal.signal(Signal::SIGHUP);
    portal_until(&portal, "configuration and certificate reloaded", 2).await;
    assert_ne!(fs::read(disk.state.join("certificate.pem")).unwrap(), kept);
    assert_eq!(disk.run(&["forward", "add", "new", &port]).status, 0);
    stayer.get("/fw/new/").await.assert_status(200);

    // What a sign-out could not write down is written at the end at the latest.
    let last = sign_in().await;
    disk.fill();
    last.get("/-/sign-out").await.assert_refused(500, "sign-out-not-kept");
    disk.make_room();
    portal.signal(Signal::SIGTERM);
    assert_eq!(portal.process().wait(Duration::from_secs(5)), Some(0), "{}", portal.stderr());
    let again = Portal::start(PortalOptions {
        state: Some(disk.state.clone()),
        listen: Some(format!("127.0.0.1:{}", portal.port())),
        ..PortalOptions::default()
    });
    stayer.get("/fw/new/").await.assert_status(200);
    for gone in [&leaver, &last] {
        gone.get("/").await.assert_status(401);
    }
    drop(again);
}

/// Waits until the log has had a text so often.
async fn portal_until(portal: &Portal, text: &str, times: usize) {
    until(text, SOON, || portal.stderr().matches(text).count() >= times).await;
}
