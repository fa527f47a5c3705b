//! What all threads of the portal share, and what a reload replaces.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::HeaderValue;
use portreeve_broker::Verifier;
use portreeve_model::{Config, ForwardName, GroupRules, HostRules};
use rustls::ServerConfig;

use crate::addresses::Addresses;
use crate::agents::Agents;
use crate::latch::Latch;
use crate::limits;
use crate::metrics::Metrics;
use crate::mode::Modes;
use crate::nodes::Nodes;
use crate::own::Attempts;
use crate::powers::Service;
use crate::respond;
use crate::sessions::Sessions;

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

    /// How many requests one session may have at once.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.config.limits.requests_per_session).unwrap_or(u32::MAX)
    }

    pub(crate) fn groups_refresh(&self) -> std::time::Duration {
        self.config.groups.refresh
    }

    pub(crate) fn is_admin_forward(&self, name: &ForwardName) -> bool {
        self.config.forwards.is_admin(name)
    }
}

/// What all threads share. Everything in it is cheap to read from many threads.
pub struct Portal {
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) service: Service,
    pub(crate) verifier: Arc<ArcSwap<Verifier>>,
    pub(crate) sessions: Sessions,
    pub(crate) hosts: HostRules,
    /// See [`respond::page_policy`].
    pub(crate) page_policy: HeaderValue,
    pub(crate) nodes: Nodes,
    pub(crate) modes: Modes,
    pub(crate) attempts: Attempts,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) metrics: Metrics,
    /// Our own addresses: an application can't be there.
    pub(crate) listening: Vec<SocketAddr>,
    /// Set when no new work is to be taken on.
    pub(crate) draining: Latch,
    /// Set when what still runs is to be cut off.
    pub(crate) stopping: Latch,
}

impl Portal {
    /// A portal that asks `service` for what it may not do itself.
    ///
    /// # Errors
    /// When the kernel can't be asked for this machine's addresses.
    pub fn new(
        settings: Settings,
        service: Service,
        hosts: HostRules,
        listening: Vec<SocketAddr>,
    ) -> std::io::Result<Self> {
        let nodes = service.nodes()?;
        let addresses = Arc::new(Addresses::new(settings.config.limits.connections));
        Ok(Self {
            verifier: service.verifier(),
            settings: ArcSwap::from_pointee(settings),
            service,
            sessions: Sessions::new(limits::SESSIONS),
            nodes,
            modes: Modes::default(),
            attempts: Attempts::default(),
            addresses,
            metrics: Metrics::default(),
            page_policy: respond::page_policy(&hosts),
            hosts,
            listening,
            draining: Latch::default(),
            stopping: Latch::default(),
        })
    }

    /// Takes new settings into use. Connections that exist keep their certificate; every request sees the rest.
    pub fn reload(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Whether it may answer people now; a clause why not.
    ///
    /// # Errors
    /// When it is to be left alone: by a load balancer, for one.
    pub fn is_ready(&self) -> Result<(), &'static str> {
        if self.draining.is_set() {
            return Err("it is draining");
        }
        if !self.service.knows_who_is_over() {
            return Err("the broker has not said for a while which sessions are over");
        }
        Ok(())
    }

    /// The nodes' agents, where there are any.
    pub(crate) fn agents(&self) -> Option<&Agents> {
        match &self.service {
            Service::Embedded(_) => None,
            Service::Served(served) => Some(served.agents()),
        }
    }

    /// Since when nothing was heard of the broker, where there is one.
    pub(crate) fn broker_news_age(&self) -> Option<Duration> {
        self.service.news_age()
    }

    /// Takes no new connections, lets requests end, and cuts off what still runs after `limits.drain`.
    pub fn drain(&self) {
        self.draining.set();
    }
}
