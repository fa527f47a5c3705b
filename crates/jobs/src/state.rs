//! What a job's records and whoever runs it say about it: its state, and the reason.
//!
//! Invariant: only what somebody said counts. Silence of Slurm leaves a job as it was known last, and says so beside it.

use serde::Serialize;

use crate::limits;
use crate::records::{Cancelled, Endpoint, Entry, JobRef, Outcome, Progress, Run};
use crate::slurm::{JobState, Past, Row};

/// A job's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// It runs, and can't be opened yet.
    Starting,
    /// It runs, and is nothing to be opened.
    Running,
    /// It can be opened.
    Ready,
    /// It was told to stop.
    Stopping,
    /// It is over, and went well or was wanted to end.
    Ended,
    /// It is over, and did not go well.
    Failed,
}

impl State {
    /// It will not change any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed)
    }
}

/// What whoever runs a job says about it now.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'s> {
    /// Slurm has it.
    Row(&'s Row),
    /// Slurm does not know it; accounting may.
    Gone(Option<&'s Past>),
    /// It can't be asked, for this reason.
    Away(&'s str),
    /// Its process is there.
    Alive,
    /// Its process is not there.
    Dead,
}

/// What a job's directory says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// How the script runs.
    pub run: Option<Run>,
    /// Where it listens.
    pub endpoint: Option<Endpoint>,
    /// That it is to end.
    pub cancelled: Option<Cancelled>,
    /// The last lines of its output.
    pub last_words: String,
}

/// A job as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its state.
    pub state: State,
    /// Why it is in that state: a clause; empty: there is nothing to say.
    pub reason: String,
    /// What is not known at the moment, and why.
    pub doubt: Option<String>,
    /// When it began, or is expected to (unix seconds).
    pub start: Option<i64>,
    /// When it will have to end (unix seconds).
    pub deadline: Option<i64>,
    /// Where it runs.
    pub nodes: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// What Slurm's words mean, for those that people see most (squeue(1), JOB REASON CODES).
#[must_use]
pub fn plainly(reason: &str) -> String {
    let known = match reason {
        "" => "it has not been looked at yet",
        "Priority" => "others come first",
        "Resources" => "it waits for free nodes",
        "Dependency" => "it waits for another job",
        "BeginTime" => "its time has not come",
        "JobHeldUser" => "you hold it back",
        "JobHeldAdmin" => "an administrator holds it back",
        "PartitionTimeLimit" => "it asks for more time than the partition gives",
        "PartitionNodeLimit" | "PartitionConfig" => "it asks for more nodes than the partition has",
        "PartitionDown" | "PartitionInactive" => "the partition starts no jobs at the moment",
        "ReqNodeNotAvail" => "nodes that it needs are not available",
        "AssocGrpCpuLimit" | "AssocMaxJobsLimit" | "QOSMaxCpuPerUserLimit" | "QOSMaxJobsPerUserLimit" => {
            "you or your group use as much as you may"
        }
        other if other.starts_with("Nodes required for job") => {
            return "nodes that it needs are down, drained or kept for others".to_owned();
        }
        other if other.starts_with("ReqNodeNotAvail") => "nodes that it needs are not available",
        _ => return format!("Slurm says {reason}"),
    };
    if reason.is_empty() { known.to_owned() } else { format!("{known} ({reason})") }
}

/// Judges.
#[must_use]
pub fn judge(entry: &Entry, records: &Records, seen: Seen<'_>, now: i64) -> Job {
    let judged = Judged { entry, records, now };
    let ended_by_itself = records.run.as_ref().filter(|run| run.ended.is_some());
    match seen {
        Seen::Row(row) if row.state.is_over() => judged.over_in_slurm(row.state, row.exit_code, row.signal, row.start, row.end, &row.node_list),
        Seen::Row(row) => judged.in_queue(row),
        Seen::Gone(Some(past)) if past.state.is_over() => {
            let mut job =
                judged.over_in_slurm(past.state, past.exit_code, past.signal, past.start, past.end, &past.node_list);
            if let Some(outcome) = &mut job.outcome
                && let (Some(cpu_seconds), Some(max_rss_kib)) = (past.cpu_seconds, past.max_rss_kib)
            {
                outcome.usage = Some(crate::records::Usage { cpu_seconds, max_rss_kib });
            }
            job
        }
        Seen::Gone(_) | Seen::Dead if ended_by_itself.is_some() => judged.over_by_its_record(),
        Seen::Gone(_) if entry.job.is_none() && now - entry.submitted < limits::UNKNOWN => {
            judged.going(State::Queued, "it is being handed over")
        }
        Seen::Gone(_) if now - entry.submitted < limits::UNKNOWN => judged.going(judged.state_of_program(), ""),
        Seen::Gone(_) if entry.job.is_none() => {
            judged.lost("Slurm never took it: it did not answer when this was handed over")
        }
        Seen::Gone(_) => judged.lost("Slurm does not know it any more, and it left no word about its end: its node may have died"),
        Seen::Dead if entry.job.is_none() => judged.lost("it never began: the portal was stopped while it started it"),
        Seen::Dead => judged.lost("its process is gone, and left no word about its end: it was killed, or this machine was restarted"),
        Seen::Alive => judged.going(judged.state_of_program(), ""),
        Seen::Away(why) => {
            if ended_by_itself.is_some() {
                return judged.over_by_its_record();
            }
            let state = if records.run.is_some() { judged.state_of_program() } else { State::Queued };
            Job { doubt: Some(why.to_owned()), ..judged.going(state, "") }
        }
    }
}

struct Judged<'j> {
    entry: &'j Entry,
    records: &'j Records,
    now: i64,
}

