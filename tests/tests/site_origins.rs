//! Applications in origins of their own, below `portal.apps_domain`, and in the one that they share, `portal.apps_url`: who is
//! sent where, what a cookie is good for, and that the next user of a port inherits nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portreeve_tests::world::site::{ADDRESS, Alone, NAME, Site, SiteApp, outside};
use portreeve_tests::world::{Answer, Client};

const CONFIG: &str = "/etc/portreeve/portreeve.toml";
const DOMAIN: &str = "apps.cluster.example";

/// The site with more lines in `[portal]`, until it is dropped.
struct With<'s> {
    site: &'s Site,
    _alone: Alone<'s>,
}

/// Takes them out again.
const CLEAN: &str = "/^apps_domain/d; /^apps_url/d; /^foreign_applications/d";

impl<'s> With<'s> {
    fn domain(site: &'s Site) -> Self {
        Self::lines(site, &[&format!("apps_domain = \"{DOMAIN}\"")])
    }

    fn lines(site: &'s Site, lines: &[&str]) -> Self {
        let guard = Self { site, _alone: site.alone() };
        // What a run that was killed has left goes first.
        let added = lines.join("\\n");
        site.root(
            "login",
            &format!("sed -i '{CLEAN}; s/^url = .*/&\\n{}/' {CONFIG}", added.replace('/', "\\/")),
        );
        site.restart_portal();
        guard
    }
}

impl Drop for With<'_> {
    fn drop(&mut self) {
        let _ = self.site.shell("login", "root", &format!("sed -i '{CLEAN}' {CONFIG}"));
        self.site.give_back_portal();
    }
}

/// A browser at another host, without cookies.
fn at(host: &str) -> Client {
    Client::new(443).towards(ADDRESS).at(host).browser()
}

fn own_host(app: &SiteApp, uid: u32) -> String {
    format!("c1-{}-u{uid}.fh.{DOMAIN}", app.port())
}

/// The answer to what another one leads to, from whoever is there.
async fn follow(answer: &Answer, client: &Client) -> Answer {
    answer.assert_status(303);
    let path = answer.location().strip_prefix(&client.origin());
    client.get(path.unwrap_or_else(|| panic!("not to {}: {answer:?}", client.origin()))).await
}

#[test]
fn every_address_of_an_application_leads_to_its_owners_origin() {
    outside("every_address_of_an_application_leads_to_its_owners_origin", |site| async {
        let mut app = site.app("c1", "alice", Some("proj"), "10.77.0.11:0");
        let (path, host) = (app.at("c1"), own_host(&app, 20001));
        let _domain = With::domain(site);
        let (alice, bob, carol) =
            (site.sign_in("alice").await, site.sign_in("bob").await, site.sign_in("carol").await);
        let own = format!("https://{host}/x?y=1");

        // In path form: windows of whoever may use it, also its owner's, are sent there; carol's are not.
        for client in [&alice, &bob] {
            let sent = client.clone().browser().get(&format!("{path}x?y=1")).await;
            assert_eq!((sent.status.as_u16(), sent.location()), (303, own.as_str()), "{sent:?}");
            let in_a_page =
                client.clone().with("sec-fetch-mode", "cors").with("sec-fetch-site", "same-origin");
            in_a_page.get(&path).await.assert_refused(403, "foreign-application");
            client.get(&path).await.assert_status(200);
        }
        let before = app.report();
        carol.clone().browser().get(&path).await.assert_refused(403, "not-yours");

        // By a name without its owner: by way of the portal, which finds out whose it is.
        let plain = at(&format!("c1-{}.fh.{DOMAIN}", app.port()));
        let sent = plain.get("/x?y=1").await;
        assert!(sent.set_cookie("__Host-portreeve-state").is_none(), "nobody signs in there: {sent:?}");
        assert_eq!(follow(&sent, &bob.clone().browser()).await.location(), own);
        follow(&sent, &carol.clone().browser()).await.assert_refused(403, "not-yours");
        // A stranger signs in first.
        let asked = follow(&sent, &site.stranger().browser()).await;
        assert!(asked.location().starts_with("/-/sign-in?next=%2F%2D%2Fopen"), "{asked:?}");
        app.assert_nothing_since(before);

        // There, by a code for this browser, host and session.
        let there = bob.enter(&host).await;
        let answer = there.get("/x").await;
        answer.assert_status(200);
        let policy = answer.header("content-security-policy");
        assert_eq!(policy, format!("frame-ancestors 'self' https://{NAME}"));
        // What is not this window's is the same there as anywhere.
        let in_a_page = there.clone().with("sec-fetch-mode", "websocket").with("sec-fetch-dest", "websocket");
        in_a_page.clone().with("origin", &format!("https://{host}")).tunnel("/", "echo").await.unwrap();
        for origin in [format!("https://{NAME}"), format!("https://x.fn.{DOMAIN}")] {
            let socket = in_a_page.clone().with("origin", &origin).websocket("/").await;
            assert_eq!(socket.unwrap_err().status(), 403, "{origin}");
        }
    });
}

