//! Header fields: what must pass passes unchanged, both ways; what belongs to one hop stays on it; and nobody but us
//! says who is visiting, sets our cookies or speaks for the whole origin.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::over_both;
use portreeve_tests::wire::application::Application;
use portreeve_tests::wire::rig::Rig;
use portreeve_tests::wire::visitor::Version;

over_both![
    fields_of_one_hop_stay_on_it_downwards,
    only_we_say_who_is_visiting,
    host_origin_and_everything_else_pass_unchanged,
    our_cookie_never_reaches_the_application,
    an_application_sets_its_own_cookies_and_not_ours,
    an_application_does_not_speak_for_the_whole_origin,
];

/// HTTP/2 has no such fields; that it refuses them is told in the suite about smuggling.
#[tokio::test]
async fn fields_of_one_hop_stay_on_it_upwards() {
    let rig = Rig::new(Application::ok().await).await;
    let fields = "connection: keep-alive, X-Secret\r\nconnection: x-other\r\nx-secret: EVIL\r\nx-other: EVIL\r\n\
                  keep-alive: EVIL\r\nproxy-connection: EVIL\r\nproxy-authorization: EVIL\r\nte: EVIL\r\n\
                  upgrade: EVIL\r\nhttp2-settings: EVIL\r\nx-kept: 1\r\n";
    assert_eq!(rig.ask(&rig.head("GET", "/", fields)).await.status(), 200);
    assert_eq!(rig.app.seen.request().field("x-kept"), Some("1"));
    let seen = rig.app.seen.texts().concat();
    assert!(!seen.contains("EVIL"), "{seen}");
}

#[tokio::test]
async fn connection_can_not_name_what_addresses_or_frames_the_message() {
    let rig = Rig::new(Application::ok().await).await;
    let fields = "connection: host, content-length, cookie, x-forwarded-for, x-forwarded-user\r\n\
                  cookie: mine=1\r\ncontent-length: 2\r\n";
    assert_eq!(rig.ask(&(rig.head("POST", "/", fields) + "hi")).await.status(), 200);
    let request = rig.app.seen.request();
    assert_eq!(request.field("host"), Some(rig.host().as_str()));
    assert_eq!(request.text(), "hi");
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-user"), Some(rig.user()));
    assert!(!rig.app.seen.texts().concat().contains("__Host-portreeve"));
}

async fn fields_of_one_hop_stay_on_it_downwards(version: Version) {
    let app = Application::saying(
        "HTTP/1.1 200 OK\r\nconnection: x-secret\r\nx-secret: EVIL\r\nkeep-alive: EVIL\r\nproxy-authenticate: EVIL\r\n\
         proxy-connection: EVIL\r\nupgrade: EVIL\r\nx-kept: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    )
    .await;
    let rig = Rig::new(app).await;
    let answer = rig.visitor(version).await.ask("GET", "/", "").await;
    assert_eq!((answer.field("x-kept"), answer.text().as_str()), (Some("1"), "ok"));
    assert!(!format!("{answer:?}").contains("EVIL"), "{answer:?}");
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "x-secret"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    let framed = (version == Version::Http1).then_some("chunked");
    assert_eq!(answer.field("transfer-encoding"), framed, "it is the hop's own");
}

async fn only_we_say_who_is_visiting(version: Version) {
    let rig = Rig::new(Application::ok().await).await;
    let mut fields = String::new();
    for name in [
        "x-forwarded-for",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "x-forwarded_for",
        "x-forwarded-proto",
        "X-FORWARDED-HOST",
        "x-forwarded-prefix",
        "x-forwarded-user",
        "X-Forwarded-User",
        "x_forwarded_user",
        "x-forwarded-port",
        "x-forwarded-groups",
        "forwarded",
        "Remote-User",
        "remote_user",
        "x-real-ip",
        "x_real_ip",
        "x-remote-user",
        "proxy",
        "x-portreeve-user",
        "x-original-url",
    ] {
        fields += &format!("{name}: EVIL\r\n");
    }
    assert_eq!(rig.visitor(version).await.ask("GET", "/", &fields).await.status(), 200);
    let request = rig.app.seen.request();
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", rig.host().as_str()),
        ("x-forwarded-prefix", rig.prefix().as_str()),
        ("x-forwarded-user", rig.user()),
    ] {
        assert_eq!(request.field(name), Some(value), "{name}");
    }
    let seen = rig.app.seen.texts().concat();
    assert!(!seen.contains("EVIL"), "{seen}");
}

