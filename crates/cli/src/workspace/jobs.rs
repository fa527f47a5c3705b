//! `portreeve jobs`: what waits and runs.

use clap::Args;

use super::{Job, List, Portal};
use crate::table::{self, moment};

/// `portreeve jobs`
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Those that are over as well, the youngest 50
    #[arg(long)]
    all: bool,
    /// As JSON; times are unix seconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    portal: Portal,
}

pub(crate) fn jobs(jobs: &Jobs) -> anyhow::Result<()> {
    let query: &[(&str, &str)] =
        if jobs.all { &[("limit", "50")] } else { &[("state", "going"), ("limit", "1000")] };
    let list = jobs.portal.visit(async |session| List::ask(session, query).await)?;
    list.complain();
    if jobs.json { table::json(&list.jobs) } else { show(&list, "nothing of yours waits or runs") }
}

/// A table, or that there is nothing to show.
pub(super) fn show(list: &List, nothing: &str) -> anyhow::Result<()> {
    if list.jobs.is_empty() {
        eprintln!("{nothing}");
        return Ok(());
    }
    let rows: Vec<[String; 6]> = list.jobs.iter().map(row).collect();
    table::print(["ID", "APPLICATION", "WHERE", "STATE", "WHEN", "REASON OR ADDRESS"], &rows)?;
    if list.jobs.len() < list.found {
        eprintln!("{} more", list.found - list.jobs.len());
    }
    Ok(())
}

fn row(job: &Job) -> [String; 6] {
    let mut place = job.system.clone();
    if let Some(number) = job.slurm_job {
        place += &format!(" {number}");
    }
    if !job.nodes.is_empty() {
        place += &format!(" {}", job.nodes);
    }
    let when = match (job.ended, job.deadline, job.start) {
        (Some(ended), ..) => format!("ended {}", moment(ended)),
        (None, Some(deadline), _) => format!("until {}", moment(deadline)),
        (None, None, Some(start)) => format!("from {}", moment(start)),
        (None, None, None) => String::new(),
    };
    let why = job.doubt.as_ref().map(|doubt| format!(" (known last; {doubt})")).unwrap_or_default();
    [
        job.id.clone(),
        job.app.clone(),
        place,
        job.state.word().to_owned(),
        when,
        match &job.address {
            Some(address) if job.reason.is_empty() => format!("{address}{why}"),
            _ => format!("{}{why}", job.reason),
        },
    ]
}
