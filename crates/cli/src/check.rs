//! `portreeve check`: every problem of a configuration at once, and with `--live` what is wrong with the portal node that
//! it is for. Each check is a file below `check/`.
//! Invariant: nothing is changed, and nothing is started but programs that only tell.

mod agents;
mod broker;
mod certificate;
mod files;
mod finding;
mod firewall;
mod forwards;
mod groups;
mod ident2;
mod pam;
mod portal;
mod slurm;
mod workspace;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use portreeve_model::config::{Review, review};
use portreeve_model::{Config, NodeMap, Problem};

use crate::config::SYSTEM_FILE;
use finding::Finding;

/// How long one thing may take that is tried: a network file system may hang, a program may wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// `portreeve check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Configuration file [default: /etc/portreeve/portreeve.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file is a cluster's: also say what is missing, and check the node map. So it is if it has portal.url
    #[arg(long)]
    cluster: bool,
    /// Node map of a cluster [default: nodes.toml beside the configuration file]
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// On a cluster's portal node, best as root: also look at what is there and what runs. Nothing is changed
    #[arg(long)]
    live: bool,
}

/// A cluster's portal node, as its configuration has it.
struct Installation {
    config: Config,
    /// `None`: the node map has problems.
    map: Option<NodeMap>,
    /// The configuration file.
    file: PathBuf,
    /// Where that is, and what belongs to it.
    dir: PathBuf,
    /// The node map's file.
    nodes: PathBuf,
}

/// Looks at one thing.
type Look = fn(&Installation) -> Vec<Finding>;

pub(crate) fn check(check: &Check) -> anyhow::Result<()> {
    let file = match &check.config {
        Some(file) => file.clone(),
        None if Path::new(SYSTEM_FILE).exists() => SYSTEM_FILE.into(),
        // A node that has no portal can have the firewall.
        None if check.live && firewall::is_here() => return ended(say("firewall", firewall::check())),
        None => bail!("there is no {SYSTEM_FILE}: name a file with --config FILE"),
    };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(&file).with_context(|| format!("{name} can't be read"))?;
    let asked = check.cluster || check.live || check.nodes.is_some();
    let Review { config, problems, for_cluster } = review(&text, &name, asked);
    let mut count = tell(&name, &problems);
    if for_cluster {
        let nodes = check.nodes.clone().unwrap_or_else(|| file.with_file_name(crate::nodes_file::NAME));
        let map = read_map(&nodes);
        count += tell(&nodes.display().to_string(), map.as_ref().err().map_or(&[][..], Vec::as_slice));
        let dir = file.parent().unwrap_or(Path::new("")).to_owned();
        let installation = Installation { config, map: map.ok(), file, dir, nodes };
        count += look(&installation, check.live);
    }
    ended(count)
}

fn ended(problems: usize) -> anyhow::Result<()> {
    match problems {
        0 => Ok(()),
        1 => bail!("one problem"),
        count => bail!("{count} problems"),
    }
}

/// Says what was found, and how many of that are problems.
fn say(name: &str, found: Vec<Finding>) -> usize {
    found.iter().for_each(|finding| println!("{name}: {finding}"));
    found.iter().filter(|finding| finding.is_problem()).count()
}

/// Says what is wrong with a file, and how much that is.
fn tell(file: &str, problems: &[Problem]) -> usize {
    if problems.is_empty() {
        println!("{file}: no problems");
    }
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    problems.len()
}

fn read_map(file: &Path) -> Result<NodeMap, Vec<Problem>> {
    let name = file.display().to_string();
    let of_file = |what: String, remedy: &str| {
        let (line, key, remedy) = (None, String::new(), remedy.to_owned());
        vec![Problem { file: name.clone(), line, key, what, remedy }]
    };
    match std::fs::read_to_string(file) {
        Ok(text) => NodeMap::parse(&text, &name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(of_file(
            "it is not there".to_owned(),
            "make it with portreeve keys init, or name it with --nodes",
        )),
        Err(error) => Err(of_file(format!("it can't be read: {error}"), "let everybody read it (mode 0644)")),
    }
}

/// Says what else was found, and how many of that are problems.
fn look(at: &Installation, live: bool) -> usize {
    // What each is for, and what it found.
    let said: &[(&str, Look)] = &[("nodes", agents::check)];
    let there: &[(&str, Look)] = &[
        ("certificate", certificate::check),
        ("files", files::check),
        ("groups", groups::check),
        ("pam", pam::check),
        ("forwards", forwards::check),
        ("slurm", slurm::check),
        ("workspace", workspace::check),
        ("broker", broker::check),
        ("portal", portal::check),
        ("agents", agents::connected),
        ("ident2", ident2::check),
        ("firewall", |_| if firewall::is_here() { firewall::check() } else { Vec::new() }),
    ];
    said.iter().chain(if live { there } else { &[] }).map(|(name, find)| say(name, find(at))).sum()
}

/// The result of something that may never end; `None` when it did not in its time.
fn in_time<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(what());
    });
    receiver.recv_timeout(PATIENCE).ok()
}
