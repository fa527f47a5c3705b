//! How somebody gets in: addresses with codes, the page that asks for one, and where one is led then.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portreeve_tests::world::{App, Portal, PortalOptions, SESSION_COOKIE, enter};
use serde_json::json;

#[tokio::test]
async fn the_printed_address_signs_in_once_and_says_what_to_do_then() {
    let portal = Portal::plain();
    let path = portal.sign_in_address().strip_prefix(portal.url().trim_end_matches('/')).unwrap().to_owned();
    let mut browser = portal.stranger().browser();
    let answer = browser.get(&path).await;
    answer.assert_status(303);
    assert_eq!(answer.location(), "/");
    browser.take_cookies(&answer);
    assert!(browser.is_signed_in().await);

    let again = portal.stranger().browser().get(&path).await;
    again.assert_refused(403, "code-used");
    assert!(again.text().contains("portreeve login"), "the page says what to do: {}", again.text());
    assert!(again.set_cookie(SESSION_COOKIE).is_none());
}

/// A command is told of the state directory where it would look elsewhere, and nobody learns where that is.
#[tokio::test]
async fn what_to_type_is_what_finds_this_portal() {
    let dir = tempfile::tempdir().unwrap();
    let home = format!("XDG_STATE_HOME={}", dir.path().display());
    let own = Portal::plain();
    let usual = Portal::start(PortalOptions {
        state: Some(dir.path().join("portreeve")),
        ..PortalOptions::under(&["env", &home], "")
    });
    for (portal, line) in [(&own, "portreeve login --state DIR"), (&usual, "portreeve login")] {
        let stranger = portal.stranger();
        let page = stranger.clone().browser().get("/-/sign-in").await.text();
        assert!(page.contains(&format!("<code>{line}</code>")), "{page}");
        let refused = stranger.clone().program().get("/").await;
        refused.assert_refused(401, "not-signed-in");
        let remedy = refused.json()["remedy"].as_str().unwrap().to_owned();
        assert!(remedy.contains(&format!("`{line}`")), "{remedy}");
        let state = portal.state().display().to_string();
        assert!(!page.contains(&state) && !remedy.contains(&state));
    }
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
        assert!(answer.text().contains("portreeve login") && answer.set_cookie(SESSION_COOKIE).is_none());
    }
    portal.stranger().get(&enter(&code)).await.assert_status(303);
}

#[tokio::test]
async fn an_expired_code_is_refused_with_a_page() {
    let portal = Portal::with_config("[session]\ncode_lifetime = \"1s\"\n");
    let code = portal.code();
    // Time is what this is about, and the portal counts whole seconds. To ask earlier would be to use the code.
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
        assert!(head.set_cookie(SESSION_COOKIE).is_none(), "{head:?}");
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
    assert!((1..=2).contains(&app.connections()), "nobody came without a session");
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