impl Judged<'_> {
    fn going(&self, state: State, reason: &str) -> Job {
        let run = self.records.run.as_ref();
        Job {
            state,
            reason: reason.to_owned(),
            doubt: None,
            start: run.map(|run| run.started),
            deadline: None,
            nodes: run.map(|run| run.node.clone()).unwrap_or_default(),
            outcome: None,
        }
    }

    fn in_queue(&self, row: &Row) -> Job {
        let (state, reason) = match row.state {
            _ if self.records.cancelled.is_some() => (State::Stopping, String::new()),
            JobState::Pending => (State::Queued, plainly(&row.reason)),
            JobState::Completing => (State::Stopping, String::new()),
            JobState::Suspended => (self.state_of_program(), "Slurm has suspended it".to_owned()),
            // Not guessed at.
            JobState::Unknown => {
                (self.state_of_program(), "Slurm says a state that is not known here".to_owned())
            }
            _ => (self.state_of_program(), String::new()),
        };
        let begun = row.state != JobState::Pending;
        let deadline = row.end.filter(|_| begun && row.limit.is_some());
        Job {
            state,
            reason,
            start: row.start,
            deadline,
            nodes: row.node_list.clone(),
            ..self.going(state, "")
        }
    }

    /// Of one that runs.
    fn state_of_program(&self) -> State {
        let Records { run, endpoint, cancelled, .. } = self.records;
        if cancelled.is_some() || run.as_ref().is_some_and(|run| run.told_to_stop.is_some()) {
            return State::Stopping;
        }
        match endpoint.as_ref().map(|endpoint| endpoint.progress) {
            Some(Progress::Ready) => State::Ready,
            Some(Progress::Stopping | Progress::Over) => State::Stopping,
            Some(Progress::Starting) => State::Starting,
            None if self.entry.open.is_some() => State::Starting,
            None => State::Running,
        }
    }

    fn over_in_slurm(
        &self,
        state: JobState,
        exit_code: i32,
        signal: i32,
        start: Option<i64>,
        end: Option<i64>,
        nodes: &str,
    ) -> Job {
        let run = self.records.run.as_ref();
        let wanted = self.records.cancelled.is_some();
        let (failed, reason) = match state {
            JobState::Completed => (self.never_answered(), String::new()),
            JobState::Cancelled if wanted => (false, "you ended it".to_owned()),
            JobState::Cancelled => (false, "it was cancelled in Slurm".to_owned()),
            JobState::Timeout => (true, "its time was up".to_owned()),
            JobState::OutOfMemory => (true, "it wanted more memory than it had asked for".to_owned()),
            JobState::NodeFail => (true, "its node failed".to_owned()),
            JobState::Preempted => (true, "a job with a higher priority took its place".to_owned()),
            _ => self.failed_with(Some(exit_code), (signal != 0).then_some(signal)),
        };
        Job::of_outcome(Outcome {
            failed,
            reason: self.with_word_of_program(failed, reason),
            started: run.map(|run| run.started).or(start),
            ended: run.and_then(|run| run.ended).or(end).unwrap_or(self.now),
            exit_code: run.and_then(|run| run.exit_code).or(Some(exit_code)),
            signal: run.and_then(|run| run.signal).or((signal != 0).then_some(signal)),
            // Of a job that is just over, Slurm may name those alone that it has not cleaned up yet.
            nodes: run.map_or(nodes, |run| &run.node).to_owned(),
            usage: run.and_then(|run| run.usage),
            last_words: self.records.last_words.clone(),
            files: run.map(|run| run.files.clone()).unwrap_or_default(),
        })
    }

    fn over_by_its_record(&self) -> Job {
        let run = self.records.run.clone().unwrap_or_default();
        let (failed, reason) = if self.records.cancelled.is_some() {
            (false, "you ended it".to_owned())
        } else if run.told_to_stop.is_some() {
            (run.exit_code != Some(0), "it was told to stop".to_owned())
        } else {
            self.failed_with(run.exit_code, run.signal)
        };
        Job::of_outcome(Outcome {
            failed,
            reason: self.with_word_of_program(failed, reason),
            started: Some(run.started),
            ended: run.ended.unwrap_or(self.now),
            exit_code: run.exit_code,
            signal: run.signal,
            nodes: run.node,
            usage: run.usage,
            last_words: self.records.last_words.clone(),
            files: run.files,
        })
    }

    fn lost(&self, reason: &str) -> Job {
        let run = self.records.run.as_ref();
        Job::of_outcome(Outcome {
            failed: self.records.cancelled.is_none(),
            reason: if self.records.cancelled.is_some() {
                "you ended it".to_owned()
            } else {
                reason.to_owned()
            },
            started: run.map(|run| run.started),
            ended: self.now,
            exit_code: None,
            signal: None,
            nodes: run.map(|run| run.node.clone()).unwrap_or_default(),
            usage: None,
            last_words: self.records.last_words.clone(),
            files: Vec::new(),
        })
    }

    fn failed_with(&self, exit_code: Option<i32>, signal: Option<i32>) -> (bool, String) {
        match (exit_code, signal) {
            (_, Some(signal)) => (true, format!("{} ended it", signal_name(signal))),
            (Some(0), None) => (self.never_answered(), String::new()),
            (Some(code), None) => (true, format!("it ended with exit code {code}")),
            (None, None) => (true, "nobody knows how it ended".to_owned()),
        }
    }

    /// It ended by itself and without complaint, but it was to be opened, and never could be.
    fn never_answered(&self) -> bool {
        let Records { run, endpoint, cancelled, .. } = self.records;
        let told = cancelled.is_some() || run.as_ref().is_some_and(|run| run.told_to_stop.is_some());
        !told && endpoint.as_ref().is_some_and(|endpoint| endpoint.ready.is_none() && endpoint.why.is_some())
    }

    /// What `portreeve launch` knows better than Slurm: why an application did not answer, or was stopped.
    fn with_word_of_program(&self, failed: bool, reason: String) -> String {
        let why = self.records.endpoint.as_ref().and_then(|endpoint| endpoint.why.clone());
        match why {
            Some(why) if reason.is_empty() || (failed && self.records.cancelled.is_none()) => why,
            _ => reason,
        }
    }
}

fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => format!("signal {known}"),
        Err(_) => format!("signal {signal}"),
    }
}

impl Job {
    /// Of one that is over, by its record.
    #[must_use]
    pub fn of_outcome(outcome: Outcome) -> Self {
        Self {
            state: if outcome.failed { State::Failed } else { State::Ended },
            reason: outcome.reason.clone(),
            doubt: None,
            start: outcome.started,
            deadline: None,
            nodes: outcome.nodes.clone(),
            outcome: Some(outcome),
        }
    }
}

impl Entry {
    /// Slurm's number, if Slurm runs it.
    #[must_use]
    pub fn slurm_job(&self) -> Option<u32> {
        match self.job {
            Some(JobRef::Slurm(id)) => Some(id),
            Some(JobRef::Process { .. }) | None => None,
        }
    }
}

#[cfg(test)]
mod tests;
