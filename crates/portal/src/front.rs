//! One browser connection: the TLS handshake, then HTTP/1.1 or HTTP/2 by what was agreed on in it (ALPN).
//!
//! Invariant: which protocol is spoken is decided once, by ALPN. Guessing from the first bytes would leave a client
//! that sends nothing without any deadline.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use portreeve_model::{LimitsConfig, Tuple};

use crate::addresses::AddressPlace;
use crate::audit;
use crate::authenticate::Memo;
use crate::chain::chain;
use crate::front_body::FrontBody;
use crate::front_io::{Beside, Flushed, FrontIo, Interim, Stall};
use crate::http2::serve_http2;
use crate::interim::InterimSink;
use crate::limits;
use crate::metrics::{HandshakeFailure, Turned};
use crate::powers::Admitted;
use crate::proxied::{Behind, take_header};
use crate::record::Sent;
use crate::room::Room;
use crate::serve::serve;
use crate::site::Site;
use crate::upgrade::{self, Pending};

/// What lasts as long as one browser connection does.
pub(crate) struct Connection {
    pub(crate) room: Rc<Room>,
    /// As they were when it began.
    pub(crate) limits: LimitsConfig,
    /// The browser's address.
    pub(crate) peer: SocketAddr,
    /// The browser's address as the header for applications says it.
    pub(crate) peer_header: http::HeaderValue,
    /// The ticket that this connection showed last.
    pub(crate) memo: RefCell<Option<Memo>>,
    /// The origin that this connection asked for last.
    pub(crate) site: RefCell<Option<Rc<Site>>>,
    id: u64,
    requests: Cell<u64>,
    active: Cell<u32>,
}

/// Something is being answered, until dropped.
pub(crate) struct Active(Rc<Connection>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Connection {
    pub(crate) fn new(room: Rc<Room>, peer: SocketAddr) -> Option<Self> {
        Some(Self {
            id: room.next_connection(),
            limits: room.portal.settings.load().config.limits,
            peer,
            peer_header: http::HeaderValue::try_from(peer.ip().to_canonical().to_string()).ok()?,
            memo: RefCell::default(),
            site: RefCell::default(),
            requests: Cell::new(0),
            active: Cell::new(0),
            room,
        })
    }

    /// Notes that a request is being answered.
    pub(crate) fn begin(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(Rc::clone(self))
    }

    /// Nothing is being answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.active.get() == 0
    }

    /// A number for the next request, unique within this process's life.
    pub(crate) fn next_request(&self) -> RequestId {
        let n = self.requests.get() + 1;
        self.requests.set(n);
        RequestId { connection: self.id, n }
    }
}

/// Names one request in the log and on the page that its person sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId {
    connection: u64,
    n: u64,
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}", self.connection, self.n)
    }
}

