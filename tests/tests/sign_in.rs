//! Codes, tickets, sessions: how somebody gets in, how long they stay, and how they leave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64URL_NOPAD;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portreeve_tests::world::{Answer, App, Client, Portal, WebSocket, until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const COOKIE: &str = "__Host-portreeve";

fn enter(code: &str) -> String {
    format!("/-/enter?code={code}")
}

/// Signed in as the answer's cookie says.
async fn signed_in(client: &Client) -> bool {
    let answer = client.get("/").await;
    assert!(matches!(answer.status.as_u16(), 200 | 303 | 401), "{answer:?}");
    answer.status == 200
}

#[tokio::test]
async fn the_printed_address_signs_in_once_and_says_what_to_do_then() {
    let portal = Portal::plain();
    let path = portal.sign_in_address().strip_prefix(portal.url().trim_end_matches('/')).unwrap().to_owned();
    let mut browser = portal.stranger().browser();
    let answer = browser.get(&path).await;
    answer.assert_status(303);
    assert_eq!(answer.location(), "/");
    browser.take_cookies(&answer);
    assert!(signed_in(&browser).await);

    let again = portal.stranger().browser().get(&path).await;
    again.assert_refused(403, "code-used");
    assert!(again.text().contains("portreeve login"), "the page says what to do: {}", again.text());
    assert!(again.set_cookie(COOKIE).is_none());
}

#[tokio::test]
async fn altered_codes_are_refused_with_a_page() {
    let portal = Portal::plain();
    let code = portal.code();
    let altered = format!("{}{}", if code.starts_with('A') { "B" } else { "A" }, &code[1..]);
    for wrong in
        [altered.as_str(), "", "x", &format!("{code}A"), &code[..code.len() - 1], "%00", &"A".repeat(5000)]
    {
        let answer = portal.stranger().browser().get(&enter(wrong)).await;
        answer.assert_refused(403, "code-unknown");
        assert!(answer.text().contains("portreeve login") && answer.set_cookie(COOKIE).is_none());
    }
    portal.stranger().get(&enter(&code)).await.assert_status(303);
}

#[tokio::test]
async fn an_expired_code_is_refused_with_a_page() {
    let portal = Portal::with_config("[session]\ncode_lifetime = \"1s\"\n");
    let code = portal.code();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let answer = portal.stranger().browser().get(&enter(&code)).await;
    answer.assert_refused(403, "code-expired");
    assert!(answer.text().contains("portreeve login"));
}

#[tokio::test]
async fn looking_first_does_not_use_a_code_up() {
    let portal = Portal::plain();
    let code = portal.code();
    let client = portal.stranger();
    for client in [client.clone(), client.clone().http2()] {
        let head = client.request(client.prepare("HEAD", &enter(&code)), "").await;
        assert!(head.set_cookie(COOKIE).is_none(), "{head:?}");
    }
    for (name, value) in
        [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")]
    {
        let ahead = client.clone().with(name, value).get(&enter(&code)).await;
        assert_eq!(ahead.status, 400, "{name}: {ahead:?}");
    }
    let put = client.request(client.prepare("PUT", &enter(&code)), "").await;
    assert_eq!(put.status, 405);
    client.get(&enter(&code)).await.assert_status(303);
}

#[tokio::test]
async fn a_code_can_be_typed_into_our_own_page_only() {
    let portal = Portal::plain();
    let code = portal.code();
    let client = portal.stranger();
    let page = client.clone().browser().get("/-/sign-in?next=/fw/x/").await;
    page.assert_status(200);
    assert!(page.text().contains("portreeve login"), "it says how to sign in");
    assert!(page.header("content-security-policy").contains("default-src"), "{page:?}");
    for origin in
        ["https://evil.example", "null", "https://localhost:1", &client.origin().replace("https", "http")]
    {
        let refused = client.clone().with("origin", origin).post("/-/enter", &format!("code={code}")).await;
        refused.assert_refused(403, "cross-site");
    }
    for site in ["cross-site", "same-site"] {
        let refused =
            client.clone().with("sec-fetch-site", site).post("/-/enter", &format!("code={code}")).await;
        refused.assert_refused(403, "cross-site");
    }
    // The whole address may be pasted.
    let typed = format!("code=https%3A%2F%2Flocalhost%2F-%2Fenter%3Fcode%3D{code}&next=%2Ffw%2Fx%2F");
    let answer = client.clone().with("origin", &client.origin()).post("/-/enter", &typed).await;
    answer.assert_status(303);
    assert_eq!(answer.location(), "/fw/x/");
    let large = client.clone().with("origin", &client.origin()).post("/-/enter", &"a=b&".repeat(5000)).await;
    assert_eq!(large.status, 400, "{large:?}");
}

#[tokio::test]
async fn too_many_wrong_codes_have_to_wait() {
    let portal = Portal::plain();
    let client = portal.stranger();
    for _ in 0..10 {
        client.get(&enter("wrong")).await.assert_refused(403, "code-unknown");
    }
    let answer = client.get(&enter("wrong")).await;
    answer.assert_refused(429, "too-many-codes");
    assert!(!answer.header("retry-after").is_empty());
    // Somebody else's wrong codes, from the same address, lock nobody out.
    client.get(&enter(&portal.code())).await.assert_status(303);
}

#[tokio::test]
async fn the_cookie_is_as_it_should_be() {
    let portal = Portal::plain();
    let answer = portal.stranger().get(&enter(&portal.code())).await;
    let cookie = answer.set_cookie(COOKIE).unwrap();
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(cookie.split("; ").any(|part| part == attribute), "{attribute}: {cookie}");
    }
    assert!(!cookie.to_ascii_lowercase().contains("domain"), "{cookie}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let ticket = cookie.split(';').next().unwrap().split_once('=').unwrap().1;
    let header: Value = part(ticket, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("portreeve-session+jwt")));
}

