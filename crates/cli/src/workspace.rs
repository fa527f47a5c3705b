//! The workspace from a terminal: `portreeve jobs`, `launch-app`, `cancel` and `history`, by the portal's `/api/v1/`.
//!
//! Each signs in for its moment, as whoever types it, and out again; nothing is kept on the disk.

mod cancel;
mod cp;
mod history;
mod jobs;
mod launch_app;

pub(crate) use cancel::{Cancel, cancel};
pub(crate) use cp::{Cp, cp};
pub(crate) use history::{History, history};
pub(crate) use jobs::{Jobs, jobs};
pub(crate) use launch_app::{LaunchApp, launch_app};

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::arguments::Login;
use crate::config::cluster_url;
use crate::login::{Place, address};
use crate::portal_client::{PortalClient, Session};

/// Which portal.
#[derive(Debug, Args)]
pub(crate) struct Portal {
    /// Certificates of the authorities to trust instead of the system's, PEM [default: your own portal's certificate]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Show the access token in this file, and don't sign in; where nobody can, as in a job. Its scope must be api, for `cp` files
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "socket"])]
    token_file: Option<PathBuf>,
    /// With a token: the portal's address [default: portal.url of the cluster's configuration]
    #[arg(long, value_name = "URL", requires = "token_file")]
    portal: Option<String>,
    #[command(flatten)]
    login: Login,
}

impl Portal {
    /// Does something there.
    fn visit<T>(&self, act: impl AsyncFnOnce(&Session<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.client()?.visit(act)
    }

    fn client(&self) -> anyhow::Result<PortalClient> {
        if let Some(file) = &self.token_file {
            let token =
                std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
            let url = self.portal.clone().or_else(cluster_url);
            let url =
                url.context("this machine does not know its cluster's portal: name it with --portal URL")?;
            return PortalClient::with_token(&url, token.trim(), self.cacert.as_deref())
                .with_context(|| file.display().to_string());
        }
        let place = Place::of(&self.login)?;
        let own = match &place {
            // It makes its certificate itself, unless it was given one.
            Place::Own(state) => Some(state.join("certificate.pem")).filter(|file| file.exists()),
            Place::Cluster(_) => None,
        };
        PortalClient::to(&address(&place)?, self.cacert.as_deref().or(own.as_deref()))
    }
}

/// A job as the portal says it, as far as it is shown here.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Job {
    id: String,
    app: String,
    title: String,
    system: String,
    state: State,
    #[serde(default)]
    reason: String,
    doubt: Option<String>,
    slurm_job: Option<u32>,
    submitted: i64,
    start: Option<i64>,
    deadline: Option<i64>,
    ended: Option<i64>,
    #[serde(default)]
    nodes: String,
    /// Where it is opened, once it is ready.
    address: Option<String>,
    exit_code: Option<i32>,
    #[serde(default)]
    last_words: String,
    /// What else it says.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Queued,
    Starting,
    Running,
    Ready,
    Stopping,
    Ended,
    Failed,
    /// Of a younger portal.
    #[serde(other)]
    Unknown,
}

impl State {
    fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// A list of them.
#[derive(Debug, Deserialize, Serialize)]
struct List {
    jobs: Vec<Job>,
    found: usize,
    #[serde(default)]
    trouble: Vec<String>,
}

impl List {
    /// Those that fit a query of `/api/v1/jobs`.
    async fn ask(session: &Session<'_>, query: &[(&str, &str)]) -> anyhow::Result<Self> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let said = session.api(http::Method::GET, &format!("jobs?{query}"), None).await?;
        serde_json::from_str(&said)
            .context("the portal's answer is not understood: is it of another version?")
    }

    /// What is not known, on standard error.
    fn complain(&self) {
        for line in &self.trouble {
            eprintln!("{}", plain(line));
        }
    }
}

impl Job {
    /// Whether this means it: the beginning of its id, or its number in Slurm.
    fn is_called(&self, typed: &str) -> bool {
        match typed.parse::<u32>() {
            Ok(number) => self.slurm_job == Some(number),
            Err(_) => self.id.starts_with(typed),
        }
    }

    async fn ask(session: &Session<'_>, id: &str) -> anyhow::Result<Self> {
        let said = session.api(http::Method::GET, &format!("jobs/{id}"), None).await?;
        serde_json::from_str(&said)
            .context("the portal's answer is not understood: is it of another version?")
    }
}

/// Without what a terminal would take for a command, but for ends of lines.
fn plain(text: &str) -> String {
    text.chars().filter(|one| !one.is_control() || matches!(one, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_is_called() {
        let text = r#"{"id":"20261126t160045-abcdefgh","app":"run","title":"Run","system":"main","state":"of-tomorrow",
            "slurm_job":4711,"submitted":1,"younger":true}"#;
        let job: Job = serde_json::from_str(text).unwrap();
        assert_eq!(job.state, State::Unknown);
        for (typed, means_it) in [
            ("20261126t160045-abcdefgh", true),
            ("20261126t16", true),
            ("4711", true),
            // A number is Slurm's, and never the beginning of an id: 2026 would be any job of this year.
            ("20261126", false),
            ("471", false),
            ("160045", false),
            ("20261126t160045-abcdefghi", false),
        ] {
            assert_eq!(job.is_called(typed), means_it, "{typed}");
        }
        // What is not shown here goes on to programs.
        assert_eq!(serde_json::to_value(&job).unwrap()["younger"], true);
    }
}