#[test]
fn a_cookie_is_for_one_host_and_one_owner() {
    outside("a_cookie_is_for_one_host_and_one_owner", |site| async {
        let app = site.app("c1", "alice", Some("proj"), "10.77.0.11:0");
        let (port, host) = (app.port(), own_host(&app, 20001));
        let _domain = With::domain(site);
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        let there = bob.enter(&host).await;
        there.get("/").await.assert_status(200);

        // Over one connection for all hosts, as browsers have it where one certificate is good for all.
        let other = site.app("c2", "bob", None, "10.77.0.12:0");
        let others_host = format!("c2-{}-u20002.fh.{DOMAIN}", other.port());
        let both = there.clone().http2();
        let mut link = both.link().await;
        both.get_on(&mut link, "/").await.assert_status(200);
        let elsewhere = there.clone().at(&others_host).http2();
        let sent = elsewhere.get_on(&mut link, "/").await;
        assert_eq!(sent.status, 303, "the cookie of one host at another: {sent:?}");
        // The portal's own cookie, too, is good at the portal alone; and an application's not there.
        let mut confused = at(&host);
        confused.set_cookie("__Host-portreeve", bob.ticket());
        assert_eq!(confused.get("/").await.status, 303);
        let mut confused = site.stranger();
        confused.set_cookie("__Host-portreeve", there.ticket());
        confused.get("/").await.assert_refused(401, "not-signed-in");

        // A name that says another owner than the application has.
        let wrong = format!("c1-{port}-u20002.fh.{DOMAIN}");
        let liar = bob.enter(&wrong).await;
        let sent = liar.get("/x").await;
        let right = follow(&sent, &bob.clone().browser()).await;
        assert_eq!(right.location(), format!("https://{host}/x"));
        let in_a_page = liar.clone().with("sec-fetch-mode", "cors").with("sec-fetch-dest", "empty");
        in_a_page.get("/x").await.assert_refused(403, "foreign-application");

        // The port gets another user: what browsers keep for the old origin is not the new one's.
        app.end();
        let carols = site.app("c1", "carol", Some("everyone"), &format!("10.77.0.11:{port}"));
        there.get("/").await.assert_refused(403, "group-grants-nothing");
        carols.end();
        let bobs = site.app("c1", "bob", None, &format!("10.77.0.11:{port}"));
        let sent = there.get("/").await;
        let own = follow(&sent, &bob.clone().browser()).await;
        assert_eq!(own.location(), format!("https://{}/", own_host(&bobs, 20002)));

        // Signing out ends it at all hosts at once.
        let there = bob.enter(&own_host(&bobs, 20002)).await;
        there.get("/").await.assert_status(200);
        bob.post("/-/sign-out", "").await.assert_status(303);
        assert_eq!(there.get("/").await.status, 303);
        drop(alice);
    });
}

