//! `portreeve history`: all that ever ran, or one of it whole.

use clap::Args;
use http::Method;

use super::jobs::show;
use super::{Job, List, Portal, plain};
use crate::table;

/// `portreeve history`
#[derive(Debug, Args)]
pub(crate) struct History {
    /// One job: all that was filled in, its script and what it wrote
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
        let text = async |what: &str| session.api(Method::GET, &format!("jobs/{id}/{what}"), None).await;
        let job = Job::ask(session, id).await?;
        let texts =
            [text("script").await?, text("output?stream=output").await?, text("output?stream=errors").await?];
        Ok((job, texts))
    })?;
    if history.json {
        return table::json(
            &serde_json::json!({ "job": job, "script": script, "output": output, "errors": errors }),
        );
    }
    print!("{}", told(&job, &script, &output, &errors));
    Ok(())
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