async fn host_origin_and_everything_else_pass_unchanged(version: Version) {
    let rig = Rig::new(Application::ok().await).await;
    let origin = format!("https://{}", rig.host());
    let fields = format!(
        "origin: {origin}\r\nauthorization: Bearer T\r\naccept-encoding: gzip, br\r\nuser-agent: u\r\nx-two: 1\r\n\
         x-two: 2\r\nreferer: {origin}/x\r\nx-empty:\r\nx-latin: caf\u{e9}\r\n"
    );
    assert_eq!(rig.visitor(version).await.ask("GET", "/", &fields).await.status(), 200);
    let request = rig.app.seen.request();
    // Over HTTP/2 it comes as `:authority`.
    assert_eq!(request.field("host"), Some(rig.host().as_str()));
    assert_eq!(request.field("origin"), Some(origin.as_str()));
    assert_eq!(request.field("authorization"), Some("Bearer T"));
    assert_eq!(request.field("accept-encoding"), Some("gzip, br"));
    assert_eq!(request.field("x-empty"), Some(""));
    assert_eq!(request.field("x-latin"), Some("caf\u{e9}"));
    assert_eq!(request.all("x-two"), ["1", "2"]);
}

/// Browsers send every cookie in a field of its own over HTTP/2 (RFC 9113 section 8.2.3).
async fn our_cookie_never_reaches_the_application(version: Version) {
    let rig = Rig::new(Application::ok().await).await;
    let mut stranger = rig.stranger(version).await;
    let ours = rig.cookie();
    for (cookies, left) in [
        (format!("cookie: {ours}\r\n"), None),
        (format!("cookie: a=1; {ours}; b=2\r\n"), Some("a=1; b=2")),
        (format!("cookie: a=1;{ours};b=2\r\n"), Some("a=1; b=2")),
        (format!("cookie: a=1\r\ncookie: {ours}\r\nCookie: b=2\r\n"), Some("a=1; b=2")),
        (
            format!("cookie: {ours}\r\ncookie: a=1\r\ncookie: __Host-portreeve=EVIL\r\ncookie: b=2\r\n"),
            Some("a=1; b=2"),
        ),
        (format!("cookie: {ours}; {ours}\r\ncookie: __host-PORTREEVE=EVIL\r\n"), None),
        (format!("cookie: {ours}; __Host-portreeve-next=EVIL; c=3\r\n"), Some("c=3")),
        (format!("cookie: {ours}; __Host-portreeve =EVIL; c=\"a; b\"\r\n"), Some("c=\"a; b\"")),
    ] {
        assert_eq!(stranger.ask("GET", "/", &cookies).await.status(), 200, "{cookies}");
        assert_eq!(rig.app.seen.request().field("cookie"), left, "{cookies}");
        rig.app.seen.forget();
    }
    let seen = rig.app.seen.texts().concat();
    let secret = ours.split_once('=').unwrap().1;
    assert!(!seen.contains(secret) && !seen.contains("EVIL"), "{seen}");
    assert!(!seen.to_ascii_lowercase().contains("__host-portreeve"), "{seen}");
}

async fn an_application_sets_its_own_cookies_and_not_ours(version: Version) {
    let app = Application::saying(
        "HTTP/1.1 200 OK\r\nset-cookie: __Host-portreeve=EVIL; Path=/; Secure\r\nset-cookie: a=1; Path=/; HttpOnly\r\n\
         Set-Cookie: __HOST-PORTREEVE-state=EVIL\r\nset-cookie: =__Host-portreeve=EVIL\r\n\
         set-cookie: b=2; Domain=localhost; path=/sub\r\nset-cookie: __Host-portreeve\t=EVIL\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let rig = Rig::new(app).await;
    let answer = rig.visitor(version).await.ask("GET", "/", "").await;
    let prefix = rig.prefix();
    let expected = [format!("a=1; HttpOnly; Path={prefix}/"), format!("b=2; Path={prefix}/sub")];
    assert_eq!(answer.all("set-cookie"), expected);
}

async fn an_application_does_not_speak_for_the_whole_origin(version: Version) {
    let app = Application::saying(
        "HTTP/1.1 200 OK\r\nclear-site-data: \"*\"\r\nstrict-transport-security: max-age=1\r\nalt-svc: h3=\":1\"\r\n\
         nel: {}\r\nreport-to: {}\r\nservice-worker-allowed: /\r\ncontent-security-policy: default-src 'self'\r\n\
         content-length: 0\r\n\r\n",
    )
    .await;
    let rig = Rig::new(app).await;
    let answer = rig.visitor(version).await.ask("GET", "/", "").await;
    for name in ["clear-site-data", "strict-transport-security", "alt-svc", "nel", "report-to"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    // No wider than the application itself.
    let own = format!("{}/", rig.prefix());
    assert_eq!(answer.field("service-worker-allowed"), Some(own.as_str()));
    assert_eq!(answer.field("content-security-policy"), Some("default-src 'self'"));
}
