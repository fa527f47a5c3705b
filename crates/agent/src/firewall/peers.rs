//! Asks the nodes from which connections come: one connection to each, made when it is needed and kept. Before: `gate`, on
//! whose thread all of this runs. After: the other node's `answer`.
//! Invariant: each question gets one reply, an answer or that there is none; an answer comes from whoever has the key that
//! the node map gives to the address that was asked about, or by the site's ident2 service if the map says that the node has
//! none and the configuration names that service.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_model::firewall::{Connector, ConnectorGroups};
use portreeve_model::wire;
use portreeve_model::wire::firewall::{AT_ONCE, Answer, Ask, Flow, Groups, NoConnector, PROTOCOL, Transport};
use portreeve_model::wire::ident2::{Flags, Found, Op, Protocol, TcpStates};
use portreeve_model::{AgentKey, NodeName, UnknownGroup};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::audit::Seldom;
use super::limits;
use super::settings::{Asked, Settings};
use crate::channel::tls::client_config_for;
use crate::channel::{FrameError, FrameReader, Identity};
use crate::ident2::client::{self as ident2, AskError, Ident2, is_somebody};
use crate::privileged::{self, NotConnected, PORTS};

/// Ports to connect from that are tried.
const TRIES: usize = 32;
/// Questions that are written at once.
const TOGETHER: usize = 64;

/// The reply to one question.
pub(super) struct Reply {
    /// As it was asked with.
    pub(super) of: u64,
    /// What was found.
    pub(super) found: Result<Connector, Failure>,
}

/// Why nobody is named.
#[derive(Debug)]
pub(super) enum Failure {
    /// The node says so.
    NoConnector(NoConnector),
    /// There was no answer.
    NoAnswer,
}

/// Connections to other nodes, by key.
pub(super) struct Peers {
    settings: Arc<Settings>,
    lines: HashMap<AgentKey, mpsc::Sender<Question>>,
    ident2: Option<Arc<Ident2>>,
    silent: Rc<Silent>,
    replies: mpsc::UnboundedSender<Reply>,
}

/// Says which nodes do not answer by ident2: a line for each now and then, not one for each packet.
#[derive(Default)]
struct Silent(RefCell<HashMap<String, Seldom>>);

struct Question {
    of: u64,
    flow: Flow,
    groups: Groups,
}

impl Peers {
    /// The replies come in `replies`: not more than were asked for.
    pub(super) fn new(settings: Arc<Settings>, replies: mpsc::UnboundedSender<Reply>) -> Self {
        let ident2 = settings.config.ident2_socket.as_ref().map(|path| Arc::new(Ident2::new(path)));
        Self { settings, lines: HashMap::new(), ident2, silent: Rc::default(), replies }
    }

    /// Asks whose program is at `flow.from`, in the way that the node map has for it.
    pub(super) fn ask_by(&mut self, asked: Asked, of: u64, flow: Flow, groups: Groups) {
        match asked {
            Asked::ByKey(key) => self.ask(key, of, flow, groups),
            Asked::ByIdent2 => {
                let Some(ident2) = self.ident2.clone() else { return fail(&self.replies, of) };
                let (replies, silent) = (self.replies.clone(), Rc::clone(&self.silent));
                let settings = Arc::clone(&self.settings);
                tokio::task::spawn_local(async move {
                    let asked = by_ident2(&ident2, flow, groups, settings.config.patience).await;
                    let found = asked.unwrap_or_else(|error| {
                        silent.tell(settings.name_of(flow.from.ip()), &error);
                        Err(Failure::NoAnswer)
                    });
                    let _ = replies.send(Reply { of, found });
                });
            }
        }
    }

    /// Asks the node that has this key.
    fn ask(&mut self, key: AgentKey, of: u64, flow: Flow, groups: Groups) {
        let line = self.lines.entry(key).or_insert_with(|| {
            let (line, questions) = mpsc::channel(limits::QUESTIONS);
            let task = Line {
                key,
                to: addresses(&self.settings, key, flow.from.ip()),
                name: self.settings.nodes.of_key(&key).map(|node| node.name.clone()),
                settings: Arc::clone(&self.settings),
                replies: self.replies.clone(),
            };
            tokio::task::spawn_local(task.serve(questions));
            line
        });
        if line.try_send(Question { of, flow, groups }).is_err() {
            // The connection can't keep up.
            fail(&self.replies, of);
        }
    }
}

impl Silent {
    fn tell(&self, node: String, error: &AskError) {
        if self.0.borrow_mut().entry(node.clone()).or_insert_with(Seldom::new).now() {
            tracing::warn!(node, "{error}: nobody connects from there meanwhile");
        }
    }
}

