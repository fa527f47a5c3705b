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

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use portreeve_model::{LimitsConfig, Tuple};

use crate::answer::Answer;
use crate::audit;
use crate::authenticate::Memo;
use crate::chain::chain;
use crate::front_body::FrontBody;
use crate::front_io::{FrontIo, Interim, Stall};
use crate::http2::serve_http2;
use crate::interim::InterimSink;
use crate::limits;
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

/// Whether whoever connects may be the portal's own user. From this machine only that user may, and root: browsers send
/// the session cookie to every port of a host, even over plain http:// to localhost, so whoever else listens on this
/// machine could have it. From elsewhere nobody can tell, and the cookie alone decides.
fn is_our_user(room: &Room, stream: &TcpStream, peer: SocketAddr) -> bool {
    if !room.portal.nodes.is_this_machine(peer.ip().to_canonical()) {
        return true;
    }
    let Ok(server) = stream.local_addr() else { return false };
    let ours = room.portal.broker.account().uid;
    match room.lookup.connector(&Tuple { client: peer, server }) {
        Ok(uid) if uid == ours || uid == 0 => true,
        Ok(uid) => {
            room.note_stranger(|| audit::stranger(uid, peer));
            false
        }
        Err(why) => {
            tracing::debug!(%peer, %why, "who connects is not known; most likely they left at once");
            false
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve_connection(room: Rc<Room>, stream: TcpStream, peer: SocketAddr) {
    if !is_our_user(&room, &stream, peer) {
        return;
    }
    let tls = tokio::select! {
        tls = handshake(&room, stream) => tls,
        () = room.portal.stopping.cancelled() => return,
    };
    let Some(tls) = tls else { return };
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let Some(connection) = Connection::new(room, peer).map(Rc::new) else { return };
    let stall = Stall::after(connection.limits.write_stall);
    if http2 {
        serve_http2(connection, FrontIo::new(tls, None, stall)).await;
    } else {
        let interim = Interim::default();
        let io = TokioIo::new(FrontIo::new(tls, Some(interim.clone()), stall));
        serve_http1(connection, io, interim).await;
    }
}

async fn handshake(room: &Rc<Room>, stream: TcpStream) -> Option<TlsStream<tokio::net::TcpStream>> {
    stream.set_nonblocking(true).ok()?;
    let mut stream = tokio::net::TcpStream::from_std(stream).ok()?;
    stream.set_nodelay(true).ok()?;
    let handshake = async {
        // Somebody typed http:// instead of https://: say so in the protocol they speak. TLS begins with 22.
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 1 && first[0] != 22 {
            let _ = stream.write_all(PLAIN_HTTP).await;
            let _ = stream.shutdown().await;
            let mut unread = [0; limits::LINGER_CHUNK];
            let rest = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
            let _ = tokio::time::timeout(limits::LINGER, rest).await;
            return None;
        }
        let config = Arc::clone(&room.portal.settings.load().tls);
        let accepting = TlsAcceptor::from(config).accept(stream).await;
        accepting.inspect_err(|error| tracing::debug!(%error, "no TLS handshake")).ok()
    };
    tokio::time::timeout(limits::TLS_HANDSHAKE, handshake).await.ok().flatten()
}

const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\n\
This address speaks HTTPS. Put https:// in front of it.\n";

async fn answer(
    connection: Rc<Connection>,
    mut request: Request<Incoming>,
    interim: Interim,
) -> Result<Response<Answer>, Infallible> {
    let upgrade = upgrade::is_wanted(&request).then(|| Pending::Http1(hyper::upgrade::on(&mut request)));
    // An HTTP/1.0 client would take an interim answer for the answer.
    let sink = InterimSink::Http1((request.version() == http::Version::HTTP_11).then(|| interim.clone()));
    let request = request.map(FrontBody::Http1);
    let response = serve(&connection, request, upgrade, sink).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        interim.end_with_upgrade();
    }
    Ok(response)
}

type Io = TokioIo<FrontIo<TlsStream<tokio::net::TcpStream>>>;

async fn serve_http1(connection: Rc<Connection>, io: Io, interim: Interim) {
    let room = Rc::clone(&connection.room);
    let service = service_fn(move |request| answer(Rc::clone(&connection), request, interim.clone()));
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
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = room.portal.draining.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                ended = served.as_mut() => ended,
                () = room.portal.stopping.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %chain(&error), "an HTTP/1.1 connection ended");
    }
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
