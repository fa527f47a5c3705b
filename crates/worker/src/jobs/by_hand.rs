//! What was started without the workspace: by `portreeve launch` in somebody's own batch script, or a Jupyter server by itself,
//! which leaves a record of its own (`jpserver-PID.json` in Jupyter's runtime directory).

use std::path::{Path, PathBuf};

use portreeve_jobs::records::{Endpoint, Progress, read};
use serde::Deserialize;

use super::{Hangs, Jobs};
use crate::limits;

/// Something that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByHand {
    /// What it is.
    pub(crate) program: String,
    pub(crate) node: String,
    pub(crate) port: u16,
    /// What follows its address; a secret may be in it.
    pub(crate) open: String,
    pub(crate) job: Option<u32>,
    pub(crate) is_ready: bool,
    pub(crate) started: Option<i64>,
}

/// What of Jupyter's record matters.
#[derive(Deserialize)]
struct JupyterServer {
    url: String,
    base_url: String,
    port: u16,
    token: String,
    #[serde(default)]
    hostname: String,
}

impl Jobs {
    /// All of them.
    pub(crate) async fn by_hand(&self) -> Result<Vec<ByHand>, Hangs> {
        let (endpoints, home) = (self.place.state.join("endpoints"), self.place.person.home.clone());
        let node = self.place.here.clone();
        self.aside(move || {
            let mut found = launched(&endpoints);
            found.extend(jupyter_servers(&home, node.as_deref()));
            found
        })
        .await
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        found.filter_map(Result::ok).map(|entry| entry.path()).take(limits::BY_HAND).collect();
    paths.sort();
    paths
}

fn launched(dir: &Path) -> Vec<ByHand> {
    let records = children(dir).into_iter().filter_map(|dir| read::<Endpoint>(&dir).ok().flatten());
    records
        .filter(|endpoint| endpoint.progress != Progress::Over)
        .map(|endpoint| ByHand {
            is_ready: endpoint.progress == Progress::Ready,
            program: endpoint.program,
            node: endpoint.node,
            port: endpoint.port,
            open: endpoint.open,
            job: endpoint.job,
            started: Some(endpoint.started),
        })
        .collect()
}

/// `~/.local/share/jupyter/runtime` (jupyter_core's paths).
fn jupyter_servers(home: &Path, node: Option<&str>) -> Vec<ByHand> {
    let mut found = Vec::new();
    for path in children(&home.join(".local/share/jupyter/runtime")) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !(name.starts_with("jpserver-") && name.ends_with(".json")) {
            continue;
        }
        let is_small = path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < 65_536);
        let text = if is_small { std::fs::read(&path).ok() } else { None };
        let Some(server) = text.and_then(|text| serde_json::from_slice::<JupyterServer>(&text).ok()) else {
            continue;
        };
        // "http://c1:8888/", or "http://localhost:8888/": then it is known to its own node alone.
        let host =
            server.url.split("://").nth(1).and_then(|rest| rest.split([':', '/']).next()).unwrap_or_default();
        let host = if host.is_empty() { server.hostname.as_str() } else { host };
        let node = match (host, node) {
            ("localhost" | "127.0.0.1", Some(here)) => here.to_owned(),
            ("localhost" | "127.0.0.1" | "0.0.0.0" | "", _) => continue,
            (host, _) => host.split('.').next().unwrap_or_default().to_owned(),
        };
        let base = server.base_url.trim_matches('/');
        let token = if server.token.is_empty() { String::new() } else { format!("?token={}", server.token) };
        found.push(ByHand {
            program: "Jupyter".to_owned(),
            node,
            port: server.port,
            open: if base.is_empty() || base.starts_with("fw") {
                format!("lab{token}")
            } else {
                format!("{base}/lab{token}")
            },
            job: None,
            is_ready: true,
            started: None,
        });
    }
    found
}
