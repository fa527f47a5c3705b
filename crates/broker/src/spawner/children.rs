//! Which children there are, and until when. Invariant: a process id stands here only while it can't be anybody else's: it
//! is taken out in the moment in which the child is reaped.

use std::collections::HashMap;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One child.
#[derive(Debug)]
pub(super) struct Child {
    /// The broker's number for it.
    pub(super) number: u64,
    /// How it is asked to end: a program may have to tidy up, our own code has nothing to.
    pub(super) ending: Signal,
    /// When it is killed.
    pub(super) until: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_pid: HashMap<Pid, Child>,
    pids: HashMap<u64, Pid>,
}

impl Children {
    pub(super) fn len(&self) -> usize {
        self.by_pid.len()
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.pids.contains_key(&number)
    }

    pub(super) fn add(&mut self, pid: Pid, child: Child) {
        self.pids.insert(child.number, pid);
        self.by_pid.insert(pid, child);
    }

    /// The child has been reaped: its number, if it was one.
    pub(super) fn remove(&mut self, pid: Pid) -> Option<u64> {
        let child = self.by_pid.remove(&pid)?;
        self.pids.remove(&child.number);
        Some(child.number)
    }

    /// Asks one to end, and kills it at `until` if it did not.
    pub(super) fn end(&mut self, number: u64, until: Instant) {
        let found = self.pids.get(&number).and_then(|pid| Some((*pid, self.by_pid.get_mut(pid)?)));
        // Its end and this order may have crossed.
        if let Some((pid, child)) = found {
            child.end(pid, until);
        }
    }

    /// Asks all to end.
    pub(super) fn end_all(&mut self, until: Instant) {
        for (pid, child) in &mut self.by_pid {
            child.end(*pid, until);
        }
    }

    /// Kills those whose time is up.
    pub(super) fn expire(&mut self, now: Instant) {
        for (pid, child) in &mut self.by_pid {
            if child.until.is_some_and(|until| until <= now) {
                tracing::warn!(child = child.number, %pid, "killed: it took too long");
                child.until = None;
                let _ = kill(*pid, Signal::SIGKILL);
            }
        }
    }

    /// When the next one's time is up.
    pub(super) fn next_until(&self) -> Option<Instant> {
        self.by_pid.values().filter_map(|child| child.until).min()
    }
}

impl Child {
    fn end(&mut self, pid: Pid, until: Instant) {
        // It can't be gone: it is not reaped yet.
        let _ = kill(pid, self.ending);
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
    }
}
