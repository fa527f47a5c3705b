//! Whose socket is it? Real users, real processes: nobody reaches an application that is not theirs or shared with
//! them (`shared.rs`), and not one byte of a refused request gets there. As root, in the mount namespace that `tests/run` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use portreeve_tests::world::{
    Answer, ForeignApp, Person, Portal, PortalOptions, people, skip, write_forward,
};

fn portal_of(person: &Person) -> Portal {
    Portal::start(PortalOptions { person: Some(person.clone()), ..PortalOptions::default() })
}

/// Refused as another user's. Which of the two is said depends on whether the visitor is in any group that could count:
/// a portal without more rights can't see which group another user's process runs with.
#[track_caller]
fn assert_not_mine(answer: &Answer) {
    assert!(matches!(answer.error(), "not-yours" | "group-unknown" | "forward-owner-differs"), "{answer:?}");
    answer.assert_status(403);
}

fn root() -> Person {
    Person::root().unwrap()
}

#[tokio::test]
async fn ones_own_application_is_reached() {
    let Some([alice]) = people("ones_own_application_is_reached", ["alice"]) else { return };
    let (portal, app) = (portal_of(&alice), ForeignApp::of(&alice));
    let client = portal.sign_in().await;
    let answer = client.get(&app.path("/")).await;
    answer.assert_status(200);
    assert_eq!(answer.text(), "I am uid 20001\n");
    let record = portal.logged(&["audit", "verdict=\"allow\""]).await;
    let port = app.port();
    for field in [
        "user=alice",
        "session=",
        &format!("what=/fw2/localhost:{port}"),
        "from=127.0.0.1:",
        "owner=20001",
        "reason=\"owner\"",
    ] {
        assert!(record.contains(field), "{field} is missing: {record}");
    }
    assert!(record.contains(&format!("to=127.0.0.1:{port}")), "{record}");
}

#[tokio::test]
async fn a_second_users_socket_is_refused_and_no_byte_reaches_it() {
    let test = "a_second_users_socket_is_refused_and_no_byte_reaches_it";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let (portal, mut app) = (portal_of(&alice), ForeignApp::of(&bob));
    let client = portal.sign_in().await;
    for client in [client.clone(), client.clone().http2(), client.clone().browser()] {
        assert_not_mine(&client.get(&app.path("/secret")).await);
    }
    let upload = client.request(client.prepare("POST", &app.path("/")), vec![b'x'; 100_000]).await;
    assert_not_mine(&upload);
    let refused = client.websocket(&app.path("/socket")).await.unwrap_err();
    assert_eq!(refused.status(), 403);
    let reached = app.reached();
    assert_eq!(reached.bytes, 0, "bytes reached another user's socket: {reached:?}");
    assert_eq!(reached.ended, reached.connections, "a refused connection is closed: {reached:?}");
    let record = portal.logged(&["audit", "verdict=\"deny\""]).await;
    let port = app.port();
    for field in [
        "user=alice",
        "session=",
        &format!("what=/fw2/localhost:{port}"),
        "from=127.0.0.1:",
        "owner=20002",
        "reason=\"",
    ] {
        assert!(record.contains(field), "{field} is missing: {record}");
    }
}

#[tokio::test]
async fn a_refusal_has_the_same_request_id_in_answer_and_log() {
    let test = "a_refusal_has_the_same_request_id_in_answer_and_log";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let (portal, app) = (portal_of(&alice), ForeignApp::of(&bob));
    let answer = portal.sign_in().await.browser().get(&app.path("/")).await;
    let id = answer.header("x-request-id");
    assert!(answer.text().contains(id), "the page shows the id");
    portal.logged(&[&format!("request=\"{id}\""), "refused", "status=403"]).await;
}

#[tokio::test]
async fn a_refused_tls_application_gets_no_greeting() {
    let Some([alice, bob]) = people("a_refused_tls_application_gets_no_greeting", ["alice", "bob"]) else {
        return;
    };
    let (portal, mut app) = (portal_of(&alice), ForeignApp::of(&bob));
    write_forward(
        &portal.forwards(),
        "tls",
        &format!("https://localhost:{}/\n", app.port()),
        &alice,
        alice.gid,
        0o700,
    );
    assert_not_mine(&portal.sign_in().await.get("/fw/tls/").await);
    assert_eq!(app.reached().bytes, 0);
}

