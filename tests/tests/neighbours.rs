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

/// What somebody gets who asks the portal with this cookie: the status line, or nothing.
fn ask_as(person: &Person, port: u16, cookie: &str) -> String {
    let script = format!(
        "import socket, ssl\n\
         context = ssl._create_unverified_context()\n\
         try:\n\
         \x20   tls = context.wrap_socket(socket.create_connection(('127.0.0.1', {port}), 5), server_hostname='localhost')\n\
         \x20   tls.sendall(b'GET / HTTP/1.1\\r\\nHost: localhost:{port}\\r\\nCookie: {cookie}\\r\\n\\r\\n')\n\
         \x20   print(tls.recv(100).split(b'\\r\\n')[0].decode())\n\
         except OSError as error:\n\
         \x20   print('nothing:', error)\n"
    );
    let asked = Command::new("setpriv")
        .args(["--reuid", &person.uid.to_string(), "--regid", &person.gid.to_string(), "--clear-groups"])
        .args(["python3", "-c", &script])
        .output()
        .unwrap();
    String::from_utf8_lossy(&asked.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_cookie_is_worth_nothing_to_another_user_of_this_machine() {
    let Some((alice, bob)) = people("a_cookie_is_worth_nothing_to_another_user_of_this_machine") else {
        return;
    };
    let portal = Portal::start(PortalOptions { person: Some(alice.clone()), ..PortalOptions::default() });
    let client = portal.sign_in().await;
    let cookie = format!("__Host-portreeve={}", client.ticket());
    assert_eq!(ask_as(&alice, portal.port(), &cookie), "HTTP/1.1 200 OK");
    let stolen = ask_as(&bob, portal.port(), &cookie);
    assert!(stolen.starts_with("nothing"), "{stolen}");
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
