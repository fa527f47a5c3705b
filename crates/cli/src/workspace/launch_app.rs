//! `portreeve launch-app`: starts an application as its form would.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use http::Method;
use portreeve_model::manifest::Minutes;
use serde_json::{Value, json};

use super::{Job, Portal, State, plain};
use crate::portal_client::Session;
use crate::table;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// A portal that is being restarted may be silent for so long.
const SILENCE: Duration = Duration::from_secs(60);

/// `portreeve launch-app`
#[derive(Debug, Args)]
pub(crate) struct LaunchApp {
    /// The application: `portreeve apps` lists them
    name: String,
    /// What its form asks; may be given several times. What is not given is as the form has it at first
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Where, if there are several systems
    #[arg(long, value_name = "SYSTEM")]
    on: Option<String>,
    /// Stop it when nobody has used it for so long, such as 2h
    #[arg(long, value_name = "TIME", value_parser = minutes)]
    idle: Option<u32>,
    /// Only show what would be started
    #[arg(long, conflicts_with = "wait")]
    preview: bool,
    /// Until it can be opened, or is over
    #[arg(long)]
    wait: bool,
    /// As JSON; times are unix seconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    portal: Portal,
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it is no FIELD=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn minutes(text: &str) -> Result<u32, &'static str> {
    Minutes::parse(text).map(|minutes| minutes.0).ok_or("it is no time such as 30m or 2h")
}

pub(crate) fn launch_app(launch: &LaunchApp) -> anyhow::Result<()> {
    let values: BTreeMap<&str, &str> =
        launch.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let start = json!({
        "system": launch.on.as_deref().unwrap_or_default(), "values": values, "idle_minutes": launch.idle,
    });
    let app = &launch.name;
    if !app.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("{app:?} is no application's name: `portreeve apps` lists them");
    }
    let job = launch.portal.visit(async |session| {
        if launch.preview {
            let said = session.api(Method::POST, &format!("apps/{app}/preview"), Some(start)).await?;
            preview(&said, launch.json)?;
            return Ok(None);
        }
        let said = session
            .api(Method::POST, &format!("apps/{app}/jobs"), Some(start))
            .await
            .with_context(|| format!("{app} was not started (`portreeve apps` lists what there is)"))?;
        let job: Job = serde_json::from_str(&said).context("the portal's answer is not understood")?;
        if !launch.wait {
            return Ok(Some(job));
        }
        if !launch.json {
            eprintln!("{}: started", job.id);
        }
        until(session, &job.id, launch.json).await.map(Some)
    })?;
    let Some(job) = job else { return Ok(()) };
    if launch.json {
        table::json(&job)?;
    } else if let Some(address) = &job.address {
        println!("{}", plain(address));
    } else {
        println!("{}", job.id);
    }
    if job.state == State::Failed {
        let words = plain(&job.last_words);
        if !words.is_empty() {
            eprintln!("{words}");
        }
        bail!("{} failed: {}", job.id, plain(&job.reason));
    }
    Ok(())
}

/// As soon as it can be opened, or is over; says how it goes meanwhile.
async fn until(session: &Session<'_>, id: &str, quiet: bool) -> anyhow::Result<Job> {
    let (mut told, mut heard) = (String::new(), Instant::now());
    loop {
        let job = match Job::ask(session, id).await {
            Ok(job) => job,
            Err(_) if heard.elapsed() < SILENCE => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => {
                return Err(error.context(format!("{id} was started, and is not heard of any more")));
            }
        };
        heard = Instant::now();
        if job.address.is_some() || job.state.is_over() {
            return Ok(job);
        }
        let how = [job.state.word(), &job.reason, job.doubt.as_deref().unwrap_or_default()];
        let how = how.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        if !quiet && how != told {
            eprintln!("{id}: {}", plain(&how));
            told = how;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn preview(said: &str, as_json: bool) -> anyhow::Result<()> {
    let said: Value = serde_json::from_str(said).context("the portal's answer is not understood")?;
    if as_json {
        return table::json(&said);
    }
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let mut shown = format!("directory: {}\narguments:", text("directory"));
    for argument in said["arguments"].as_array().into_iter().flatten() {
        shown += &format!(" {}", argument.as_str().unwrap_or_default());
    }
    shown += "\nvariables:\n";
    for (name, value) in said["variables"].as_object().into_iter().flatten() {
        shown += &format!("  {name}={}\n", value.as_str().unwrap_or_default());
    }
    print!("{}", plain(&format!("{shown}script:\n{}", text("script"))));
    Ok(())
}
