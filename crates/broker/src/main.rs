//! `portreeve-broker`: root's process on the portal node. It forks the broker proper, and then whatever that orders.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use portreeve_broker::spawner::{self, Settings};
use portreeve_sys::{Sandbox, privileges, process};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "portreeve-broker --forwards DIR [--pam PROGRAM] [--first-uid N]";

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let settings = settings(std::env::args_os().skip(1))?;
    ensure!(Uid::effective().is_root(), "portreeve-broker must be started as root");
    process::silence().context("standard input and output can't be closed")?;
    std::env::set_current_dir("/").context("there is no root directory")?;
    portreeve_sys::raise_descriptor_limit().context("the limit of open files can't be raised")?;
    spawner::run(&settings, |channel, parent| match broker(channel, parent) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("the broker can't go on: {error:#}");
            1
        }
    })?;
    Ok(())
}

fn settings(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Settings> {
    let (mut forwards, mut pam, mut first_uid) = (None, "/usr/libexec/portreeve/portreeve-pam".into(), 1000);
    let mut arguments = arguments;
    while let Some(option) = arguments.next() {
        let value =
            arguments.next().with_context(|| format!("{} lacks a value\n{USAGE}", option.display()))?;
        match option.to_str() {
            Some("--forwards") => forwards = Some(PathBuf::from(value)),
            Some("--pam") => pam = PathBuf::from(value),
            Some("--first-uid") => {
                let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
                first_uid = number.context("--first-uid is a number above 0")?;
            }
            _ => bail!("there is no option {}\n{USAGE}", option.display()),
        }
    }
    let forwards = forwards.with_context(|| format!("--forwards is missing\n{USAGE}"))?;
    ensure!(forwards.is_absolute() && pam.is_absolute(), "the paths must be absolute");
    Ok(Settings {
        first_uid,
        pam,
        forwards,
        look_up_patience: Settings::LOOK_UP_PATIENCE,
        end_patience: Settings::END_PATIENCE,
    })
}

/// The broker proper, in the forked child.
fn broker(channel: OwnedFd, parent: Pid) -> anyhow::Result<()> {
    process::die_with(parent, Signal::SIGKILL)?;
    // It holds keys: no core file, no debugger.
    prctl::set_dumpable(false)?;
    privileges::drop_capabilities()?;
    Sandbox::broker()?.enter()?;
    service::run(service::ServiceSettings {}, channel)?;
    Ok(())
}

/// PLACEHOLDER for `portreeve_broker::service`, which has the same names: it waits for the end, and serves nobody.
mod service {
    use std::os::fd::{AsFd, OwnedFd};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    pub(crate) struct ServiceSettings {}

    #[derive(Debug, thiserror::Error)]
    #[error("the spawner can't be waited for")]
    pub(crate) struct ServiceError(#[from] nix::errno::Errno);

    pub(crate) fn run(_settings: ServiceSettings, spawner: OwnedFd) -> Result<(), ServiceError> {
        tracing::warn!("there is no broker in this build yet");
        poll(&mut [PollFd::new(spawner.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        Ok(())
    }
}
