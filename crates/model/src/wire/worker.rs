//! What a user's worker is told: by the broker on its control channel (SEQPACKET; its end is the worker's), and by the
//! portal, which speaks HTTP/1.1 on each connection that is handed over on it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::agent::Row;
use super::broker::PublicKey;
use crate::config::WorkspaceConfig;
use crate::{AppHost, HostRules, NodeName, NodePort, PathMode, Port, Secret, SessionId, UserName};

/// The header field that every request carries once: the session's ticket. The worker verifies it itself.
pub const TICKET: &str = "portreeve-ticket";
/// The header field that every request carries once: a [`Visit`] in JSON, in base64url without padding.
pub const VISIT: &str = "portreeve-visit";
/// The field by which a script of our own page shows that it is one, with [`Visit::page_secret`]; forms have a field `page` with it.
pub const PAGE: &str = "x-portreeve-page";
/// Where [`Nodes`] are posted to for the workspace's page.
pub const WORKSPACE: &str = "/workspace";
/// A body in JSON is no longer, in bytes; past that the answer is 413.
pub const MAX_BODY: usize = 1024 * 1024;

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToWorker {
    /// What is so for everybody: first, and once.
    Site {
        /// The directory of forwards, absolute.
        forwards: PathBuf,
        /// What people start, and where.
        workspace: WorkspaceConfig,
    },
    /// What tickets may be signed with: second, and whenever it changes.
    Keys(Vec<PublicKey>),
    /// The user's sessions that are over before their tickets are: all of them, third, and whenever one ends.
    Ended {
        /// Sessions.
        sessions: Vec<SessionId>,
        /// A ticket with this `auth_time` or an earlier one is no good (unix seconds).
        until: i64,
    },
    /// The descriptor that comes along is one more connection of the portal's: a stream that carries HTTP/1.1.
    Connection,
}

/// Who asks, and how addresses look from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visit {
    /// Whose session it is.
    pub user: UserName,
    /// The portal's own origin: `https://HOST[:PORT]`.
    pub origin: String,
    /// The host names that applications have of their own, if they have any here.
    pub own_origins: Option<OwnOrigins>,
    /// The origin that all applications in path form share, if it is not the portal's own: `https://HOST[:PORT]`.
    pub shared_origin: Option<String>,
    /// How the applications that this session opened last get their paths, by prefix (`/fw/NAME`, `/fw2/NODE:PORT`).
    pub modes: BTreeMap<String, PathMode>,
    /// Stands in our own forms and scripts, and is known to no application. `None`: there is none, and nothing can be changed
    /// by a page.
    pub page_secret: Option<Secret>,
    /// Who reads the answer.
    pub reader: Reader,
}

/// Who reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// A browser's window, or a form in it.
    Window,
    /// A script of one of our own pages, which has shown the secret.
    Script,
    /// A program.
    Program,
}

/// What there is to be seen beside it on the workspace's page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// The port that the portal itself listens on in `up`, which is not listed.
    pub own_port: Option<u16>,
    /// What the person asked to open, if it could not be understood.
    pub not_understood: Option<String>,
    /// What listens on the nodes, in the order to be shown. `None` is `portreeve up`: this machine, looked at by the page
    /// itself.
    pub nodes: Option<Vec<NodeView>>,
}

/// The host names that applications have of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnOrigins {
    /// The domain that they are below.
    pub domain: String,
    /// The port, when it is not HTTPS's own.
    pub port: Option<Port>,
    /// Whether they carry their owner's uid ([`HostRules::tagged`]), and are therefore the best address to open.
    pub tagged: bool,
}

impl OwnOrigins {
    /// The address of an application, if its name can be a host's. With `owner`, its owner's uid, it leads there at once.
    #[must_use]
    pub fn address(&self, what: &AppHost, owner: u32) -> Option<String> {
        let rules = HostRules {
            portal_names: Vec::new(),
            apps_name: String::new(),
            apps_domain: self.domain.clone(),
            tagged: self.tagged,
        };
        let owner = Some(owner).filter(|_| self.tagged);
        let host = rules.own_host(what, owner)?;
        Some(match self.port {
            Some(port) => format!("https://{host}:{port}/"),
            None => format!("https://{host}/"),
        })
    }
}

/// What the person has listening on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeView {
    /// The node's first name in the map.
    pub node: NodeName,
    /// All its addresses in the map, by which alone it can be reached.
    pub addresses: Vec<IpAddr>,
    /// What its agent said, or a clause saying why it can't be asked.
    pub listening: Result<Rows, String>,
}

impl NodeView {
    /// By which name and port the portal reaches what listens there: the node's name, or the one address where it listens,
    /// if the node has several. `None`: it can't be reached from outside of its node.
    #[must_use]
    pub fn place(&self, row: &Row) -> Option<NodePort> {
        let address = row.address.to_canonical();
        let port = Port::new(row.port).filter(|port| !port.is_privileged())?;
        let node = if address.is_unspecified() || self.addresses == [address] {
            self.node.clone()
        } else if self.addresses.contains(&address) {
            NodeName::from_ip(address).ok()?
        } else {
            return None;
        };
        Some(NodePort { node, port })
    }
}

/// An agent's answer (`agent::Answer::Listening`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// By port and address.
    pub rows: Vec<Row>,
    /// There are more.
    pub more: bool,
}
