//! File systems that hang: whoever needs them is told so after a while, gets nothing for want of an answer, and holds up
//! nobody else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use nix::sys::signal::Signal;
use portreeve_portal::limits::FORWARD_READ;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::http2::{Http2, whole};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::{SOON, soon};
use portreeve_tests::world::{Client, ForeignApp, Person, Portal, PortalOptions, may_mount, skip, until};

/// A file or directory whose file system does not answer (FUSE, with nobody behind it), for one portal. Its users are
/// released when it is dropped.
struct Hang {
    fuse: Option<File>,
}

impl Hang {
    fn over(portal: &Portal, path: &Path) -> Option<Self> {
        let fuse = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let mode = if path.is_dir() { "040000" } else { "100000" };
        let options = format!("fd=0,rootmode={mode},user_id=0,group_id=0");
        let path = path.display().to_string();
        let mount = ["mount", "-i", "-t", "fuse", "-o", &options, "none", &path];
        let done = portal.beside(&mount, Stdio::from(fuse.try_clone().ok()?))?;
        done.status.success().then_some(Self { fuse: Some(fuse) })
    }

    /// It answers again, with errors; then it is not there any more.
    fn end(mut self, portal: &Portal, path: &Path) {
        self.fuse = None;
        let gone = portal.beside(&["umount", "--lazy", &path.display().to_string()], Stdio::null()).unwrap();
        assert!(gone.status.success(), "{gone:?}");
    }
}

const SLACK: Duration = Duration::from_secs(4);

