//! Access tokens from end to end: the real `portreeve-broker`, and the real `portreeve` typed by real users. The test
//! plays the portal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, BadToken, Question};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::{Scope, Scopes, Secret, SignIn};
use portreeve_tests::world::chain::{self, Portal, SERVICE, Workers, signed_in};
use portreeve_tests::world::spawner::{eventually, signal};
use portreeve_tests::world::{Finished, Skip, built_if_possible, skip};

const ROOT: u32 = 0;
const ALICE: u32 = 20001;
/// The account has expired.
const BOB: u32 = 20002;
const DAVE: u32 = 20004;

/// What runs, and who types there.
struct Cluster(chain::Cluster);

impl Cluster {
    fn start() -> Result<Self, Skip> {
        let portreeve = built_if_possible("portreeve")?;
        let cluster = chain::Cluster::start(SERVICE, Workers::StandIn)?;
        // Where everybody can execute it.
        std::fs::copy(portreeve, cluster.etc.path("bin/portreeve")).unwrap();
        let cluster = Self(cluster);
        cluster.wait();
        Ok(cluster)
    }

    /// Until the broker answers.
    fn wait(&self) {
        eventually("the broker listens", || {
            let asked = self.portreeve(ALICE, &["token", "list"]);
            (asked.status == 0).then_some(())
        });
    }

    async fn restart(&mut self) {
        self.0.restart().await;
        self.wait();
    }

    async fn portal(&mut self) -> Portal {
        self.0.portal().await
    }

    /// `portreeve`, typed by somebody.
    fn portreeve(&self, uid: u32, arguments: &[&str]) -> Finished {
        self.portreeve_in(None, uid, arguments)
    }

