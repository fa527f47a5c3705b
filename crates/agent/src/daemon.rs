//! The agent as a process of its own, on every node: it dials in to the portals and answers their questions about this
//! node's sockets. Begin reading at `run`.
//! Invariant: it opens no port, believes nothing that it is told about who anybody is, and answers about addresses of
//! this node alone.
//!
//! | file | |
//! | --- | --- |
//! | `settings.rs` | configuration and key file, at start and at each reload |
//! | `dial.rs` | one task for each portal: connect, converse, wait, again |
//! | `converse.rs` | one connection: questions in, answers out |
//! | `answer.rs` | one question |
//! | `login.rs` | on login nodes: whose process asks for a sign-in address |

mod answer;
mod backoff;
mod converse;
mod dial;
mod jobs;
mod limits;
mod login;
mod settings;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use caps::Capability;
use tokio::signal::unix::{SignalKind, signal};

pub use settings::{CONFIG, check};

use answer::Answerer;
use dial::Dialers;
use login::LoginDesk;
use settings::Settings;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start: configuration, key, or the kernel's socket diagnosis.
pub fn run(config: &Path) -> anyhow::Result<()> {
    let settings = Settings::read(config)?;
    // Everything that needs a right is opened here, and then the rights go.
    let answerer =
        Answerer::open().context("the kernel can't be asked who owns a socket (NETLINK_SOCK_DIAG)")?;
    let login = match &settings.config.login_socket {
        Some(path) => {
            let desk = LoginDesk::listen(path);
            Some(Arc::new(desk.with_context(|| format!("{}: can't listen there", path.display()))?))
        }
        None => None,
    };
    crate::lockup::lock_up(if settings.config.plain { &[Capability::CAP_NET_BIND_SERVICE] } else { &[] });

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(limits::SLOW_THREADS + limits::LISTENING_THREADS + limits::RESOLVER_THREADS)
        .build()?;
    runtime.block_on(serve(config, settings, answerer, login))?;
    // A look that goes on must not keep the process.
    runtime.shutdown_background();
    tracing::info!("stopped");
    Ok(())
}

async fn serve(
    config: &Path,
    settings: Settings,
    answerer: Answerer,
    login: Option<Arc<LoginDesk>>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    if let Some(desk) = &login {
        tokio::spawn(Arc::clone(desk).serve()?);
    }
    let mut dialers = Dialers::new(Arc::new(answerer), login);
    let mut login_socket = settings.config.login_socket.clone();
    dialers.apply(settings);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match Settings::read(config) {
                Ok(settings) => {
                    if settings.config.login_socket != login_socket {
                        tracing::warn!("login_socket takes effect at the next start");
                        login_socket.clone_from(&settings.config.login_socket);
                    }
                    dialers.apply(settings);
                    tracing::info!("configuration and key reloaded");
                }
                Err(error) => {
                    tracing::error!("not reloaded, the old configuration stays in force: {error:#}");
                }
            },
        }
    }
}