#[tokio::test]
async fn a_browser_is_sent_to_sign_in_and_then_where_it_wanted() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let wanted = app.path("/lab?x=1&y=/z");
    for by_cookie in [true, false] {
        let mut browser = portal.stranger().browser();
        let sent = browser.get(&wanted).await;
        sent.assert_status(303);
        let location = sent.location().to_owned();
        assert!(location.starts_with("/-/sign-in?next=%2Ffw2"), "{location}");
        let page = browser.get(&location).await;
        page.assert_status(200);
        let next = if by_cookie {
            browser.take_cookies(&page);
            String::new()
        } else {
            location.replace("/-/sign-in?", "&")
        };
        let answer = browser.get(&(enter(&portal.code()) + &next)).await;
        assert_eq!((answer.status.as_u16(), answer.location()), (303, wanted.as_str()));
        browser.take_cookies(&answer);
        assert_eq!(browser.cookie("__Host-portreeve-next"), None, "it is forgotten once used");
        assert_eq!(browser.get(answer.location()).await.json()["path"], "/lab?x=1&y=/z");
    }
    assert_eq!(app.connections(), 1.max(app.connections().min(2)), "nobody came without a session");
}

#[tokio::test]
async fn nobody_is_sent_to_another_place_than_this_portal() {
    let portal = Portal::plain();
    for next in [
        "//evil.example/",
        "https://evil.example/",
        "/%5Cevil.example/",
        "/%09/evil.example/",
        "%2F%2Fevil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/-/sign-out",
        "/fw/../-/sign-out",
        "/fw/%252e%252e/-/sign-out",
        "/%0d%0aSet-Cookie:x=y",
        "",
        "evil",
        "%20//evil.example",
    ] {
        let answer = portal.stranger().browser().get(&format!("{}&next={next}", enter(&portal.code()))).await;
        assert_eq!((answer.status.as_u16(), answer.location()), (303, "/"), "{next}");
        let mut browser = portal.stranger().browser();
        browser.take_cookies(&browser.get(&format!("/-/sign-in?next={next}")).await);
        let answer = browser.get(&enter(&portal.code())).await;
        assert_eq!((answer.status.as_u16(), answer.location()), (303, "/"), "cookie, {next}");
        // A cookie that was planted.
        browser.set_cookie("__Host-portreeve-next", next);
        let answer = browser.get(&enter(&portal.code())).await;
        assert_eq!((answer.status.as_u16(), answer.location()), (303, "/"), "planted, {next}");
    }
}

