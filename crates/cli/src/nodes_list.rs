//! `portreeve nodes list`: the nodes, and whether their agents are connected. The portal knows the latter, and says it on
//! its metrics socket; without a portal the node map is shown.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode};
use portreeve_model::Speaker;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::http_client::ask;
use crate::{nodes_file, table};

/// Where the portal says it.
pub(crate) const METRICS: &str = "/run/portreeve/metrics.sock";

/// `portreeve nodes list`
#[derive(Debug, Default, Args)]
pub(crate) struct List {
    /// The portal's metrics socket, or the address that it has [default: /run/portreeve/metrics.sock]
    #[arg(long, value_name = "PATH|HOST:PORT")]
    metrics: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A node as the portal describes it in its answer to `/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) node: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    key: Option<String>,
    /// What its agent does; `None` where only the node map is known.
    #[serde(default)]
    pub(crate) agent: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    latency_us: Option<u64>,
    #[serde(default)]
    pub(crate) problem: Option<String>,
}

pub(crate) fn list(list: &List, dir: &Path) -> anyhow::Result<()> {
    let metrics = list.metrics.as_deref().unwrap_or(METRICS);
    let nodes = match asked(metrics) {
        Ok(nodes) => nodes,
        // Whoever names a socket wants to hear it from there.
        Err(error) if list.metrics.is_some() => return Err(error),
        Err(error) => {
            let nodes =
                of_the_map(dir).with_context(|| format!("{error:#}; and the node map does not help"))?;
            eprintln!("{error:#}: this is the node map, and what the agents do is not known");
            nodes
        }
    };
    if list.json {
        return table::json(&nodes);
    }
    let rows: Vec<[String; 6]> = nodes
        .into_iter()
        .map(|node| {
            let latency = node.latency_us.map(|us| format!("{}.{:03} ms", us / 1000, us % 1000));
            let agent = node.agent.unwrap_or_else(|| "not known".to_owned());
            let problem = node.problem.unwrap_or_default();
            let (since, latency) = (node.since.unwrap_or_default(), latency.unwrap_or_default());
            [node.node, node.addresses.join(","), agent, since, latency, problem]
        })
        .collect();
    table::print(["NODE", "ADDRESSES", "AGENT", "SINCE", "ANSWERS IN", "PROBLEM"], &rows)?;
    Ok(())
}

/// What the portal says of the nodes.
pub(crate) fn asked(metrics: &str) -> anyhow::Result<Vec<Node>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let nobody = || format!("no portal answers at {metrics}");
        if metrics.contains('/') {
            nodes_from(UnixStream::connect(PathBuf::from(metrics)).await.with_context(nobody)?).await
        } else {
            nodes_from(TcpStream::connect(metrics).await.with_context(nobody)?).await
        }
        .with_context(nobody)
    })
}

async fn nodes_from(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<Vec<Node>> {
    let request = Request::get("/nodes").header(HOST, "localhost").header(ACCEPT, "application/json");
    let reply = ask(stream, request.body(bytes::Bytes::new())?).await?;
    anyhow::ensure!(reply.status == StatusCode::OK, "it answered {}", reply.status);
    serde_json::from_slice(&reply.body).context("its answer is not understood")
}

fn of_the_map(dir: &Path) -> anyhow::Result<Vec<Node>> {
    let nodes = nodes_file::read(&dir.join(nodes_file::NAME))?;
    Ok(nodes
        .nodes()
        .iter()
        .map(|node| {
            let (key, problem) = match node.speaker {
                Some(Speaker::Key(key)) => (Some(key.to_string()), None),
                Some(Speaker::Plain) => (None, None),
                None => (None, Some("it has no key: portreeve keys add".to_owned())),
            };
            let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
            let problem = problem.or_else(|| addresses.is_empty().then(|| "it has no address".to_owned()));
            let (agent, since, latency_us) = (None, None, None);
            Node { node: node.name.to_string(), addresses, key, agent, since, latency_us, problem }
        })
        .collect())
}