#[tokio::test]
async fn roots_socket_is_refused_to_everybody_else() {
    let Some([alice]) = people("roots_socket_is_refused_to_everybody_else", ["alice"]) else { return };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    let mut app = ForeignApp::of(&root());
    client.get(&app.path("/")).await.assert_refused(403, "root-socket");
    assert_eq!(app.reached().bytes, 0);
    // A socket that root made and alice listens on is root's by the kernel's record, and alice's once accepted: the
    // two don't agree.
    let mut dropped = ForeignApp::start(&root(), "127.0.0.1:0", &["--drop", "20001"]).unwrap();
    let answer = client.get(&dropped.path("/")).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(dropped.reached().bytes, 0);
}

#[tokio::test]
async fn a_port_that_changes_hands_is_judged_by_its_new_owner() {
    let test = "a_port_that_changes_hands_is_judged_by_its_new_owner";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    let mine = ForeignApp::of(&alice);
    let (port, path) = (mine.port(), mine.path("/"));
    let address = format!("127.0.0.1:{port}");
    // The connection stays in the pool.
    client.get(&path).await.assert_status(200);
    drop(mine);
    let mut theirs = ForeignApp::start(&bob, &address, &[]).unwrap();
    for _ in 0..5 {
        assert_not_mine(&client.get(&path).await);
    }
    assert_eq!(theirs.reached().bytes, 0);
    drop(theirs);
    let again = ForeignApp::start(&alice, &address, &[]).unwrap();
    client.get(&again.path("/")).await.assert_status(200);
}

#[tokio::test]
async fn a_port_that_changes_hands_while_requests_stream_leaks_nothing() {
    let test = "a_port_that_changes_hands_while_requests_stream_leaks_nothing";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    let first = ForeignApp::of(&alice);
    let (path, address) = (first.path("/"), format!("127.0.0.1:{}", first.port()));
    let asking = tokio::spawn(async move {
        let mut statuses = Vec::new();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let answer = client.get(&path).await;
            assert!(!answer.text().contains("uid 20002"), "bob's application answered alice");
            statuses.push(answer.status.as_u16());
        }
        statuses
    });
    drop(first);
    let changes = tokio::task::spawn_blocking(move || {
        let mut bytes = 0;
        for round in 0..12 {
            let person = if round % 2 == 0 { &bob } else { &alice };
            let mut app = loop {
                if let Ok(app) = ForeignApp::start(person, &address, &[]) {
                    break app;
                }
            };
            std::thread::park_timeout(Duration::from_millis(60));
            if round % 2 == 0 {
                bytes += app.ask().bytes;
            }
        }
        bytes
    });
    assert_eq!(changes.await.unwrap(), 0, "bytes reached bob");
    let statuses = asking.await.unwrap();
    for expected in [200, 403] {
        assert!(statuses.contains(&expected), "no {expected} among {statuses:?}");
    }
}

#[tokio::test]
async fn an_application_that_never_accepts_is_judged_by_its_listener() {
    let test = "an_application_that_never_accepts_is_judged_by_its_listener";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    let deaf = ForeignApp::start(&bob, "127.0.0.1:0", &["--deaf"]).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(3), client.get(&deaf.path("/"))).await;
    answer.map(|answer| assert_not_mine(&answer)).expect("a refusal does not wait");
}

#[tokio::test]
async fn two_users_with_one_port_number_are_told_apart() {
    let Some([alice, bob]) = people("two_users_with_one_port_number_are_told_apart", ["alice", "bob"]) else {
        return;
    };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    let mut theirs = ForeignApp::of(&bob);
    let port = theirs.port();
    let _mine = ForeignApp::start(&alice, &format!("127.0.0.2:{port}"), &[]).unwrap();
    client.get(&format!("/fw2/127.0.0.2:{port}/")).await.assert_status(200);
    assert_not_mine(&client.get(&format!("/fw2/127.0.0.1:{port}/")).await);
    // The name leads to 127.0.0.1 first, and is not tried elsewhere until somebody lets us in.
    assert_not_mine(&client.get(&format!("/fw2/localhost:{port}/")).await);
    assert_eq!(theirs.reached().bytes, 0);
}