#[tokio::test]
async fn a_program_gets_401_in_json() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let program = portal.stranger().with("accept", "*/*");
    for program in [program.clone(), program.clone().http2(), program.clone().with("sec-fetch-mode", "cors")]
    {
        for path in [app.path("/"), "/".into(), "/fw/x/".into(), "/nothing".into()] {
            let answer = program.get(&path).await;
            answer.assert_refused(401, "not-signed-in");
            assert_eq!(answer.header("content-type"), "application/json");
            let said = answer.json();
            assert_eq!(
                (&said["error"], &said["request_id"]),
                (&json!("not-signed-in"), &json!(answer.header("x-request-id")))
            );
            assert!(said["remedy"].as_str().unwrap().contains("portreeve login"));
            assert!(!answer.header("www-authenticate").is_empty(), "RFC 9110 section 11.6.1");
        }
    }
    let posted = portal.stranger().browser().post(&app.path("/"), "x").await;
    posted.assert_refused(401, "not-signed-in");
    assert_eq!(portal.stranger().websocket(&app.path("/")).await.unwrap_err().status(), 401);
    assert_eq!(app.connections(), 0, "nothing reached the application");
}

fn part(ticket: &str, at: usize) -> Value {
    let bytes = BASE64URL_NOPAD.decode(ticket.split('.').nth(at).unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn encoded(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

fn sign(key: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encoded(header), encoded(claims));
    format!("{signed}.{}", BASE64URL_NOPAD.encode(key.sign(signed.as_bytes()).as_ref()))
}

fn with(value: &Value, name: &str, new: Value) -> Value {
    let mut changed = value.clone();
    changed[name] = new;
    changed
}

#[tokio::test]
async fn only_genuine_tickets_count() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    let ticket = client.ticket().to_owned();
    let (header, claims) = (part(&ticket, 0), part(&ticket, 1));
    let key =
        Ed25519KeyPair::from_pkcs8(&std::fs::read(portal.state().join("ticket-key.der")).unwrap()).unwrap();
    let foreign = Ed25519KeyPair::generate().unwrap();
    let now = claims["iat"].as_i64().unwrap();
    let accepted = async |ticket: &str| {
        let mut client = portal.stranger();
        client.set_cookie(COOKIE, ticket);
        signed_in(&client).await
    };
    assert!(
        accepted(&sign(&key, &header, &claims)).await,
        "what this test signs is as good as what the portal signs"
    );

    let pieces: Vec<&str> = ticket.split('.').collect();
    let flipped = |piece: &str| format!("{}{}", if piece.starts_with('A') { "B" } else { "A" }, &piece[1..]);
    let none = encoded(&with(&header, "alg", json!("none")));
    let hmac_header = with(&header, "alg", json!("HS256"));
    let hmac = {
        let signed = format!("{}.{}", encoded(&hmac_header), pieces[1]);
        use aws_lc_rs::signature::KeyPair;
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.public_key().as_ref());
        format!(
            "{signed}.{}",
            BASE64URL_NOPAD.encode(aws_lc_rs::hmac::sign(&mac, signed.as_bytes()).as_ref())
        )
    };
    let other_uid = with(&claims, "uid", json!(claims["uid"].as_u64().unwrap() + 1));
    for (what, forged) in [
        ("altered signature", format!("{}.{}.{}", pieces[0], pieces[1], flipped(pieces[2]))),
        (
            "altered claims",
            format!("{}.{}.{}", pieces[0], encoded(&with(&claims, "sub", json!("root2"))), pieces[2]),
        ),
        ("no signature", format!("{}.{}.", pieces[0], pieces[1])),
        ("two parts", format!("{}.{}", pieces[0], pieces[1])),
        ("alg none", format!("{none}.{}.", pieces[1])),
        ("alg none with a signature", format!("{none}.{}.{}", pieces[1], pieces[2])),
        ("alg HS256 with the public key", hmac),
        ("a foreign key", sign(&foreign, &header, &claims)),
        (
            "a foreign key that says so",
            sign(&foreign, &with(&header, "kid", json!("0000000000000000")), &claims),
        ),
        ("another kid", sign(&key, &with(&header, "kid", json!("x")), &claims)),
        ("another typ", sign(&key, &with(&header, "typ", json!("JWT")), &claims)),
        ("expired", sign(&key, &header, &with(&claims, "exp", json!(now - 1)))),
        ("another audience", sign(&key, &header, &with(&claims, "aud", json!("localhost-8888.localhost")))),
        ("signed in the future", sign(&key, &header, &with(&claims, "iat", json!(now + 1000)))),
        ("another issuer", sign(&key, &header, &with(&claims, "iss", json!("somebody")))),
        ("another uid", sign(&key, &header, &other_uid)),
        ("another user", sign(&key, &header, &with(&claims, "sub", json!("somebody-else")))),
        ("an unknown claim", sign(&key, &header, &with(&claims, "only", json!("read")))),
        ("nothing", String::new()),
        ("a long nothing", "a".repeat(8000)),
    ] {
        assert!(!accepted(&forged).await, "accepted: {what}");
    }
    assert!(signed_in(&client).await, "the genuine one still counts");
}

