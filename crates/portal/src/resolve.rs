//! Where a place is. Before: `route`. After: `connect`. A [`Target`] has literal addresses; from here on no name is
//! looked up any more.
//!
//! Invariant: names of nodes become addresses through root's map of nodes or this machine's own interfaces (`nodes.rs`),
//! never through a resolver; no traffic to the target happens here. Forward files are read at most once a second a name.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use portreeve_broker::{ForwardRead, ReadError};
use portreeve_model::{
    CertificatePin, ForwardFile, ForwardName, ForwardStat, ForwardTarget, NodeName, NodePort, PathMode, Port,
    Refusal, Scheme,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::chain::chain;
use crate::limits;
use crate::powers::Unread;
use crate::room::Room;
use crate::route::{Place, What};
use crate::sessions::Session;

/// Where to connect, how, and by which right.
#[derive(Debug)]
pub(crate) struct Target {
    /// To be tried in this order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// TLS towards the application.
    pub(crate) tls: Option<Tls>,
    /// The path at the application that the place's prefix stands for, without its closing slash: mostly empty.
    pub(crate) base: Box<str>,
    /// `NODE:PORT`, as the application would call itself.
    pub(crate) authority: Box<str>,
    /// What the forward says about the paths.
    pub(crate) mode: Option<PathMode>,
    /// The authority, where the application is to be told it as its host.
    pub(crate) host: Option<HeaderValue>,
    /// What the forward's `user:password@` becomes.
    pub(crate) authorization: Option<HeaderValue>,
    /// By which right.
    pub(crate) grant: Rc<Grant>,
}

/// TLS towards an application.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    pub(crate) name: Box<str>,
    pub(crate) pin: Option<CertificatePin>,
}

/// By which right somebody reaches a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grant {
    /// They asked for the port itself.
    Direct(NodePort),
    /// A forward leads there, and they may execute its file.
    Forward { name: ForwardName, stat: ForwardStat, target: ForwardTarget },
}

/// Why a place is nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Not this machine, which is all there is.
    #[error("{0} is not this machine")]
    UnknownNode(NodeName),
    /// Not a node of the cluster.
    #[error("{0} is not a node of this cluster")]
    NoSuchNode(NodeName),
    /// The session is over.
    #[error("your session has ended")]
    Over,
    /// Whoever reads forwards does not answer.
    #[error("forwards can't be looked up at the moment")]
    Unavailable,
    /// This user looks up as many forwards at once as they may.
    #[error("you look up as many forwards at once as you may")]
    TooMany,
    /// A port below 1024.
    #[error("ports below 1024 are not forwarded")]
    PrivilegedPort,
    /// The portal itself.
    #[error("the portal does not forward to itself")]
    Ourselves,
    /// The forward file is empty.
    #[error("this forward is disabled")]
    Disabled,
    /// The forward file gives nothing.
    #[error(transparent)]
    Forward(#[from] Arc<ReadError>),
    /// The file system did not answer.
    #[error("the file system that holds the forwards does not answer")]
    Hanging,
}

impl ResolveError {
    /// A short name for logs and the page.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnknownNode(_) | Self::NoSuchNode(_) => "unknown-node",
            Self::Over => "not-signed-in",
            Self::Unavailable => "unavailable",
            Self::TooMany => "too-many-requests",
            Self::PrivilegedPort => Refusal::PrivilegedPort.code(),
            Self::Ourselves => "ourselves",
            Self::Disabled => "disabled",
            Self::Hanging => "file-system",
            Self::Forward(read) => match &**read {
                ReadError::NotFound => "no-such-forward",
                ReadError::NotExecutable => Refusal::NotExecutable.code(),
                ReadError::Invalid(_) | ReadError::NotUnderstood(_) => "bad-forward",
                ReadError::Io(_) => "forward-unreadable",
                ReadError::NotPlain(_) | ReadError::Unreadable | ReadError::UnreadableByAnybody => {
                    "forward-refused"
                }
            },
        }
    }
}

/// Why a right that was given does not hold any more.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Withdrawn {
    /// The judgement changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The forward is gone, disabled or not shared any more.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The forward leads elsewhere now.
    #[error("the forward leads elsewhere now")]
    Moved,
}

impl Withdrawn {
    /// A short name for logs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Resolve(error) => error.code(),
            Self::Moved => "moved",
        }
    }
}

/// What a forward file says.
type Said = Result<Rc<Target>, ResolveError>;

/// What a forward file said, and when it was asked.
pub(crate) struct ForwardEntry {
    said: Option<(Instant, Said)>,
    /// The visitors of a file that hangs have one read going, not one each.
    turn: Arc<Semaphore>,
}

impl ForwardEntry {
    fn new() -> Self {
        Self { said: None, turn: Arc::new(Semaphore::new(1)) }
    }

    /// What it said, if that is believed still.
    fn fresh(&self) -> Option<&Said> {
        let (asked, said) = self.said.as_ref()?;
        (asked.elapsed() < limits::FORWARD_FRESH).then_some(said)
    }
}

/// Where a direct address leads, and when that was found out.
#[derive(Debug)]
pub(crate) struct Nearby {
    found: Instant,
    target: Rc<Target>,
}

/// The target that the place stands for now.
pub(crate) async fn resolve(
    room: &Room,
    session: &Session,
    place: &Place,
) -> Result<Rc<Target>, ResolveError> {
    match &place.what {
        What::Direct(direct) => resolve_direct(room, direct, &place.nearby),
        What::Forward(name) => resolve_forward(room, session, name).await,
    }
}

