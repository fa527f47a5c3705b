//! Somebody else's application: what it may, and what it may not. Bob's, which he shares with Alice by a forward, in
//! Alice's portal. As root, in the mount namespace that `tests/run` makes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::wire::{self, SOON};
use portreeve_tests::world::{
    Answer, Client, ForeignApp, Person, Portal, SharedForwards, Tunnel, gid, people, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Refused as another user's. Which of the two is said depends on whether the visitor is in any group that could count:
/// a portal without more rights can't see which group another user's process runs with.
#[track_caller]
fn assert_not_mine(answer: &Answer) {
    assert!(matches!(answer.error(), "not-yours" | "group-unknown" | "forward-owner-differs"), "{answer:?}");
    answer.assert_status(403);
}

/// A service worker's script that takes itself away again.
#[track_caller]
fn assert_no_service_worker(answer: &Answer) {
    answer.assert_status(200);
    assert!(answer.text().contains("registration.unregister()"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// Alice signed in at her portal, and an application of Bob's that he shares with her under the name `shared`.
struct Shared {
    forwards: SharedForwards,
    portal: Portal,
    client: Client,
    app: ForeignApp,
}

impl Shared {
    async fn with(alice: &Person, bob: &Person, config: &str) -> Self {
        let (forwards, app) = (SharedForwards::default(), ForeignApp::of(bob));
        forwards.share("shared", app.port(), bob);
        let portal = forwards.portal_of(alice, config);
        let client = portal.sign_in().await;
        Self { forwards, portal, client, app }
    }

    /// The audit records of refusals by this reason.
    fn refused(&self, reason: &str) -> Vec<String> {
        let log = self.portal.stderr();
        let is_one = |line: &&str| {
            line.contains("audit:")
                && line.contains("verdict=\"deny\"")
                && line.contains(&format!("reason=\"{reason}\""))
        };
        log.lines().filter(is_one).map(str::to_owned).collect()
    }

    /// Waits until there are so many of them, and checks what each says.
    async fn refusals(&self, reason: &str, count: usize) {
        until(&format!("{count} records of {reason}"), Duration::from_secs(5), || async {
            (self.refused(reason).len() >= count).then_some(())
        })
        .await;
        let records = self.refused(reason);
        assert_eq!(records.len(), count, "{records:#?}");
        for record in records {
            for field in ["user=alice", "session=\"", "what=/fw/shared "] {
                assert!(record.contains(field), "{field} is missing: {record}");
            }
        }
    }
}

#[tokio::test]
async fn a_shared_forward_leads_to_its_owners_application_only() {
    let test = "a_shared_forward_leads_to_its_owners_application_only";
    let Some([alice, bob, carol]) = people(test, ["alice", "bob", "carol"]) else { return };
    let Shared { forwards, portal, client, app: mut bobs } = Shared::with(&alice, &bob, "").await;
    let mut carols = ForeignApp::of(&carol);
    let (to_bob, to_carol, proj) = (bobs.port(), carols.port(), gid("proj").as_raw());

    client.get("/fw/shared/").await.assert_status(200);
    portal.logged(&["audit", "what=/fw/shared", "owner=20002", "reason=\"forward-owner\"", "allow"]).await;
    let before = bobs.ask();

    // The connection that the forward opened is no way around it.
    assert_not_mine(&client.get(&bobs.path("/")).await);
    assert_eq!(
        bobs.ask().bytes,
        before.bytes,
        "a request went along a connection that another right had opened"
    );

    forwards.put("private", to_bob, &bob, bob.gid, 0o700);
    client.get("/fw/private/").await.assert_refused(403, "not-executable");
    // x through a group that alice is not in.
    forwards.put("theirs", to_bob, &bob, bob.gid, 0o750);
    client.get("/fw/theirs/").await.assert_refused(403, "not-executable");
    forwards.put("to-carol", to_carol, &bob, proj, 0o750);
    assert_not_mine(&client.get("/fw/to-carol/").await);
    // My own forward is no way into somebody else's application.
    forwards.put("mine", to_bob, &alice, alice.gid, 0o700);
    assert_not_mine(&client.get("/fw/mine/").await);
    for (name, mode) in [("group-writable", 0o770), ("world-writable", 0o757)] {
        forwards.put(name, to_bob, &bob, proj, mode);
        let answer = client.get(&format!("/fw/{name}/")).await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    // May be used, but not read: nobody with more rights reads it for alice here.
    forwards.put("unreadable", to_bob, &bob, proj, 0o710);
    client.get("/fw/unreadable/").await.assert_refused(403, "forward-refused");
    assert_eq!(bobs.ask().bytes, before.bytes);
    assert_eq!(carols.reached().bytes, 0);

    let list = portal.command(&["forward", "list"]);
    assert!(list.out.starts_with("mine\t") && list.out.lines().count() == 1, "{list:?}");
    for arguments in [
        &["forward", "add", "shared", "8888"][..],
        &["forward", "remove", "shared"],
        &["forward", "disable", "shared"],
    ] {
        let refused = portal.command(arguments);
        assert!(refused.status != 0 && refused.err.contains("belongs to somebody else"), "{refused:?}");
    }
}

#[tokio::test]
async fn it_gets_no_page_on_the_portals_own_origin() {
    let test = "it_gets_no_page_on_the_portals_own_origin";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let mut shared = Shared::with(&alice, &bob, "").await;
    let own = format!("https://shared.fn.localhost:{}", shared.portal.port());

    let mut pages = 0;
    for client in [shared.client.clone(), shared.client.clone().http2()] {
        // A window is sent to the application's own origin, with all that it asked for.
        for path in ["/", "/a?b=c", "//evil.example/", "/%2e%2e/x"] {
            let sent = client.clone().browser().get(&format!("/fw/shared{path}")).await;
            assert_eq!((sent.status.as_u16(), sent.location()), (303, format!("{own}{path}").as_str()));
        }
        // What a page loads, or asks for, is refused: it would be the portal's own origin that reads it.
        for (mode, dest) in [
            ("no-cors", "script"),
            ("no-cors", "image"),
            ("no-cors", "style"),
            ("cors", "empty"),
            ("same-origin", "empty"),
            ("same-origin", "worker"),
            ("navigate", "iframe"),
            ("navigate", "object"),
            ("websocket", "websocket"),
        ] {
            let page = client.clone().with("sec-fetch-site", "same-origin").with("sec-fetch-mode", mode);
            let page = page.with("sec-fetch-dest", dest);
            page.get("/fw/shared/").await.assert_refused(403, "foreign-application");
            pages += 1;
        }
        // Older browsers do not say how they ask, but that they do.
        let page = client.clone().with("sec-fetch-site", "same-origin");
        page.get("/fw/shared/").await.assert_refused(403, "foreign-application");
        let worker = client.clone().with("service-worker", "script");
        assert_no_service_worker(&worker.get("/fw/shared/sw.js").await);
        pages += 1;
    }
    // Nor does a window post a form there.
    let window = shared.client.clone().browser();
    let posted = window.request(window.prepare("POST", "/fw/shared/"), "a=b").await;
    posted.assert_status(303);
    let page =
        shared.client.clone().with("sec-fetch-site", "same-origin").with("sec-fetch-mode", "websocket");
    assert_eq!(page.tunnel("/fw/shared/", "echo").await.unwrap_err().status, 403);
    assert_eq!(shared.app.reached().bytes, 0, "a refused request reached the application");
    shared.refusals("foreign-application", pages + 1).await;
    shared.refusals("elsewhere", 9).await;
    shared.refusals("no-service-worker", 2).await;

    // A program may read; should it show what it read to a person, that has no origin to act from.
    for client in [shared.client.clone(), shared.client.clone().http2()] {
        let program = client.get("/fw/shared/").await;
        assert_eq!((program.status.as_u16(), program.text().as_str()), (200, "I am uid 20002\n"));
        assert_eq!(program.header("content-security-policy"), "sandbox");
    }
    // The visitor's own application is shown.
    let own = ForeignApp::of(&alice);
    for client in [shared.client.clone().browser(), shared.client.clone().with("service-worker", "script")] {
        let answer = client.get(&own.path("/")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-security-policy")), (200, ""));
    }
}

#[tokio::test]
async fn in_its_own_origin_it_is_shown_but_installs_no_service_worker() {
    let test = "in_its_own_origin_it_is_shown_but_installs_no_service_worker";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let mut shared = Shared::with(&alice, &bob, "").await;
    let there = shared.client.enter("shared.fn.localhost").await;
    // It would outlive the application, and meet whoever has the name next.
    for there in [there.clone(), there.clone().http2()] {
        for (mode, dest) in [("same-origin", "serviceworker"), ("navigate", "document")] {
            let worker = there.clone().with("service-worker", "script").with("sec-fetch-mode", mode);
            let worker = worker.with("sec-fetch-dest", dest).with("sec-fetch-site", "same-origin");
            assert_no_service_worker(&worker.get("/sw.js").await);
        }
    }
    assert_eq!(shared.app.reached().bytes, 0, "a refused request reached the application");
    shared.refusals("no-service-worker", 4).await;

    for there in [there.clone(), there.clone().http2()] {
        let page = there.get("/page").await;
        assert_eq!((page.status.as_u16(), page.text().as_str()), (200, "I am uid 20002\n"));
        assert_eq!(page.header("content-security-policy"), "", "it is free in an origin of its own");
        let script = there.with("sec-fetch-site", "same-origin").with("sec-fetch-mode", "no-cors");
        script.with("sec-fetch-dest", "script").get("/app.js").await.assert_status(200);
    }
    // The visitor's own may have one, in its own origin too.
    let own = ForeignApp::of(&alice);
    let there = shared.client.enter(&format!("localhost-{}.localhost", own.port())).await;
    there.with("service-worker", "script").get("/sw.js").await.assert_status(200);
}

/// Its name can't be that of a host.
const NO_LABEL: &str = "Shared_App";

#[tokio::test]
async fn without_an_origin_of_its_own_it_is_shown_to_nobody_unless_the_sysadmin_says_so() {
    let test = "without_an_origin_of_its_own_it_is_shown_to_nobody_unless_the_sysadmin_says_so";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let mut shared = Shared::with(&alice, &bob, "").await;
    shared.forwards.share(NO_LABEL, shared.app.port(), &bob);
    let window = shared.client.clone().browser();
    window.get(&format!("/fw/{NO_LABEL}/")).await.assert_refused(403, "foreign-application");
    window.get(&format!("/-/consent?next=/fw/{NO_LABEL}/")).await.assert_refused(404, "not-found");
    assert_eq!(shared.app.reached().bytes, 0);
}

#[tokio::test]
async fn beside_ones_own_it_is_shown_after_consent_alone() {
    let test = "beside_ones_own_it_is_shown_after_consent_alone";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let mut shared = Shared::with(&alice, &bob, "[portal]\nforeign_applications = \"ask\"\n").await;
    shared.forwards.share(NO_LABEL, shared.app.port(), &bob);
    let path = format!("/fw/{NO_LABEL}/a?b=c");
    let window = shared.client.clone().browser();
    let page = shared.client.clone().with("sec-fetch-site", "same-origin").with("sec-fetch-mode", "cors");

    // What has an origin of its own is shown there, and nobody is asked.
    let own = window.get("/fw/shared/").await;
    assert!(own.location().starts_with("https://shared.fn.localhost:"), "{own:?}");
    let sent = window.get(&path).await;
    sent.assert_status(303);
    let asked =
        sent.location().strip_prefix(&window.origin()).unwrap_or_else(|| panic!("{sent:?}")).to_owned();
    assert!(asked.starts_with("/-/consent?next=%2Ffw%2FShared%5FApp%2Fa%3Fb%3Dc"), "{asked}");
    page.get(&path).await.assert_refused(403, "foreign-application");

    // Nothing but a window sees the question, and it can't be framed.
    page.get(&asked).await.assert_refused(403, "for-windows");
    let frame = page.clone().with("sec-fetch-mode", "navigate").with("sec-fetch-dest", "iframe");
    frame.get(&asked).await.assert_refused(403, "for-windows");
    let question = window.get(&asked).await;
    question.assert_status(200);
    let text = question.text();
    for part in ["Open bob's application?", "/fw/Shared_App"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(question.header("cross-origin-opener-policy"), "same-origin");
    assert_eq!(question.header("x-frame-options"), "DENY");
    let secret = text.split("name=\"secret\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();

    // Without what is in it, nobody answers it.
    let form =
        |uid: &str, secret: &str| format!("next=%2Ffw%2FShared_App%2Fa%3Fb%3Dc&uid={uid}&secret={secret}");
    for (uid, secret) in [("20002", ""), ("20002", "x"), ("20001", secret.as_str()), ("", secret.as_str())] {
        window.post("/-/consent", &form(uid, secret)).await.assert_status(200);
    }
    let form = form("20002", &secret);
    page.post("/-/consent", &form).await.assert_refused(403, "for-windows");
    let elsewhere = window.clone().with("origin", "https://evil.example");
    elsewhere.post("/-/consent", &form).await.assert_refused(403, "cross-site");
    let other = shared.portal.sign_in().await.browser();
    other.post("/-/consent", &form).await.assert_status(200);
    window.get(&path).await.assert_status(303);
    assert_eq!(shared.app.reached().bytes, 0, "it was not shown before");

    let answered = window.post("/-/consent", &form).await;
    assert_eq!((answered.status.as_u16(), answered.location()), (303, path.as_str()));
    shared.portal.logged(&["event=\"consent\"", "user=alice", "what=/fw/Shared_App", "owner=20002"]).await;
    let shown = window.get(&path).await;
    assert_eq!((shown.status.as_u16(), shown.header("content-security-policy")), (200, ""), "{shown:?}");
    page.get(&path).await.assert_status(200);
    assert_no_service_worker(&page.with("service-worker", "script").get(&path).await);
    // For this session alone, and this address alone.
    other.get(&path).await.assert_status(303);
    shared.forwards.share("Other_App", shared.app.port(), &bob);
    window.get("/fw/Other_App/").await.assert_status(303);
}

async fn works(tunnel: &mut Tunnel) {
    tunnel.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    let echoed = tokio::time::timeout(Duration::from_secs(5), tunnel.read_exact(&mut back)).await;
    echoed.unwrap().unwrap();
    assert_eq!(&back, b"ping");
}

/// An application that never answers, or keeps its tunnels open, may not use up what its visitor's own need.
#[tokio::test]
async fn it_takes_a_quarter_of_a_sessions_places_at_most() {
    let test = "it_takes_a_quarter_of_a_sessions_places_at_most";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let mut shared = Shared::with(&alice, &bob, "[limits]\nrequests_per_session = 8\n").await;
    let client = shared.client.clone();
    let there = client.enter("shared.fn.localhost").await.program();
    // A quarter of eight; it does not matter by which of its addresses.
    let mut first = client.tunnel("/fw/shared/", "echo").await.unwrap();
    let mut second = there.tunnel("/", "echo").await.unwrap();
    works(&mut first).await;
    works(&mut second).await;
    // Another application of Bob's is a foreign one too.
    let mut silent = ForeignApp::start(&bob, "127.0.0.1:0", &["--mute"]).unwrap();
    shared.forwards.share("silent", silent.port(), &bob);

    let before = shared.app.ask();
    for client in [client.clone(), client.clone().http2()] {
        for path in ["/fw/shared/", "/fw/silent/"] {
            let refused = client.get(path).await;
            refused.assert_refused(429, "too-many-requests");
            assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        }
    }
    let refused = client.tunnel("/fw/shared/", "echo").await.unwrap_err();
    refused.assert_refused(429, "too-many-requests");
    there.get("/").await.assert_refused(429, "too-many-requests");
    assert_eq!(shared.app.ask().bytes, before.bytes, "a refused request reached the application");
    let records = || {
        let log = shared.portal.stderr();
        log.lines().filter(|line| line.contains("audit:") && line.contains("too-many-requests")).count()
    };
    until("a record of each refusal", SOON, || async { (records() >= 6).then_some(()) }).await;
    assert_eq!(records(), 6, "one for each");

    // The visitor's own have the rest: two places are taken, so six are left.
    let own = ForeignApp::of(&alice);
    let mut owns = Vec::new();
    for _ in 0..5 {
        owns.push(client.tunnel(&own.path("/"), "echo").await.unwrap());
    }
    client.get(&own.path("/")).await.assert_status(200);
    for tunnel in owns.iter_mut().chain([&mut first, &mut second]) {
        works(tunnel).await;
    }
    // And no more than the rest.
    let sixth = client.tunnel(&own.path("/"), "echo").await.unwrap();
    client.get(&own.path("/")).await.assert_refused(429, "too-many-requests");
    drop((owns, sixth));

    // A place that is given back can be taken again, and who waits for an answer has one as well.
    let place_is_free = async || {
        until("a place to be free", Duration::from_secs(5), || async {
            (client.get("/fw/shared/").await.status == 200).then_some(())
        })
        .await;
    };
    drop(second);
    place_is_free().await;
    let patient = client.clone();
    let waiting = tokio::spawn(async move { patient.get("/fw/silent/").await });
    wire::until("the request is there", Duration::from_secs(5), || silent.ask().bytes > 0).await;
    client.get("/fw/shared/").await.assert_refused(429, "too-many-requests");
    waiting.abort();
    place_is_free().await;
}
