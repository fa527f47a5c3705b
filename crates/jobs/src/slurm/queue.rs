//! What Slurm says of one's jobs: `squeue`, and for those that it has forgotten `sacct`.
//!
//! Text with separators of our own, and no JSON: that changes its shape between releases, and says with success that there are no
//! jobs when the controller is away. A state that is not known here is [`JobState::Unknown`], and never guessed at.

use serde::{Deserialize, Serialize};

use super::run::CommandError;

/// Between fields: no job's name has it, unless somebody wants to confuse; then the line is not understood.
const FIELD: char = '\u{1f}';
/// Behind a record.
const RECORD: char = '\u{1e}';
/// What is asked, in this order. Free text comes last.
const FIELDS: [&str; 16] = [
    "JobID",
    "State",
    "Reason",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "Partition",
    "TimeLimit",
    "TimeUsed",
    "NumNodes",
    "NumCPUs",
    "NodeList",
    "exit_code",
    "ArrayJobID",
    "Comment",
    "Name",
];

/// A job's state, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It waits.
    Pending,
    /// It runs, or its nodes are being made ready.
    Running,
    /// It is stopped, and can go on.
    Suspended,
    /// It is being ended.
    Completing,
    /// It ended with 0.
    Completed,
    /// It ended otherwise.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// Its time was up.
    Timeout,
    /// It wanted more memory than it had.
    OutOfMemory,
    /// A node of it died, or was never there.
    NodeFail,
    /// Something with a higher priority took its place.
    Preempted,
    /// Something that is not known here.
    Unknown,
}

impl JobState {
    /// Of Slurm's word (squeue(1), JOB STATE CODES). `sacct` adds by whom it was cancelled.
    fn parse(word: &str) -> Self {
        match word.split_whitespace().next().unwrap_or_default() {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
                Self::Pending
            }
            "RUNNING" | "CONFIGURING" | "RESIZING" | "SIGNALING" => Self::Running,
            "SUSPENDED" | "STOPPED" => Self::Suspended,
            "COMPLETING" | "STAGE_OUT" => Self::Completing,
            "COMPLETED" => Self::Completed,
            "FAILED" => Self::Failed,
            "CANCELLED" | "REVOKED" => Self::Cancelled,
            "TIMEOUT" | "DEADLINE" => Self::Timeout,
            "OUT_OF_MEMORY" => Self::OutOfMemory,
            "NODE_FAIL" | "BOOT_FAIL" => Self::NodeFail,
            "PREEMPTED" => Self::Preempted,
            _ => Self::Unknown,
        }
    }

    /// It will not run any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Suspended | Self::Completing | Self::Unknown => false,
            Self::Completed
            | Self::Failed
            | Self::Cancelled
            | Self::Timeout
            | Self::OutOfMemory
            | Self::NodeFail
            | Self::Preempted => true,
        }
    }
}

/// A job in the queue, or one that left it a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its number.
    pub id: u32,
    /// Its state.
    pub state: JobState,
    /// Why it waits, in Slurm's word; empty: none.
    pub reason: String,
    /// When it was handed over (unix seconds).
    pub submitted: Option<i64>,
    /// When it began, or is expected to (unix seconds).
    pub start: Option<i64>,
    /// When it ended, or will have to (unix seconds).
    pub end: Option<i64>,
    /// Its partition.
    pub partition: String,
    /// Its time limit, in seconds; `None`: none.
    pub limit: Option<i64>,
    /// Nodes.
    pub nodes: u32,
    /// Cores.
    pub cores: u32,
    /// Which nodes, in Slurm's notation.
    pub node_list: String,
    /// Its exit code, once it ended.
    pub exit_code: i32,
    /// The signal that ended it; 0: none.
    pub signal: i32,
    /// What whoever handed it over wrote beside it.
    pub comment: String,
    /// Its name.
    pub name: String,
}

