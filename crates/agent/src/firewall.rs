//! The user-based firewall: the packet filter hands each new connection over, and it goes on only if whoever connects may
//! reach whoever listens. Before: rules of the packet filter (`crate::rules`). After: the packet's verdict. Begin
//! reading at `run`, and go on in `gate.rs`.
//! Invariant: a packet without a verdict is held and then lost; nothing that fails lets one through.
//!
//! | file | |
//! | --- | --- |
//! | `settings.rs` | configuration, key and node map, at start and at each reload |
//! | `gate.rs` | one queue, one thread: packets in, verdicts out |
//! | `waiting.rs` | packets that wait for an answer, and the judgement of one |
//! | `packet.rs` | a packet's two ends |
//! | `looks.rs` | looks at processes, for the group rule |
//! | `peers.rs` | asks the node from which a connection comes |
//! | `answer.rs` | answers the other nodes |
//! | `refuse.rs` | tells whoever was refused (ICMP) |
//! | `flows.rs` | flows of UDP, which are asked about again |
//! | `outgoing.rs` | flows of UDP that began here, whose answers nobody asks about |
//! | `counts.rs` | metrics |
//! | `audit.rs` | a record for each refusal, but not for each packet of a flood |
//! | `control.rs` | answers `portreeve why`, `portreeve check --live` and `--metrics` |
//! | `asking.rs` | its other end |
//! | `limits.rs` | every wait, buffer and queue |

mod answer;
mod asking;
mod audit;
mod control;
mod counts;
mod flows;
mod gate;
mod limits;
mod looks;
mod outgoing;
mod packet;
mod peers;
mod refuse;
mod settings;
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use caps::Capability;
use clap::Args;
use nix::sys::signal::Signal;
use portreeve_model::wire::firewall::{ControlAnswer, ControlQuestion};
use tokio::signal::unix::{SignalKind, signal};

use answer::Desk;
pub use asking::{ask, socket_path};
use control::ControlDesk;
use counts::Counts;
use gate::Gate;
use outgoing::Outgoing;
use settings::Settings;
pub(crate) use settings::read_config;

/// Where the configuration is if nobody says otherwise. It need not be there.
pub const CONFIG: &str = "/etc/portreeve/firewall.toml";

/// `portreeve-agent firewall`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file; need not be there if it is not named
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Refuse nothing, and log what would be refused
    #[arg(long)]
    dry_run: bool,
    /// Check configuration, key file and node map, report every problem, and end
    #[arg(long)]
    pub check: bool,
    /// Print the metrics of the firewall that runs, in Prometheus' text format, and end
    #[arg(long, conflicts_with_all = ["check", "dry_run"])]
    pub metrics: bool,
}

/// A packet's two ends, and every error that could be told of it. For the fuzz targets.
pub(crate) fn told_of(packet: &[u8]) -> Option<(portreeve_model::wire::firewall::Flow, Vec<Vec<u8>>)> {
    use portreeve_model::firewall::Reply;
    let flow = packet::flow(packet)?;
    let replies = [Reply::Prohibited, Reply::PortUnreachable, Reply::Silence];
    Some((flow, replies.into_iter().filter_map(|reply| refuse::error(reply, &flow, packet)).collect()))
}

/// What all threads share.
struct Shared {
    settings: ArcSwap<Settings>,
    counts: Counts,
    sent: outgoing::Sent,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start: configuration, key, queues, port, or the kernel's socket diagnosis.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let settings = Settings::read(&arguments.config, arguments.dry_run)?;
    let (port, control) = (settings.config.port, settings.config.control_socket.clone());
    let queues: Vec<u16> = settings.config.queues.clone().into_iter().flatten().collect();
    let shared = Arc::new(Shared {
        settings: ArcSwap::from_pointee(settings),
        counts: Counts::new(&queues),
        sent: outgoing::Sent::default(),
    });

    // Everything that needs a right is opened here, and then the rights go.
    let gates: Vec<Gate> = queues
        .iter()
        .map(|&number| Gate::open(number, &shared).with_context(|| format!("queue {number}")))
        .collect::<anyhow::Result<_>>()?;
    let desk = Desk::listen(port, &shared).with_context(|| {
        format!("port {port} for the other nodes' questions can't be opened (it needs CAP_NET_BIND_SERVICE)")
    })?;
    let control = ControlDesk::listen(&control, &shared)
        .with_context(|| format!("{}: can't listen there", control.display()))?;
    let outgoing = if gates.is_empty() { None } else { Some(Outgoing::open(&shared)?) };
    // To ask other nodes, and for each verdict.
    let kept = [Capability::CAP_NET_BIND_SERVICE, Capability::CAP_NET_ADMIN];
    crate::lockup::lock_up(if gates.is_empty() { &[] } else { &kept });

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(limits::LOOK_THREADS)
        .build()?;
    for gate in gates {
        let name = format!("queue-{}", gate.number());
        // A gate that ends takes the process with it: the unit starts it again, and nothing passes meanwhile.
        std::thread::Builder::new().name(name).spawn(move || gate.serve())?;
    }
    if let Some(outgoing) = outgoing {
        std::thread::Builder::new().name("udp-flows".to_owned()).spawn(move || outgoing.serve())?;
    }
    runtime.block_on(serve(arguments, &shared, desk, control))?;
    runtime.shutdown_background();
    tracing::info!("stopped");
    Ok(())
}

async fn serve(
    arguments: &Arguments,
    shared: &Arc<Shared>,
    desk: Desk,
    control: ControlDesk,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(desk.serve()?);
    tokio::spawn(control.serve()?);
    {
        let settings = shared.settings.load();
        tracing::info!(
            node = %settings.node, queues = ?settings.config.queues, port = settings.config.port,
            dry_run = settings.config.dry_run, "deciding"
        );
    }
    // Without systemd nobody is told.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut watchdog = tokio::time::interval(limits::WATCHDOG);
    loop {
        let ended = tokio::select! {
            _ = terminate.recv() => Signal::SIGTERM,
            _ = interrupt.recv() => Signal::SIGINT,
            _ = hangup.recv() => Signal::SIGHUP,
            _ = watchdog.tick() => {
                // systemd ends a process of which it does not hear this for a while.
                if shared.counts.all_live() {
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                }
                continue;
            }
        };
        if ended != Signal::SIGHUP {
            return Ok(());
        }
        match Settings::read(&arguments.config, arguments.dry_run) {
            Ok(settings) => {
                settings.warn_of_what_stays(&shared.settings.load());
                shared.settings.store(Arc::new(settings));
                tracing::info!("configuration, key and node map reloaded");
            }
            Err(error) => {
                tracing::error!("not reloaded, the old configuration stays in force: {error:#}");
            }
        }
    }
}

/// `portreeve-agent firewall --check`: says what is found to be in order.
///
/// # Errors
/// As at a start.
pub fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let settings = Settings::read(&arguments.config, arguments.dry_run)?;
    println!("{}: no problems: {}", arguments.config.display(), settings.summary());
    Ok(())
}

/// `portreeve-agent firewall --metrics`: asks the one that runs, as everybody on the node may.
///
/// # Errors
/// When none answers.
pub fn metrics(arguments: &Arguments) -> anyhow::Result<()> {
    let path = read_config(&arguments.config)?.control_socket;
    match ask(&path, &ControlQuestion::Metrics)? {
        ControlAnswer::Metrics(text) => {
            print!("{text}");
            Ok(())
        }
        ControlAnswer::Refused { reason } => bail!("the firewall does not say: {reason}"),
        ControlAnswer::Status(_) | ControlAnswer::Why(_) => bail!("an answer to another question"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
