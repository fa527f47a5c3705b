//! The site with its firewall on: c1 and c2 are guarded, and login answers them. It is on for as long as a test wants it,
//! so that other tests on the same cluster find none.

use std::sync::{Mutex, PoisonError};

use super::{Site, outside};
use crate::world::process::Finished;

/// What the check says of a node's firewall, and its exit status.
pub const CHECK_FIREWALL: &str = "portreeve check --live 2>&1 | grep '^firewall: '; exit ${PIPESTATUS[0]}";

/// Of whoever is guarded. The time is shorter than what is shipped, so that a test need not wait; slurmctld is that user's.
const GUARDED: &str = "udp_again = \"2s\"\nexempt_connectors = [\"root\", \"slurm\"]\n";
const ANSWERS: &str = "queues = \"\"\n";
/// How many tests want it.
static WANTED: Mutex<usize> = Mutex::new(0);

/// The firewall is on while somebody has one.
struct Guard(&'static Site);

impl Guard {
    fn put(site: &'static Site) -> Self {
        // There before it is locked and counted: a start that fails is undone as well, and by then it is not locked.
        let guard = Self(site);
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted += 1;
        if *wanted == 1 {
            let nodes = site.read("login", "/etc/portreeve/nodes.toml");
            for (node, config) in [("login", ANSWERS), ("c1", GUARDED), ("c2", GUARDED)] {
                if node != "login" {
                    site.write(node, "root", "/etc/portreeve/nodes.toml", &nodes);
                }
                site.configure_firewall(node, config);
                site.root(
                    node,
                    "systemctl reset-failed portreeve-firewall; systemctl start portreeve-firewall",
                );
            }
        }
        drop(wanted);
        guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted -= 1;
        if *wanted == 0 {
            if std::thread::panicking() {
                println!("{}", self.0.journal());
            }
            for node in ["login", "c1", "c2"] {
                let off = "systemctl stop portreeve-firewall; portreeve-agent rules remove";
                // The portal's own stays.
                let map = if node == "login" { "" } else { "; rm /etc/portreeve/nodes.toml" };
                let done = self.0.shell(node, "root", &format!("{off}{map}"));
                if done.status != 0 {
                    println!("{node}: the firewall can't be taken out: {}{}", done.out, done.err);
                }
            }
        }
    }
}

/// Runs a test on the site with its firewall on.
///
/// # Panics
/// When the test does.
pub fn guarded<F: Future<Output = ()>>(name: &str, test: impl FnOnce(&'static Site) -> F + Send + 'static) {
    outside(name, |site| async move {
        let _guard = Guard::put(site);
        test(site).await;
    });
}

impl Site {
    /// Writes what the firewall of a node is told; it reads that at its start and when it is reloaded.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn configure_firewall(&self, node: &str, config: &str) {
        self.write(node, "root", "/etc/portreeve/firewall.toml", config.as_bytes());
    }

    /// Has the firewall of a guarded node decide by this key's other value, until it is given back.
    ///
    /// # Panics
    /// When it does not take it into use.
    pub fn reconfigured(&'static self, node: &'static str, key: &str, value: &str) -> Reconfigured {
        self.guarded_by(node, key, value, Self::reload_firewall)
    }

    /// The same for a key that takes effect at the start alone.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restarted(&'static self, node: &'static str, key: &str, value: &str) -> Reconfigured {
        self.guarded_by(node, key, value, |site, node| {
            site.root(node, "systemctl restart portreeve-firewall");
        })
    }

    fn guarded_by(
        &'static self,
        node: &'static str,
        key: &str,
        value: &str,
        take: fn(&Self, &str),
    ) -> Reconfigured {
        let reconfigured = Reconfigured { site: self, node, take };
        let others = GUARDED.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
        self.configure_firewall(node, &format!("{others}\n{key} = {value}\n"));
        take(self, node);
        reconfigured
    }

    fn reload_firewall(&self, node: &str) {
        const COUNT: &str = "journalctl --no-pager --unit portreeve-firewall | grep --count reloaded";
        let before: u32 = self.shell(node, "root", COUNT).out.trim().parse().expect("a number");
        self.root(node, "systemctl reload portreeve-firewall");
        self.until(node, COUNT, &(before + 1).to_string());
    }

    /// One of the firewall's counters, by the name behind `portreeve_firewall_` and, where there are labels, with them.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn firewalls_count(&self, node: &str, name: &str) -> u64 {
        let text = self.shell(node, "alice", "/usr/sbin/portreeve-agent firewall --metrics");
        let line = text
            .out
            .lines()
            .find_map(|line| line.strip_prefix("portreeve_firewall_")?.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{node}: no {name}: {text:?}"))
    }

    /// [`CHECK_FIREWALL`], by root.
    #[must_use]
    pub fn checks_firewall(&self, node: &str) -> Finished {
        self.shell(node, "root", CHECK_FIREWALL)
    }

    /// `portreeve why`, as somebody types it.
    #[must_use]
    pub fn why(&self, node: &str, user: &str, from: &str, to: &str) -> Finished {
        self.run(node, user, &["portreeve", "why", "--from", from, "--to", to])
    }

    /// The refusals that the firewall of a node wrote down since, each a line.
    #[must_use]
    pub fn refusals(&self, node: &str, cursor: &str) -> Vec<String> {
        // With the lines of one unit alone, journalctl leaves out the first one where the cursor is another unit's.
        let read = "journalctl --no-pager --output cat --after-cursor";
        let said = self.root(node, &format!("{read} '{cursor}' | grep 'event=\"firewall\"' || true"));
        said.lines().map(str::to_owned).collect()
    }

    /// Where the journal of a node ends now.
    #[must_use]
    pub fn journals_end(&self, node: &str) -> String {
        let last = self.root(node, "journalctl --no-pager --lines 1 --show-cursor --quiet | tail -n 1");
        last.trim_start_matches("-- cursor: ").to_owned()
    }
}

/// A firewall that decides by something else, until this is dropped.
#[must_use = "it is given back when this is dropped"]
pub struct Reconfigured {
    site: &'static Site,
    node: &'static str,
    /// Has the daemon take into use what is in the file.
    take: fn(&Site, &str),
}

impl Drop for Reconfigured {
    fn drop(&mut self) {
        let Self { site, node, take } = *self;
        let back = std::panic::catch_unwind(|| {
            site.configure_firewall(node, GUARDED);
            take(site, node);
        });
        assert!(back.is_ok() || std::thread::panicking(), "{node}: the firewall is not as it was");
    }
}