/// `squeue`'s option for them.
pub(super) fn format() -> String {
    let mut format = String::new();
    for (at, field) in FIELDS.iter().enumerate() {
        let end = if at + 1 == FIELDS.len() { RECORD } else { FIELD };
        format.push_str(if at == 0 { "" } else { "," });
        format.push_str(field);
        format.push(':');
        format.push(end);
    }
    format
}

/// What `squeue` said. Lines that can't be understood are counted, not passed over.
pub(super) fn rows(said: &str) -> Result<Vec<Row>, CommandError> {
    let mut records: Vec<&str> = said.split(RECORD).map(|record| record.trim_matches('\n')).collect();
    let rest = records.pop().unwrap_or_default();
    let rows: Option<Vec<Row>> = records.into_iter().map(row).collect();
    rows.filter(|_| rest.trim().is_empty()).ok_or_else(|| CommandError::NotUnderstood("squeue".to_owned()))
}

fn row(record: &str) -> Option<Row> {
    let fields: Vec<&str> = record.split(FIELD).map(str::trim).collect();
    let [
        id,
        state,
        reason,
        submitted,
        start,
        end,
        partition,
        limit,
        _used,
        nodes,
        cores,
        node_list,
        status,
        _array,
        comment,
        name,
    ] = fields[..]
    else {
        return None;
    };
    let status: i32 = status.parse().unwrap_or(0);
    Some(Row {
        id: id.parse().ok()?,
        state: JobState::parse(state),
        reason: text(reason),
        submitted: submitted.parse().ok(),
        start: start.parse().ok(),
        end: end.parse().ok(),
        partition: text(partition),
        limit: duration(limit),
        nodes: nodes.parse().unwrap_or(0),
        cores: cores.parse().unwrap_or(0),
        node_list: text(node_list),
        // As wait(2) gives it.
        exit_code: (status >> 8) & 0xff,
        signal: status & 0x7f,
        comment: text(comment),
        name: text(name),
    })
}

/// Slurm writes these for nothing.
fn text(field: &str) -> String {
    match field {
        "(null)" | "None" | "N/A" | "n/a" => String::new(),
        other => other.chars().filter(|one| !one.is_control()).collect(),
    }
}

/// `[days-][hours:]minutes:seconds`, in seconds; `None` for `UNLIMITED` and the like.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (days.parse::<i64>().ok()?, rest),
        None => (0, text),
    };
    let mut seconds: i64 = 0;
    for part in rest.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(part.parse::<u32>().ok()?.into())?;
    }
    days.checked_mul(86_400)?.checked_add(seconds).filter(|_| rest.contains(':'))
}

/// What `sacct` knows of a job that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// How it ended.
    pub state: JobState,
    /// Its exit code.
    pub exit_code: i32,
    /// The signal that ended it; 0: none.
    pub signal: i32,
    /// When it began (unix seconds).
    pub start: Option<i64>,
    /// When it ended (unix seconds).
    pub end: Option<i64>,
    /// Where it ran.
    pub node_list: String,
    /// Seconds of CPU that it used.
    pub cpu_seconds: Option<f64>,
    /// Memory that one of its tasks used at most, in KiB.
    pub max_rss_kib: Option<u64>,
}

/// `sacct`'s option for them.
pub(super) const PAST: &str = "JobIDRaw,State,ExitCode,Start,End,NodeList,TotalCPU,MaxRSS";

/// What `sacct --parsable2` said of one job and its steps; `None` if it does not know it.
pub(super) fn past(said: &str) -> Option<Past> {
    let mut lines = said.lines().map(|line| line.split('|').collect::<Vec<_>>());
    let [_, state, exit, start, end, nodes, cpu, rss] = lines.next()?[..] else { return None };
    let (code, signal) = exit.split_once(':')?;
    // The steps have what the job's own line lacks.
    let steps = lines.filter_map(|fields| fields.last().and_then(|rss| kib(rss)));
    Some(Past {
        state: JobState::parse(state),
        exit_code: code.parse().ok()?,
        signal: signal.parse().ok()?,
        start: start.parse().ok(),
        end: end.parse().ok(),
        node_list: text(nodes),
        cpu_seconds: cpu_seconds(cpu).filter(|seconds| *seconds > 0.0),
        max_rss_kib: steps.chain(kib(rss)).max(),
    })
}