/// Where the node with this key is asked: first by `address`, then by its others.
fn addresses(settings: &Settings, key: AgentKey, address: IpAddr) -> Vec<SocketAddr> {
    let others = settings.nodes.of_key(&key).map_or(&[][..], |node| &node.addresses);
    let all = std::iter::once(address).chain(others.iter().copied().filter(|other| *other != address));
    all.map(|ip| SocketAddr::new(ip, settings.config.port)).collect()
}

fn fail(replies: &mpsc::UnboundedSender<Reply>, of: u64) {
    // The gate that waited is ending.
    let _ = replies.send(Reply { of, found: Err(Failure::NoAnswer) });
}

/// One node.
struct Line {
    key: AgentKey,
    /// In the order to try: first the address by which the first question's connection came.
    to: Vec<SocketAddr>,
    name: Option<NodeName>,
    settings: Arc<Settings>,
    replies: mpsc::UnboundedSender<Reply>,
}

/// Questions that wait for an answer.
struct Open {
    asked: RefCell<HashMap<u32, (u64, Instant)>>,
    heard: Cell<Instant>,
}

impl Line {
    /// Until the gate, or its settings, are no more.
    async fn serve(self, mut questions: mpsc::Receiver<Question>) {
        let mut told = String::new();
        while let Some(first) = questions.recv().await {
            let why = match reach(&self.settings.own, self.key, &self.to).await {
                Ok(stream) => {
                    told.clear();
                    self.converse(stream, first, &mut questions).await.to_string()
                }
                Err(error) => {
                    fail(&self.replies, first.of);
                    let again = tokio::time::Instant::now() + limits::AGAIN;
                    while let Ok(Some(question)) = timeout_at(again, questions.recv()).await {
                        fail(&self.replies, question.of);
                    }
                    format!("no connection: {error}")
                }
            };
            // A node that is away for hours is one line, not one for each packet.
            if why != told {
                tracing::warn!(node = self.shown(), to = ?self.to, "{why}: nobody connects from there meanwhile");
                told = why;
            }
        }
    }

    fn shown(&self) -> &str {
        self.name.as_ref().map_or("?", NodeName::as_str)
    }

    /// Asks and hears on one connection, until it ends. Whatever was not answered then fails.
    async fn converse(
        &self,
        stream: TlsStream<TcpStream>,
        first: Question,
        questions: &mut mpsc::Receiver<Question>,
    ) -> FrameError {
        let (read, mut write) = tokio::io::split(stream);
        let open = Open { asked: RefCell::default(), heard: Cell::new(Instant::now()) };
        let ended = tokio::select! {
            ended = self.write(&mut write, first, questions, &open) => ended,
            ended = self.read(FrameReader::new(read), &open) => ended,
            ended = watch(&open, self.settings.config.patience) => ended,
        };
        for (of, _) in open.asked.take().into_values() {
            fail(&self.replies, of);
        }
        ended
    }

    async fn write(
        &self,
        stream: &mut WriteHalf<TlsStream<TcpStream>>,
        first: Question,
        questions: &mut mpsc::Receiver<Question>,
        open: &Open,
    ) -> FrameError {
        let (mut batch, mut next) = (vec![first], 0u32);
        loop {
            let mut bytes = Vec::with_capacity(256 * batch.len());
            for question in batch.drain(..) {
                let mut asked = open.asked.borrow_mut();
                let message = Ask { id: next, flow: question.flow, groups: question.groups };
                let frame = wire::encode(&message);
                let (Ok(frame), true) = (frame, asked.len() < AT_ONCE && !asked.contains_key(&next)) else {
                    fail(&self.replies, question.of);
                    continue;
                };
                bytes.extend(frame);
                asked.insert(next, (question.of, Instant::now()));
                next = next.wrapping_add(1);
            }
            let written = async {
                stream.write_all(&bytes).await?;
                stream.flush().await
            };
            match timeout(limits::STALL, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return FrameError::Io(error),
                Err(_) => return FrameError::Stuck,
            }
            // Nobody asks any more: the gate has other settings, and waits for no answer of this line.
            if questions.recv_many(&mut batch, TOGETHER).await == 0 {
                return FrameError::Ended;
            }
        }
    }

    async fn read(
        &self,
        mut reader: FrameReader<tokio::io::ReadHalf<TlsStream<TcpStream>>>,
        open: &Open,
    ) -> FrameError {
        loop {
            let answer: Answer = match reader.next(limits::IDLE, limits::FRAME).await {
                Ok(answer) => answer,
                Err(error) => return error,
            };
            open.heard.set(Instant::now());
            let Some((of, _)) = open.asked.borrow_mut().remove(&answer.id) else {
                // Nobody asked that: this is no firewall that can be believed.
                return FrameError::Io(io::Error::other("an answer that nobody asked for"));
            };
            let found = answer.found.map_err(Failure::NoConnector);
            let _ = self.replies.send(Reply { of, found });
        }
    }
}

