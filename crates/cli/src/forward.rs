//! `portreeve forward`: lasting names for applications. The files can be written by hand as well.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::unistd::Uid;
use portreeve_broker::Forwards;
use portreeve_broker::account::group_name;
use portreeve_model::{CertificatePin, ForwardFile, ForwardTarget, NodePort, Port, Scheme};

use crate::arguments::{Forward, ForwardAction, ForwardNameArgument};
use crate::{config, state};

pub(crate) fn forward(forward: &Forward) -> anyhow::Result<()> {
    let forwards = Forwards::in_dir(dir(forward)?);
    match &forward.action {
        ForwardAction::Add { name: ForwardNameArgument(name), target, pin } => {
            let target = parse_target(target, *pin)?;
            if forward.forwards.is_none() {
                state::prepare(&forward.state.path()?)?;
            }
            state::prepare_forwards(forwards.dir())?;
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

fn dir(forward: &Forward) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &forward.forwards {
        return config::forwards_dir(Some(dir), dir);
    }
    let home = forward.state.path()?;
    // A portal that was started with --forwards left word of it.
    Ok(match std::fs::read_to_string(home.join(state::FORWARDS_NOTE)) {
        Ok(noted) if !noted.trim_end_matches('\n').is_empty() => PathBuf::from(noted.trim_end_matches('\n')),
        _ => home.join("forwards"),
    })
}

/// A whole address, or the short forms `host:port` and `port`.
fn parse_target(text: &str, pin: Option<CertificatePin>) -> anyhow::Result<ForwardTarget> {
    let whole = if Port::parse(text).is_ok() {
        format!("http://localhost:{text}/")
    } else if NodePort::parse(text).is_ok() {
        format!("http://{text}/")
    } else {
        text.to_owned()
    };
    let mut target = ForwardTarget::parse(&whole).with_context(|| format!("{text:?} is no target"))?;
    if target.port.is_privileged() {
        bail!("{text:?}: ports below 1024 are not forwarded");
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
