use std::collections::BTreeMap;

use super::*;
use crate::records::{EntryId, Usage};

const NOW: i64 = 10_000;

fn entry(open: bool, job: Option<JobRef>) -> Entry {
    Entry {
        id: EntryId::new(NOW - 1000).unwrap(),
        app: "jupyter".to_owned(),
        title: "Jupyter".to_owned(),
        system: "main".to_owned(),
        values: BTreeMap::new(),
        arguments: Vec::new(),
        directory: "/home/alice".to_owned(),
        open: open.then(String::new),
        idle_minutes: None,
        submitted: NOW - 1000,
        job,
    }
}

fn row(state: JobState, reason: &str) -> Row {
    Row {
        id: 7,
        state,
        reason: reason.to_owned(),
        submitted: Some(NOW - 1000),
        start: Some(NOW - 900),
        end: Some(NOW + 100),
        partition: "normal".to_owned(),
        limit: Some(1000),
        nodes: 1,
        cores: 1,
        node_list: "c1".to_owned(),
        exit_code: 0,
        signal: 0,
        comment: String::new(),
        name: String::new(),
    }
}

fn run(exit_code: Option<i32>) -> Run {
    Run {
        node: "c1".to_owned(),
        started: NOW - 900,
        ended: exit_code.map(|_| NOW - 10),
        exit_code,
        usage: Some(Usage { cpu_seconds: 1.0, max_rss_kib: 1 }),
        ..Run::default()
    }
}

fn endpoint(progress: Progress, why: Option<&str>) -> Endpoint {
    Endpoint {
        progress,
        node: "c1".to_owned(),
        port: 8888,
        tls: false,
        open: String::new(),
        forward: None,
        job: Some(7),
        program: "jupyter".to_owned(),
        pid: 1,
        started: 0,
        ready: None,
        ended: None,
        last_used: None,
        idle_stop: None,
        why: why.map(str::to_owned),
        last_words: String::new(),
    }
}

fn judged(open: bool, records: &Records, seen: Seen<'_>) -> (State, String, bool) {
    let job = judge(&entry(open, Some(JobRef::Slurm(7))), records, seen, NOW);
    assert_eq!(job.state.is_over(), job.outcome.is_some());
    (job.state, job.reason, job.doubt.is_some())
}

fn is(state: State, reason: &str) -> (State, String, bool) {
    (state, reason.to_owned(), false)
}

#[test]
fn what_slurm_says_of_one_that_is_going_on() {
    let none = Records::default();
    let ready = Records {
        endpoint: Some(endpoint(Progress::Ready, None)),
        run: Some(run(None)),
        ..Records::default()
    };
    let starting = Records { endpoint: Some(endpoint(Progress::Starting, None)), ..Records::default() };
    let cancelled = Records { cancelled: Some(Cancelled { at: NOW }), ..ready.clone() };
    for (open, records, state, reason, expected) in [
        (
            true,
            &none,
            JobState::Pending,
            "Resources",
            is(State::Queued, "it waits for free nodes (Resources)"),
        ),
        (true, &none, JobState::Pending, "", is(State::Queued, "it has not been looked at yet")),
        (true, &none, JobState::Pending, "Licenses", is(State::Queued, "Slurm says Licenses")),
        (true, &none, JobState::Running, "", is(State::Starting, "")),
        (true, &starting, JobState::Running, "", is(State::Starting, "")),
        (true, &ready, JobState::Running, "", is(State::Ready, "")),
        (false, &none, JobState::Running, "", is(State::Running, "")),
        (true, &cancelled, JobState::Running, "", is(State::Stopping, "")),
        (true, &ready, JobState::Completing, "", is(State::Stopping, "")),
        (true, &ready, JobState::Suspended, "", is(State::Ready, "Slurm has suspended it")),
        (true, &ready, JobState::Unknown, "", is(State::Ready, "Slurm says a state that is not known here")),
    ] {
        assert_eq!(judged(open, records, Seen::Row(&row(state, reason))), expected, "{state:?}");
    }
    let job = judge(&entry(true, None), &ready, Seen::Row(&row(JobState::Running, "")), NOW);
    assert_eq!((job.deadline, job.nodes.as_str()), (Some(NOW + 100), "c1"));
    let waits = judge(&entry(true, None), &none, Seen::Row(&row(JobState::Pending, "")), NOW);
    assert_eq!((waits.deadline, waits.start), (None, Some(NOW - 900)), "when it is expected to begin");
}

