//! Breaks parts of the installed site, and mends them again, however the test ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{Answer, Client};
use super::site::{Site, SiteApp};
use super::testbed::{packages, target};
use super::traffic::{Seen, Traffic, Use};

/// How long it may take until a part that was broken is all right again.
const MENDED: Duration = Duration::from_secs(40);

/// Something that is broken until this is dropped.
#[must_use = "it is mended when this is dropped"]
#[derive(Debug)]
pub struct Broken<'s> {
    site: &'s Site,
    node: &'static str,
    mend: String,
}

impl Broken<'_> {
    /// Mends it now.
    pub fn mend(self) {}
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        let done = self.site.shell(self.node, "root", &self.mend);
        if done.status != 0 {
            println!("{}: {}: {}{}", self.node, self.mend, done.out, done.err);
        }
    }
}

/// Somebody who signed in, with an application of theirs that runs.
#[derive(Debug)]
pub struct Busy {
    /// Their login name.
    pub name: &'static str,
    /// Their browser.
    pub client: Client,
    /// Where the application is, for them.
    pub path: String,
    /// It ends with this value.
    pub app: SiteApp,
}

impl Busy {
    /// They go on asking for the application.
    #[must_use]
    pub fn asks(&self) -> Use {
        Use::Page(self.name, self.client.clone(), self.path.clone())
    }

    /// They go on looking at the workspace, under this name.
    #[must_use]
    pub fn looks(&self, who: &'static str) -> Use {
        Use::Page(who, self.client.clone(), "/".to_owned())
    }

    /// They have a tunnel to the application open, and use it.
    ///
    /// # Panics
    /// When they can't have one.
    pub async fn tunnels(&self) -> Use {
        Use::Tunnel(self.name, self.client.tunnel(&self.path, "echo").await.expect("a tunnel"))
    }
}

/// Whether this was what they asked for.
#[must_use]
pub fn is_fine(seen: &Seen) -> bool {
    seen.status == 200
}

/// Panics unless everything that these people asked for was fine.
///
/// # Panics
/// Then.
#[track_caller]
pub fn assert_fine(traffic: &Traffic, people: &[&str]) {
    for who in people {
        let seen = traffic.of(who);
        assert!(!seen.is_empty() && seen.iter().all(is_fine), "{who}:\n{}", traffic.story());
    }
}

/// How many seconds it took since then, for the reader of a test's output.
pub fn took(what: &str, since: Duration, until: Duration) {
    println!("    {what}: {:.2} s", until.saturating_sub(since).as_secs_f32());
}

impl Site {
    /// Breaks something, as root on this node, and mends it later with the other script.
    ///
    /// # Panics
    /// When it can't be broken.
    pub fn breaks<'s>(&'s self, node: &'static str, script: &str, mend: &str) -> Broken<'s> {
        // First of all: the script may do a part of it and fail.
        let broken = Broken { site: self, node, mend: mend.to_owned() };
        self.root(node, script);
        broken
    }

