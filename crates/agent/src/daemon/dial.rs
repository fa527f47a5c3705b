//! One task for each portal: connect, converse, wait, again. Invariant: no wait is without a limit, and a portal that is
//! not there is not asked for more often than `backoff` says.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use portreeve_model::NodePort;
use portreeve_model::wire::agent::{FromAgent, VERSION};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::answer::Answerer;
use super::backoff::{Backoff, chance};
use super::converse::{End, Shared, converse};
use super::limits;
use super::login::LoginDesk;
use super::settings::{Settings, Way};
use crate::privileged::{self, NotConnected};

/// The tasks, by portal.
pub(super) struct Dialers {
    shared: Arc<Shared>,
    current: Option<Settings>,
    tasks: HashMap<NodePort, AbortHandle>,
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the portal's name can't be looked up")]
    Name(#[source] io::Error),
    #[error(transparent)]
    Connect(#[from] NotConnected),
    #[error("the portal does not answer")]
    Late,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    End(#[from] End),
}

impl Dialers {
    pub(super) fn new(answerer: Arc<Answerer>, desk: Option<Arc<LoginDesk>>) -> Self {
        Self { shared: Arc::new(Shared::new(answerer, desk)), current: None, tasks: HashMap::new() }
    }

    /// Takes new settings into use. A connection that they do not concern goes on.
    pub(super) fn apply(&mut self, settings: Settings) {
        let same = self.current.as_ref().is_some_and(|c| c.way == settings.way && c.node == settings.node);
        self.tasks.retain(|portal, task| {
            let stays = same && settings.portals.contains(portal);
            if !stays {
                task.abort();
            }
            stays
        });
        if settings.way == Way::Plain {
            tracing::warn!(
                "no key is used: the portal knows this node by its address and a privileged port alone, and whoever is at \
                 the portal's address is answered. This is the weaker way"
            );
        }
        let hello =
            Arc::new(FromAgent::Hello { version: VERSION, node: settings.node.clone(), boot: boot_id() });
        for portal in &settings.portals {
            if !self.tasks.contains_key(portal) {
                let (hello, shared) = (Arc::clone(&hello), Arc::clone(&self.shared));
                let dialing = keep_dialing(portal.clone(), settings.way.clone(), hello, shared);
                self.tasks.insert(portal.clone(), tokio::spawn(dialing).abort_handle());
            }
        }
        self.current = Some(settings);
    }
}

/// The kernel's name for the time since it started.
fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

async fn keep_dialing(portal: NodePort, way: Way, hello: Arc<FromAgent>, shared: Arc<Shared>) {
    let (mut backoff, mut last_told) = (Backoff::default(), String::new());
    loop {
        let mut welcomed = None;
        let failure = dial(&portal, &way, &hello, &shared, || {
            tracing::info!(%portal, "connected");
            welcomed = Some(Instant::now());
        })
        .await;
        let wait = backoff.after(welcomed.map(|since: Instant| since.elapsed()), chance());
        let told = format!("{:#}", anyhow::Error::new(failure));
        // A portal that is away for hours is one line, not one for each try.
        if welcomed.is_some() || told != last_told {
            tracing::warn!(%portal, again_in = ?wait, "{told}");
        } else {
            tracing::debug!(%portal, again_in = ?wait, "{told}");
        }
        last_told = told;
        tokio::time::sleep(wait).await;
    }
}

async fn dial(
    portal: &NodePort,
    way: &Way,
    hello: &FromAgent,
    shared: &Shared,
    welcome: impl FnOnce(),
) -> Failure {
    let connected = timeout(limits::CONNECT, connect(portal, way)).await.unwrap_or(Err(Failure::Late));
    let stream = match connected {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    match way {
        Way::Plain => converse(stream, hello, shared, welcome).await.into(),
        Way::Keys { tls, .. } => {
            match timeout(limits::CONNECT, handshake(stream, tls)).await.unwrap_or(Err(Failure::Late)) {
                Ok(stream) => converse(stream, hello, shared, welcome).await.into(),
                Err(failure) => failure,
            }
        }
    }
}

async fn handshake(
    stream: TcpStream,
    tls: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    // The name is not sent and not compared: the key is.
    let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(Failure::Tls)
}

/// Tries each of the portal's addresses.
async fn connect(portal: &NodePort, way: &Way) -> Result<TcpStream, Failure> {
    let port = portal.port.get();
    let addresses: Vec<SocketAddr> = match portal.node.as_ip() {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None => lookup_host((portal.node.as_str(), port)).await.map_err(Failure::Name)?.collect(),
    };
    let mut failure = Failure::Name(io::ErrorKind::NotFound.into());
    for address in addresses {
        let connected = match way {
            Way::Keys { .. } => TcpStream::connect(address).await.map_err(NotConnected::Connect),
            // The highest first, as rresvport(3) picks them.
            Way::Plain => privileged::connect(address, privileged::PORTS.rev()).await,
        };
        let undelayed = |stream: TcpStream| stream.set_nodelay(true).map(|()| stream);
        match connected.and_then(|stream| undelayed(stream).map_err(NotConnected::Connect)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}
