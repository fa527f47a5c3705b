//! From a TCP connection to a node: by the key that its agent proves to have, or by the weaker way. Before: the agents'
//! listening socket. After: `converse`.
//! Invariant: nothing but a greeting is read of somebody who has not been recognized, and that within one deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use portreeve_agent::channel::tls::peer_key;
use portreeve_agent::channel::{FrameError, FrameReader};
use portreeve_model::wire::agent::{FromAgent, ToAgent, VERSION};
use portreeve_model::{NodeName, Speaker, wire};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::{Agents, InForce};
use crate::limits;

/// The first byte of a TLS record with a handshake in it (RFC 8446 section 5.1). A message that begins so would be longer
/// than any that is allowed.
const TLS_HANDSHAKE: u8 = 22;

/// TLS, or TCP alone.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Somebody who was recognized.
pub(super) struct Greeted {
    pub(super) node: NodeName,
    pub(super) speaker: Speaker,
    pub(super) peer: SocketAddr,
    pub(super) boot: String,
    /// What it calls its node, if the map has no such name for it.
    pub(super) calls_itself: Option<NodeName>,
    pub(super) reader: FrameReader<ReadHalf<Box<dyn Stream>>>,
    pub(super) writer: WriteHalf<Box<dyn Stream>>,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it said nothing, or not all of it, in time")]
    Slow,
    #[error("too many others are waiting")]
    Evicted,
    #[error("it closed the connection at once")]
    Gone,
    #[error("{0}")]
    Plain(&'static str),
    #[error("agents have no keys here: portreeve keys init makes the portal's")]
    NoKeys,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("its key is not in the node map")]
    UnknownKey,
    #[error("it did not begin with a greeting")]
    NoGreeting,
    #[error("it speaks version {0} of the protocol, the portal {VERSION}")]
    Version(u32),
    #[error("its greeting has no boot id")]
    NoBoot,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Finds out who it is; `None` after saying why not.
pub(super) async fn greet(agents: &Agents, stream: TcpStream) -> Option<Greeted> {
    let peer = match stream.peer_addr() {
        Ok(peer) => SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        Err(error) => {
            tracing::debug!(%error, "a connection ended before it began");
            return None;
        }
    };
    let mut place = agents.waiting.enter(peer.ip());
    let greeted = tokio::select! {
        greeted = timeout(limits::AGENT_HANDSHAKE, recognize(agents, stream, peer)) => {
            greeted.unwrap_or(Err(Refused::Slow))
        }
        () = place.evicted() => Err(Refused::Evicted),
    };
    match greeted {
        Ok(greeted) => Some(greeted),
        Err(refused) => {
            record(agents, peer, &refused);
            None
        }
    }
}

async fn recognize(agents: &Agents, stream: TcpStream, peer: SocketAddr) -> Result<Greeted, Refused> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(Refused::Gone);
    }
    let force = agents.force.load_full();
    let (name, speaker, stream): (NodeName, Speaker, Box<dyn Stream>) = if first == [TLS_HANDSHAKE] {
        let tls = force.tls.as_ref().ok_or(Refused::NoKeys)?;
        let stream = TlsAcceptor::from(tls.clone()).accept(stream).await.map_err(Refused::Tls)?;
        let key = peer_key(stream.get_ref().1.peer_certificates()).ok_or(Refused::UnknownKey)?;
        let node = force.nodes.of_key(&key).ok_or(Refused::UnknownKey)?;
        (node.name.clone(), Speaker::Key(key), Box::new(stream))
    } else {
        let node = force.plain_node(peer).map_err(Refused::Plain)?;
        (node.name.clone(), Speaker::Plain, Box::new(stream))
    };
    let (reading, mut writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reading);
    let hello = reader.next(limits::AGENT_HANDSHAKE, limits::AGENT_FRAME).await?;
    let FromAgent::Hello { version, node: calls_itself, boot } = hello else {
        return Err(Refused::NoGreeting);
    };
    if version != VERSION {
        let refused = Refused::Version(version);
        goodbye(&mut writer, &refused.to_string()).await;
        return Err(refused);
    }
    if !is_boot_id(&boot) {
        return Err(Refused::NoBoot);
    }
    // It may be known by several names. That it errs is worth a word, and no more: the key decides.
    let known_as = force.nodes.find(&calls_itself).is_some_and(|node| node.name == name);
    let calls_itself = (!known_as).then_some(calls_itself);
    Ok(Greeted { node: name, speaker, peer, boot, calls_itself, reader, writer })
}

/// Tells the agent's log why.
pub(super) async fn goodbye(writer: &mut WriteHalf<Box<dyn Stream>>, why: &str) {
    if let Ok(frame) = wire::encode(&ToAgent::Goodbye { why: why.to_owned() }) {
        let said = async {
            writer.write_all(&frame).await?;
            writer.shutdown().await
        };
        let _ = timeout(limits::AGENT_STALL, said).await;
    }
}

/// As the kernel writes it: a UUID.
fn is_boot_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// Whoever can reach the socket could fill the log: one record a second is enough.
fn record(agents: &Agents, peer: SocketAddr, refused: &Refused) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let why = match refused {
        Refused::Tls(source) => format!("{refused}: {source}"),
        Refused::Frame(FrameError::Wire(source)) => format!("{refused}: {source}"),
        refused => refused.to_string(),
    };
    if let Some(slot) = slot_at(&agents.force.load(), peer.ip()) {
        slot.note(&format!("the last connection from its address was refused: {why}"));
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() >= limits::AGENT_RECORDS) {
        *last = Some(Instant::now());
        tracing::warn!(from = %peer, "a connection to the agents' socket was refused: {why}");
    }
}

fn slot_at(force: &InForce, address: IpAddr) -> Option<&super::Slot> {
    force.slots.get(&force.nodes.at(address)?.name).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids() {
        assert!(is_boot_id("2f1d7c0e-5b7a-4a52-9d3c-0123456789ab"));
        for bad in ["", "2f1d7c0e", "2F1D7C0E-5b7a-4a52-9d3c-0123456789ab", &"x".repeat(36)] {
            assert!(!is_boot_id(bad), "{bad}");
        }
    }

    #[test]
    fn no_message_begins_like_tls() {
        let head = [TLS_HANDSHAKE, 0, 0, 0];
        assert!(wire::frame_length(head).is_err());
    }
}
