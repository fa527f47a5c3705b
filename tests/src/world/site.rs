//! Portreeve as a site has it: installed from its packages on the cluster of `tests/cluster`, with portal and broker on login,
//! agents on login, c1 and c2, and browsers outside.
//!
//! A test's own thread is in the network of `outside`, which reaches the portal alone.

mod apps;
mod guarded;
mod jobs;
mod players;
mod workspace;

use std::net::IpAddr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::client::{Answer, Client};
use super::people::{Skip, skip};
use super::testbed::{Testbed, packages, repository, target};

pub use self::apps::{Report, SiteApp};
pub use self::guarded::{CHECK_FIREWALL, guarded};
pub use self::jobs::Job;
pub use self::players::{Outcome, Player, end};
pub use self::workspace::Started;

/// What the portal is called.
pub const NAME: &str = "portal.cluster.example";
/// Where it is, seen from outside.
pub const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 78, 0, 1));
/// Where the test programs are on every node.
pub const PROGRAMS: &str = "/opt/portreeve/debug";

/// The installed site. One for all tests of a program.
#[derive(Debug)]
pub struct Site {
    testbed: Testbed,
    /// Held by a test that others would disturb: they run one after the other.
    alone: Mutex<()>,
}

/// No other such test runs for as long as this is held. Each test has a thread of its own, so it may be held while one waits.
#[derive(Debug)]
pub struct Alone<'s> {
    _held: MutexGuard<'s, ()>,
}

impl std::ops::Deref for Site {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.testbed
    }
}

/// The site, started and installed by whoever asks first. One that is broken is not waited for again by each test.
fn site() -> Result<&'static Site, Skip> {
    static SITE: OnceLock<Option<Result<Site, Skip>>> = OnceLock::new();
    let found = SITE.get_or_init(|| std::panic::catch_unwind(installed).ok());
    let found = found.as_ref().expect("a site; the first test that wanted it says why there is none");
    found.as_ref().map_err(Clone::clone)
}

fn installed() -> Result<Site, Skip> {
    let testbed = Testbed::find("site")?;
    if testbed.shell("login", "root", "test -e /etc/portreeve/ca.pem").status != 0 {
        let built = target().join("packages");
        packages(&built, &["--only", "deb"]);
        let mut command = Command::new(repository().join("tests/cluster.d/site"));
        command.arg("--dir").arg(testbed.dir()).arg("--packages").arg(&built);
        let done = command.output().expect("the script is there");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "the site can't be installed:\n{out}{err}");
    }
    let site = Site { testbed, alone: Mutex::new(()) };
    site.wait_for_agents(&["login", "c1", "c2"]);
    Ok(site)
}

/// Runs a test in the network of `outside`.
///
/// # Panics
/// When the test does.
pub fn outside<F: Future<Output = ()>>(name: &str, test: impl FnOnce(&'static Site) -> F + Send + 'static) {
    let site = match site() {
        Ok(site) => site,
        Err(why) => return skip(name, &why),
    };
    let thread = std::thread::spawn(move || {
        let network =
            std::fs::File::open(format!("/proc/{}/ns/net", site.pid("outside"))).expect("its network");
        setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test(site));
        runtime.shutdown_background();
    });
    if let Err(panic) = thread.join() {
        println!("{}", site.journal());
        std::panic::resume_unwind(panic);
    }
}

impl Site {
    /// Keeps other tests of this program from running until it is dropped: for one that stops what they need.
    pub fn alone(&self) -> Alone<'_> {
        Alone { _held: self.alone.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Somebody outside who has not signed in.
    #[must_use]
    pub fn stranger(&self) -> Client {
        Client::new(443).towards(ADDRESS).at(NAME)
    }

    /// Somebody who signed in with a name and a password.
    ///
    /// # Panics
    /// When they are not let in.
    pub async fn sign_in(&self, user: &str) -> Client {
        let mut client = self.stranger();
        let answer = client.post("/-/sign-in", &format!("user={user}&password={user}-password")).await;
        answer.assert_status(303);
        client.take_cookies(&answer);
        client
    }

    /// Asks until the portal refuses by this name; the whole answer.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    pub async fn until_refused(&self, client: &Client, path: &str, code: &str) -> Answer {
        let started = Instant::now();
        loop {
            let answer = client.get(path).await;
            if answer.error() == code {
                return answer;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{path}: not {code}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks until the answer has this status; the whole answer.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    pub async fn until_status(&self, client: &Client, path: &str, status: u16) -> Answer {
        let started = Instant::now();
        loop {
            let answer = client.get(path).await;
            if answer.status == status {
                return answer;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{path}: not {status}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the agents of these nodes are connected.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for_agents(&self, nodes: &[&str]) {
        const ASK: &str = "curl -sS --unix-socket /run/portreeve/metrics.sock http://localhost/nodes";
        for node in nodes {
            let script = format!(
                "{ASK} | python3 -c 'import json,sys; print([n[\"agent\"] for n in json.load(sys.stdin) if n[\"node\"]==\"{node}\"][0])'"
            );
            self.until("login", &script, "connected");
        }
    }

    /// Restarts the portal, and the agents with it: after a portal that was gone at once they would wait for up to half a minute.
    ///
    /// # Panics
    /// When not all of it comes back.
    pub fn restart_portal(&self) {
        self.root("login", "systemctl reset-failed; systemctl restart portreeve-portal");
        for node in ["login", "c1", "c2"] {
            self.root(node, "systemctl restart portreeve-agent");
        }
        self.wait_for_agents(&["login", "c1", "c2"]);
    }

    /// The same from a destructor: also for the tests that come after one that failed, which say what is wrong with it.
    ///
    /// # Panics
    /// When not all of it comes back, unless a test is failing already.
    pub fn give_back_portal(&self) {
        let back = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.restart_portal()));
        assert!(back.is_ok() || std::thread::panicking(), "the portal does not come back");
    }

    /// What portal, broker and agents logged last.
    #[must_use]
    pub fn journal(&self) -> String {
        let mut all = String::new();
        for node in ["login", "c1", "c2"] {
            let said = self.shell(node, "root", "journalctl --no-pager --lines 60 --unit 'portreeve*'").out;
            all.push_str(&format!("--- {node}\n{said}"));
        }
        all
    }
}