#[test]
fn an_application_started_for_the_path_form_is_found_there() {
    outside("an_application_started_for_the_path_form_is_found_there", |site| async {
        let script = "exec python3 -c '
import http.server, socketserver, sys
class Base(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        base = \"/fw2/c1:%d/\" % self.server.server_address[1]
        found = self.path.startswith(base)
        self.send_response(200 if found else 404)
        self.send_header(\"Content-Length\", \"4\")
        self.end_headers()
        self.wfile.write(b\"base\" if found else b\"none\")
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer((\"10.77.0.11\", 0), Base)
print(\"listening on %d\" % server.server_address[1], flush=True)
server.serve_forever()'";
        let app = site.app_by("c1", "alice", script);
        let host = own_host(&app, 20001);
        let _domain = With::domain(site);
        let alice = site.sign_in("alice").await;
        let there = alice.enter(&host).await;
        let sent = there.get("/lab?x=1").await;
        assert_eq!(sent.location(), format!("https://{host}{}lab?x=1", app.at("c1")), "{sent:?}");
        assert_eq!(follow(&sent, &there).await.text(), "base");
        // Only a window is led: what a page asks for is where it says.
        let in_a_page = there.clone().with("sec-fetch-mode", "cors").with("sec-fetch-dest", "empty");
        assert_eq!(in_a_page.get("/lab").await.status, 404);
    });
}

/// Where all applications are in path form.
const SHARED: &str = "apps.cluster.example";

#[test]
fn applications_share_an_origin_that_is_not_the_portals() {
    outside("applications_share_an_origin_that_is_not_the_portals", |site| async {
        let app = site.app("c1", "alice", Some("proj"), "10.77.0.11:0");
        let path = app.at("c1");
        let _shared = With::lines(site, &[&format!("apps_url = \"https://{SHARED}\"")]);
        let (alice, bob) = (site.sign_in("alice").await, site.sign_in("bob").await);
        let wanted = format!("{path}x?y=1");

        // At the portal's own address: a window is sent there, a page gets nothing, a program may read.
        let sent = alice.clone().browser().get(&wanted).await;
        assert_eq!(
            (sent.status.as_u16(), sent.location()),
            (303, format!("https://{SHARED}{wanted}").as_str())
        );
        let cors = |client: &Client| {
            client.clone().with("sec-fetch-mode", "cors").with("sec-fetch-site", "same-origin")
        };
        cors(&alice).get(&path).await.assert_refused(403, "foreign-application");
        let worker = cors(&alice).with("service-worker", "script").get(&path).await;
        assert!(
            worker.text().contains("registration.unregister()"),
            "one from before is taken away: {worker:?}"
        );
        alice.get(&path).await.assert_status(200);
        let workspace = alice.clone().browser().get("/").await.text();
        let link = format!("href=\"https://{SHARED}/fw2/10.77.0.11:{}/\"", app.port());
        assert!(workspace.contains(&link), "{workspace}");

        // There, by a code; and nothing of the portal's own is there.
        let stranger = at(SHARED);
        let sent = stranger.get(&wanted).await;
        let asked = format!("https://{NAME}/-/open?host=apps%2Ecluster%2Eexample&next=");
        assert!(sent.location().starts_with(&asked), "{sent:?}");
        let there = alice.enter_by(SHARED, &path).await;
        let answer = there.get(&wanted).await;
        answer.assert_status(200);
        let policy = answer.header("content-security-policy");
        assert_eq!(policy, format!("frame-ancestors 'self' https://{NAME}"));
        cors(&there).get(&path).await.assert_status(200);
        cors(&there).with("service-worker", "script").get(&path).await.assert_status(200);
        let home = there.get("/").await;
        assert_eq!(home.location(), format!("https://{NAME}"), "{home:?}");
        for nothing in
            ["/-/sign-in", "/-/sign-out", "/-/listening", "/-/open?host=x", "/-/consent", "/api/v1/x"]
        {
            assert_eq!(there.get(nothing).await.status, 404, "{nothing}");
        }
        // A form of a page there does nothing here, nor does a script.
        for page in [
            alice.clone().browser().with("sec-fetch-site", "same-site"),
            alice.clone().with("origin", &format!("https://{SHARED}")),
        ] {
            page.post("/-/sign-out", "").await.assert_refused(403, "cross-site");
        }
        // Neither cookie is good at the other.
        let mut confused = at(SHARED);
        confused.set_cookie("__Host-portreeve", alice.ticket());
        assert_eq!(confused.get(&path).await.status, 303);
        let mut confused = site.stranger();
        confused.set_cookie("__Host-portreeve", there.ticket());
        confused.get(&path).await.assert_refused(401, "not-signed-in");

        // Another user's would be beside the visitor's own there.
        let bobs = bob.enter_by(SHARED, &path).await;
        bobs.get(&path).await.assert_refused(403, "foreign-application");
        cors(&bobs).get(&path).await.assert_refused(403, "foreign-application");
        let program = bobs.clone().program().get(&path).await;
        assert_eq!(program.header("content-security-policy"), "sandbox");
        alice.post("/-/sign-out", "").await.assert_status(303);
        assert_eq!(there.get(&path).await.status, 303);
    });
}

#[test]
fn others_applications_are_shown_beside_ones_own_after_consent() {
    outside("others_applications_are_shown_beside_ones_own_after_consent", |site| async {
        let script = "exec sg proj -c \"exec python3 -c '
import http.server
class Cookies(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.headers.get(\\\"Cookie\\\") or \\\"none\\\").encode()
        self.send_response(200)
        self.send_header(\\\"Set-Cookie\\\", \\\"a=1; Path=/\\\")
        self.send_header(\\\"Cross-Origin-Opener-Policy\\\", \\\"same-origin\\\")
        self.send_header(\\\"Content-Length\\\", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer((\\\"10.77.0.11\\\", 0), Cookies)
print(\\\"listening on %d\\\" % server.server_address[1], flush=True)
server.serve_forever()'\"";
        let app = site.app_by("c1", "alice", script);
        let path = app.at("c1");
        let asking = "foreign_applications = \"ask\"";
        for lines in [&[asking][..], &[asking, &format!("apps_url = \"https://{SHARED}\"")]] {
            let _with = With::lines(site, lines);
            let (bob, carol) = (site.sign_in("bob").await.browser(), site.sign_in("carol").await.browser());
            let there =
                if lines.len() > 1 { bob.enter_by(SHARED, &path).await.browser() } else { bob.clone() };

            let sent = there.get(&path).await;
            let asked =
                sent.location().strip_prefix(&format!("https://{NAME}")).unwrap_or_default().to_owned();
            assert!(asked.starts_with("/-/consent?next="), "{sent:?}");
            // Whoever may not use it is told so, and not whose it is.
            carol.get(&asked).await.assert_refused(403, "not-yours");
            let question = bob.get(&asked).await.text();
            assert!(question.contains("Open alice's application?"), "{question}");
            assert_eq!(question.contains("and this portal"), lines.len() == 1, "{question}");
            let secret =
                question.split("name=\"secret\" value=\"").nth(1).unwrap().split('"').next().unwrap();
            let form = format!("next={}&uid=20001&secret={secret}", path.replace('/', "%2F"));
            let answered = bob.post("/-/consent", &form).await;
            let shown = if lines.len() > 1 { format!("https://{SHARED}{path}") } else { path.clone() };
            assert_eq!(answered.location(), shown, "{answered:?}");

            // It has cookies of its owner's, gets no others, and can't hold on to windows of the portal's.
            let mut there = there;
            there.set_cookie("own", "secret");
            there.set_cookie("u20003~b", "2");
            // One that closes at once may be gone before it is asked who has accepted it; then it is refused, and asked again here.
            let answer = site.until_status(&there, &path, 200).await;
            assert_eq!(answer.text(), "none");
            assert_eq!(answer.header("set-cookie"), format!("u20001~a=1; Path={path}"));
            assert_eq!(answer.header("cross-origin-opener-policy"), "");
            there.take_cookies(&answer);
            assert_eq!(site.until_status(&there, &path, 200).await.text(), "a=1");
        }
    });
}