/// Ends when questions stay without any answer: a node that lost its power does not close its connections.
async fn watch(open: &Open, patience: Duration) -> FrameError {
    loop {
        tokio::time::sleep(patience).await;
        let oldest = open.asked.borrow().values().map(|(_, asked)| *asked).min();
        let heard = open.heard.get();
        if oldest.is_some_and(|oldest| oldest.max(heard).elapsed() > 2 * patience) {
            return FrameError::Silent;
        }
    }
}

/// The first of these addresses that answers.
async fn reach(own: &Identity, key: AgentKey, at: &[SocketAddr]) -> io::Result<TlsStream<TcpStream>> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for to in at {
        match connect(own, key, *to).await {
            Ok(stream) => {
                tracing::debug!(%to, "connected");
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn connect(own: &Identity, key: AgentKey, to: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(limits::CONNECT, connect_from_below(to)).await.map_err(late)??;
    stream.set_nodelay(true)?;
    let tls = client_config_for(PROTOCOL, own, vec![key]).map_err(io::Error::other)?;
    // The name is not sent and not compared: the key is.
    let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let handshake = TlsConnector::from(Arc::new(tls)).connect(name, stream);
    timeout(limits::CONNECT, handshake).await.map_err(late)?
}

/// From a port that only root can have: the other end hears nobody else.
async fn connect_from_below(to: SocketAddr) -> io::Result<TcpStream> {
    let begin = getrandom::u32().map_err(io::Error::other)? as usize % PORTS.len();
    privileged::connect(to, PORTS.cycle().skip(begin).take(TRIES)).await.map_err(NotConnected::reason)
}

/// Asks one question on a connection of its own.
pub(super) async fn ask_once(
    settings: &Settings,
    asked: Asked,
    flow: Flow,
    groups: Groups,
) -> Result<Connector, Failure> {
    let key = match (asked, &settings.config.ident2_socket) {
        (Asked::ByKey(key), _) => key,
        (Asked::ByIdent2, Some(path)) => {
            let asked = by_ident2(&Ident2::new(path), flow, groups, limits::FRAME).await;
            return asked.unwrap_or(Err(Failure::NoAnswer));
        }
        (Asked::ByIdent2, None) => return Err(Failure::NoAnswer),
    };
    let at = addresses(settings, key, flow.from.ip());
    let asked = async {
        let mut stream = reach(&settings.own, key, &at).await.map_err(FrameError::Io)?;
        stream.write_all(&wire::encode(&Ask { id: 0, flow, groups })?).await.map_err(FrameError::Io)?;
        stream.flush().await.map_err(FrameError::Io)?;
        FrameReader::new(stream).next::<Answer>(limits::FRAME, limits::FRAME).await
    };
    match asked.await {
        Ok(answer) if answer.id == 0 => answer.found.map_err(Failure::NoConnector),
        Ok(_) => Err(Failure::NoAnswer),
        Err(error) => {
            tracing::debug!(%error, ?at, "no answer");
            Err(Failure::NoAnswer)
        }
    }
}

/// Asks the site's ident2 service, which asks the node's. Nothing proves its answers.
async fn by_ident2(
    ident2: &Ident2,
    flow: Flow,
    groups: Groups,
    patience: Duration,
) -> Result<Result<Connector, Failure>, AskError> {
    let (protocol, states) = match flow.transport {
        Transport::Tcp => (Protocol::Tcp, TcpStates::CONNECTED),
        Transport::Udp => (Protocol::Udp, TcpStates::ANY),
    };
    let groups = groups == Groups::Yes;
    let flags = if groups { Flags::PROCESS.and(Flags::GROUPS) } else { Flags::default() };
    let question =
        ident2::Question { op: Op::Remote, flags, protocol, states, local: flow.from, remote: flow.to };
    Ok(connector(ident2.ask(question, patience).await?, groups))
}

/// What is made of such an answer. Root is named by no answer without a proof, nor is whoever has no name: root is exempt
/// where nothing else is written, and the protocol says its uid of what is nobody's, too.
fn connector(found: Option<Found>, groups: bool) -> Result<Connector, Failure> {
    let Some(found) = found.filter(|found| is_somebody(found.uid)) else {
        return Err(Failure::NoConnector(NoConnector::NoSuchSocket));
    };
    let is_held = found.pid.is_some_and(|pid| pid != 0);
    let groups = match found.gid.filter(|gid| *gid != u32::MAX && is_held) {
        _ if !groups => ConnectorGroups::NotLooked,
        Some(gid) => {
            let mut gids = found.groups.unwrap_or_default();
            gids.push(gid);
            ConnectorGroups::Gids(gids)
        }
        None => ConnectorGroups::Unknown(UnknownGroup::NoHolderSeen),
    };
    Ok(Connector { uid: found.uid, groups })
}

#[cfg(test)]
mod ident2_tests;
#[cfg(test)]
mod tests;