/// A WebSocket that works, and a stream of events that flows.
async fn live_things(client: &Client, app: &App) -> (WebSocket, http::Response<Incoming>) {
    let mut socket = client.websocket(&app.path("/socket")).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    let mut events = client.stream(&app.path("/events")).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert!(events.body_mut().frame().await.unwrap().is_ok());
    (socket, events)
}

/// Waits until both have ended.
async fn ended((mut socket, mut events): (WebSocket, http::Response<Incoming>), patience: Duration) {
    let over = async {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
        }
        while let Some(Ok(_)) = events.body_mut().frame().await {}
    };
    tokio::time::timeout(patience, over).await.expect("tunnel and stream end");
}

#[tokio::test]
async fn signing_out_ends_tunnels_at_once_and_for_good() {
    let mut portal = Portal::plain();
    let (client, other) = (portal.sign_in().await, portal.sign_in().await);
    let app = App::live().await;
    for http2 in [false, true] {
        let client = if http2 { portal.sign_in().await.http2() } else { client.clone() };
        let live = live_things(&client, &app).await;
        let answer = client.clone().browser().get("/-/sign-out").await;
        assert_eq!((answer.status.as_u16(), answer.location()), (303, "/-/sign-in"));
        assert!(answer.set_cookie(COOKIE).unwrap().contains("Max-Age=0"));
        ended(live, Duration::from_secs(1)).await;
        assert!(!signed_in(&client).await, "a replayed cookie counted");
    }
    until("the application to see it", Duration::from_secs(2), || async { (app.open() == 0).then_some(()) })
        .await;
    assert!(signed_in(&other).await, "another session is none of its business");
    portal.restart();
    assert!(!signed_in(&client).await, "a replayed cookie counted after a restart");
    assert!(signed_in(&other).await, "a restart signed somebody out");
}

#[tokio::test]
async fn another_sites_page_signs_nobody_out() {
    let portal = Portal::plain();
    let client = portal.sign_in().await;
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "https://localhost-8888.localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let refused = client.clone().with(name, value).post("/-/sign-out", "").await;
        refused.assert_refused(403, "cross-site");
        assert!(signed_in(&client).await, "{name}: {value}");
    }
    client.clone().with("origin", &client.origin()).post("/-/sign-out", "").await.assert_status(303);
    assert!(!signed_in(&client).await);
}

#[tokio::test]
async fn an_idle_session_ends_and_takes_its_streams_along() {
    let portal = Portal::with_config("[session]\nidle = \"2s\"\n");
    let client = portal.sign_in().await;
    let app = App::live().await;
    let live = live_things(&client, &app).await;
    let idle_since = Instant::now();
    // What the application says is no sign of the person.
    ended(live, Duration::from_millis(4200)).await;
    assert!(idle_since.elapsed() > Duration::from_millis(900), "ended after {:?}", idle_since.elapsed());
    let answer = client.get("/").await;
    answer.assert_refused(401, "not-signed-in");
}

