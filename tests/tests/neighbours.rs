//! Neighbours on the same machine: another user who got hold of the cookie, and another user's application in the
//! visitor's browser. As root, in the mount namespace that `tests/run` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use portreeve_tests::world::{Client, ForeignApp, Person, Portal, PortalOptions, gid, skip};

fn people(test: &str) -> Option<(Person, Person)> {
    match (Person::known("alice"), Person::known("bob")) {
        (Ok(alice), Ok(bob)) => Some((alice, bob)),
        (Err(why), _) | (_, Err(why)) => {
            skip(test, &why);
            None
        }
    }
}

/// The first line that the portal answers this person, in plain HTTP, which it answers to its own user only; empty when
/// it closes the connection.
fn answer_to(person: &Person, port: u16) -> String {
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3");
    let asked = Command::new("setpriv")
        .args(["--reuid", &person.uid.to_string(), "--regid", &person.gid.to_string(), "--clear-groups"])
        .args(["bash", "-c", &script])
        .output()
        .unwrap();
    String::from_utf8_lossy(&asked.stdout).trim().to_owned()
}

/// Browsers send the session cookie to every port of a host, also to another user's, so it must be worth nothing there:
/// who connects from this machine is looked up before the first byte.
#[tokio::test]
async fn another_user_of_this_machine_gets_no_answer_whatever_cookie_they_have() {
    let test = "another_user_of_this_machine_gets_no_answer_whatever_cookie_they_have";
    let Some((alice, bob)) = people(test) else { return };
    let portal = Portal::start(PortalOptions { person: Some(alice.clone()), ..PortalOptions::default() });
    assert_eq!(answer_to(&alice, portal.port()), "HTTP/1.1 400 Bad Request");
    assert_eq!(answer_to(&bob, portal.port()), "");
    portal.logged(&["event=\"stranger\"", &format!("uid={}", bob.uid)]).await;
}

/// Alice signed in at her portal, and an application of Bob's that he shares with her under the name `shared`.
async fn shared(alice: &Person, bob: &Person) -> (tempfile::TempDir, Portal, Client, ForeignApp) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let app = ForeignApp::of(bob);
    let path = dir.path().join("shared");
    std::fs::write(&path, format!("http://localhost:{}/\n", app.port())).unwrap();
    std::os::unix::fs::chown(&path, Some(bob.uid), Some(gid("proj").as_raw())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
    let portal = Portal::start(PortalOptions {
        person: Some(alice.clone()),
        forwards: Some(dir.path().to_owned()),
        ..PortalOptions::default()
    });
    let client = portal.sign_in().await;
    (dir, portal, client, app)
}

#[tokio::test]
async fn anothers_application_gets_no_page_on_the_portals_own_origin() {
    let test = "anothers_application_gets_no_page_on_the_portals_own_origin";
    let Some((alice, bob)) = people(test) else { return };
    let (_dir, portal, client, mut app) = shared(&alice, &bob).await;
    let before = app.reached();

    let window = client.clone().with("sec-fetch-mode", "navigate").with("sec-fetch-dest", "document");
    let sent = window.with("sec-fetch-site", "none").get("/fw/shared/a?b=c").await;
    sent.assert_status(303);
    assert_eq!(sent.location(), format!("https://shared.fn.localhost:{}/a?b=c", portal.port()));

    for (mode, dest) in
        [("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe"), ("websocket", "websocket")]
    {
        let page = client.clone().with("sec-fetch-site", "same-origin").with("sec-fetch-mode", mode);
        page.with("sec-fetch-dest", dest).get("/fw/shared/").await.assert_refused(403, "foreign-application");
    }
    let worker = client.clone().with("service-worker", "script");
    worker.get("/fw/shared/sw.js").await.assert_refused(403, "foreign-application");
    assert_eq!(app.reached().bytes, before.bytes, "a refused request reached the application");

    // A program may read, and what it might show to a person has no origin to act from.
    let program = client.get("/fw/shared/").await;
    program.assert_status(200);
    assert_eq!(program.header("content-security-policy"), "sandbox");
}
