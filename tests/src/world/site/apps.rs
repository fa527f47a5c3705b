//! Applications on the nodes. They count what reaches them.

use std::time::{Duration, Instant};

use super::{PROGRAMS, Site};
use crate::world::process::Running;

/// What `portreeve-test-app` can't do.
const LISTENER: &str = include_str!("listener.py");
/// How long an application may take to start, behind `sbatch` for one.
const START: Duration = Duration::from_secs(30);
/// How long a connection that the portal closes may take to end.
const ENDS: Duration = Duration::from_secs(5);

impl Site {
    /// An application of somebody's on a node; see `portreeve-test-app`. `group`: run by `sg`. `listen` may be followed by
    /// more of its options.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn app(&self, node: &str, user: &str, group: Option<&str>, listen: &str) -> SiteApp {
        let program = format!("exec {PROGRAMS}/portreeve-test-app --listen {listen}");
        self.app_by(
            node,
            user,
            &match group {
                Some(group) => format!("exec sg {group} -c '{program}'"),
                None => program,
            },
        )
    }

    /// Sockets that take more than `portreeve-test-app`: see `listener.py` beside this file. `group`: run by `sg`.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn listener(&self, node: &str, user: &str, group: Option<&str>, options: &str) -> SiteApp {
        let run = match group {
            Some(group) => format!("exec sg {group} -c \"exec python3 $file {options}\""),
            None => format!("exec python3 $file {options}"),
        };
        self.app_by(node, user, &format!("file=$(mktemp); cat >$file <<'PYTHON'\n{LISTENER}PYTHON\n{run}"))
    }

    /// Whatever a shell starts that behaves as `portreeve-test-app` does.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn app_by(&self, node: &str, user: &str, script: &str) -> SiteApp {
        SiteApp::begun(self.start(node, user, script))
    }
}

/// What reached an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Connections that it accepted.
    pub taken: usize,
    /// Those of them that have ended.
    pub ended: usize,
    /// Bytes that it read.
    pub bytes: usize,
}

/// An application on a node. Killed with this value.
#[derive(Debug)]
pub struct SiteApp {
    port: u16,
    running: Running,
}

impl SiteApp {
    /// Waits until it listens.
    pub(super) fn begun(running: Running) -> Self {
        let line = running.line(START).unwrap_or_else(|| panic!("no application: {}", running.stderr()));
        let port = line.strip_prefix("listening on ").and_then(|port| port.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("{line:?}")), running }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `/fw2/NODE:PORT/`
    #[must_use]
    pub fn at(&self, node: &str) -> String {
        format!("/fw2/{node}:{}/", self.port)
    }

    /// Has it close its LISTEN socket; what it accepted goes on. For [`Site::listener`].
    ///
    /// # Panics
    /// When it does not read.
    pub fn close(&mut self) {
        self.running.say("close");
        // Answered after that.
        self.report();
    }

    /// Ends it, and waits until it has.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(mut self) {
        // Killed, it would be gone a moment later only.
        self.running.hang_up();
        assert!(self.running.wait(ENDS).is_some(), "it does not end");
    }

    /// What reached it up to now.
    ///
    /// # Panics
    /// When it does not say.
    pub fn report(&mut self) -> Report {
        self.running.say("report");
        let line = self.running.line(Duration::from_secs(10)).expect("it reports");
        let mut numbers = line.split(' ').skip(1).map(|number| number.parse().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        Report { taken: next(), ended: next(), bytes: next() }
    }

    /// Panics if another byte reached it since then. Waits until what it took since has ended: a connection that the portal
    /// refuses ends at once.
    ///
    /// # Panics
    /// Then, and when they do not end.
    #[track_caller]
    pub fn assert_nothing_since(&mut self, before: Report) {
        let started = Instant::now();
        loop {
            let now = self.report();
            assert_eq!(now.bytes, before.bytes, "bytes reached an application that was refused: {now:?}");
            if now.taken - now.ended <= before.taken - before.ended {
                return;
            }
            assert!(started.elapsed() < ENDS, "refused connections stay open: {now:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Panics if a byte reached it.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn assert_untouched(&mut self) {
        self.assert_nothing_since(Report::default());
    }
}
