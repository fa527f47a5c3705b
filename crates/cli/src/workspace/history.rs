//! `portreeve history`: all that ever ran, or one of it whole.

use anyhow::bail;
use clap::Args;
use http::Method;

use super::jobs::show;
use super::{Job, List, Portal, plain};
use crate::portal_client::Session;
use crate::table;

/// Answers of a mebibyte that are asked for of what a job wrote.
const ANSWERS: usize = 16;

/// `portreeve history`
#[derive(Debug, Args)]
pub(crate) struct History {
    /// One job, by its id, as much of it as makes it clear, or its number in Slurm: all that was filled in, its script and what
    /// it wrote
    id: Option<String>,
    /// Only those in which all these words stand somewhere
    #[arg(long, value_name = "WORDS", conflicts_with = "id")]
    find: Option<String>,
    /// Only those of this application
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    app: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// As JSON; times are unix seconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    portal: Portal,
}

pub(crate) fn history(history: &History) -> anyhow::Result<()> {
    if let Some(id) = &history.id {
        return one(history, id);
    }
    let limit = history.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(history.find.as_deref().map(|words| ("q", words)));
    query.extend(history.app.as_deref().map(|app| ("app", app)));
    let list = history.portal.visit(async |session| List::ask(session, &query).await)?;
    list.complain();
    if history.json { table::json(&list.jobs) } else { show(&list, "nothing was found") }
}

fn one(history: &History, id: &str) -> anyhow::Result<()> {
    let (job, [script, output, errors]) = history.portal.visit(async |session| {
        let job = meant(session, id).await?;
        let script = session.api(Method::GET, &format!("jobs/{}/script", job.id), None).await?;
        let (output, errors) = (wrote(session, &job, "output").await?, wrote(session, &job, "errors").await?);
        Ok((job, [script, output, errors]))
    })?;
    if history.json {
        return table::json(
            &serde_json::json!({ "job": job, "script": script, "output": output, "errors": errors }),
        );
    }
    print!("{}", told(&job, &script, &output, &errors));
    Ok(())
}

/// The one that is meant.
async fn meant(session: &Session<'_>, typed: &str) -> anyhow::Result<Job> {
    let found = List::ask(session, &[("q", typed), ("limit", "1000")]).await?;
    let mut fits: Vec<Job> = found.jobs.into_iter().filter(|job| job.is_called(typed)).collect();
    match (fits.pop(), &fits[..]) {
        (Some(one), []) => Ok(one),
        (Some(one), others) => {
            let all: Vec<&str> = others.iter().chain([&one]).map(|job| job.id.as_str()).collect();
            bail!("{typed} could be any of {}: write more of the id", all.join(", "))
        }
        (None, _) => bail!("nothing of yours is called {typed}; `portreeve history` shows what there is"),
    }
}

/// What it wrote; of very much, the beginning.
async fn wrote(session: &Session<'_>, job: &Job, stream: &str) -> anyhow::Result<String> {
    let (mut text, mut offset) = (String::new(), 0);
    for _ in 0..ANSWERS {
        let path = format!("jobs/{}/output?stream={stream}&offset={offset}", job.id);
        let reply = session.reply(Method::GET, &path, None).await?;
        text += &reply.text();
        let at = |name: &str| reply.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        match (at("x-portreeve-next"), at("x-portreeve-end")) {
            (Some(next), Some(end)) if offset < next && next < end => offset = next,
            _ => return Ok(text),
        }
    }
    Ok(text + "\n... it goes on in the job's directory\n")
}

fn told(job: &Job, script: &str, output: &str, errors: &str) -> String {
    let mut text = format!("{} {}: {}", job.title, job.id, job.state.word());
    if !job.reason.is_empty() {
        text += &format!(", {}", job.reason);
    }
    text.push('\n');
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("{name:14} {}\n", value.replace('\n', "\n               "));
        }
    };
    line("system", job.system.clone());
    line("slurm job", job.slurm_job.map(|number| number.to_string()).unwrap_or_default());
    line("submitted", table::moment(job.submitted));
    line("began", job.start.map(table::moment).unwrap_or_default());
    line("ended", job.ended.map(table::moment).unwrap_or_default());
    line("nodes", job.nodes.clone());
    line("exit code", job.exit_code.map(|code| code.to_string()).unwrap_or_default());
    let of = |name: &str| job.rest.get(name);
    line("directory", of("directory").and_then(|value| value.as_str()).unwrap_or_default().to_owned());
    if let Some(values) = of("values").and_then(|values| values.as_object()) {
        for (name, value) in values {
            line(&format!("  {name}"), value.as_str().unwrap_or_default().to_owned());
        }
    }
    for (name, part) in [("script", script), ("output", output), ("errors", errors)] {
        if !part.is_empty() {
            text += &format!("--- {name}\n{}\n", part.trim_end_matches('\n'));
        }
    }
    plain(&text)
}