/// What is asked for while something hangs: each is answered soon, again and again, until the others had their time.
async fn goes_on(rig: &Rig, paths: &[&str], until: Instant) {
    let mut http2 = rig.http2().await;
    let mut rounds = 0;
    while Instant::now() < until {
        for path in paths {
            let request = rig.bare_request("GET", path).header("cookie", rig.cookie()).body(()).unwrap();
            let asked = Instant::now();
            let answer = http2.ask(request).await.unwrap();
            assert_eq!(answer.status(), 200, "{path}: {answer:?}");
            assert!(asked.elapsed() < Duration::from_secs(2), "{path} took {:?}", asked.elapsed());
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(rounds > 10, "{rounds} rounds");
}

/// Each is asked for three times at once, and told after a while that the file system does not answer.
async fn hang(rig: &Rig, paths: &[&str]) {
    let mut http2 = rig.http2().await;
    let asked = Instant::now();
    let mut answers = Vec::new();
    for path in [paths, paths, paths].concat() {
        let request = rig.bare_request("GET", path).header("cookie", rig.cookie()).body(()).unwrap();
        answers.push((path, http2.stream(request, true).await.0));
    }
    for (path, answer) in answers {
        let answer = whole(answer).await.unwrap();
        assert_eq!(
            (answer.status(), answer.field("x-portreeve-error")),
            (504, Some("file-system")),
            "{path}"
        );
        let took = asked.elapsed();
        assert!((FORWARD_READ.mul_f32(0.9)..FORWARD_READ + SLACK).contains(&took), "{path}: {took:?}");
    }
}

/// A portal of one thread, with the forwards `slow` and `fine`.
async fn rig_with_forwards() -> Rig {
    let config = "threads = 1\n[limits]\ndrain = \"1s\"\n";
    let options = PortalOptions::under(&["unshare", "--mount", "--propagation", "private"], config);
    let app = Application::start(|mut caller, seen| async move {
        while let Ok(Some(request)) = caller.request().await {
            seen.note(&request);
            if request.target() == "/endless" {
                let _ = caller.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
                caller.rest().await;
                return;
            }
            let _ = caller.send(OK).await;
        }
    })
    .await;
    let rig = Rig::start(app, options).await;
    for name in ["slow", "fine"] {
        let added = rig.portal.command(&["forward", "add", name, &rig.app.port.to_string()]);
        assert_eq!(added.status, 0, "{added:?}");
    }
    rig
}

/// Begins an answer that does not end, on a connection of its own.
async fn endless(rig: &Rig, path: &str) -> (Http2, h2::RecvStream) {
    let mut http2 = rig.http2().await;
    let request = rig.bare_request("GET", path).header("cookie", rig.cookie()).body(()).unwrap();
    let answer = soon("an answer", http2.stream(request, true).await.0).await.unwrap();
    assert_eq!(answer.status(), 200);
    (http2, answer.into_body())
}

#[tokio::test]
async fn file_systems_that_hang_hold_up_nobody_else() {
    let test = "file_systems_that_hang_hold_up_nobody_else";
    if let Err(why) = may_mount() {
        return skip(test, &why);
    }
    let (one, all) = (rig_with_forwards().await, rig_with_forwards().await);
    let file = one.portal.forwards().join("slow");
    let directory = all.portal.forwards();
    let (_slow, mut slow) = endless(&one, "/fw/slow/endless").await;
    let (_fine, mut fine) = endless(&one, "/fw/fine/endless").await;
    let Some(hanging_file) = Hang::over(&one.portal, &file) else { return skip(test, "needs FUSE") };
    let hanging_directory = Hang::over(&all.portal, &directory).unwrap();
    // What was read a moment ago is believed until then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let enough = Instant::now() + 2 * FORWARD_READ + Duration::from_secs(1);
    let (one_direct, all_direct) = (one.path("/"), all.path("/"));
    let go_on_beside_file = ["/fw/fine/", &one_direct, "/-/health"];
    let go_on_beside_directory = [&*all_direct, "/-/health"];
    tokio::join!(
        // The file that hangs is asked for twice, since the first ones leave a read behind that goes on hanging.
        async {
            hang(&one, &["/fw/slow/"]).await;
            hang(&one, &["/fw/slow/"]).await;
        },
        goes_on(&one, &go_on_beside_file, enough),
        hang(&all, &["/fw/slow/", "/fw/fine/"]),
        goes_on(&all, &go_on_beside_directory, enough),
        async {
            let ended = tokio::time::timeout(4 * FORWARD_READ, slow.data()).await;
            assert!(
                matches!(ended, Ok(None | Some(Err(_)))),
                "a right that can't be seen is none: {ended:?}"
            );
        },
        async {
            assert!(tokio::time::timeout(2 * FORWARD_READ, fine.data()).await.is_err(), "this one goes on");
        },
        look_at_users_in_vain(),
        sign_out_in_vain(),
        stop_all_the_same(),
    );
    // Sessions come and go all the while.
    one.portal.sign_in().await.get("/-/sign-out").await.assert_status(303);
    hanging_file.end(&one.portal, &file);
    hanging_directory.end(&all.portal, &directory);
    for rig in [&one, &all] {
        let client = rig.portal.sign_in().await;
        until("the forward works again", SOON, || async {
            (client.get("/fw/slow/").await.status == 200).then_some(())
        })
        .await;
        client.get("/fw/fine/").await.assert_status(200);
        client.get("/").await.assert_status(200);
    }
}

/// How much room there is, which is told of each file to whoever asks for it.
const ROOM: &str = "<propfind xmlns=\"DAV:\"><prop><quota-available-bytes/></prop></propfind>";

/// One directory of somebody's hangs: whoever asks for it is told, and what is beside it goes on, also the list in which it is.
#[tokio::test]
async fn a_directory_that_hangs_holds_up_no_other_file() {
    let test = "a_directory_that_hangs_holds_up_no_other_file";
    if let Err(why) = may_mount() {
        return skip(test, &why);
    }
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join("dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dir.path().join("fine"), "fine").unwrap();
    // An application's time is not that of files.
    let config = "[limits]\nresponse_head = \"1s\"\n";
    let portal =
        Portal::start(PortalOptions::under(&["unshare", "--mount", "--propagation", "private"], config));
    let client = portal.sign_in().await;
    let Some(hang) = Hang::over(&portal, &dead) else { return skip(test, "needs FUSE") };
    let here = dir.path().display().to_string();
    let (program, browser) = (client.clone().program(), client.clone().browser());
    let begun = Instant::now();
    let told = async |client: &Client, method: &str, path: String| {
        let mut request = client.prepare(method, &path);
        request.headers_mut().insert("depth", "1".parse().unwrap());
        let answer = client.request(request, "").await;
        assert_eq!(answer.status, 502, "{method} {path}: {answer:?}");
        assert!(answer.text().contains("The file system does not answer"), "{}", answer.text());
        let took = begun.elapsed();
        assert!(
            (Duration::from_secs(7)..Duration::from_secs(12)).contains(&took),
            "{method} {path}: {took:?}"
        );
    };
    let others = async {
        while begun.elapsed() < Duration::from_secs(7) {
            let asked = Instant::now();
            program.get(&format!("/dav{here}/fine")).await.assert_status(200);
            browser.get(&format!("/files{here}/fine")).await.assert_status(200);
            // The list in which it is.
            let listed = program.get(&format!("/api/v1/files{here}/")).await;
            assert_eq!(listed.json()["total"], 2, "{listed:?}");
            browser.get(&format!("/files{here}/")).await.assert_status(200);
            for body in ["", ROOM] {
                let mut find = program.prepare("PROPFIND", &format!("/dav{here}/"));
                find.headers_mut().insert("depth", "1".parse().unwrap());
                let found = program.request(find, body).await;
                found.assert_status(207);
                assert!(found.text().contains(&format!("{here}/dead/</D:href>")), "{}", found.text());
            }
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    // What changes files takes as long as they do: nobody is told that it failed while it goes on.
    let mut copy = program.prepare("COPY", &format!("/dav{here}/fine"));
    copy.headers_mut().insert("destination", format!("/dav{here}/dead/copy").parse().unwrap());
    let mut link = program.link().await;
    let mut copying = Box::pin(link.send(copy.map(|()| http_body_util::Full::default().boxed())));
    tokio::join!(
        async { assert!(tokio::time::timeout(Duration::from_secs(7), &mut copying).await.is_err()) },
        told(&program, "GET", format!("/dav{here}/dead/file")),
        told(&program, "PROPFIND", format!("/dav{here}/dead/")),
        told(&program, "GET", format!("/api/v1/files{here}/dead/")),
        told(&browser, "GET", format!("/files{here}/dead/")),
        others,
    );
    hang.end(&portal, &dead);
    assert_eq!(copying.await.unwrap().status(), 500, "the worker says how it ended");
    program.get(&format!("/api/v1/files{here}/dead/")).await.assert_status(200);
}

/// GROUP_LOOK: the user database hangs. Nobody is let in for want of an answer, and forwards of one's own go on.
async fn look_at_users_in_vain() {
    let alice = match Person::known("alice") {
        Ok(alice) => alice,
        Err(why) => return skip("look_at_users_in_vain", &why),
    };
    let mut foreign = ForeignApp::of(&alice);
    let rig = rig_with_forwards().await;
    let Some(_hang) = Hang::over(&rig.portal, Path::new("/etc/passwd")) else { return };
    let foreign_path = foreign.path("/");
    let enough = Instant::now() + FORWARD_READ;
    let denied = async {
        let asked = Instant::now();
        let mut http2 = rig.http2().await;
        let mut answers = Vec::new();
        for _ in 0..12 {
            let request =
                rig.bare_request("GET", &foreign_path).header("cookie", rig.cookie()).body(()).unwrap();
            answers.push(http2.stream(request, true).await.0);
        }
        for answer in answers {
            assert_eq!(whole(answer).await.unwrap().status(), 403);
        }
        let took = asked.elapsed();
        assert!((FORWARD_READ.mul_f32(0.9)..2 * FORWARD_READ + SLACK).contains(&took), "{took:?}");
    };
    tokio::join!(denied, goes_on(&rig, &["/fw/fine/", "/fw/slow/", "/"], enough));
    assert_eq!(foreign.reached().bytes, 0, "not one byte reached it");
}

fn sign_out(rig: &Rig, ticket: &str) -> String {
    let host = rig.host();
    format!("GET /-/sign-out HTTP/1.1\r\nhost: {host}\r\ncookie: __Host-portreeve={ticket}\r\n\r\n")
}

/// STATE_WRITE: the state directory hangs. A sign-out is in force all the same, and written down later.
async fn sign_out_in_vain() {
    let rig = rig_with_forwards().await;
    let stayer = rig.portal.sign_in().await;
    let Some(hang) = Hang::over(&rig.portal, rig.portal.state()) else { return };
    let enough = Instant::now() + FORWARD_READ;
    let sign_out = sign_out(&rig, stayer.ticket());
    let leaves = async {
        let asked = Instant::now();
        let answer = rig.ask(&sign_out).await;
        assert_eq!((answer.status(), answer.error()), (500, Some("sign-out-not-kept")), "{answer:?}");
        let took = asked.elapsed();
        assert!((FORWARD_READ.mul_f32(0.9)..FORWARD_READ + SLACK).contains(&took), "{took:?}");
    };
    let over = async {
        let begun = Instant::now();
        until("the session's end", FORWARD_READ / 2, || async {
            (stayer.get("/-/open").await.status == 401).then_some(begun)
        })
        .await;
    };
    let direct = rig.path("/");
    let others = [&*direct, "/-/health"];
    tokio::join!(leaves, over, goes_on(&rig, &others, enough));
    hang.end(&rig.portal, rig.portal.state());
    until("it is written down", SOON, || async {
        rig.portal.stderr().contains("the sessions that were signed out are written down now").then_some(())
    })
    .await;
    let list = fs::read_to_string(rig.portal.state().join("ended-sessions.json")).unwrap();
    assert!(list.len() > 20, "{list}");
}

/// CUT_OFF: what can't be written is not waited for either when the portal is to stop.
async fn stop_all_the_same() {
    let mut rig = rig_with_forwards().await;
    let leaver = rig.portal.sign_in().await;
    let Some(_hang) = Hang::over(&rig.portal, rig.portal.state()) else { return };
    let mut client = rig.http1().await;
    client.send(sign_out(&rig, leaver.ticket())).await.unwrap();
    until("the session's end", SOON, || async { (leaver.get("/-/open").await.status == 401).then_some(()) })
        .await;
    let begun = Instant::now();
    rig.portal.signal(Signal::SIGTERM);
    portreeve_tests::wire::until("its end", SOON, || !rig.portal.process().is_running()).await;
    assert!(begun.elapsed() > Duration::from_secs(1 + 5), "it tries for a while: {:?}", begun.elapsed());
    assert_eq!(rig.portal.process().wait(SOON), Some(0), "{}", rig.portal.stderr());
    rig.portal.logged(&["ERROR", "after a restart they are valid again"]).await;
}