#[tokio::test]
async fn use_keeps_a_session_but_not_past_its_end() {
    let portal = Portal::with_config("[session]\nidle = \"2s\"\nlifetime = \"5s\"\n");
    let mut client = portal.sign_in().await;
    let signed_in_at = Instant::now();
    let first = part(client.ticket(), 1);
    let app = App::live().await;
    let live = live_things(&client, &app).await;
    let mut renewed = false;
    while signed_in_at.elapsed() < Duration::from_millis(3500) {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let answer = client.get("/").await;
        answer.assert_status(200);
        renewed |= answer.set_cookie(COOKIE).is_some();
        client.take_cookies(&answer);
    }
    assert!(renewed, "a session in use gets younger tickets");
    let last = part(client.ticket(), 1);
    assert!(last["iat"].as_i64() > first["iat"].as_i64());
    for fixed in ["exp", "sid", "auth_time", "sub", "uid", "aud"] {
        assert_eq!(last[fixed], first[fixed], "{fixed}");
    }
    let busy = client.clone();
    let keep_busy = tokio::spawn(async move {
        loop {
            let _ = busy.get("/").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    ended(live, Duration::from_secs(4)).await;
    keep_busy.abort();
    let lived = signed_in_at.elapsed();
    assert!(lived > Duration::from_secs(4) && lived < Duration::from_millis(6200), "{lived:?}");
    assert!(!signed_in(&client).await, "a session outlived its end");
}

/// Query parameters of an address, decoded.
fn parameters(address: &str) -> Vec<(String, String)> {
    url::Url::parse(address).unwrap().query_pairs().into_owned().collect()
}

/// From one address to the next, by host.
async fn follow(client: &Client, location: &str) -> (Client, Answer) {
    let address = url::Url::parse(location).unwrap();
    let client = client.clone().at(address.host_str().unwrap());
    let answer = client.get(&location[client.origin().len()..]).await;
    (client, answer)
}

#[tokio::test]
async fn an_application_has_an_origin_of_its_own() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let home = portal.sign_in().await.browser();
    let host = format!("localhost-{}.localhost", app.port());
    let mut there = portal.stranger().browser().at(&host);

    // It has no cookie there yet: it is sent to the portal, with a secret of its own in a cookie.
    let sent = there.get("/lab?x=1").await;
    sent.assert_status(303);
    there.take_cookies(&sent);
    assert!(there.cookie("__Host-portreeve-state").is_some());
    assert!(sent.location().starts_with(&format!("{}/-/open?", home.origin())), "{}", sent.location());
    // The portal knows who it is, and hands out a code for this browser, host and session.
    let (_, opened) = follow(&home, sent.location()).await;
    opened.assert_status(303);
    let entry = opened.location().to_owned();
    assert!(entry.starts_with(&format!("{}/-/enter?code=", there.origin())), "{entry}");

    // Stolen, it opens nothing: not for a browser without the secret, not with another one, not at another host.
    let (_, stolen) = follow(&portal.stranger().browser(), &entry).await;
    stolen.assert_refused(403, "code-unknown");
    assert!(stolen.set_cookie(COOKIE).is_none());

    // That attempt used it up; the browser asks again.
    let (_, opened) = follow(&home, sent.location()).await;
    let (_, entered) = follow(&there, opened.location()).await;
    assert_eq!((entered.status.as_u16(), entered.location()), (303, "/lab?x=1"), "{entered:?}");
    there.take_cookies(&entered);
    let answer = there.get("/lab?x=1").await;
    answer.assert_status(200);
    assert_eq!(answer.json()["path"], "/lab?x=1", "no prefix in an origin of its own");
    let upstream = answer.text();
    assert!(!upstream.contains("__Host-portreeve"), "our cookies reached the application: {upstream}");

    // The cookie of one origin says nothing at another.
    for elsewhere in ["localhost", "localhost-9.localhost", "x.fn.localhost"] {
        let answer = there.clone().at(elsewhere).get("/").await;
        assert_ne!(answer.status, 200, "{elsewhere}: {answer:?}");
    }
    let mut confused = there.clone().without_cookies();
    confused.set_cookie(COOKIE, home.ticket());
    assert_ne!(
        confused.get("/").await.status,
        200,
        "the portal's own cookie counted at an application's origin"
    );

    // The application's origin lends the portal one address only.
    for path in ["/-/sign-in", "/-/sign-out", "/-/health", "/-/open"] {
        assert_eq!(there.get(path).await.json()["path"], path, "{path} is the application's");
    }
    // And signing out at the portal ends it there too.
    home.get("/-/sign-out").await.assert_status(303);
    assert_ne!(there.get("/").await.status, 200);
}

#[tokio::test]
async fn an_entry_code_is_for_one_browser_host_and_use() {
    let portal = Portal::plain();
    let (app, other_app) = (App::echo().await, App::echo().await);
    let home = portal.sign_in().await.browser();
    let hosts = [&app, &other_app].map(|app| format!("localhost-{}.localhost", app.port()));
    let mut there = portal.stranger().browser().at(&hosts[0]);
    let sent = there.get("/").await;
    there.take_cookies(&sent);
    let code_for = async || {
        let (_, opened) = follow(&home, sent.location()).await;
        let query = parameters(opened.location());
        query.into_iter().find(|(name, _)| name == "code").unwrap().1
    };
    // Another browser, which has a secret of its own.
    let mut other = portal.stranger().browser().at(&hosts[0]);
    other.take_cookies(&other.get("/").await);
    other.get(&enter(&code_for().await)).await.assert_refused(403, "code-unknown");
    // Another host.
    there.clone().at(&hosts[1]).get(&enter(&code_for().await)).await.assert_refused(403, "code-unknown");
    // Nor does it sign in at the portal, nor a sign-in code open an application.
    home.clone().without_cookies().get(&enter(&code_for().await)).await.assert_refused(403, "code-unknown");
    there.get(&enter(&portal.code())).await.assert_refused(403, "code-unknown");
    // Used twice.
    let code = code_for().await;
    there.get(&enter(&code)).await.assert_status(303);
    there.get(&enter(&code)).await.assert_refused(403, "code-used");
    // Handed out for hosts that are no application's: never.
    for host in
        ["evil.example", "localhost", "localhost.evil.example", "", "localhost-1.localhost.", "a.b.localhost"]
    {
        let state = "A".repeat(43);
        let answer = home.get(&format!("/-/open?host={host}&state={state}&next=/")).await;
        answer.assert_refused(400, "bad-request");
    }
}

#[tokio::test]
async fn a_foreign_name_that_leads_here_reaches_nothing() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let client = portal.sign_in().await;
    for host in [
        "evil.example",
        "localhost.evil.example",
        "localhost.",
        "127.0.0.2",
        "evil.localhost",
        "localhost-0.localhost",
    ] {
        for client in [client.clone().at(host), client.clone().at(host).http2()] {
            for path in ["/", &app.path("/"), "/-/sign-in", "/-/health"] {
                client.get(path).await.assert_refused(421, "wrong-host");
            }
        }
    }
    assert_eq!(app.connections(), 0);
    for host in ["127.0.0.1", "LOCALHOST"] {
        client.clone().at(host).get("/-/health").await.assert_status(200);
    }
}

#[tokio::test]
async fn another_origins_page_uses_nobodys_session() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let client = portal.sign_in().await;
    for site in ["cross-site", "same-site"] {
        for (mode, dest, method) in [
            ("cors", "empty", "GET"),
            ("no-cors", "image", "GET"),
            ("navigate", "iframe", "GET"),
            ("navigate", "document", "POST"),
        ] {
            let page = client
                .clone()
                .with("sec-fetch-site", site)
                .with("sec-fetch-mode", mode)
                .with("sec-fetch-dest", dest);
            let answer = page.request(page.prepare(method, &app.path("/")), "").await;
            answer.assert_refused(403, "cross-site");
        }
        let link = client
            .clone()
            .with("sec-fetch-site", site)
            .with("sec-fetch-mode", "navigate")
            .with("sec-fetch-dest", "document");
        link.get(&app.path("/")).await.assert_status(200);
    }
    let reached = app.seen().len();
    assert_eq!(reached, 2);
    for origin in ["https://evil.example", "null", "https://localhost-8888.localhost"] {
        let refused = client.clone().with("origin", origin).websocket(&app.path("/")).await.unwrap_err();
        assert_eq!(refused.status(), 403, "{origin}");
    }
    assert_eq!(app.seen().len(), reached);
}
