//! The workspace from a terminal: `portreeve jobs`, `launch-app`, `cancel` and `history`, by the portal's `/api/v1/`.
//!
//! Each signs in for its moment, as whoever types it, and out again; nothing is kept on the disk.

mod cancel;
mod history;
mod jobs;
mod launch_app;

pub(crate) use cancel::{Cancel, cancel};
pub(crate) use history::{History, history};
pub(crate) use jobs::{Jobs, jobs};
pub(crate) use launch_app::{LaunchApp, launch_app};

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::arguments::Login;
use crate::login::{Place, address};
use crate::portal_client::{PortalClient, Session};

/// Which portal.
#[derive(Debug, Args)]
pub(crate) struct Portal {
    /// Certificates of the authorities to trust instead of the system's, PEM [default: your own portal's certificate]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    #[command(flatten)]
    login: Login,
}

impl Portal {
    /// Does something there.
    fn visit<T>(&self, act: impl AsyncFnOnce(&Session<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let place = Place::of(&self.login)?;
        let own = match &place {
            // It makes its certificate itself, unless it was given one.
            Place::Own(state) => Some(state.join("certificate.pem")).filter(|file| file.exists()),
            Place::Cluster(_) => None,
        };
        let client = PortalClient::to(&address(&place)?, self.cacert.as_deref().or(own.as_deref()))?;
        client.visit(act)
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
    open: Option<String>,
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