    /// The same, in a control group.
    fn portreeve_in(&self, group: Option<&Path>, uid: u32, arguments: &[&str]) -> Finished {
        let id = uid.to_string();
        let mut command = Command::new("sh");
        command.args(["-c", "[ -z \"$1\" ] || echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"", "sh"]);
        command.arg(group.unwrap_or(Path::new(""))).arg("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        command.arg(self.0.etc.path("bin/portreeve")).args(arguments);
        command.env("HOME", "/nonexistent").env_remove("XDG_STATE_HOME");
        command.env("PORTREEVE_LOGIN_SOCKET", self.0.etc.path("login.sock"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        Finished {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What was done.
    fn done(&self, uid: u32, arguments: &[&str]) -> String {
        let said = self.portreeve(uid, arguments);
        assert_eq!(said.status, 0, "{arguments:?}: {said:?}");
        said.out
    }

    /// Why it was refused.
    fn refused(&self, uid: u32, arguments: &[&str]) -> String {
        let said = self.portreeve(uid, arguments);
        assert!(said.status == 1 && said.out.is_empty(), "{arguments:?}: {said:?}");
        said.err
    }

    fn make(&self, uid: u32, name: &str, scopes: &[&str]) -> Secret {
        let mut arguments = vec!["token", "create", "--name", name];
        arguments.extend(scopes.iter().flat_map(|scope| ["--scope", scope]));
        let said = self.portreeve(uid, &arguments);
        assert_eq!(said.status, 0, "{said:?}");
        // The token alone on standard output, so that it can be put where it belongs; and nowhere else.
        let token = said.out.strip_suffix('\n').unwrap();
        assert!(token.starts_with("ptr_") && token.len() == 36 && !said.err.contains(token), "{said:?}");
        assert!(said.err.contains(name) && said.err.contains("not shown again"), "{said:?}");
        Secret::new(token.to_owned())
    }

    fn names(&self, uid: u32, more: &[&str]) -> Vec<(String, String)> {
        let listed = self.done(uid, &[&["token", "list", "--json"], more].concat());
        let rows: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows.as_array().unwrap().iter().map(|row| (text(row, "user"), text(row, "name"))).collect()
    }
}

/// A program shows a token.
async fn show(portal: &mut Portal, token: &Secret) -> Answer {
    portal.ask(Question::Token { token: token.clone(), from: "192.0.2.7".parse().unwrap() }).await
}

async fn renew(portal: &mut Portal, ticket: &Secret) -> Answer {
    portal.ask(Question::Renew { ticket: ticket.clone() }).await
}

async fn enter(portal: &mut Portal, printed: &str) -> Answer {
    let url = printed.strip_suffix('\n').unwrap().to_owned();
    assert!(url.starts_with("https://portal.example.org/-/enter?code="), "{url}");
    portal.enter(ControlReply::Address { url }).await
}

const UNKNOWN: Answer = Answer::BadToken(BadToken::Unknown);

async fn check(name: &str, test: impl AsyncFnOnce(Cluster)) {
    match Cluster::start() {
        Ok(cluster) => test(cluster).await,
        Err(why) => skip(name, &why),
    }
}

#[tokio::test]
async fn a_token_is_made_shown_listed_and_revoked() {
    check("a_token_is_made_shown_listed_and_revoked", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let token = cluster.make(ALICE, "ci", &["apps", "files"]);
        let (claims, ticket) = signed_in(show(&mut portal, &token).await);
        let scopes = Scopes::new(&[Scope::Apps, Scope::Files]).unwrap();
        assert_eq!((claims.uid, claims.how), (ALICE, SignIn::Token(scopes)));
        assert_eq!(claims.exp - claims.iat, 90 * 24 * 3600);
        let listed = cluster.done(ALICE, &["token", "list"]);
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0].starts_with("USER") && lines.len() == 2, "{listed}");
        assert!(lines[1].contains("alice") && lines[1].contains(" apps,files "), "{listed}");
        assert!(!listed.contains(token.reveal()) && !listed.contains("never"), "{listed}");
        let kept = cluster.0.etc.read("state/tokens.json");
        assert!(kept.contains("\"ci\"") && !kept.contains(token.reveal()), "{kept}");
        // The session is root's to see, too.
        let sessions = cluster.done(ROOT, &["sessions"]);
        assert!(sessions.contains("token (apps,files)") && sessions.contains("192.0.2.7"), "{sessions}");
        assert_eq!(cluster.done(ALICE, &["token", "revoke", "ci"]), "revoked ci\n");
        portal.hear_until(|portal| portal.ended.contains(&claims.sid)).await;
        assert_eq!(show(&mut portal, &token).await, UNKNOWN);
        assert_eq!(renew(&mut portal, &ticket).await, Answer::NoTicket);
        assert!(cluster.refused(ALICE, &["token", "revoke", "ci"]).contains("no token of this name"));
        assert_eq!(cluster.names(ALICE, &[]), []);
    })
    .await;
}

#[tokio::test]
async fn others_tokens_are_root_s_business_and_nobody_else_s() {
    check("others_tokens_are_root_s_business_and_nobody_else_s", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (alices, daves) = (cluster.make(ALICE, "ci", &["apps"]), cluster.make(DAVE, "ci", &["apps"]));
        let pair = |user: &str, name: &str| (user.to_owned(), name.to_owned());
        assert_eq!(cluster.names(DAVE, &[]), [pair("dave", "ci")]);
        for request in [
            &["token", "list", "--user", "alice"][..],
            &["token", "revoke", "ci", "--user", "alice"],
            &["sessions"],
            &["sessions", "--user", "dave"],
            &["revoke", "alice"],
        ] {
            assert!(cluster.refused(DAVE, request).contains("only root may do that"), "{request:?}");
        }
        cluster.done(DAVE, &["token", "revoke", "ci"]);
        assert!(cluster.refused(DAVE, &["token", "revoke", "ci"]).contains("no token"));
        let _ = signed_in(show(&mut portal, &alices).await);
        assert_eq!(show(&mut portal, &daves).await, UNKNOWN);
        // Root has none, sees all, and ends anybody's.
        let make = ["token", "create", "--name", "x", "--scope", "apps"];
        assert!(cluster.refused(ROOT, &make).contains("not served"));
        cluster.make(DAVE, "two", &["api"]);
        assert_eq!(cluster.names(ROOT, &[]), [pair("alice", "ci"), pair("dave", "two")]);
        assert_eq!(cluster.names(ROOT, &["--user", "dave"]), [pair("dave", "two")]);
        assert!(cluster.refused(ROOT, &["token", "revoke", "ci"]).contains("--user"));
        cluster.done(ROOT, &["token", "revoke", "ci", "--user", "alice"]);
        assert_eq!(show(&mut portal, &alices).await, UNKNOWN);
    })
    .await;
}

#[tokio::test]
async fn a_closed_account_s_token_is_refused() {
    check("a_closed_account_s_token_is_refused", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let token = cluster.make(BOB, "ci", &["apps"]);
        let refused = show(&mut portal, &token).await;
        assert_eq!(refused, Answer::Refused { why: PamRefusal::Account, said: vec![] });
    })
    .await;
}

#[tokio::test]
async fn what_runs_in_a_worker_makes_no_token() {
    check("what_runs_in_a_worker_makes_no_token", async |cluster| {
        // The second version's tree, alone or beside the first one's.
        let group = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(|root| Path::new(root).join(format!("portreeve-worker-{}.scope", std::process::id())));
        let made = group
            .iter()
            .find(|group| std::fs::create_dir(group).is_ok_and(|()| group.join("cgroup.procs").exists()));
        let Some(group) = made else {
            return skip("what_runs_in_a_worker_makes_no_token", "needs a control group of its own");
        };
        let inside: Vec<Finished> = [
            &["token", "create", "--name", "ci", "--scope", "apps"][..],
            &["token", "list"],
            &["token", "revoke", "ci"],
            &["sign-out", "--everywhere"],
            &["login"],
        ]
        .iter()
        .map(|request| cluster.portreeve_in(Some(group), ALICE, request))
        .collect();
        eventually("the group is empty", || std::fs::remove_dir(group).ok());
        for said in inside {
            assert!(said.status == 1 && said.out.is_empty(), "{said:?}");
            assert!(said.err.contains("not from a terminal that the portal opened"), "{said:?}");
        }
        assert_eq!(cluster.names(ALICE, &[]), []);
    })
    .await;
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_a_reload_and_so_do_their_ends() {
    check("tokens_outlive_a_restart_and_a_reload_and_so_do_their_ends", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (lives, over) = (cluster.make(ALICE, "lives", &["api"]), cluster.make(ALICE, "over", &["api"]));
        let (before, _) = signed_in(show(&mut portal, &lives).await);
        let (ended, ticket) = signed_in(show(&mut portal, &over).await);
        cluster.done(ALICE, &["token", "revoke", "over"]);
        signal(cluster.0.pid(), Signal::SIGHUP);
        let _ = signed_in(show(&mut portal, &lives).await);
        cluster.restart().await;
        let mut portal = cluster.portal().await;
        portal.hear_until(|portal| portal.ended.contains(&ended.sid)).await;
        assert_eq!(show(&mut portal, &over).await, UNKNOWN);
        assert_eq!(renew(&mut portal, &ticket).await, Answer::NoTicket);
        let (after, _) = signed_in(show(&mut portal, &lives).await);
        assert_eq!((after.sid, after.exp, after.how), (before.sid, before.exp, before.how));
        let mode = std::fs::metadata(cluster.0.etc.path("state/tokens.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    })
    .await;
}

#[tokio::test]
async fn a_user_has_so_many_tokens_and_each_name_once() {
    check("a_user_has_so_many_tokens_and_each_name_once", async |cluster| {
        for n in 0..64 {
            cluster.make(ALICE, &format!("t{n}"), &["apps"]);
        }
        let make = |name: &'static str| ["token", "create", "--name", name, "--scope", "apps"];
        assert!(cluster.refused(ALICE, &make("more")).contains("64"));
        assert!(cluster.refused(ALICE, &make("t0")).contains("of this name"));
        cluster.make(DAVE, "t0", &["apps"]);
        cluster.done(ALICE, &["token", "revoke", "t0"]);
        cluster.make(ALICE, "more", &["apps"]);
    })
    .await;
}

#[tokio::test]
async fn login_sessions_revoke_and_sign_out() {
    check("login_sessions_revoke_and_sign_out", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let (claims, ticket) = signed_in(enter(&mut portal, &cluster.done(ALICE, &["login"])).await);
        assert_eq!((claims.uid, claims.how), (ALICE, SignIn::Code));
        let table = cluster.done(ROOT, &["sessions"]);
        assert!(table.lines().count() == 2 && table.starts_with("USER"), "{table}");
        assert!(table.contains("alice") && table.contains(claims.sid.as_str()), "{table}");
        let rows: serde_json::Value =
            serde_json::from_str(&cluster.done(ROOT, &["sessions", "--user", "alice", "--json"])).unwrap();
        assert_eq!((rows[0]["uid"].as_u64(), rows[0]["how"].as_str()), (Some(20001), Some("code")));
        assert_eq!(cluster.done(ROOT, &["sessions", "--user", "dave", "--json"]).trim(), "[]");
        // Somebody else's sign-out is theirs alone.
        let token = cluster.make(ALICE, "ci", &["apps"]);
        assert!(cluster.done(DAVE, &["sign-out", "--everywhere"]).contains("(0 were known), and 0 access"));
        let _ = signed_in(renew(&mut portal, &ticket).await);
        let said = cluster.done(ALICE, &["sign-out", "--everywhere"]);
        assert!(said.contains("(1 were known), and 1 access token(s)"), "{said}");
        assert_eq!(renew(&mut portal, &ticket).await, Answer::NoTicket);
        assert_eq!(show(&mut portal, &token).await, UNKNOWN);
        let (_, ticket) = signed_in(enter(&mut portal, &cluster.done(ALICE, &["login"])).await);
        let token = cluster.make(ALICE, "ci", &["apps"]);
        assert!(cluster.done(ROOT, &["revoke", "alice"]).contains("(1 were known), and 1 access token(s)"));
        assert_eq!(renew(&mut portal, &ticket).await, Answer::NoTicket);
        assert_eq!(show(&mut portal, &token).await, UNKNOWN);
        assert!(cluster.refused(ROOT, &["revoke", "stranger"]).contains("no such account"));
        assert!(cluster.refused(ROOT, &["login"]).contains("not served"));
        // The list of a session that is over is short.
        assert_eq!(cluster.done(ROOT, &["sessions", "--json"]).trim(), "[]");
    })
    .await;
}
