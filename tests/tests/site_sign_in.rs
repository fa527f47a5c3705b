//! People sign in at a cluster's portal, from outside: name and password, an address from a terminal, whatever PAM asks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::SESSION_COOKIE;
use portreeve_tests::world::site::outside;

/// What a form's hidden field holds.
fn field(page: &str, name: &str) -> String {
    let (_, after) = page.split_once(&format!("name=\"{name}\" value=\"")).expect(name);
    after.split('"').next().unwrap().to_owned()
}

#[test]
fn a_name_and_a_password_sign_in() {
    outside("a_name_and_a_password_sign_in", |site| async {
        let mut alice = site.stranger().browser();
        let sent = alice.get("/").await;
        sent.assert_status(303);
        assert_eq!(sent.location(), "/-/sign-in?next=%2F");
        let page = alice.get("/-/sign-in").await;
        assert!(page.text().contains("name=\"password\" type=\"password\""), "{page:?}");
        let signed =
            alice.post("/-/sign-in", "user=alice&password=alice-password&next=%2Ffw2%2Fc1%3A1%2F").await;
        signed.assert_status(303);
        assert_eq!(signed.location(), "/fw2/c1:1/");
        let cookie = signed.set_cookie(SESSION_COOKIE).unwrap();
        for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        alice.take_cookies(&signed);
        let workspace = alice.get("/").await;
        workspace.assert_status(200);
        assert!(workspace.text().contains("<span class=\"who\">alice</span>"));
        // The browser is to go to no port of somebody else's under this name.
        for own in [&sent, &page, &signed, &workspace, &alice.get("/fw2/nowhere:1/").await] {
            assert_eq!(own.header("strict-transport-security"), "max-age=31536000", "{own:?}");
        }
        assert!(alice.post("/-/sign-out", "").await.status == 303);
        assert!(!alice.is_signed_in().await);
    });
}

#[test]
fn wrong_passwords_and_names_are_told_alike() {
    outside("wrong_passwords_and_names_are_told_alike", |site| async {
        let stranger = site.stranger().browser();
        let mut said = Vec::new();
        for form in [
            "user=carol&password=wrong",
            "user=nobody-of-this-name&password=wrong",
            "user=%2F..%2F&password=x",
        ] {
            let answer = stranger.post("/-/sign-in", form).await;
            assert!(answer.set_cookie(SESSION_COOKIE).is_none());
            let page = answer.text();
            let (_, alert) = page.split_once("role=\"alert\"").unwrap_or_else(|| panic!("{form}: {page}"));
            said.push(alert.split("</section>").next().unwrap().to_owned());
        }
        assert!(said.iter().all(|alert| *alert == said[0]), "{said:?}");
    });
}

#[test]
fn an_address_from_a_login_node_that_is_not_the_portals() {
    outside("an_address_from_a_login_node_that_is_not_the_portals", |site| async {
        let login = |node| site.run(node, "carol", &["/opt/portreeve/debug/portreeve", "login"]);
        let done = login("c1");
        assert_eq!(done.status, 0, "{done:?}");
        let path = done.out.trim().strip_prefix("https://portal.cluster.example").unwrap().to_owned();
        let mut carol = site.stranger().browser();
        let page = carol.get(&path).await.text();
        assert!(page.contains("Sign in as carol?"), "{page}");
        let entered = carol.post("/-/enter", &format!("code={}", field(&page, "code"))).await;
        entered.assert_status(303);
        carol.take_cookies(&entered);
        assert!(carol.get("/").await.text().contains("<span class=\"who\">carol</span>"));
        // c2 has no such role.
        let done = login("c2");
        assert!(done.status != 0 && done.err.contains("no portal"), "{done:?}");
    });
}

#[test]
fn an_address_from_a_terminal_shows_whom_it_signs_in_and_is_used_up_by_the_button() {
    outside("an_address_from_a_terminal", |site| async {
        let done = site.run("login", "bob", &["portreeve", "login"]);
        assert_eq!(done.status, 0, "{done:?}");
        let path = done.out.trim().strip_prefix("https://portal.cluster.example").unwrap().to_owned();
        let mut bob = site.stranger().browser();
        // Looked at as often as one likes, by mail scanners too.
        for _ in 0..3 {
            let page = bob.get(&path).await;
            page.assert_status(200);
            assert!(page.text().contains("Sign in as bob?"), "{page:?}");
            assert!(page.set_cookie(SESSION_COOKIE).is_none());
        }
        let code = field(&bob.get(&path).await.text(), "code");
        let entered = bob.post("/-/enter", &format!("code={code}")).await;
        entered.assert_status(303);
        bob.take_cookies(&entered);
        assert!(bob.is_signed_in().await);
        let again = site.stranger().browser().post("/-/enter", &format!("code={code}")).await;
        again.assert_refused(403, "code-used");
        // Another site's page can't press the button.
        let elsewhere = site.stranger().browser().with("origin", "https://evil.example");
        elsewhere.post("/-/enter", "code=x").await.assert_refused(403, "cross-site");
    });
}