/// Whether a connection that begins on this machine is answered. From elsewhere nobody can tell whose it is, and the
/// cookie alone decides.
fn is_admitted(room: &Room, connection: &Tuple) -> bool {
    let peer = connection.client;
    if !room.portal.nodes.is_this_machine(peer.ip().to_canonical()) {
        return true;
    }
    match room.powers.admits(connection) {
        Admitted::Yes => true,
        Admitted::Stranger(uid) => {
            room.tally.turned_away(Turned::Stranger);
            room.note_stranger(|| audit::stranger(uid, peer));
            false
        }
        Admitted::Unknown(why) => {
            room.tally.turned_away(Turned::Unknown);
            tracing::debug!(%peer, %why, "who connects is not known; most likely they left at once");
            false
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve_connection(room: Rc<Room>, stream: TcpStream, peer: SocketAddr) {
    let Ok(server) = stream.local_addr() else { return };
    if !is_admitted(&room, &Tuple { client: peer, server }) {
        return;
    }
    let Some(mut place) = Place::of(&room, peer) else { return };
    // On the heap and gone before HTTP begins: for as long as it lasts, a task keeps as much room as its largest step needs.
    let begun = Box::pin(begin_in_time(&room, stream, peer, &mut place)).await;
    let Some((tls, peer)) = begun else { return };
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let Some(connection) = Connection::new(room, peer).map(Rc::new) else { return };
    let stall = Stall::after(connection.limits.write_stall);
    if http2 {
        let flushed = Flushed::default();
        let io = FrontIo::new(tls, Beside::Http2(flushed.clone()), stall);
        Box::pin(serve_http2(connection, io, flushed)).await;
    } else {
        let interim = Interim::default();
        let io = TokioIo::new(FrontIo::new(tls, Beside::Http1(interim.clone()), stall));
        serve_http1(connection, io, interim).await;
    }
}

/// For whom a connection counts, for as long as it lasts.
enum Place {
    /// For the address that it comes from.
    Counted(#[expect(dead_code, reason = "given back when it is dropped")] AddressPlace),
    /// For nobody: the one user of this machine connects.
    Own,
    /// For nobody until its header is read: a trusted proxy connects.
    Proxy,
}

impl Place {
    fn of(room: &Room, peer: SocketAddr) -> Option<Self> {
        let settings = room.portal.settings.load();
        let proxies = &settings.config.portal.trusted_proxies;
        let is_proxy = proxies.iter().any(|network| network.contains(peer.ip()));
        if is_proxy { Some(Self::Proxy) } else { Self::counted(room, peer) }
    }

    fn counted(room: &Room, peer: SocketAddr) -> Option<Self> {
        if room.portal.nodes.is_this_machine(peer.ip().to_canonical()) {
            return Some(Self::Own);
        }
        let place = room.portal.addresses.take(peer.ip());
        if place.is_none() {
            room.tally.turned_away(Turned::Address);
            tracing::debug!(%peer, "too many connections from this address");
        }
        place.map(Self::Counted)
    }
}

/// What stands before HTTP, unless it takes too long or the portal ends.
async fn begin_in_time(
    room: &Room,
    stream: TcpStream,
    peer: SocketAddr,
    place: &mut Place,
) -> Option<(TlsStream<tokio::net::TcpStream>, SocketAddr)> {
    let begun = tokio::select! {
        begun = tokio::time::timeout(limits::TLS_HANDSHAKE, begin(room, stream, peer, place)) => begun,
        () = room.portal.stopping.wait() => return None,
    };
    if begun.is_err() {
        room.tally.handshake_failed(HandshakeFailure::TimedOut);
    }
    begun.ok().flatten()
}

/// What stands before HTTP: whose connection it is, and TLS.
async fn begin(
    room: &Room,
    stream: TcpStream,
    peer: SocketAddr,
    place: &mut Place,
) -> Option<(TlsStream<tokio::net::TcpStream>, SocketAddr)> {
    stream.set_nonblocking(true).ok()?;
    let mut stream = tokio::net::TcpStream::from_std(stream).ok()?;
    stream.set_nodelay(true).ok()?;
    let peer = match place {
        Place::Proxy => {
            let browser = whom_it_is_for(room, &mut stream, peer).await?;
            if browser != peer {
                *place = Place::counted(room, browser)?;
            }
            browser
        }
        Place::Counted(_) | Place::Own => peer,
    };
    let tls = handshake(room, stream).await?;
    Some((tls, peer))
}

/// Whom a trusted proxy connects for: itself, or a browser whose address it says.
async fn whom_it_is_for(
    room: &Room,
    stream: &mut tokio::net::TcpStream,
    proxy: SocketAddr,
) -> Option<SocketAddr> {
    match take_header(stream).await {
        Ok(Behind::Nobody) => Some(proxy),
        // On this machine the kernel knows this connection's other end too.
        Ok(Behind::Browser(browsers)) => is_admitted(room, &browsers).then_some(browsers.client),
        Err(error) => {
            room.tally.turned_away(Turned::ProxyHeader);
            room.note_bad_header(
                || tracing::warn!(%proxy, error = %chain(&error), "a trusted proxy's connection was ended"),
            );
            None
        }
    }
}

async fn handshake(
    room: &Room,
    mut stream: tokio::net::TcpStream,
) -> Option<TlsStream<tokio::net::TcpStream>> {
    // Somebody typed http:// instead of https://: say so in the protocol they speak. TLS begins with 22.
    let mut first = [0];
    // Who closes at once, as a balancer that only looks whether somebody listens, has not failed at TLS.
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first[0] != 22 {
        room.tally.handshake_failed(HandshakeFailure::PlainHttp);
        let _ = stream.write_all(PLAIN_HTTP).await;
        let _ = stream.shutdown().await;
        let mut unread = [0; limits::LINGER_CHUNK];
        let rest = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(limits::LINGER, rest).await;
        return None;
    }
    let config = Arc::clone(&room.portal.settings.load().tls);
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(tls) => Some(tls),
        Err(error) => {
            room.tally.handshake_failed(HandshakeFailure::Tls);
            tracing::debug!(%error, "no TLS handshake");
            None
        }
    }
}

const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n\
This address speaks HTTPS. Put https:// in front of it.\n";

async fn answer(
    connection: Rc<Connection>,
    mut request: Request<Incoming>,
    interim: Interim,
) -> Result<Response<Sent>, Infallible> {
    let upgrade = upgrade::is_wanted(&request).then(|| Pending::Http1(hyper::upgrade::on(&mut request)));
    // An HTTP/1.0 client would take an interim answer for the answer.
    let sink = InterimSink::Http1((request.version() == http::Version::HTTP_11).then(|| interim.clone()));
    let request = request.map(FrontBody::Http1);
    let mut response = serve(&connection, request, upgrade, sink).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        interim.end_with_upgrade();
    } else if connection.room.portal.draining.is_set() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

type Io = TokioIo<FrontIo<TlsStream<tokio::net::TcpStream>>>;

async fn serve_http1(connection: Rc<Connection>, io: Io, interim: Interim) {
    let room = Rc::clone(&connection.room);
    let answering = Rc::clone(&connection);
    let service = service_fn(move |request| answer(Rc::clone(&answering), request, interim.clone()));
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::REQUEST_HEAD)
            .max_buf_size(limits::HEAD_BYTES)
            .max_header_size(limits::HEAD_BYTES)
            .max_headers(limits::HEAD_FIELDS)
            .serve_connection(io, service)
            .with_upgrades()
    );
    let told_to_end = async {
        room.portal.draining.wait().await;
        Box::pin(has_asked(&connection)).await;
    };
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = told_to_end => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                ended = served.as_mut() => ended,
                () = room.portal.stopping.wait() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %chain(&error), "an HTTP/1.1 connection ended");
    }
}

/// Returns when something was asked, or `STOP_FIRST_REQUEST` is over.
async fn has_asked(connection: &Connection) {
    let asked = async {
        while connection.requests.get() == 0 {
            tokio::time::sleep(limits::STOP_FIRST_REQUEST / 50).await;
        }
    };
    let _ = tokio::time::timeout(limits::STOP_FIRST_REQUEST, asked).await;
}

/// Returns when nothing has been asked or answered on the connection for as long as its age allows.
pub(crate) async fn idle(connection: &Connection) {
    let most = connection.limits.idle_connection;
    tokio::time::sleep(limits::FIRST_REQUEST.min(most)).await;
    let mut seen = 0;
    while connection.requests.get() > seen || connection.active.get() > 0 {
        seen = connection.requests.get();
        tokio::time::sleep(most).await;
    }
}
