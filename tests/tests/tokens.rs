//! Access tokens from end to end: the real `portreeve-broker`, and the real `portreeve` typed by real users. The test
//! plays the portal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use portreeve_model::wire::broker::{Answer, Ask, BadToken, FromBroker, Question};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use portreeve_model::{Claims, Scope, Scopes, Secret, SessionId, SignIn};
use portreeve_tests::world::etc::Etc;
use portreeve_tests::world::spawner::{eventually, signal};
use portreeve_tests::world::{Finished, Skip, built_if_possible, skip};
use tokio::time::timeout;
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

const SERVICE: &str =
    "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n";
const PATIENCE: Duration = Duration::from_secs(30);
const ROOT: u32 = 0;
const ALICE: u32 = 20001;
/// The account has expired.
const BOB: u32 = 20002;
const DAVE: u32 = 20004;

/// What runs.
struct Cluster {
    etc: Etc,
    listener: UnixSeqpacketListener,
    broker: Child,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

impl Cluster {
    fn start() -> Result<Self, Skip> {
        let etc = Etc::new(SERVICE)?;
        for (name, mode) in [("state", 0o700), ("forwards", 0o1777), ("bin", 0o755)] {
            std::fs::create_dir(etc.path(name)).unwrap();
            std::fs::set_permissions(etc.path(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        // Where everybody can execute them.
        for name in ["portreeve", "portreeve-broker", "portreeve-pam"] {
            std::fs::copy(built_if_possible(name)?, etc.path("bin").join(name)).unwrap();
        }
        let listener = UnixSeqpacketListener::bind(etc.path("portal.sock")).unwrap();
        let forwards = etc.path("forwards");
        let config =
            format!("[portal]\nurl = \"https://portal.example.org\"\n[forwards]\ndirectory = {forwards:?}\n");
        etc.write("portreeve.toml", &config);
        let broker = run(&etc);
        let cluster = Self { etc, listener, broker };
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

    /// Root's process is asked to end, and with it everything.
    fn end(&mut self) {
        if self.broker.try_wait().unwrap().is_none() {
            signal(self.broker.id(), Signal::SIGTERM);
        }
        eventually("root's process ends", || self.broker.try_wait().unwrap());
    }

    async fn restart(&mut self) {
        self.end();
        // What waits in the queue is the old one's.
        while timeout(Duration::from_millis(50), self.listener.accept()).await.is_ok() {}
        self.broker = run(&self.etc);
        self.wait();
    }

    async fn portal(&mut self) -> Portal {
        let socket = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        Portal { socket, next: 0, ended: vec![], answers: BTreeMap::new() }
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
        command.arg(self.etc.path("bin/portreeve")).args(arguments);
        command.env("HOME", "/nonexistent").env_remove("XDG_STATE_HOME");
        command.env("PORTREEVE_LOGIN_SOCKET", self.etc.path("login.sock"));
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

fn run(etc: &Etc) -> Child {
    let mut command = etc.command(&etc.path("bin/portreeve-broker"));
    for (option, name) in [
        ("--config", "portreeve.toml"),
        ("--state", "state"),
        ("--portal", "portal.sock"),
        ("--login", "login.sock"),
        ("--pam", "bin/portreeve-pam"),
    ] {
        command.arg(option).arg(etc.path(name));
    }
    command.stdin(Stdio::null()).spawn().unwrap()
}

struct Portal {
    socket: UnixSeqpacket,
    next: u32,
    ended: Vec<SessionId>,
    answers: BTreeMap<u32, Answer>,
}

impl Portal {
    async fn hear_until(&mut self, what: impl Fn(&Self) -> bool) {
        let mut buffer = vec![0; MAX_FRAME];
        while !what(self) {
            let length =
                timeout(PATIENCE, self.socket.recv(&mut buffer)).await.unwrap().unwrap().bytes_read();
            match decode(&buffer[..length]).unwrap() {
                FromBroker::Keys(_) => {}
                FromBroker::Ended(sessions) | FromBroker::AlsoEnded { sessions, .. } => {
                    self.ended.extend(sessions)
                }
                FromBroker::Answer { id, answer } => drop(self.answers.insert(id, answer)),
            }
        }
    }

    async fn ask(&mut self, question: Question) -> Answer {
        self.next += 1;
        let id = self.next;
        self.socket.send(&encode_bare(&Ask { id, question }).unwrap()).await.unwrap();
        self.hear_until(|portal| portal.answers.contains_key(&id)).await;
        self.answers.remove(&id).unwrap()
    }

    /// A program shows a token.
    async fn show(&mut self, token: &Secret) -> Answer {
        self.ask(Question::Token { token: token.clone(), from: "192.0.2.7".parse().unwrap() }).await
    }

    async fn renew(&mut self, ticket: &Secret) -> Answer {
        self.ask(Question::Renew { ticket: ticket.clone() }).await
    }

    async fn enter(&mut self, address: &str) -> Answer {
        let code = address.trim().strip_prefix("https://portal.example.org/-/enter?code=").unwrap();
        let from = "192.0.2.7".parse().unwrap();
        self.ask(Question::Enter { code: Secret::new(code.to_owned()), from }).await
    }
}

fn signed_in(answer: Answer) -> (Claims, Secret) {
    match answer {
        Answer::SignedIn { claims, ticket, .. } => (*claims, ticket),
        other => panic!("{other:?}"),
    }
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
        let (claims, ticket) = signed_in(portal.show(&token).await);
        let scopes = Scopes::new(&[Scope::Apps, Scope::Files]).unwrap();
        assert_eq!((claims.uid, claims.how), (ALICE, SignIn::Token(scopes)));
        assert_eq!(claims.exp - claims.iat, 90 * 24 * 3600);
        let listed = cluster.done(ALICE, &["token", "list"]);
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0].starts_with("USER") && lines.len() == 2, "{listed}");
        assert!(lines[1].contains("alice") && lines[1].contains(" apps,files "), "{listed}");
        assert!(!listed.contains(token.reveal()) && !listed.contains("never"), "{listed}");
        let kept = cluster.etc.read("state/tokens.json");
        assert!(kept.contains("\"ci\"") && !kept.contains(token.reveal()), "{kept}");
        // The session is root's to see, too.
        let sessions = cluster.done(ROOT, &["sessions"]);
        assert!(sessions.contains("token (apps,files)") && sessions.contains("192.0.2.7"), "{sessions}");
        assert_eq!(cluster.done(ALICE, &["token", "revoke", "ci"]), "revoked ci\n");
        portal.hear_until(|portal| portal.ended.contains(&claims.sid)).await;
        assert_eq!(portal.show(&token).await, UNKNOWN);
        assert_eq!(portal.renew(&ticket).await, Answer::NoTicket);
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
        signed_in(portal.show(&alices).await);
        assert_eq!(portal.show(&daves).await, UNKNOWN);
        // Root has none, sees all, and ends anybody's.
        let make = ["token", "create", "--name", "x", "--scope", "apps"];
        assert!(cluster.refused(ROOT, &make).contains("not served"));
        cluster.make(DAVE, "two", &["api"]);
        assert_eq!(cluster.names(ROOT, &[]), [pair("alice", "ci"), pair("dave", "two")]);
        assert_eq!(cluster.names(ROOT, &["--user", "dave"]), [pair("dave", "two")]);
        assert!(cluster.refused(ROOT, &["token", "revoke", "ci"]).contains("--user"));
        cluster.done(ROOT, &["token", "revoke", "ci", "--user", "alice"]);
        assert_eq!(portal.show(&alices).await, UNKNOWN);
    })
    .await;
}

#[tokio::test]
async fn a_closed_account_s_token_is_refused() {
    check("a_closed_account_s_token_is_refused", async |mut cluster| {
        let mut portal = cluster.portal().await;
        let token = cluster.make(BOB, "ci", &["apps"]);
        let refused = portal.show(&token).await;
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
        let (before, _) = signed_in(portal.show(&lives).await);
        let (ended, ticket) = signed_in(portal.show(&over).await);
        cluster.done(ALICE, &["token", "revoke", "over"]);
        signal(cluster.broker.id(), Signal::SIGHUP);
        signed_in(portal.show(&lives).await);
        cluster.restart().await;
        let mut portal = cluster.portal().await;
        portal.hear_until(|portal| portal.ended.contains(&ended.sid)).await;
        assert_eq!(portal.show(&over).await, UNKNOWN);
        assert_eq!(portal.renew(&ticket).await, Answer::NoTicket);
        let (after, _) = signed_in(portal.show(&lives).await);
        assert_eq!((after.sid, after.exp, after.how), (before.sid, before.exp, before.how));
        let mode = std::fs::metadata(cluster.etc.path("state/tokens.json")).unwrap().permissions().mode();
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
        let (claims, ticket) = signed_in(portal.enter(&cluster.done(ALICE, &["login"])).await);
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
        signed_in(portal.renew(&ticket).await);
        let said = cluster.done(ALICE, &["sign-out", "--everywhere"]);
        assert!(said.contains("(1 were known), and 1 access token(s)"), "{said}");
        assert_eq!(portal.renew(&ticket).await, Answer::NoTicket);
        assert_eq!(portal.show(&token).await, UNKNOWN);
        let (_, ticket) = signed_in(portal.enter(&cluster.done(ALICE, &["login"])).await);
        let token = cluster.make(ALICE, "ci", &["apps"]);
        assert!(cluster.done(ROOT, &["revoke", "alice"]).contains("(1 were known), and 1 access token(s)"));
        assert_eq!(portal.renew(&ticket).await, Answer::NoTicket);
        assert_eq!(portal.show(&token).await, UNKNOWN);
        assert!(cluster.refused(ROOT, &["revoke", "stranger"]).contains("no such account"));
        assert!(cluster.refused(ROOT, &["login"]).contains("not served"));
        // The list of a session that is over is short.
        assert_eq!(cluster.done(ROOT, &["sessions", "--json"]).trim(), "[]");
    })
    .await;
}