/// `[days-][hours:]minutes:seconds[.fraction]`
fn cpu_seconds(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "no job uses 2^52 seconds")]
    Some(duration(whole)? as f64 + fraction)
}

fn kib(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let (number, factor) = match unit {
        "K" => (number, 1.0),
        "M" => (number, 1024.0),
        "G" => (number, 1024.0 * 1024.0),
        _ => (text, 1.0 / 1024.0),
    };
    let value: f64 = number.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked for its range")]
    (value > 0.0 && value < 1e15).then_some((value * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[&str]) -> String {
        format!("{}{RECORD}\n", fields.join(&FIELD.to_string()))
    }

    const RUNNING: [&str; 16] = [
        "7",
        "RUNNING",
        "None",
        "100",
        "110",
        "200",
        "normal",
        "1:30:00",
        "0:05",
        "2",
        "16",
        "c[1-2]",
        "0",
        "7",
        "portreeve:x",
        "a | b",
    ];

    #[test]
    fn jobs() {
        let mut failed = RUNNING;
        (failed[0], failed[1], failed[7], failed[12], failed[14]) =
            ("8", "FAILED", "UNLIMITED", "768", "(null)");
        let rows = rows(&format!("{}{}", record(&RUNNING), record(&failed))).unwrap();
        let job = &rows[0];
        assert_eq!((job.id, job.state, job.limit, job.cores), (7, JobState::Running, Some(5400), 16));
        assert_eq!((job.start, job.comment.as_str(), job.name.as_str()), (Some(110), "portreeve:x", "a | b"));
        let job = &rows[1];
        assert_eq!((job.state, job.exit_code, job.signal, job.limit), (JobState::Failed, 3, 0, None));
        assert!(job.comment.is_empty() && job.reason.is_empty());
        assert_eq!(format().matches(',').count(), FIELDS.len() - 1);
    }

    #[test]
    fn nonsense_is_no_empty_queue() {
        assert_eq!(rows("").unwrap(), []);
        assert_eq!(rows("\n").unwrap(), []);
        for said in ["nonsense", "nonsense\n", &record(&RUNNING[1..]), &record(&["x"; 16]), "\u{1e}"] {
            assert!(rows(said).is_err(), "{said:?}");
        }
    }

    #[test]
    fn states() {
        for (word, state) in [
            ("PENDING", JobState::Pending),
            ("CANCELLED by 20001", JobState::Cancelled),
            ("OUT_OF_MEMORY", JobState::OutOfMemory),
            ("TELEPORTED", JobState::Unknown),
            ("", JobState::Unknown),
        ] {
            assert_eq!(JobState::parse(word), state, "{word}");
        }
        assert!(!JobState::Unknown.is_over());
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("0:05", Some(5)),
            ("30:00", Some(1800)),
            ("1:30:00", Some(5400)),
            ("2-00:00:01", Some(172_801)),
            ("UNLIMITED", None),
            ("Partition_Limit", None),
            ("", None),
            ("9999999999999999999:0", None),
        ] {
            assert_eq!(duration(text), seconds, "{text}");
        }
    }

    #[test]
    fn what_accounting_knows() {
        let said = "7|FAILED|3:0|100|160|c1|00:01.500|\n7.batch|FAILED|3:0|100|160|c1|00:01.500|2048K\n7.0|COMPLETED|0:0|1|2|c1|0:0|1.5M\n";
        let past = past(said).unwrap();
        assert_eq!(
            (past.state, past.exit_code, past.start, past.max_rss_kib),
            (JobState::Failed, 3, Some(100), Some(2048))
        );
        assert_eq!(past.cpu_seconds, Some(1.5));
        assert_eq!(super::past(""), None);
        assert_eq!(super::past("7|FAILED"), None);
    }
}
