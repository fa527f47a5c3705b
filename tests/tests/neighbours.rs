//! Neighbours on the same machine: another user who got hold of the cookie. As root, in the mount namespace that
//! `tests/run` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use portreeve_tests::world::{Person, Portal, PortalOptions, people};

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
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let portal = Portal::start(PortalOptions { person: Some(alice.clone()), ..PortalOptions::default() });
    assert_eq!(answer_to(&alice, portal.port()), "HTTP/1.1 400 Bad Request");
    assert_eq!(answer_to(&bob, portal.port()), "");
    portal.logged(&["event=\"stranger\"", &format!("uid={}", bob.uid)]).await;
}
