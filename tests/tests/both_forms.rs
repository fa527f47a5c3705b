//! An application below the portal's address, and the same one in an origin of its own: the way in leads to nobody
//! else's host, a pinned certificate is asked for in both, and nothing of one form appears in the other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use portreeve_tests::world::{App, Client, Link, Portal, Reply, server_config, text, until};
use serde_json::json;
use url::Url;

fn put(portal: &Portal, name: &str, line: &str) {
    let path = portal.forwards().join(name);
    std::fs::write(&path, format!("{line}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What a browser makes of a `Location` that it gets at this client's origin.
fn leads_to(client: &Client, location: &str) -> Url {
    let here = Url::parse(&client.origin()).unwrap();
    here.join(location).unwrap_or_else(|error| panic!("{location:?}: {error}"))
}

/// The decoded value of a parameter that is there once.
fn parameter(address: &Url, name: &str) -> String {
    let mut values = address.query_pairs().filter(|(key, _)| key == name);
    let (Some((_, value)), None) = (values.next(), values.next()) else { panic!("{name} in {address}") };
    value.into_owned()
}

/// Places to go to after the entry that are on another host, or become it in some browser's eyes.
const ELSEWHERE: [&str; 23] = [
    "//evil.example",
    "//evil.example/lab",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/ /evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https://evil.example/",
    "HTTPS:\\\\evil.example",
    "javascript:alert(1)",
    "evil.example",
    "@evil.example",
    ":443@evil.example",
    "/\r\nset-cookie: a=b",
    "/\0",
    "/\u{ff0f}evil.example",
];

/// And places that look odd, but are on the host for every browser.
const HERE: [&str; 6] = [
    "/",
    "/lab?x=1&y=//evil.example",
    "/%2f/evil.example",
    "/%09/evil.example",
    "/..//evil.example",
    "/.//evil.example",
];

#[tokio::test]
async fn the_way_into_an_origin_leads_to_no_other_host() {
    let portal = Portal::plain();
    let app = App::echo().await;
    let home = portal.sign_in().await.browser();
    let mut there = portal.stranger().browser().at(&format!("localhost-{}.localhost", app.port()));
    let sent = there.get("/").await;
    there.take_cookies(&sent);
    let state = parameter(&Url::parse(sent.location()).unwrap(), "state");
    let host = there.authority().rsplit_once(':').unwrap().0.to_owned();

    // From the application's origin to the portal, from there back, and then on.
    let open = async |next: &str| {
        let opened = home.get(&format!("/-/open?host={host}&state={state}&next={}", encoded(next))).await;
        opened.assert_status(303);
        let address = leads_to(&home, opened.location());
        assert_eq!(address.origin().ascii_serialization(), there.origin(), "{next:?}: {address}");
        assert_eq!(address.path(), "/-/enter", "{next:?}: {address}");
        address
    };
    let enter = async |code: &str, next: &str| {
        let entered = there.get(&format!("/-/enter?code={code}&next={next}")).await;
        entered.assert_status(303);
        let address = leads_to(&there, entered.location());
        assert_eq!(address.origin().ascii_serialization(), there.origin(), "{next:?}: {entered:?}");
        entered.location().to_owned()
    };
    for next in ELSEWHERE {
        let address = open(next).await;
        assert_eq!(parameter(&address, "next"), "/", "{next:?}");
        // Nor does it matter what the portal made of it: the origin looks itself.
        let code = parameter(&address, "code");
        assert_eq!(enter(&code, &encoded(next)).await, "/", "{next:?}");
    }
    for next in HERE {
        let address = open(next).await;
        assert_eq!(parameter(&address, "next"), next);
        assert_eq!(enter(&parameter(&address, "code"), &encoded(next)).await, next);
    }
    // Several of them, and what is not encoded as it should be.
    for (next, expected) in [
        ("%2Flab&next=%2F%2Fevil.example", "/lab"),
        ("%2F%2Fevil.example&next=%2Flab", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("%ff%2f", "/"),
    ] {
        let code = parameter(&open("/").await, "code");
        assert_eq!(enter(&code, next).await, expected, "{next}");
    }
    // A link into the application whose path reads like a host, followed before anybody has entered.
    for path in ["//evil.example/", "//evil.example/?x=/", "/\\evil.example"] {
        let mut fresh = portal.stranger().browser().at(&host);
        for sent in [fresh.get(path).await, fresh.clone().http2().get(path).await] {
            fresh.take_cookies(&sent);
            assert_eq!(
                leads_to(&fresh, sent.location()).origin().ascii_serialization(),
                home.origin(),
                "{path}"
            );
            let opened = home.get(&sent.location()[home.origin().len()..]).await;
            let back = leads_to(&home, opened.location());
            assert_eq!(back.origin().ascii_serialization(), there.origin(), "{path}");
            let entered = fresh.get(&opened.location()[there.origin().len()..]).await;
            assert_eq!((entered.status.as_u16(), entered.location()), (303, "/"), "{path}");
        }
    }
    assert_eq!(app.connections(), 0, "the application has no part in it");
}

#[tokio::test]
async fn a_wrong_pin_is_refused_in_both_forms_whatever_is_open() {
    // One thread has one pool: connections that the other forwards opened are there to be misused.
    let portal = Portal::with_config("threads = 1\n");
    let client = portal.sign_in().await;
    let (config, hash) = server_config();
    let app = App::https(config, |_| async { text("over TLS") }).await;
    let address = format!("https://localhost:{}/", app.port());
    let wrong = "0".repeat(64);
    put(&portal, "unpinned", &address);
    put(&portal, "pinned", &format!("{address} pin=sha256:{hash}"));
    put(&portal, "wrong", &format!("{address} pin=sha256:{wrong}"));
    let mut forms = Vec::new();
    for name in ["unpinned", "pinned", "wrong"] {
        forms.push((name, client.clone(), format!("/fw/{name}/")));
        forms.push((name, client.enter(&format!("{name}.fn.localhost")).await.program(), "/".to_owned()));
    }
    let mut reached = 0;
    for _ in 0..3 {
        for (name, client, path) in &forms {
            let answer = client.get(path).await;
            if *name == "wrong" {
                answer.assert_refused(502, "application-tls");
            } else {
                assert_eq!(
                    (answer.status.as_u16(), answer.text().as_str()),
                    (200, "over TLS"),
                    "{name} {path}"
                );
                reached += 1;
            }
            assert_eq!(app.seen().len(), reached, "{name} {path}");
        }
    }
    // A file that names another certificate from now on closes what it had opened, within the second that files are
    // believed for.
    put(&portal, "pinned", &format!("{address} pin=sha256:{wrong}"));
    for (name, client, path) in forms.iter().filter(|(name, ..)| *name == "pinned") {
        until(&format!("{name} {path}"), Duration::from_millis(1200), || async {
            (client.get(path).await.error() == "application-tls").then_some(())
        })
        .await;
    }
}

/// One way to reach the application, and how it looks from there.
struct Form {
    client: Client,
    /// Below which path it appears; empty in an origin of its own.
    prefix: String,
    /// What is asked for, and what the application is asked for.
    asked: String,
    path: &'static str,
    /// Where the application's redirect to [`HOME`] leads.
    home: String,
    /// The path of its cookie for everything that it has.
    cookie_path: String,
}

/// Where the application's redirects lead: below what some forms name as its base.
const HOME: &str = "/base/home";

/// Says which request reached it; sets a cookie and redirects, both in its own terms. Knows nothing outside `/base/`, and
/// `/only/` below the prefix that it was started with.
async fn application(request: Request<Incoming>) -> Reply {
    let path = request.uri().path_and_query().unwrap().as_str();
    let fields: Vec<(&str, &str)> =
        request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let mut reply = text(json!({ "path": path, "fields": fields }).to_string());
    if !path.starts_with("/base/") && !path.starts_with("/fw/kept/only/") {
        *reply.status_mut() = StatusCode::NOT_FOUND;
        return reply;
    }
    // One that was started with the prefix as its base URL has it in all that it says.
    let before = if path.starts_with("/fw/kept/") { "/fw/kept" } else { "" };
    let headers = reply.headers_mut();
    let value = |text: String| HeaderValue::try_from(text).unwrap();
    headers.insert("location", value(format!("{before}{HOME}")));
    headers.insert("set-cookie", value(format!("theirs=1; Path={before}/base/; Domain=localhost; Secure")));
    *reply.status_mut() = StatusCode::FOUND;
    reply
}

async fn on(link: &mut Link, client: &Client, path: &str) -> (Response<()>, serde_json::Value) {
    let (parts, ()) = client.prepare("GET", path).into_parts();
    let answer = link.send(Request::from_parts(parts, Full::default().boxed())).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let said = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {head:?} {body:?}"));
    (Response::from_parts(head, ()), said)
}

impl Form {
    /// Asks the application in this form, and checks that it shows in nothing but this form.
    async fn check(&self, link: &mut Link, case: &str) {
        let (answer, said) = on(link, &self.client, &self.asked).await;
        assert_eq!(answer.status(), 302, "{case}: {answer:?} {said}");
        assert_eq!(said["path"], self.path, "{case}");
        let all = |name: &str| -> Vec<&str> {
            let fields = said["fields"].as_array().unwrap().iter();
            fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
        };
        let authority = self.client.authority();
        assert_eq!(all("host"), [authority.as_str()], "{case}");
        assert_eq!(all("x-forwarded-host"), [authority.as_str()], "{case}");
        let prefix: &[&str] = if self.prefix.is_empty() { &[] } else { &[&self.prefix] };
        assert_eq!(all("x-forwarded-prefix"), prefix, "{case}");
        // The form's own cookie, and neither ours nor another form's.
        assert_eq!(
            all("cookie"),
            [format!("form={}", encoded(&format!("{authority}{}", self.prefix)))],
            "{case}"
        );
        assert_eq!(answer.headers()["location"], self.home.as_str(), "{case}");
        let cookies: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, [format!("theirs=1; Secure; Path={}", self.cookie_path).as_str()], "{case}");
    }
}

#[tokio::test]
async fn nothing_of_one_form_appears_in_the_other() {
    let portal = Portal::with_config("threads = 1\n");
    let app = App::start(application).await;
    let home = portal.sign_in().await;
    let port = app.port();
    put(&portal, "plain", &format!("http://localhost:{port}/"));
    put(&portal, "kept", &format!("http://localhost:{port}/"));
    put(&portal, "based", &format!("http://localhost:{port}/base/"));
    let direct = format!("/fw2/localhost:{port}");
    let mut forms = Vec::new();
    for (host, prefix, inside, path, own_home) in [
        ("localhost", &*direct, "/base/x?1", "/base/x?1", HOME),
        (&*format!("localhost-{port}.localhost"), "", "/base/x?2", "/base/x?2", HOME),
        ("localhost", "/fw/plain", "/base/x?3", "/base/x?3", HOME),
        ("plain.fn.localhost", "", "/base/x?4", "/base/x?4", HOME),
        // It is asked with the prefix, which it was started with; in an origin of its own nothing stands before it.
        ("localhost", "/fw/kept", "/only/x?5", "/fw/kept/only/x?5", HOME),
        ("kept.fn.localhost", "", "/fw/kept/only/x?6", "/fw/kept/only/x?6", "/fw/kept/base/home"),
        // The prefix stands for its base.
        ("localhost", "/fw/based", "/x?7", "/base/x?7", "/home"),
        ("based.fn.localhost", "", "/base/x?8", "/base/x?8", HOME),
    ] {
        let mut client = if host == "localhost" { home.clone() } else { home.enter(host).await.program() };
        client.set_cookie("form", &encoded(&format!("{}{prefix}", client.authority())));
        forms.push(Form {
            client,
            prefix: prefix.to_owned(),
            asked: format!("{prefix}{inside}"),
            path,
            home: format!("{prefix}{own_home}"),
            cookie_path: format!("{prefix}{}", own_home.trim_end_matches("home")),
        });
    }
    // As they come, each after each other: on one connection of a browser, which may use one for all names that its
    // certificate has; over both versions.
    for http2 in [false, true] {
        let version = |client: &Client| if http2 { client.clone().http2() } else { client.clone() };
        let mut link = version(&home).link().await;
        for form in &mut forms {
            form.client = version(&form.client);
        }
        for before in &forms {
            for form in &forms {
                let case = format!("{} after {}", form.asked, before.asked);
                before.check(&mut link, &case).await;
                form.check(&mut link, &case).await;
            }
        }
    }
    // A second one only while it was found out how the application wants its paths below `/fw/kept`.
    assert_eq!(app.connections(), 2, "all of it went over one pooled connection");
}
