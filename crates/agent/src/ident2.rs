//! Answers ident2 questions in the place of `ident2d` (mit-llsc/UserBasedFirewall), so that what asks those, a firewall or a
//! web server's modules, can ask this node. Begin reading at `run`.
//! Invariant: it answers about this node's own addresses alone, and an owner is named only where the kernel's records leave
//! no doubt. What another node answers is that node's word, by a protocol without any proof.
//!
//! | file | |
//! | --- | --- |
//! | `settings.rs` | the configuration |
//! | `callers.rs` | who asks on this node |
//! | `peers.rs` | other nodes, over UDP |
//! | `relay.rs` | what those were asked |
//! | `answer.rs` | one question about this node |
//! | `looks.rs` | how many looks at processes at once |
//! | `oddities.rs` | what should not happen, for the log |
//! | `client.rs` | the other side: asks such a service |

mod answer;
mod callers;
pub mod client;
mod limits;
mod looks;
mod oddities;
mod peers;
mod relay;
mod service;
mod settings;

use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use answer::Answerer;
use peers::Peers;
use service::Service;
use settings::Settings;

/// `portreeve-agent ident2`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Check the configuration, report every problem, and end
    #[arg(long)]
    pub check: bool,
}

/// Where the configuration is if nobody says otherwise. It need not be there.
pub const CONFIG: &str = "/etc/portreeve/ident2.toml";

/// Runs until SIGTERM or SIGINT. SIGHUP has it read again who the other nodes are.
///
/// # Errors
/// When it can't start: configuration, the kernel's socket diagnosis, or a socket.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // First of all: what is opened later could get the number of a socket that is missing.
    let inherited = callers::inherited().context("systemd's socket can't be used")?;
    let settings = Settings::read(&arguments.config)?;
    // Everything that needs a right is opened here, and then the rights go.
    let answerer =
        Answerer::open().context("the kernel can't be asked who owns a socket (NETLINK_SOCK_DIAG)")?;
    let peers = match settings.config.peers[..] {
        [] => None,
        _ => Some(peers::open(settings.config.port).with_context(|| {
            format!("UDP port {} can't be had (does ident2d still run?)", settings.config.port)
        })?),
    };
    let callers = match inherited {
        Some(callers) => {
            if settings.group.is_some() || settings.config.socket_other {
                tracing::warn!(
                    "systemd made the socket: its unit says who may ask, and the configuration does not"
                );
            }
            callers
        }
        None => callers::listen_at(&settings)
            .with_context(|| format!("{}: can't listen there", settings.config.socket.display()))?,
    };
    crate::lockup::lock_up(&[]);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * limits::LOOK_THREADS)
        .build()?;
    runtime.block_on(serve(&arguments.config, settings, answerer, callers, peers))?;
    // A look that goes on must not keep the process.
    runtime.shutdown_background();
    tracing::info!("stopped");
    Ok(())
}

/// `portreeve-agent ident2 --check`: prints what is found to be in order.
///
/// # Errors
/// As at a start.
pub fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let Settings { config, .. } = Settings::read(&arguments.config)?;
    let who = match (config.socket_other, &config.socket_group) {
        (true, _) => "everybody".to_owned(),
        (false, Some(group)) => format!("root and the group {group}"),
        (false, None) => "root".to_owned(),
    };
    let nodes: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
    let nodes = match &nodes[..] {
        [] => "no other nodes, no port".to_owned(),
        nodes => format!("other nodes {} at UDP port {}", nodes.join(", "), config.port),
    };
    println!(
        "{}: no problems: {who} may ask at {}, {nodes}",
        arguments.config.display(),
        config.socket.display()
    );
    Ok(())
}

async fn serve(
    file: &Path,
    settings: Settings,
    answerer: Answerer,
    callers: StdUnixListener,
    peers: Option<std::net::UdpSocket>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let peers = peers.map(|socket| Peers::new(socket, settings.config.port)).transpose()?.map(Arc::new);
    let service = Arc::new(Service::new(answerer, peers.clone(), settings.config.peers.clone()));
    let callers = callers::serve(Arc::clone(&service), UnixListener::from_std(callers)?);
    let peers = async {
        match peers {
            Some(peers) => peers::serve(Arc::clone(&service), peers).await,
            None => std::future::pending().await,
        }
    };
    let signals = async {
        let mut settings = settings;
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => reload(file, &mut settings, &service),
            }
        }
    };
    let sweep = async {
        let mut ticks = tokio::time::interval(limits::SWEEP);
        loop {
            ticks.tick().await;
            service.relay().sweep(Instant::now());
        }
    };
    tracing::info!("ready");
    tokio::select! {
        () = signals => Ok(()),
        never = callers => match never {},
        never = peers => match never {},
        () = sweep => Ok(()),
    }
}

/// Takes over what can change while it runs.
fn reload(file: &Path, settings: &mut Settings, service: &Service) {
    match Settings::read(file) {
        Ok(new) => {
            let opens = new.config.peers.is_empty() != settings.config.peers.is_empty();
            let mut same = new.clone();
            same.config.peers.clone_from(&settings.config.peers);
            if same != *settings || opens {
                tracing::warn!("sockets, their port and who may use them change at the next start only");
            }
            service.set_ranges(new.config.peers.clone());
            *settings = new;
            tracing::info!("configuration reloaded");
        }
        Err(error) => {
            tracing::error!("not reloaded, the old configuration stays in force: {error:#}");
        }
    }
}