fn resolve_direct(
    room: &Room,
    direct: &NodePort,
    nearby: &RefCell<Option<Nearby>>,
) -> Result<Rc<Target>, ResolveError> {
    if let Some(known) = &*nearby.borrow()
        && known.found.elapsed() < limits::ADDRESSES_FRESH
    {
        return Ok(Rc::clone(&known.target));
    }
    let target = Rc::new(Target {
        addresses: addresses(room, &direct.node, direct.port)?,
        tls: None,
        base: "".into(),
        authority: direct.to_string().into(),
        mode: None,
        host: None,
        authorization: None,
        grant: Rc::new(Grant::Direct(direct.clone())),
    });
    *nearby.borrow_mut() = Some(Nearby { found: Instant::now(), target: Rc::clone(&target) });
    Ok(target)
}

async fn resolve_forward(room: &Room, session: &Session, name: &ForwardName) -> Said {
    let key = (session.uid, name.clone());
    let turn = {
        let mut forwards = room.forwards.borrow_mut();
        let entry = forwards.get_or_insert_mut_ref(&key, ForwardEntry::new);
        if let Some(said) = entry.fresh() {
            return said.clone();
        }
        Arc::clone(&entry.turn)
    };
    // The file may be on a network file system that hangs.
    let read = tokio::time::timeout(limits::FORWARD_READ, read_forward(room, session, &key, turn)).await;
    read.ok().flatten().unwrap_or(Err(ResolveError::Hanging))
}

/// Reads the file, unless somebody else just did. `None` when it does not answer.
async fn read_forward(
    room: &Room,
    session: &Session,
    key: &(u32, ForwardName),
    turn: Arc<Semaphore>,
) -> Option<Said> {
    let turn = turn.acquire_owned().await.ok()?;
    if let Some(said) = room.forwards.borrow().peek(key).and_then(ForwardEntry::fresh) {
        return Some(said.clone());
    }
    let asked = Instant::now();
    let said = match room.powers.read_forward(session, &key.1, turn).await {
        Ok(read) => target_of(room, &key.1, read).map(Rc::new),
        Err(Unread::Refused(error)) => Err(ResolveError::Forward(Arc::new(error))),
        Err(Unread::Hanging) => return None,
        // Not remembered: the next one who asks may have an answer.
        Err(Unread::Over) => return Some(Err(ResolveError::Over)),
        Err(Unread::TooMany) => return Some(Err(ResolveError::TooMany)),
        Err(Unread::Unavailable(error)) => {
            tracing::warn!(error = %chain(&*error), forward = %key.1, "a forward can't be looked up");
            return Some(Err(ResolveError::Unavailable));
        }
    };
    let mut forwards = room.forwards.borrow_mut();
    forwards.get_or_insert_mut_ref(key, ForwardEntry::new).said = Some((asked, said.clone()));
    Some(said)
}

fn target_of(room: &Room, name: &ForwardName, read: ForwardRead) -> Result<Target, ResolveError> {
    let ForwardFile::Target { target, .. } = read.file else { return Err(ResolveError::Disabled) };
    let authorization = target.credentials.as_ref().and_then(|credentials| {
        let pair = format!("{}:{}", credentials.user, credentials.password);
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    let authority = match target.port == target.scheme.default_port() {
        true => target.node.to_string(),
        false => format!("{}:{}", target.node, target.port),
    };
    Ok(Target {
        addresses: addresses(room, &target.node, target.port)?,
        tls: (target.scheme == Scheme::Https)
            .then(|| Tls { name: target.node.as_str().into(), pin: target.pin }),
        base: target.path.trim_end_matches('/').into(),
        mode: target.mode,
        host: target.own_host.then(|| HeaderValue::try_from(&authority).ok()).flatten(),
        authority: format!("{}:{}", target.node, target.port).into(),
        authorization,
        grant: Rc::new(Grant::Forward { name: name.clone(), stat: read.stat, target }),
    })
}

fn addresses(room: &Room, node: &NodeName, port: Port) -> Result<Vec<SocketAddr>, ResolveError> {
    if port.is_privileged() {
        return Err(ResolveError::PrivilegedPort);
    }
    let found: Vec<SocketAddr> = room
        .portal
        .nodes
        .addresses(node)
        .ok_or_else(|| match room.portal.service.is_a_cluster() {
            true => ResolveError::NoSuchNode(node.clone()),
            false => ResolveError::UnknownNode(node.clone()),
        })?
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port.get()))
        .collect();
    // Listening on every address, the portal is at each of them.
    let is_ours = |address: &SocketAddr| {
        room.portal.listening.iter().any(|own| {
            own.port() == address.port() && (own.ip().is_unspecified() || own.ip() == address.ip())
        })
    };
    if found.iter().any(is_ours) { Err(ResolveError::Ourselves) } else { Ok(found) }
}

/// The right as it is now, for something that began under `grant`.
pub(crate) async fn still_granted(
    room: &Room,
    session: &Session,
    grant: &Rc<Grant>,
) -> Result<Rc<Grant>, Withdrawn> {
    match &**grant {
        Grant::Direct(_) => Ok(Rc::clone(grant)),
        Grant::Forward { name, target, .. } => {
            let current = resolve_forward(room, session, name).await?;
            match &*current.grant {
                Grant::Forward { target: now, .. } if now == target => Ok(Rc::clone(&current.grant)),
                _ => Err(Withdrawn::Moved),
            }
        }
    }
}

impl Grant {
    /// The place that was asked for: what the audit log tells two grants apart by.
    pub(crate) fn place(&self) -> (Option<&NodePort>, Option<&ForwardName>) {
        match self {
            Self::Direct(direct) => (Some(direct), None),
            Self::Forward { name, .. } => (None, Some(name)),
        }
    }
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct(direct) => write!(f, "/fw2/{direct}"),
            Self::Forward { name, .. } => write!(f, "/fw/{name}"),
        }
    }
}