    /// Stops a process on login for a while.
    pub fn stops(&self, pid: u32) -> Broken<'_> {
        self.breaks("login", &format!("kill -STOP {pid}"), &format!("kill -CONT {pid} 2>/dev/null || true"))
    }

    /// Ends processes on login at once.
    ///
    /// # Panics
    /// When one is not there.
    pub fn kills(&self, pids: &[u32]) {
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        self.root("login", &format!("kill -KILL {}", pids.join(" ")));
    }

    /// The first process of a service on a node.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn main_pid(&self, node: &str, unit: &str) -> u32 {
        self.root(node, &format!("systemctl show --property MainPID --value {unit}"))
            .parse()
            .expect("its pid")
    }

    /// Root's process on login that forks.
    #[must_use]
    pub fn spawner(&self) -> u32 {
        self.main_pid("login", "portreeve-broker")
    }

    /// The broker proper, its first child.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn broker(&self) -> u32 {
        let script = format!("pgrep --oldest --parent {} --uid root --exact portreeve-broke", self.spawner());
        self.root("login", &script).parse().expect("its pid")
    }

    /// A user's processes of this name on login: `portreeve-broke` is the dialer, `portreeve-worke` the worker.
    #[must_use]
    pub fn pids(&self, user: &str, name: &str) -> Vec<u32> {
        let said = self.shell("login", "root", &format!("pgrep --uid {user} --exact {name}")).out;
        said.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Waits until the only process of this name that a user has on login is so old that its death is none "at once".
    ///
    /// # Panics
    /// When there is none, or several.
    pub async fn grown(&self, user: &str, name: &str) -> u32 {
        let started = Instant::now();
        loop {
            let pids = self.pids(user, name);
            if let [pid] = pids[..] {
                let age = self.shell("login", "root", &format!("ps --no-headers -o etimes --pid {pid}")).out;
                if age.trim().parse::<u32>().is_ok_and(|age| age > 5) {
                    return pid;
                }
            }
            assert!(started.elapsed() < MENDED, "{user} has not one {name}: {pids:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many descriptors the portal has open.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn portal_descriptors(&self) -> usize {
        let pid = self.main_pid("login", "portreeve-portal");
        self.root("login", &format!("ls /proc/{pid}/fd | wc -l")).parse().expect("a number")
    }

    /// Somebody signs in, starts an application on this node, and has opened it.
    ///
    /// # Panics
    /// When they can't.
    pub async fn busy(&self, name: &'static str, node: &str) -> Busy {
        let client = self.signs_in_again(name).await;
        let app = self.app(node, name, None, "0.0.0.0:0");
        let path = format!("/fw2/{node}:{}/", app.port());
        client.get(&path).await.assert_status(200);
        client.get("/").await.assert_status(200);
        Busy { name, client, path, app }
    }

    /// Waits until portal, broker and all agents are all right.
    ///
    /// # Panics
    /// When they don't get there.
    pub async fn settled(&self) {
        const ASK: &str = "curl -sS --max-time 5 --unix-socket /run/portreeve/metrics.sock http://localhost";
        let script = format!(
            "systemctl is-active --quiet portreeve-portal portreeve-broker && {ASK}/ready && {ASK}/nodes |
            python3 -c 'import json,sys; print(sum(n[\"agent\"] == \"connected\" for n in json.load(sys.stdin)))'"
        );
        let started = Instant::now();
        loop {
            let done = self.shell("login", "root", &script);
            if done.out.trim() == "ready\n3" {
                return;
            }
            assert!(started.elapsed() < MENDED, "not all right: {done:?}\n{}", self.journal());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Has another configuration in force: this text, which belongs below the site's own, with other sections.
    pub fn configured(&self, more: &str) -> Broken<'_> {
        const FILE: &str = "/etc/portreeve/portreeve.toml";
        self.breaks(
            "login",
            &format!("cp -p {FILE} {FILE}.kept; printf '%s\\n' '{more}' >>{FILE}; systemctl reload portreeve-portal"),
            &format!("mv {FILE}.kept {FILE}; systemctl reload-or-restart portreeve-portal"),
        )
    }

    /// The package of the portal's node, with the programs as they are built now.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn package(&self) -> PathBuf {
        let dir = target().join("packages");
        let find = || {
            let mut entries =
                std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
            entries.find(|path| path.to_string_lossy().contains("/portreeve_"))
        };
        let age = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
        let programs =
            ["portreeve-portal", "portreeve-broker"].map(|name| age(&target().join("debug").join(name)));
        match find() {
            Some(package) if programs.iter().all(|built| *built <= age(&package)) => package,
            _ => {
                packages(&dir, &["--only", "deb"]);
                find().expect("it was made")
            }
        }
    }

    /// A sign-in, whatever comes of it: the answer to the name and the password.
    pub async fn tries_to_sign_in(&self, user: &str) -> Answer {
        self.stranger().browser().post("/-/sign-in", &form(user)).await
    }

    /// Signs in as soon as it is possible again.
    ///
    /// # Panics
    /// When it never is.
    pub async fn signs_in_again(&self, user: &str) -> Client {
        let (started, mut client) = (Instant::now(), self.stranger());
        loop {
            let answer = client.post("/-/sign-in", &form(user)).await;
            if answer.status == 303 {
                client.take_cookies(&answer);
                return client;
            }
            assert!(started.elapsed() < MENDED, "{user} is not let in: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn form(user: &str) -> String {
    format!("user={user}&password={user}-password")
}
