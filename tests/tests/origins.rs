//! Origins: an application's own one and the way into it, and what pages and names of others can reach.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::{Answer, App, Client, Portal, SESSION_COOKIE, enter};

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
    assert!(stolen.set_cookie(SESSION_COOKIE).is_none());

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
    confused.set_cookie(SESSION_COOKIE, home.ticket());
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
    // Nobody is sent elsewhere from there either.
    for next in ["//evil.example/", "https://evil.example/", "/\\evil.example", "/%09/evil.example"] {
        let code = code_for().await;
        let answer = there.get(&format!("{}&next={}", enter(&code), next.replace('\\', "%5C"))).await;
        assert!(matches!(answer.location(), "" | "/"), "{next}: {answer:?}");
        there.take_cookies(&sent);
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
        assert!(client.is_signed_in().await, "{name}: {value}");
    }
    client.clone().with("origin", &client.origin()).post("/-/sign-out", "").await.assert_status(303);
    assert!(!client.is_signed_in().await);
}

/// One's own applications in path form share the portal's origin: what is for a person to see is for windows and programs.
#[tokio::test]
async fn a_page_of_an_application_gets_nothing_of_the_portals_own() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let client = portal.sign_in().await;
    let referer = format!("{}{}", client.origin(), app.path("/page"));
    let in_a_page = |mode: &str, dest: &str| {
        let page = client.clone().with("sec-fetch-site", "same-origin").with("referer", &referer);
        page.with("sec-fetch-mode", mode).with("sec-fetch-dest", dest)
    };
    for page in [
        in_a_page("cors", "empty"),
        in_a_page("same-origin", "empty"),
        in_a_page("no-cors", "image"),
        in_a_page("navigate", "iframe"),
        in_a_page("navigate", "object"),
        // A browser that says little, and one that says nothing.
        client.clone().with("sec-fetch-site", "same-origin"),
        client.clone().with("referer", &referer),
    ] {
        for path in
            ["/", "/-/listening", "/-/mode?path=/fw/x/", "/-/sign-out", "/-/sign-in", "/-/go?address=1"]
        {
            page.get(path).await.assert_refused(403, "for-windows");
        }
        page.post("/-/sign-out", "").await.assert_refused(403, "for-windows");
        assert_eq!(page.get("/-/health").await.text(), "ok\n");
        assert_eq!(page.get("/-/rewrite.js").await.status, 200);
    }
    // A link from there, in the window, is followed; and that window is cut off from who opened it.
    let window = client.clone().browser().with("sec-fetch-site", "same-origin").with("referer", &referer);
    let workspace = window.get("/").await;
    workspace.assert_status(200);
    assert_eq!(workspace.header("cross-origin-opener-policy"), "same-origin");
    assert!(client.is_signed_in().await);
    for path in ["/-/listening", &format!("/-/mode?path={}", app.path("/"))] {
        let shown = window.get(path).await;
        shown.assert_status(200);
        assert_eq!(shown.header("cross-origin-opener-policy"), "same-origin", "{path}");
    }
}
