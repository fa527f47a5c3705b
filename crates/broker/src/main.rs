//! `portreeve-broker`: root's process on the portal node. It reads the configuration, forks the broker proper, and then
//! whatever that orders.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use portreeve_broker::config::{self, ConfigError, Configured};
use portreeve_broker::service::{self, ServiceSettings};
use portreeve_broker::spawner::{self, Settings};
use portreeve_sys::{Sandbox, privileges, process};
use tracing_subscriber::EnvFilter;

const USAGE: &str =
    "portreeve-broker [--config FILE] [--state DIR] [--portal SOCKET] [--login SOCKET] [--pam PROGRAM]";

/// What the command line says.
struct Options {
    config: PathBuf,
    state: PathBuf,
    portal: PathBuf,
    login: PathBuf,
    pam: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Said where nothing can be written, that would be a panic for every record: the disk that holds the log is full.
        .log_internal_errors(false)
        .init();
    let options = Options::parse(std::env::args_os().skip(1))?;
    ensure!(Uid::effective().is_root(), "portreeve-broker must be started as root");
    // Root's process reads the file once, here; at a reload the broker does.
    let configured = config::read(&options.config).inspect_err(ConfigError::log_problems)?;
    let spawner = Settings {
        first_uid: configured.first_uid,
        pam: options.pam.clone(),
        forwards: configured.forwards.clone(),
        look_up_patience: Settings::LOOK_UP_PATIENCE,
        end_patience: Settings::END_PATIENCE,
    };
    process::silence().context("standard input and output can't be closed")?;
    std::env::set_current_dir("/").context("there is no root directory")?;
    portreeve_sys::raise_descriptor_limit().context("the limit of open files can't be raised")?;
    spawner::run(&spawner, |channel, parent| match broker(options, configured, channel, parent) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("the broker can't go on: {error:#}");
            1
        }
    })?;
    Ok(())
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut options = Self {
            config: "/etc/portreeve/portreeve.toml".into(),
            state: "/var/lib/portreeve/broker".into(),
            portal: "/run/portreeve/portal.sock".into(),
            login: "/run/portreeve/login.sock".into(),
            pam: "/usr/libexec/portreeve/portreeve-pam".into(),
        };
        while let Some(option) = arguments.next() {
            let which = match option.to_str() {
                Some("--config") => &mut options.config,
                Some("--state") => &mut options.state,
                Some("--portal") => &mut options.portal,
                Some("--login") => &mut options.login,
                Some("--pam") => &mut options.pam,
                _ => bail!("there is no option {}\n{USAGE}", option.display()),
            };
            let value =
                arguments.next().with_context(|| format!("{} lacks a value\n{USAGE}", option.display()))?;
            *which = value.into();
            ensure!(which.is_absolute(), "{} is not an absolute path", which.display());
        }
        Ok(options)
    }
}

/// The broker proper, in the forked child.
fn broker(options: Options, configured: Configured, channel: OwnedFd, parent: Pid) -> anyhow::Result<()> {
    process::die_with(parent, Signal::SIGKILL)?;
    // It holds keys: no core file, no debugger.
    prctl::set_dumpable(false)?;
    privileges::drop_capabilities()?;
    Sandbox::broker()?.enter()?;
    let reload = configured.reload(options.config);
    let Configured { first_uid, policy, forwards, workspace } = configured;
    let Options { state, portal, login, .. } = options;
    let mut settings = ServiceSettings::new(state, portal, login, forwards, policy.url.clone());
    settings.first_uid = first_uid;
    settings.policy = policy;
    settings.workspace = workspace;
    settings.reload = Some(reload);
    service::run(settings, channel)?;
    Ok(())
}
