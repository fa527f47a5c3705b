//! `portreeve-portal`: the process of a cluster that faces the network. It runs as a system user without a capability, and
//! locks itself up before it answers anybody: from then on it can't open a connection, start a program, or look at another
//! process.
//!
//! | file | |
//! | --- | --- |
//! | `options.rs` | the command line |
//! | `sockets.rs` | what systemd listens on for it |
//! | `files.rs` | configuration, node map, keys: at start and at each reload |
//! | `signals.rs` | drain, reload |
//!
//! Invariant: nothing that comes from the network is read before the sandbox is entered.

mod files;
mod options;
mod signals;
mod sockets;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use nix::sys::prctl;
use nix::unistd::Uid;
use portreeve_model::{HostRules, split_host_port};
use portreeve_portal::agents::Agents;
use portreeve_portal::{Inherited, Listening, Portal, Served, Service, fit_connections, run};
use portreeve_sys::Sandbox;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use self::files::{Files, Read};
use self::options::Options;
use self::sockets::Sockets;

/// Questions of login nodes that wait. Past that an agent hears that the portal is busy.
const LOGINS: usize = 256;
/// Threads for what may block, beside those that serve.
const BLOCKING_THREADS: usize = 4;

fn main() -> anyhow::Result<()> {
    // First of all: what is opened later could get the number of a socket that is missing.
    let sockets = Sockets::inherit();
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // Said where nothing can be written, that would be a panic for every record: the disk that holds the log is full.
        .log_internal_errors(false)
        .init();
    let options = Options::parse(std::env::args_os().skip(1))?;
    let sockets = sockets?;
    ensure!(!Uid::effective().is_root(), "portreeve-portal must not run as root: it is to have no power");
    // It holds the certificate's key and people's tickets: no core file, no debugger.
    prctl::set_dumpable(false)?;

    let mut files = Files::new(&options);
    let Read { mut settings, rules } = files.read()?;
    fit_connections(&mut settings.config).context("the limit of open files can't be read")?;
    let hosts = hosts(&settings.config.portal)?;
    let listening = addresses(&sockets)?;
    let namespace = portreeve_sys::namespace_cookie(sockets.https.first().context("no https socket")?)
        .context("this kernel does not number network namespaces (SO_NETNS_COOKIE, Linux 5.14)")?;

    let (asked, logins) = mpsc::channel(LOGINS);
    let agents = Arc::new(Agents::new(rules, asked).context("the agents' key can't be used")?);
    let inherited = Inherited { broker: sockets.broker, agents: sockets.agents, namespace };
    let lookup = &settings.config.agents.lookup;
    let served = Arc::new(Served::new(inherited, Arc::clone(&agents), lookup, logins));
    let portal = Arc::new(Portal::new(settings, Service::Served(served), hosts, listening)?);
    let listening = Listening::new(sockets.https)?.with_metrics(sockets.metrics);

    Sandbox::portal()?.enter().context("the sandbox can't be entered")?;
    tracing::info!("locked up: no connection, no program, no other process");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let served = runtime.block_on(async {
        tokio::spawn(signals::heed(Arc::clone(&portal), agents, files)?);
        run(portal, listening).await?;
        anyhow::Ok(())
    });
    runtime.shutdown_background();
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// The names that the portal goes by.
fn hosts(config: &portreeve_model::config::PortalConfig) -> anyhow::Result<HostRules> {
    let Some(url) = &config.url else {
        bail!("portal.url is not set: write the address that people open, \"https://HOST[:PORT]\"");
    };
    let host = |url: &str| {
        let authority = url.strip_prefix("https://").unwrap_or(url);
        split_host_port(authority).map(|(host, _)| host.to_owned())
    };
    let mut portal_names = vec![host(url).with_context(|| format!("portal.url: {url} has no host"))?];
    portal_names.extend(config.names.iter().cloned());
    let apps_domain = config.apps_domain.clone().unwrap_or_default();
    let apps_name = config.apps_url.as_deref().and_then(host).unwrap_or_default();
    Ok(HostRules { portal_names, apps_name, apps_domain, tagged: true })
}

/// Where the portal listens, as far as it can know: in a network of its own it does not see which addresses this machine has.
/// Whoever finds it at another one is refused because the socket is root's.
fn addresses(sockets: &Sockets) -> anyhow::Result<Vec<SocketAddr>> {
    let all = sockets.https.iter().chain(&sockets.agents).map(std::net::TcpListener::local_addr);
    let mut all = all.collect::<std::io::Result<Vec<_>>>()?;
    all.retain(|address| !address.ip().is_unspecified());
    Ok(all)
}
