//! What all threads of the portal share, and what a reload replaces.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use portreeve_agent::Lookup;
use portreeve_broker::{Broker, Lifetimes};
use portreeve_model::{Config, ForwardName, GroupRules, HostRules, UserName};
use portreeve_worker::Worker;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::mode::Modes;
use crate::nodes::Nodes;
use crate::own::Attempts;
use crate::sessions::Sessions;
use crate::ticket::Verifier;

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// What a reload replaces: everything that comes from the configuration.
pub struct Settings {
    /// The checked configuration.
    pub config: Config,
    /// Certificate and TLS rules.
    pub tls: Arc<ServerConfig>,
    /// Groups that grant nothing, as gids.
    pub groups: GroupRules,
}

impl Settings {
    pub(crate) fn idle_seconds(&self) -> i64 {
        self.config.session.idle.as_secs().cast_signed()
    }

    pub(crate) fn is_admin_forward(&self, name: &ForwardName) -> bool {
        self.config.forwards.is_admin(name)
    }
}

/// What all threads share. Everything in it is cheap to read from many threads.
pub struct Portal {
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) worker: Arc<Worker>,
    /// For the slow look at who holds a socket, off the threads that serve.
    pub(crate) group_lookup: Lookup,
    pub(crate) verifier: Verifier,
    pub(crate) sessions: Sessions,
    pub(crate) hosts: HostRules,
    pub(crate) nodes: Nodes,
    pub(crate) modes: Modes,
    pub(crate) attempts: Attempts,
    /// Our own addresses: an application can't be there.
    pub(crate) listening: Vec<SocketAddr>,
    /// `https://HOST:PORT`, as printed at start.
    pub(crate) url: String,
    /// Cancelled when no new work is to be taken on.
    pub(crate) draining: CancellationToken,
    /// Cancelled when what still runs is to be cut off.
    pub(crate) stopping: CancellationToken,
}

impl Portal {
    /// A portal for the account that `broker` stands for.
    ///
    /// # Errors
    /// When the kernel can't be asked who owns a socket, or for this machine's addresses: then nobody could be told
    /// from anybody.
    pub fn new(
        settings: Settings,
        broker: Arc<Broker>,
        worker: Worker,
        hosts: HostRules,
        listening: Vec<SocketAddr>,
        url: String,
    ) -> std::io::Result<Self> {
        let (key, key_id) = broker.ticket_key();
        Ok(Self {
            group_lookup: Lookup::open()?,
            verifier: Verifier::new(key, key_id),
            settings: ArcSwap::from_pointee(settings),
            broker,
            worker: Arc::new(worker),
            sessions: Sessions::new(limits::SESSIONS),
            nodes: Nodes::of_this_machine()?,
            modes: Modes::default(),
            attempts: Attempts::default(),
            hosts,
            listening,
            url,
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// Takes new settings into use. Connections that exist keep their certificate; every request sees the rest.
    pub fn reload(&self, settings: Settings, lifetimes: Lifetimes) {
        self.broker.set_lifetimes(lifetimes);
        self.settings.store(Arc::new(settings));
    }

    /// Takes no new connections, lets requests end, and cuts off what still runs after `limits.drain`.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// A fresh single-use sign-in address.
    ///
    /// # Errors
    /// When the broker can't make a code.
    pub fn sign_in_address(&self) -> Result<String, portreeve_broker::BrokerError> {
        Ok(format!("{}/-/enter?code={}", self.url, self.broker.sign_in_code(now())?))
    }

    /// `https://HOST:PORT/`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/", self.url)
    }

    /// Whose portal this is.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.broker.account().name
    }
}
