//! Sessions: which tickets count, how long somebody stays, and what ends with them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64URL_NOPAD;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portreeve_tests::world::{App, Client, Portal, SESSION_COOKIE, WebSocket, enter, until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn the_cookie_is_as_it_should_be() {
    let portal = Portal::plain();
    let answer = portal.stranger().get(&enter(&portal.code())).await;
    let cookie = answer.set_cookie(SESSION_COOKIE).unwrap();
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(cookie.split("; ").any(|part| part == attribute), "{attribute}: {cookie}");
    }
    assert!(!cookie.to_ascii_lowercase().contains("domain"), "{cookie}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let ticket = cookie.split(';').next().unwrap().split_once('=').unwrap().1;
    let header: Value = part(ticket, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("portreeve-session+jwt")));
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
        client.set_cookie(SESSION_COOKIE, ticket);
        client.is_signed_in().await
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
    assert!(client.is_signed_in().await, "the genuine one still counts");
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
        assert!(answer.set_cookie(SESSION_COOKIE).unwrap().contains("Max-Age=0"));
        ended(live, Duration::from_secs(1)).await;
        assert!(!client.is_signed_in().await, "a replayed cookie counted");
    }
    until("the application to see it", Duration::from_secs(2), || async { (app.open() == 0).then_some(()) })
        .await;
    assert!(other.is_signed_in().await, "another session is none of its business");
    portal.restart();
    assert!(!client.is_signed_in().await, "a replayed cookie counted after a restart");
    assert!(other.is_signed_in().await, "a restart signed somebody out");
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
        // Used now and then, and for longer than a session lasts unused.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let answer = client.get("/").await;
        answer.assert_status(200);
        renewed |= answer.set_cookie(SESSION_COOKIE).is_some();
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
            // In use all the time, so that it is not for want of it that the session ends.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    ended(live, Duration::from_secs(4)).await;
    keep_busy.abort();
    let lived = signed_in_at.elapsed();
    assert!(lived > Duration::from_secs(4) && lived < Duration::from_millis(6200), "{lived:?}");
    assert!(!client.is_signed_in().await, "a session outlived its end");
}
