//! What was allowed and is allowed no more: a session that ends, or a right that is taken back, while an upload, an
//! answer or a tunnel is on its way. What waits for a limit here waits side by side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use portreeve_portal::limits::JUDGE_AGAIN;
use portreeve_tests::wire::application::{Application, OK};
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::stream::Wire;
use portreeve_tests::wire::{SOON, soon, until};
use portreeve_tests::world::{ForeignApp, SharedForwards, Tunnel, people};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// The end of a session is in force within so long: the sweep, and what a busy machine adds.
const AT_ONCE: Duration = Duration::from_millis(1200);
/// So is a right that was taken back, for what goes on already: it is judged every [`JUDGE_AGAIN`], and for a second
/// a forward's file is believed to say what it said.
const JUDGED: Duration = Duration::from_millis(5500);

const SECRET: &str = "the application's answer";

/// An application for every test here. What it does depends on the path:
///
/// | path | what |
/// | --- | --- |
/// | `/upload` | notes what came of the body, and never answers |
/// | `/never` | never answers |
/// | `/late` | answers when it is let |
/// | `/lost` | is not found; below the prefix, never answers |
/// | a wish for another protocol | agrees, and echoes |
async fn application(let_go: Arc<Semaphore>) -> Application {
    Application::start(move |mut caller, seen| {
        let let_go = Arc::clone(&let_go);
        async move {
            while let Ok(Some(mut request)) = caller.head().await {
                let answer = match request.target() {
                    "/upload" => {
                        let _ = caller.body(&mut request, false).await;
                        seen.note(&request);
                        return;
                    }
                    "/late" => {
                        seen.note(&request);
                        let_go.acquire().await.unwrap().forget();
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{SECRET}", SECRET.len())
                    }
                    "/lost" => {
                        format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{SECRET}", SECRET.len())
                    }
                    _ if request.field("upgrade").is_some() => {
                        let agreed = "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo";
                        caller.send(format!("HTTP/1.1 {agreed}\r\n\r\n")).await.unwrap();
                        while let Ok(bytes) = caller.some().await {
                            if bytes.is_empty() || caller.send(bytes).await.is_err() {
                                return;
                            }
                        }
                        return;
                    }
                    path if path == "/never" || path.ends_with("/lost") => {
                        seen.note(&request);
                        caller.rest().await;
                        return;
                    }
                    _ => OK.to_owned(),
                };
                if caller.send(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A portal, and an application that answers `/late` as often as `Semaphore` has permits.
async fn rig(config: &str) -> (Rig, Arc<Semaphore>) {
    let let_go = Arc::new(Semaphore::new(0));
    (Rig::with(application(Arc::clone(&let_go)).await, config).await, let_go)
}

fn put(rig: &Rig, name: &str) {
    std::fs::write(rig.portal.forwards().join(name), format!("http://localhost:{}/\n", rig.app.port))
        .unwrap();
    chmod(rig, name, 0o700);
}

fn chmod(rig: &Rig, name: &str, mode: u32) {
    let path = rig.portal.forwards().join(name);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn sign_out(rig: &Rig) {
    let (host, cookie) = (rig.host(), rig.cookie());
    let request = format!("GET /-/sign-out HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n\r\n");
    assert_eq!(rig.ask(&request).await.status(), 303);
}

/// Something that a browser asks of the application.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    http2: bool,
    body: Upload,
    path: &'a str,
}

/// How a request's body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// There is none.
    None,
    /// Piece by piece, without end.
    Flows,
    /// The first piece, and then no more.
    Stands,
}
use Upload::{Flows, None as Nothing, Stands};

const PIECE: &str = "a piece";

/// What the browser was told in the end, and when.
#[derive(Debug)]
struct Told {
    what: String,
    status: u16,
    error: String,
    body: String,
    at: Instant,
}

impl Told {
    /// Panics unless it was this refusal, with nothing of what the application said.
    #[track_caller]
    fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.error.as_str()), (status, code), "{}: {self:?}", self.what);
        assert!(!self.body.contains(SECRET), "{self:?}");
    }
}

/// Asks, and goes on with the upload until there is an answer.
async fn ask(rig: &Rig, ask: Ask<'_>) -> Told {
    let asking = async { if ask.http2 { over_http2(rig, ask).await } else { over_http1(rig, ask).await } };
    let answered = tokio::time::timeout(3 * JUDGED, asking).await;
    let (status, error, body) = answered.unwrap_or_else(|_| panic!("{ask:?}: no answer"));
    Told { what: format!("{ask:?}"), status, error: error.unwrap_or_default(), body, at: Instant::now() }
}

async fn ask_all<const N: usize>(rig: &Rig, asks: [(bool, Upload, &str); N]) -> Vec<Told> {
    join_all(asks.map(|(http2, body, path)| ask(rig, Ask { http2, body, path }))).await
}

async fn over_http1(rig: &Rig, ask: Ask<'_>) -> (u16, Option<String>, String) {
    let (reading, mut writing) = tokio::io::split(rig.portal.tls(&[b"http/1.1"]).await);
    let (method, framing, piece) = match ask.body {
        Nothing => ("GET", "", String::new()),
        Flows => {
            let chunk = format!("{:x}\r\n{PIECE}\r\n", PIECE.len());
            ("POST", "transfer-encoding: chunked\r\n", chunk)
        }
        Stands => ("PUT", "content-length: 1000000\r\n", PIECE.to_owned()),
    };
    let (path, host, cookie) = (ask.path, rig.host(), rig.cookie());
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n{framing}\r\n");
    let uploading = async {
        let mut bytes = head + &piece;
        while writing.write_all(bytes.as_bytes()).await.is_ok()
            && writing.flush().await.is_ok()
            && ask.body == Flows
        {
            bytes.clone_from(&piece);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answers = Wire::new(tokio::io::join(reading, tokio::io::sink()));
    tokio::select! {
        answer = answers.answer() => {
            let answer = answer.unwrap_or_else(|error| panic!("{ask:?}: {error}"));
            (answer.status(), answer.error().map(str::to_owned), answer.text())
        }
        () = uploading => unreachable!("it has no end"),
    }
}

async fn over_http2(rig: &Rig, ask: Ask<'_>) -> (u16, Option<String>, String) {
    let mut http2 = rig.http2().await;
    let method = if ask.body == Nothing { "GET" } else { "POST" };
    let request = rig.bare_request(method, ask.path).header("cookie", rig.cookie()).body(()).unwrap();
    let (answer, mut sending) = http2.stream(request, ask.body == Nothing).await;
    let uploading = async {
        while ask.body != Nothing
            && sending.send_data(Bytes::from_static(PIECE.as_bytes()), false).is_ok()
            && ask.body == Flows
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let answering = async {
        let (head, mut incoming) =
            answer.await.unwrap_or_else(|error| panic!("{ask:?}: {error}")).into_parts();
        let mut body = Vec::new();
        while let Some(Ok(data)) = incoming.data().await {
            body.extend_from_slice(&data);
        }
        let error = head.headers.get("x-portreeve-error").map(|code| code.to_str().unwrap().to_owned());
        (head.status.as_u16(), error, String::from_utf8_lossy(&body).into_owned())
    };
    tokio::select! {
        told = answering => told,
        () = uploading => unreachable!("it has no end"),
    }
}

/// Waits until the first piece of so many uploads is at the application.
async fn uploads_are_there(rig: &Rig, count: usize) {
    let there = || rig.app.seen.texts().iter().filter(|text| text.contains(PIECE)).count();
    until("the uploads have begun", SOON, || there() == count).await;
}

/// The application got a part of each, and no end of any: the last chunk, or so many bytes as were announced.
async fn uploads_are_broken(rig: &Rig, count: usize) {
    until("the application is told", AT_ONCE, || rig.app.seen.requests().len() == count).await;
    for request in rig.app.seen.requests() {
        assert!(request.text().starts_with(PIECE), "{request:?}");
        assert!(!request.complete, "half an upload was taken for a whole one: {request:?}");
    }
    until("its connections are closed", AT_ONCE, || rig.app.seen.open() == 0).await;
}

#[tokio::test]
async fn an_upload_is_cut_off_when_its_session_ends() {
    tokio::join!(uploads_and_sign_out(), uploads_and_idle_expiry(), uploads_and_absolute_expiry());
}

async fn uploads_and_sign_out() {
    let (rig, _) = rig("").await;
    let path = &*rig.path("/upload");
    let asks = [(false, Flows, path), (true, Flows, path), (false, Stands, path), (true, Stands, path)];
    let (told, signed_out) = tokio::join!(ask_all(&rig, asks), async {
        uploads_are_there(&rig, asks.len()).await;
        sign_out(&rig).await;
        Instant::now()
    });
    for told in told {
        told.assert_refused(401, "not-signed-in");
        assert!(told.at < signed_out + AT_ONCE, "{:?} after it: {told:?}", told.at - signed_out);
    }
    uploads_are_broken(&rig, asks.len()).await;
}

/// Somebody who began an upload and left: nothing of it comes any more, but the connection stands.
async fn uploads_and_idle_expiry() {
    const IDLE: Duration = Duration::from_secs(2);
    let (rig, _) = rig("[session]\nidle = \"2s\"\n").await;
    let path = &*rig.path("/upload");
    let asks = [(false, Stands, path), (true, Stands, path)];
    let (told, last_piece) = tokio::join!(ask_all(&rig, asks), async {
        uploads_are_there(&rig, asks.len()).await;
        Instant::now()
    });
    for told in told {
        told.assert_refused(401, "not-signed-in");
        assert!(told.at < last_piece + IDLE + AT_ONCE, "{:?} after it: {told:?}", told.at - last_piece);
    }
    uploads_are_broken(&rig, asks.len()).await;
}

/// Use does not move the end, though an upload is use: it outlives the idle time, and not the session.
async fn uploads_and_absolute_expiry() {
    const LIFETIME: Duration = Duration::from_secs(5);
    let before = Instant::now();
    let (rig, _) = rig("[session]\nidle = \"2s\"\nlifetime = \"5s\"\n").await;
    let after = Instant::now();
    let path = &*rig.path("/upload");
    let asks = [(false, Flows, path), (true, Flows, path)];
    for told in ask_all(&rig, asks).await {
        told.assert_refused(401, "not-signed-in");
        // Tickets count in whole seconds.
        assert!(told.at > before + LIFETIME - Duration::from_secs(1), "too early: {told:?}");
        assert!(told.at < after + LIFETIME + AT_ONCE, "too late: {told:?}");
    }
    uploads_are_broken(&rig, asks.len()).await;
}

#[tokio::test]
async fn no_answer_goes_out_to_who_may_not_have_it_any_more() {
    tokio::join!(
        signed_out_before_the_answer(),
        signed_out_as_the_answer_comes(),
        withdrawn_before_the_answer(),
        withdrawn_as_the_answer_comes(),
    );
}

async fn signed_out_before_the_answer() {
    let (rig, _) = rig("").await;
    put(&rig, "waits");
    let asks = [
        (false, Nothing, "/fw/waits/never"),
        (true, Nothing, "/fw/waits/never"),
        (false, Nothing, "/fw/waits/lost"),
    ];
    let (told, signed_out) = tokio::join!(ask_all(&rig, asks), async {
        until("they are at the application", SOON, || rig.app.seen.requests().len() == asks.len()).await;
        sign_out(&rig).await;
        Instant::now()
    });
    for told in told {
        told.assert_refused(401, "not-signed-in");
        assert!(told.at < signed_out + AT_ONCE, "{:?} after it: {told:?}", told.at - signed_out);
    }
    until("the application is told", AT_ONCE, || rig.app.seen.open() == 0).await;
}

async fn signed_out_as_the_answer_comes() {
    let (rig, let_go) = rig("").await;
    let path = &*rig.path("/late");
    let asks = [(false, Nothing, path), (true, Nothing, path)];
    let (told, ()) = tokio::join!(ask_all(&rig, asks), async {
        until("they are at the application", SOON, || rig.app.seen.requests().len() == asks.len()).await;
        sign_out(&rig).await;
        let_go.add_permits(asks.len());
    });
    for told in told {
        told.assert_refused(401, "not-signed-in");
    }
}

async fn withdrawn_before_the_answer() {
    let (rig, let_go) = rig("").await;
    for name in ["gone", "lost", "moved", "kept"] {
        put(&rig, name);
    }
    let asks = [
        (false, Nothing, "/fw/gone/never"),
        (true, Nothing, "/fw/moved/never"),
        (false, Nothing, "/fw/lost/lost"),
        (false, Flows, "/fw/gone/upload"),
        (true, Stands, "/fw/moved/upload"),
    ];
    let kept = [(false, Nothing, "/fw/kept/late"), (true, Nothing, "/fw/kept/late")];
    let withdraw = async {
        uploads_are_there(&rig, 2).await;
        until("all are at the application", SOON, || rig.app.seen.requests().len() == 5).await;
        rig.app.seen.forget();
        for name in ["gone", "lost"] {
            chmod(&rig, name, 0o600);
        }
        std::fs::write(rig.portal.forwards().join("moved"), "http://localhost:1025/\n").unwrap();
        Instant::now()
    };
    let refused = async {
        let told = ask_all(&rig, asks).await;
        // The others are answered still.
        let_go.add_permits(kept.len());
        told
    };
    let (told, answered, withdrawn) = tokio::join!(refused, ask_all(&rig, kept), withdraw);
    for told in told {
        told.assert_refused(403, "withdrawn");
        assert!(told.at < withdrawn + JUDGED, "{:?} after it: {told:?}", told.at - withdrawn);
    }
    for told in answered {
        assert_eq!((told.status, told.body.as_str()), (200, SECRET), "{told:?}");
    }
    until("the application is told of the uploads", SOON, || rig.app.seen.requests().len() == 2).await;
    assert!(rig.app.seen.requests().iter().all(|request| !request.complete));
    for (name, reason) in [("gone", "not-executable"), ("lost", "not-executable"), ("moved", "moved")] {
        let fields =
            ["audit", &format!("what=/fw/{name} "), "verdict=\"end\"", &format!("reason=\"{reason}\"")];
        let record = rig.portal.logged(&fields).await;
        assert!(record.contains(&format!("user={} session=", rig.user())), "{record}");
    }
}

/// An answer that took its time is judged as it comes, not only now and then.
async fn withdrawn_as_the_answer_comes() {
    let (rig, let_go) = rig("threads = 1\n").await;
    for name in ["late", "canary"] {
        put(&rig, name);
    }
    let asks = [(false, Nothing, "/fw/late/late"), (true, Nothing, "/fw/late/late")];
    let (told, ()) = tokio::join!(ask_all(&rig, asks), async {
        until("they are at the application", SOON, || rig.app.seen.requests().len() == asks.len()).await;
        // Another request whose right ends shows when all that goes on was judged; it is not again for a while.
        let canary = async {
            let told = ask(&rig, Ask { http2: false, body: Nothing, path: "/fw/canary/never" }).await;
            told.assert_refused(403, "withdrawn");
        };
        let withdraw_canary = async {
            tokio::time::sleep(JUDGE_AGAIN).await;
            chmod(&rig, "canary", 0o600);
        };
        tokio::join!(canary, withdraw_canary);
        chmod(&rig, "late", 0o600);
        let begun = Instant::now();
        while ask(&rig, Ask { http2: false, body: Nothing, path: "/fw/late/" }).await.status != 403 {
            assert!(begun.elapsed() < Duration::from_millis(1200), "the forward counts still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            !rig.portal.stderr().contains("what=/fw/late verdict=\"end\""),
            "it was judged too early to tell"
        );
        let_go.add_permits(asks.len());
    });
    for told in told {
        told.assert_refused(403, "withdrawn");
    }
    rig.portal.logged(&["audit", "what=/fw/late verdict=\"end\"", "reason=\"not-executable\""]).await;
}

async fn echoes(tunnel: &mut Tunnel) {
    tunnel.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    soon("the echo", tunnel.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");
}

/// Waits for the tunnel's end; chatters meanwhile, so that it can't be taken for idle.
async fn ends(mut tunnel: Tunnel) -> Instant {
    let mut back = [0; 4];
    while tunnel.write_all(b"ping").await.is_ok() && matches!(tunnel.read(&mut back).await, Ok(1..)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Instant::now()
}

#[tokio::test]
async fn taking_the_share_back_works_within_a_second_and_ends_tunnels_within_five() {
    let test = "taking_the_share_back_works_within_a_second_and_ends_tunnels_within_five";
    let Some([alice, bob]) = people(test, ["alice", "bob"]) else { return };
    let (forwards, mut app, mut silent) = (
        SharedForwards::default(),
        ForeignApp::of(&bob),
        ForeignApp::start(&bob, "127.0.0.1:0", &["--mute"]).unwrap(),
    );
    for name in ["shared", "kept"] {
        forwards.share(name, app.port(), &bob);
    }
    forwards.share("silent", silent.port(), &bob);
    let portal = forwards.portal_of(&alice, "");
    let client = portal.sign_in().await;
    let there = client.enter("shared.fn.localhost").await.program();
    client.get("/fw/shared/").await.assert_status(200);
    let mut tunnels = [
        client.tunnel("/fw/shared/", "echo").await.unwrap(),
        there.tunnel("/", "echo").await.unwrap(),
        client.tunnel("/fw/kept/", "echo").await.unwrap(),
    ];
    join_all(tunnels.iter_mut().map(echoes)).await;
    let asking = client.clone();
    let waiting = tokio::spawn(async move { (asking.get("/fw/silent/").await, Instant::now()) });
    until("the request is at the application", SOON, || silent.ask().bytes > 0).await;

    for name in ["shared", "silent"] {
        forwards.take_back(name);
    }
    let taken_back = Instant::now();
    for client in [&client, &there] {
        let path = if client.authority().starts_with("shared") { "/" } else { "/fw/shared/" };
        while client.get(path).await.status != 403 {
            assert!(
                taken_back.elapsed() < Duration::from_millis(1200),
                "requests are answered still: {path}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let [path_form, own_origin, mut kept] = tunnels;
    let (path_form, own_origin, waiting) = soon("all of it ends", async {
        tokio::join!(ends(path_form), ends(own_origin), async { waiting.await.unwrap() })
    })
    .await;
    let (answer, answered) = waiting;
    answer.assert_refused(403, "withdrawn");
    for (what, ended) in [("path form", path_form), ("own origin", own_origin), ("a request", answered)] {
        assert!(ended < taken_back + JUDGED, "{what}: {:?} after it", ended - taken_back);
    }
    // And nothing of them is left at the application, whose other forward is as good as ever.
    echoes(&mut kept).await;
    until("their connections are closed", SOON, || {
        let now = app.ask();
        now.connections - now.ended <= 2
    })
    .await;
    assert_eq!(silent.reached().ended, silent.reached().connections);
    for (what, count) in [("/fw/shared", 2), ("/fw/silent", 1)] {
        let log = portal.stderr();
        let is_end =
            |line: &&str| line.contains(&format!("what={what} verdict=\"end\" reason=\"not-executable\""));
        assert_eq!(log.lines().filter(is_end).count(), count, "{what}: one record for each:\n{log}");
    }
}
