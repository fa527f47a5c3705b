//! `portreeve up`: portal, worker and socket look-up in one unprivileged process, for whoever runs it.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use portreeve_broker::{Account, Broker, BrokerError, Forwards, Verifier};
use portreeve_model::{HostRules, UserName};
use portreeve_portal::{Embedded, Listening, Portal, Service, fit_connections, now, run};
use portreeve_worker::local::Settings as WorkerSettings;
use portreeve_worker::{Local, Person};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::arguments::{StateDir, Up};
use crate::{config, control, listen, state};

/// The domain below which every application has an origin of its own: browsers send it to this machine (RFC 6761
/// section 6.3).
const APPS_DOMAIN: &str = "localhost";

pub(crate) fn up(up: &Up) -> anyhow::Result<()> {
    start_log();
    let account = Account::of_this_process()?;
    // Before anything is made.
    let mut checked = config::read(up.config.as_deref())?;
    let state_dir = up.state.path()?;
    state::prepare(&state_dir)?;
    let mut lock = state::lock(&state_dir)?;
    fit_connections(&mut checked).context("the limit of open files can't be read")?;
    let forwards_dir = match up.forwards.as_deref().or(checked.forwards.directory.as_deref()) {
        Some(dir) => config::absolute(dir)?,
        None => state_dir.join("forwards"),
    };
    state::prepare_forwards(&forwards_dir)?;
    state::note_forwards(&state_dir, &forwards_dir)?;
    let bound = listen::bind(up.listen)?;
    let metrics = up.metrics.as_ref().map(listen::metrics).transpose()?;
    let port = bound.addresses.first().map_or(0, std::net::SocketAddr::port);
    let url = if port == 443 {
        format!("https://{}", bound.host)
    } else {
        format!("https://{}:{port}", bound.host)
    };

    let certified = certificate_names(&bound.names);
    let lifetimes = config::lifetimes(&checked);
    let workspace = checked.workspace.clone();
    let settings = config::settings(checked, &state_dir, &certified)?;
    let broker = Broker::open(account, &state_dir, Forwards::in_dir(forwards_dir), lifetimes, now())?;
    let machine = portreeve_sys::host_name().unwrap_or_else(|_| "this machine".to_owned());
    let (key, id) = broker.ticket_key();
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())?.context("this user has no account")?;
    let mut site = workspace;
    // What runs the jobs is this very program.
    site.portreeve = std::env::current_exe().context("this program can't be found")?;
    let worker = Local::start(WorkerSettings {
        person: Person {
            name: user.name,
            uid: broker.account().uid,
            home: std::env::var_os("HOME").map_or(user.dir, Into::into),
            shell: user.shell,
        },
        state: state_dir.clone(),
        machine,
        look: |uid| Ok(portreeve_agent::listening(uid)?.into_iter().map(Into::into).collect()),
        forwards: broker.forwards().dir().to_owned(),
        site,
        keys: Verifier::new([(id, key)]),
    })
    .context("the worker's thread can't be started")?;
    let hosts = HostRules {
        portal_names: bound.names,
        apps_name: String::new(),
        apps_domain: APPS_DOMAIN.to_owned(),
        tagged: false,
    };
    let broker = Arc::new(broker);
    let usual = StateDir { dir: None }.path();
    let state = match usual.is_ok_and(|usual| usual == state_dir) {
        true => portreeve_portal::StateDir::Usual,
        false => portreeve_portal::StateDir::Own,
    };
    let embedded = Embedded::new(Arc::clone(&broker), worker, state)
        .context("the kernel can't be asked who owns a socket (NETLINK_SOCK_DIAG)")?;
    let portal = Arc::new(
        Portal::new(settings, Service::Embedded(Arc::new(embedded)), hosts, bound.addresses)
            .context("this machine's addresses can't be had")?,
    );
    let sign_in = Arc::new(SignIn { broker, url });

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let served = runtime.block_on(async {
        let listening = Listening::new(bound.sockets)?.with_metrics(metrics);
        tokio::spawn(control::serve(control::listen(&state_dir)?, Arc::clone(&sign_in)));
        let broker = Arc::clone(&sign_in.broker);
        tokio::spawn(heed_signals(
            Arc::clone(&portal),
            broker,
            up.config.clone(),
            state_dir.clone(),
            certified,
        )?);
        lock.note(&sign_in.portal()).context("the state directory can't be written")?;
        announce(&sign_in)?;
        run(Arc::clone(&portal), listening).await?;
        anyhow::Ok(())
    });
    // What hangs in a file system was waited for long enough; it ends with the process.
    runtime.shutdown_background();
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// Threads for what may block, beside those that serve.
const BLOCKING_THREADS: usize = 4;

fn start_log() {
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // Said where nothing can be written, that would be a panic for every record: the disk that holds the log is full.
        .log_internal_errors(false)
        .init();
}

/// Makes sign-in addresses.
pub(crate) struct SignIn {
    broker: Arc<Broker>,
    /// `https://HOST:PORT`
    url: String,
}

impl SignIn {
    /// `https://HOST:PORT/`
    pub(crate) fn portal(&self) -> String {
        format!("{}/", self.url)
    }

    /// Whose portal this is.
    pub(crate) fn user(&self) -> &UserName {
        &self.broker.account().name
    }

    /// A fresh single-use address.
    pub(crate) fn address(&self) -> Result<String, BrokerError> {
        Ok(format!("{}/-/enter?code={}", self.url, self.broker.sign_in_code(now())?))
    }
}

/// The two lines on standard output, once the sockets listen.
fn announce(sign_in: &SignIn) -> anyhow::Result<()> {
    let (portal, address) = (sign_in.portal(), sign_in.address()?);
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: the portal works all the same.
    let _ = writeln!(out, "portal: {portal}\nsign in: {address}").and_then(|()| out.flush());
    Ok(())
}

fn certificate_names(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> =
        names.iter().map(|name| name.trim_start_matches('[').trim_end_matches(']').to_owned()).collect();
    all.extend(["*", "*.fh", "*.fn"].map(|label| format!("{label}.{APPS_DOMAIN}")));
    all
}

/// SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads.
fn heed_signals(
    portal: Arc<Portal>,
    broker: Arc<Broker>,
    file: Option<std::path::PathBuf>,
    state_dir: std::path::PathBuf,
    names: Vec<String>,
) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut draining = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    match reload(&portal, &broker, file.as_deref(), &state_dir, &names) {
                        Ok(()) => tracing::info!("configuration and certificate reloaded"),
                        Err(error) => tracing::error!("not reloaded, the old configuration stays in force: {error:#}"),
                    }
                    continue;
                }
            }
            if draining {
                tracing::warn!("stopped at once");
                std::process::exit(130);
            }
            draining = true;
            tracing::info!(
                "draining: no new connections, those that are open may end; once more to stop at once"
            );
            portal.drain();
        }
    })
}

fn reload(
    portal: &Portal,
    broker: &Broker,
    file: Option<&std::path::Path>,
    state_dir: &std::path::Path,
    names: &[String],
) -> anyhow::Result<()> {
    let checked = config::read(file)?;
    let lifetimes = config::lifetimes(&checked);
    portal.reload(config::settings(checked, state_dir, names)?);
    broker.set_lifetimes(lifetimes);
    Ok(())
}
