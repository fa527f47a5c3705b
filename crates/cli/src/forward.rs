//! `portreeve forward`: lasting names for applications. The files can be written by hand as well.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use nix::unistd::Uid;
use portreeve_broker::Forwards;
use portreeve_broker::account::group_name;
use portreeve_model::{CertificatePin, ForwardFile, ForwardTarget, NodePort, Port, Scheme};

use crate::arguments::{Forward, ForwardAction, ForwardNameArgument};
use crate::{config, control, state};

pub(crate) fn forward(forward: &Forward) -> anyhow::Result<()> {
    let directory = dir(forward)?;
    let forwards = Forwards::in_dir(directory.path.clone());
    match &forward.action {
        ForwardAction::Add { name: ForwardNameArgument(name), target, pin, mode, target_host } => {
            let node = if directory.is_shared { Some(this_node()?) } else { None };
            let mut target = parse_target(target, *pin, node.as_deref())?;
            target.mode = mode.or(target.mode);
            target.own_host |= target_host;
            directory.prepare()?;
            let new = forwards.add(name, &target)?;
            println!("{} /fw/{name}/ -> {target}", if new { "added" } else { "changed" });
        }
        ForwardAction::List => list(&forwards)?,
        ForwardAction::Disable { name: ForwardNameArgument(name) } => {
            forwards.disable(name)?;
            println!("disabled /fw/{name}/; the name stays yours");
        }
        ForwardAction::Remove { name: ForwardNameArgument(name) } => {
            forwards.remove(name)?;
            println!("removed /fw/{name}/");
        }
        ForwardAction::Share { name: ForwardNameArgument(name), group } => {
            forwards.share(name, group)?;
            println!("shared /fw/{name}/ with group {group}");
            let mode = std::fs::metadata(forwards.dir()).map_or(0, |meta| meta.mode());
            if mode & 0o011 == 0 {
                let dir = forwards.dir().display();
                println!(
                    "note: nobody else can look into {dir}; share from a directory that they see too (--forwards DIR)"
                );
            }
        }
    }
    Ok(())
}

/// Where forwards are, in this order: as asked; where the user's own portal that runs has them; where this cluster has
/// them; where the user's own portal had them; in the state directory.
fn dir(forward: &Forward) -> anyhow::Result<Directory> {
    if let Some(dir) = &forward.forwards {
        return Ok(Directory { path: config::absolute(dir)?, state: None, is_shared: false });
    }
    find(&forward.state)
}

fn find(named: &crate::arguments::StateDir) -> anyhow::Result<Directory> {
    // Without a home directory there is no portal of one's own.
    let state = named.path();
    // Whoever names a state directory means the portal that has it.
    if named.dir.is_none()
        && !state.as_ref().is_ok_and(|state| control::runs(state))
        && let Some(path) = config::cluster_forwards()?
    {
        return Ok(Directory { path, state: None, is_shared: true });
    }
    let state = state?;
    let path = state::noted_forwards(&state).unwrap_or_else(|| state.join("forwards"));
    Ok(Directory { path, state: Some(state), is_shared: false })
}

/// The same for a program that is launched, where nobody says more than perhaps the directory.
pub(crate) fn directory_of_forwards(asked: Option<&std::path::Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = asked {
        return config::absolute(dir);
    }
    let state = crate::arguments::StateDir { dir: None };
    let directory = find(&state)?;
    directory.prepare()?;
    Ok(directory.path)
}

/// A directory of forward files.
struct Directory {
    path: PathBuf,
    /// The state directory that it was found by.
    state: Option<PathBuf>,
    /// It is the cluster's: root makes it.
    is_shared: bool,
}

impl Directory {
    /// Makes what is missing, if it is the user's own.
    fn prepare(&self) -> anyhow::Result<()> {
        if let Some(state) = &self.state {
            state::prepare(state)?;
        }
        if self.is_shared {
            ensure!(
                self.path.is_dir(),
                "there is no {}, where {} has forwards: ask whoever runs this cluster",
                self.path.display(),
                config::SYSTEM_FILE
            );
            return Ok(());
        }
        state::prepare_forwards(&self.path)
    }
}

/// What this machine is called in a map of nodes.
fn this_node() -> anyhow::Result<String> {
    let name = portreeve_sys::host_name().context("this machine has no name")?;
    Ok(name.split('.').next().unwrap_or_default().to_owned())
}

/// A whole address, or the short forms `host:port` and `port`. `node`: this machine, where a portal that is elsewhere reads
/// the forward.
fn parse_target(
    text: &str,
    pin: Option<CertificatePin>,
    node: Option<&str>,
) -> anyhow::Result<ForwardTarget> {
    let whole = if Port::parse(text).is_ok() {
        format!("http://{}:{text}/", node.unwrap_or("localhost"))
    } else if NodePort::parse(text).is_ok() {
        format!("http://{text}/")
    } else {
        text.to_owned()
    };
    let mut target = ForwardTarget::parse(&whole).with_context(|| format!("{text:?} is no target"))?;
    if target.port.is_privileged() {
        bail!("{text:?}: ports below 1024 are not forwarded");
    }
    if let Some(node) = node
        && target.node.as_str() == "localhost"
    {
        bail!(
            "{text:?}: on a cluster localhost is no node; for this one write the port alone, or http://{node}:{}/",
            target.port
        );
    }
    if pin.is_some() {
        if target.scheme != Scheme::Https {
            bail!("--pin goes with an https:// target: over http no certificate is shown");
        }
        target.pin = pin;
    }
    Ok(target)
}

fn list(forwards: &Forwards) -> anyhow::Result<()> {
    let names = match forwards.owned_by(Uid::effective().as_raw()) {
        // Where nobody has added any, there is no directory yet.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("no forwards: there is no {}", forwards.dir().display());
            return Ok(());
        }
        names => names.with_context(|| format!("{} can't be listed", forwards.dir().display()))?,
    };
    for name in names {
        let what = match forwards.read(&name) {
            Ok(read) => match read.file {
                ForwardFile::Disabled => "disabled".to_owned(),
                ForwardFile::Target { target, lines_differ } => {
                    let note = if lines_differ { "  (its lines differ; the last one counts)" } else { "" };
                    let shared = if read.stat.mode & 0o010 != 0 {
                        let name = group_name(read.stat.gid);
                        format!("  shared with {}", name.unwrap_or_else(|| format!("gid {}", read.stat.gid)))
                    } else {
                        String::new()
                    };
                    format!("{target}{shared}{note}")
                }
            },
            Err(error) => format!("can't be used: {:#}", anyhow::Error::from(error)),
        };
        println!("{name}\t{what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_targets() {
        for (text, node, expected) in [
            ("6006", None, Some("http://localhost:6006/")),
            ("6006", Some("c1"), Some("http://c1:6006/")),
            ("c2:6006", Some("c1"), Some("http://c2:6006/")),
            ("https://c2:6006/x/", Some("c1"), Some("https://c2:6006/x/")),
            ("http://localhost:6006/", None, Some("http://localhost:6006/")),
            // Which machine would that be?
            ("http://localhost:6006/", Some("c1"), None),
            ("localhost:6006", Some("c1"), None),
            ("80", Some("c1"), None),
        ] {
            let target = parse_target(text, None, node);
            assert_eq!(target.ok().map(|target| target.to_string()).as_deref(), expected, "{text} {node:?}");
        }
    }
}
