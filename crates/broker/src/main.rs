//! `portreeve-broker`: root's process on the portal node. It forks the broker proper, and then whatever that orders.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use portreeve_broker::service::{self, ServiceSettings};
use portreeve_broker::spawner::{self, Settings};
use portreeve_model::split_host_port;
use portreeve_sys::{Sandbox, privileges, process};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "portreeve-broker --url URL --forwards DIR [--state DIR] [--portal SOCKET] [--login SOCKET] \
                     [--pam PROGRAM] [--first-uid N]";

/// What the command line says.
struct Options {
    spawner: Settings,
    service: ServiceSettings,
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let Options { spawner, service } = options(std::env::args_os().skip(1))?;
    ensure!(Uid::effective().is_root(), "portreeve-broker must be started as root");
    process::silence().context("standard input and output can't be closed")?;
    std::env::set_current_dir("/").context("there is no root directory")?;
    portreeve_sys::raise_descriptor_limit().context("the limit of open files can't be raised")?;
    spawner::run(&spawner, |channel, parent| match broker(&service, channel, parent) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("the broker can't go on: {error:#}");
            1
        }
    })?;
    Ok(())
}

fn options(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Options> {
    let (mut url, mut forwards, mut first_uid) = (None, None, 1000);
    let mut pam = PathBuf::from("/usr/libexec/portreeve/portreeve-pam");
    let mut state = PathBuf::from("/var/lib/portreeve/broker");
    let mut portal = PathBuf::from("/run/portreeve/portal.sock");
    let mut login = PathBuf::from("/run/portreeve/login.sock");
    let mut arguments = arguments;
    while let Some(option) = arguments.next() {
        let value =
            arguments.next().with_context(|| format!("{} lacks a value\n{USAGE}", option.display()))?;
        let text = value.to_str();
        match option.to_str() {
            Some("--url") => url = text.and_then(address),
            Some("--forwards") => forwards = Some(PathBuf::from(value)),
            Some("--state") => state = value.into(),
            Some("--portal") => portal = value.into(),
            Some("--login") => login = value.into(),
            Some("--pam") => pam = value.into(),
            Some("--first-uid") => {
                let number = text.and_then(|text| text.parse().ok()).filter(|number| *number > 0);
                first_uid = number.context("--first-uid is a number above 0")?;
            }
            _ => bail!("there is no option {}\n{USAGE}", option.display()),
        }
    }
    let url = url.with_context(|| format!("--url is missing, or not https://HOST[:PORT]\n{USAGE}"))?;
    let forwards = forwards.with_context(|| format!("--forwards is missing\n{USAGE}"))?;
    for path in [&forwards, &pam, &state, &portal, &login] {
        ensure!(path.is_absolute(), "{} is not an absolute path", path.display());
    }
    // Workers are told it in JSON.
    ensure!(forwards.to_str().is_some(), "{} is no text in UTF-8", forwards.display());
    let mut service = ServiceSettings::new(state, portal, login, forwards.clone(), url);
    service.first_uid = first_uid;
    let spawner = Settings {
        first_uid,
        pam,
        forwards,
        look_up_patience: Settings::LOOK_UP_PATIENCE,
        end_patience: Settings::END_PATIENCE,
    };
    Ok(Options { spawner, service })
}

/// `https://HOST[:PORT]`, without a slash at its end.
fn address(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    split_host_port(text.strip_prefix("https://")?)?;
    Some(text.to_owned())
}

/// The broker proper, in the forked child.
fn broker(settings: &ServiceSettings, channel: OwnedFd, parent: Pid) -> anyhow::Result<()> {
    process::die_with(parent, Signal::SIGKILL)?;
    // It holds keys: no core file, no debugger.
    prctl::set_dumpable(false)?;
    privileges::drop_capabilities()?;
    Sandbox::broker()?.enter()?;
    service::run(settings.clone(), channel)?;
    Ok(())
}
