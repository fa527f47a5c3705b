//! An application that runs as another user, in a process of its own. It reports what reached it.

use std::time::{Duration, Instant};

use super::PATIENCE;
use super::people::Person;
use super::process::Running;

/// Such an application. Killed when dropped.
#[derive(Debug)]
pub struct ForeignApp {
    running: Running,
    port: u16,
}

/// What reached it up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Connections that it accepted.
    pub connections: usize,
    /// Connections that ended.
    pub ended: usize,
    /// Bytes that it read.
    pub bytes: usize,
}

impl ForeignApp {
    /// Starts one as `person` on `address` (port 0: any). It answers every request with "I am uid N".
    ///
    /// # Errors
    /// When it can't listen there: what it said.
    pub fn start(person: &Person, address: &str, more: &[&str]) -> Result<Self, String> {
        let mut arguments = vec!["--listen".to_owned(), address.to_owned()];
        arguments.extend(more.iter().map(ToString::to_string));
        let running = Running::program("portreeve-test-app", &arguments, Some(person));
        let line = running.line(PATIENCE).unwrap_or_default();
        match line.strip_prefix("listening on ").and_then(|port| port.parse().ok()) {
            Some(port) => Ok(Self { running, port }),
            None => Err(format!("{line} {}", running.stderr())),
        }
    }

    /// One on any port of `127.0.0.1`.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(person: &Person) -> Self {
        Self::start(person, "127.0.0.1:0", &[]).unwrap_or_else(|error| panic!("{}: {error}", person.name))
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `/fw2/localhost:PORT`, followed by `rest`.
    pub fn path(&self, rest: &str) -> String {
        format!("/fw2/localhost:{}{rest}", self.port)
    }

    /// What reached it, once every connection that it accepted has ended (a refused one ends at once).
    ///
    /// # Panics
    /// When it does not answer.
    pub fn reached(&mut self) -> Reached {
        let start = Instant::now();
        loop {
            let now = self.ask();
            if (now.connections > 0 && now.ended == now.connections)
                || start.elapsed() > Duration::from_secs(2)
            {
                return now;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// What reached it up to now.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ask(&mut self) -> Reached {
        self.running.say("report");
        let line = self.running.line(PATIENCE).expect("it answers");
        let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [connections, ended, bytes] = numbers[..] else { panic!("no report: {line}") };
        Reached { connections, ended, bytes }
    }
}
