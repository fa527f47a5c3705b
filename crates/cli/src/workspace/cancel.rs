//! `portreeve cancel`: ends a job.

use anyhow::{Context, bail};
use clap::Args;
use http::Method;
use serde::Deserialize;

use super::{List, Portal};
use crate::portal_client::Session;

/// `portreeve cancel`
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Their ids as `portreeve jobs` shows them, or as much of one as makes it clear; or their numbers in Slurm
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    portal: Portal,
}

#[derive(Deserialize)]
struct Queue {
    jobs: Vec<Queued>,
}

#[derive(Deserialize)]
struct Queued {
    system: String,
    id: u32,
}

pub(crate) fn cancel(cancel: &Cancel) -> anyhow::Result<()> {
    cancel.portal.visit(async |session| {
        let going = List::ask(session, &[("state", "going"), ("limit", "1000")]).await?;
        for typed in &cancel.ids {
            let path = meant(session, &going, typed).await?;
            session
                .api(Method::POST, &format!("{path}/cancel"), None)
                .await
                .with_context(|| typed.clone())?;
            println!("told to end: {typed}");
        }
        Ok(())
    })
}

/// The address of the one that is meant.
async fn meant(session: &Session<'_>, going: &List, typed: &str) -> anyhow::Result<String> {
    let number = typed.parse::<u32>().ok();
    let mut fits: Vec<String> =
        going.jobs.iter().filter(|job| job.is_called(typed)).map(|job| format!("jobs/{}", job.id)).collect();
    if let (Some(number), true) = (number, fits.is_empty()) {
        // One that was handed over elsewhere.
        let said = session.api(Method::GET, "queue", None).await?;
        let queue: Queue = serde_json::from_str(&said).context("the portal's answer is not understood")?;
        let same = queue.jobs.iter().filter(|queued| queued.id == number);
        fits.extend(same.map(|queued| format!("queue/{}/{number}", queued.system)));
    }
    match &fits[..] {
        [one] => Ok(one.clone()),
        [] => {
            bail!("nothing of yours that waits or runs is called {typed}; `portreeve jobs` shows what does")
        }
        several => bail!("{typed} could be any of {}: write more of the id", several.join(", ")),
    }
}