#[test]
fn how_jobs_end() {
    let none = Records::default();
    let wanted = Records { cancelled: Some(Cancelled { at: NOW }), ..Records::default() };
    let idle = Records {
        endpoint: Some(Endpoint {
            ready: Some(NOW - 500),
            ..endpoint(Progress::Over, Some("nobody used it for 2h"))
        }),
        ..Records::default()
    };
    let mute = Records {
        endpoint: Some(endpoint(Progress::Over, Some("it ended before it answered"))),
        ..Records::default()
    };
    for (records, state, code, expected) in [
        (&none, JobState::Completed, 0, is(State::Ended, "")),
        (&none, JobState::Failed, 3, is(State::Failed, "it ended with exit code 3")),
        (&none, JobState::Timeout, 0, is(State::Failed, "its time was up")),
        (&none, JobState::OutOfMemory, 0, is(State::Failed, "it wanted more memory than it had asked for")),
        (&none, JobState::NodeFail, 0, is(State::Failed, "its node failed")),
        (&none, JobState::Cancelled, 0, is(State::Ended, "it was cancelled in Slurm")),
        (&wanted, JobState::Cancelled, 0, is(State::Ended, "you ended it")),
        (&idle, JobState::Completed, 0, is(State::Ended, "nobody used it for 2h")),
        (&mute, JobState::Completed, 0, is(State::Failed, "it ended before it answered")),
    ] {
        let row = Row { exit_code: code, ..row(state, "") };
        assert_eq!(judged(true, records, Seen::Row(&row)), expected, "{state:?}");
    }
    let row = Row { signal: 9, ..row(JobState::Failed, "") };
    assert_eq!(judged(false, &none, Seen::Row(&row)).1, "signal SIGKILL ended it");
}

#[test]
fn slurm_that_is_away_or_forgets_loses_nothing() {
    let none = Records::default();
    let going = Records {
        run: Some(run(None)),
        endpoint: Some(endpoint(Progress::Ready, None)),
        ..Records::default()
    };
    let over = Records { run: Some(run(Some(0))), ..Records::default() };
    let failed = Records { run: Some(run(Some(4))), ..Records::default() };
    let away = Seen::Away("Slurm does not answer");
    assert_eq!(judged(true, &none, away), (State::Queued, String::new(), true));
    assert_eq!(judged(true, &going, away), (State::Ready, String::new(), true));
    assert_eq!(judged(true, &over, away), is(State::Ended, ""));
    assert_eq!(judged(true, &over, Seen::Gone(None)), is(State::Ended, ""));
    assert_eq!(judged(true, &failed, Seen::Gone(None)), is(State::Failed, "it ended with exit code 4"));
    assert_eq!(judged(true, &going, Seen::Gone(None)).0, State::Failed);
    let past = Past {
        state: JobState::Timeout,
        exit_code: 0,
        signal: 0,
        start: Some(1),
        end: Some(2),
        node_list: "c1".to_owned(),
        cpu_seconds: Some(3.0),
        max_rss_kib: Some(4),
    };
    let job = judge(&entry(true, Some(JobRef::Slurm(7))), &none, Seen::Gone(Some(&past)), NOW);
    assert_eq!((job.state, job.reason.as_str()), (State::Failed, "its time was up"));
    assert_eq!(job.outcome.unwrap().usage, Some(Usage { cpu_seconds: 3.0, max_rss_kib: 4 }));
    // One that was handed over a moment ago may not be there yet.
    let young = Entry { submitted: NOW - 5, ..entry(true, None) };
    assert_eq!(judge(&young, &none, Seen::Gone(None), NOW).state, State::Queued);
}

#[test]
fn processes_of_this_machine() {
    let none = Records::default();
    let ready = Records { endpoint: Some(endpoint(Progress::Ready, None)), ..Records::default() };
    let wanted = Records { cancelled: Some(Cancelled { at: NOW }), ..ready.clone() };
    assert_eq!(judged(true, &none, Seen::Alive), is(State::Starting, ""));
    assert_eq!(judged(true, &ready, Seen::Alive), is(State::Ready, ""));
    assert_eq!(judged(true, &wanted, Seen::Alive), is(State::Stopping, ""));
    assert_eq!(judged(true, &wanted, Seen::Dead), is(State::Ended, "you ended it"));
    assert_eq!(judged(true, &ready, Seen::Dead).0, State::Failed);
    let over = Records { run: Some(Run { told_to_stop: Some(1), ..run(Some(143)) }), ..Records::default() };
    assert_eq!(judged(true, &over, Seen::Dead), is(State::Failed, "it was told to stop"));
}