#[tokio::test]
async fn ipv6_and_dual_stack_listeners_are_judged_too() {
    let Some([alice, bob]) = people("ipv6_and_dual_stack_listeners_are_judged_too", ["alice", "bob"]) else {
        return;
    };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    let Ok(mut theirs) = ForeignApp::start(&bob, "[::]:0", &[]) else {
        return skip("ipv6_and_dual_stack_listeners_are_judged_too", "needs IPv6");
    };
    let mine = ForeignApp::start(&alice, "[::]:0", &[]).unwrap();
    for node in ["[::1]", "127.0.0.1", "localhost"] {
        assert_not_mine(&client.get(&format!("/fw2/{node}:{}/", theirs.port())).await);
        client.get(&format!("/fw2/{node}:{}/", mine.port())).await.assert_status(200);
    }
    assert_eq!(theirs.reached().bytes, 0);
}

#[tokio::test]
async fn group_shared_applications_need_more_rights_than_a_user_has() {
    let test = "group_shared_applications_need_more_rights_than_a_user_has";
    let Some([alice, bob, carol]) = people(test, ["alice", "bob", "carol"]) else { return };
    let portal = portal_of(&alice);
    let client = portal.sign_in().await;
    // An unprivileged process can't see other users' processes: unknown means refused, never let in.
    let mut app = ForeignApp::of(&bob.clone().under("proj"));
    let answer = client.get(&app.path("/")).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(app.reached().bytes, 0);
    // A login group that everybody is in opens nothing, whatever is known.
    let mut app = ForeignApp::of(&carol);
    assert_eq!(client.get(&app.path("/")).await.status, 403);
    assert_eq!(app.reached().bytes, 0);
}

#[tokio::test]
async fn names_ports_and_the_portal_itself_are_refused() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    for port in [1, 22, 80, 443, 1023] {
        client.get(&format!("/fw2/localhost:{port}/")).await.assert_refused(403, "privileged-port");
    }
    for node in ["c17", "example.org", "192.0.2.1", "[2001:db8::1]", "10.255.255.254"] {
        client.get(&format!("/fw2/{node}:8888/")).await.assert_refused(404, "unknown-node");
    }
    for name in [
        "localhost:0",
        "localhost:65536",
        "localhost:080",
        "0.0.0.0:8888",
        "127.1:8888",
        "0x7f000001:8888",
        "[::]:8888",
        "localhost:8888:9",
        "local%68ost:8888",
        "user@localhost:8888",
        "[::ffff:0.0.0.0]:8888",
        "224.0.0.1:8888",
        "localhost",
    ] {
        let answer = client.get(&format!("/fw2/{name}/")).await;
        assert_eq!(answer.status, 404, "{name}: {answer:?}");
    }
    let own = portal.port();
    for node in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        client.get(&format!("/fw2/{node}:{own}/")).await.assert_refused(403, "ourselves");
    }
}

#[tokio::test]
async fn this_machines_names_and_addresses_lead_to_it() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let app = portreeve_tests::world::App::start_on("0.0.0.0:0", |_| async {
        portreeve_tests::world::text("here")
    })
    .await;
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let short = name.split('.').next().unwrap().to_owned();
    for node in ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.9", "[::ffff:127.0.0.1]", &name, &short] {
        let answer = client.get(&format!("/fw2/{node}:{}/", app.port())).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "here"), "{node}");
    }
}

#[tokio::test]
async fn the_state_socket_answers_its_owner_only() {
    let Some([alice, bob]) = people("the_state_socket_answers_its_owner_only", ["alice", "bob"]) else {
        return;
    };
    let portal = portal_of(&alice);
    let state = portal.state().display().to_string();
    let asked = portreeve_tests::world::portreeve(&["login", "--state", &state], Some(&bob));
    assert!(asked.status != 0 && asked.out.is_empty(), "{asked:?}");
    // Even when the directory were open.
    for path in [portal.state().to_owned(), portal.state().parent().unwrap().to_owned()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(portal.state().join("control.sock"), std::fs::Permissions::from_mode(0o777))
        .unwrap();
    let asked = portreeve_tests::world::portreeve(&["login", "--state", &state], Some(&bob));
    assert!(asked.status != 0 && asked.out.is_empty() && !asked.err.contains("code="), "{asked:?}");
    assert!(portal.command(&["login"]).out.contains("code="));
}
