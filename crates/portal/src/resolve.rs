//! Where a place is. Before: `route`. After: `connect`. A [`Target`] has literal addresses; from here on no name is
//! looked up any more.
//!
//! Invariant: names of nodes become addresses through this machine's own interfaces, never through a resolver; no
//! traffic to the target happens here. Forward files are read at most once a second a name.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use portreeve_broker::{ForwardRead, ReadError};
use portreeve_model::{
    CertificatePin, ForwardFile, ForwardName, ForwardStat, ForwardTarget, NodeName, NodePort, Port, Refusal,
    Scheme,
};
use tokio::time::Instant;

use crate::limits;
use crate::room::Room;
use crate::route::{Place, What};

/// Where to connect, how, and by which right.
#[derive(Debug)]
pub(crate) struct Target {
    /// To be tried in this order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// TLS towards the application.
    pub(crate) tls: Option<Tls>,
    /// The path at the application that the place's prefix stands for, without its closing slash: mostly empty.
    pub(crate) base: Box<str>,
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
    /// Not a node of ours.
    #[error("{0} is not this machine")]
    UnknownNode(NodeName),
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
            Self::UnknownNode(_) => "unknown-node",
            Self::PrivilegedPort => Refusal::PrivilegedPort.code(),
            Self::Ourselves => "ourselves",
            Self::Disabled => "disabled",
            Self::Hanging => "file-system",
            Self::Forward(read) => match &**read {
                ReadError::NotFound => "no-such-forward",
                ReadError::NotExecutable => Refusal::NotExecutable.code(),
                ReadError::Invalid(_) => "bad-forward",
                ReadError::Io(_) => "forward-unreadable",
                ReadError::NotPlain(_) | ReadError::Unreadable => "forward-refused",
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

/// What a forward file said, and when.
pub(crate) struct ForwardEntry {
    read: Instant,
    result: Result<Rc<Target>, ResolveError>,
}

/// Where a direct address leads, and when that was found out.
#[derive(Debug)]
pub(crate) struct Nearby {
    found: Instant,
    target: Rc<Target>,
}

/// The target that the place stands for now.
pub(crate) async fn resolve(room: &Room, place: &Place) -> Result<Rc<Target>, ResolveError> {
    match &place.what {
        What::Direct(direct) => resolve_direct(room, direct, &place.nearby),
        What::Forward(name) => resolve_forward(room, name).await,
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
        authorization: None,
        grant: Rc::new(Grant::Direct(direct.clone())),
    });
    *nearby.borrow_mut() = Some(Nearby { found: Instant::now(), target: Rc::clone(&target) });
    Ok(target)
}

async fn resolve_forward(room: &Room, name: &ForwardName) -> Result<Rc<Target>, ResolveError> {
    if let Some(entry) = room.forwards.borrow_mut().get(name)
        && entry.read.elapsed() < limits::FORWARD_FRESH
    {
        return entry.result.clone();
    }
    let asked = Instant::now();
    let broker = Arc::clone(&room.portal.broker);
    let asked_name = name.clone();
    // The file may be on a network file system that hangs: never on this thread, not for ever, and not on so many
    // threads that nothing else gets one.
    let place = Arc::clone(&room.forward_reads).acquire_owned();
    let Ok(Ok(place)) = tokio::time::timeout(limits::FORWARD_READ, place).await else {
        return Err(ResolveError::Hanging);
    };
    let reading = tokio::task::spawn_blocking(move || {
        let _place = place;
        broker.read_forward(&asked_name)
    });
    let read = match tokio::time::timeout(limits::FORWARD_READ, reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => return Err(ResolveError::Hanging),
    };
    let result = match read {
        Ok(read) => target_of(room, name, read).map(Rc::new),
        Err(error) => Err(ResolveError::Forward(Arc::new(error))),
    };
    room.forwards.borrow_mut().put(name.clone(), ForwardEntry { read: asked, result: result.clone() });
    result
}

fn target_of(room: &Room, name: &ForwardName, read: ForwardRead) -> Result<Target, ResolveError> {
    let ForwardFile::Target { target, .. } = read.file else { return Err(ResolveError::Disabled) };
    let authorization = target.credentials.as_ref().and_then(|credentials| {
        let pair = format!("{}:{}", credentials.user, credentials.password);
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    Ok(Target {
        addresses: addresses(room, &target.node, target.port)?,
        tls: (target.scheme == Scheme::Https)
            .then(|| Tls { name: target.node.as_str().into(), pin: target.pin }),
        base: target.path.trim_end_matches('/').into(),
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
        .ok_or_else(|| ResolveError::UnknownNode(node.clone()))?
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
pub(crate) async fn still_granted(room: &Room, grant: &Rc<Grant>) -> Result<Rc<Grant>, Withdrawn> {
    match &**grant {
        Grant::Direct(_) => Ok(Rc::clone(grant)),
        Grant::Forward { name, target, .. } => {
            let current = resolve_forward(room, name).await?;
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

/// The names and addresses of this machine.
pub(crate) struct Nodes {
    /// Full and short host name, in lower case.
    names: Vec<String>,
    interfaces: Mutex<Option<(std::time::Instant, Arc<[IpAddr]>)>>,
}

impl Nodes {
    pub(crate) fn of_this_machine() -> Self {
        let full = portreeve_sys::host_name().unwrap_or_default().to_ascii_lowercase();
        let short = full.split('.').next().unwrap_or_default().to_owned();
        let names =
            [full, short].into_iter().filter(|name| !name.is_empty() && name != "localhost").collect();
        Self { names, interfaces: Mutex::default() }
    }

    /// The addresses of a node, in the order to try; `None` if it is not this machine.
    fn addresses(&self, node: &NodeName) -> Option<Vec<IpAddr>> {
        const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if let Some(ip) = node.as_ip() {
            return self.is_this_machine(ip).then(|| vec![ip]);
        }
        if node.as_str() == "localhost" {
            return Some(LOOPBACK.to_vec());
        }
        if !self.names.iter().any(|name| name == node.as_str()) {
            return None;
        }
        // A program told to listen on the host's name listens on one of these; Debian gives that name 127.0.1.1.
        let mut all: Vec<IpAddr> = self.interfaces().iter().copied().filter(|ip| !ip.is_loopback()).collect();
        all.sort_by_key(IpAddr::is_ipv6);
        all.push(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1)));
        all.extend(LOOPBACK);
        Some(all)
    }

    /// Whether something that connects from this address is on this machine.
    pub(crate) fn is_this_machine(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.interfaces().contains(&ip)
    }

    fn interfaces(&self) -> Arc<[IpAddr]> {
        let mut cached = self.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, addresses)) = &*cached
            && read.elapsed() < limits::ADDRESSES_FRESH
        {
            return Arc::clone(addresses);
        }
        let addresses: Arc<[IpAddr]> = portreeve_sys::local_addresses().unwrap_or_default().into();
        *cached = Some((std::time::Instant::now(), Arc::clone(&addresses)));
        addresses
    }
}
