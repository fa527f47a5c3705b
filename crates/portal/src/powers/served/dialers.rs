//! Connects as the users, through their dialers: one channel for each user and thread.
//!
//! Invariants: a socket is handed on only when the dialer has said that it closed its own copy; it is what was asked for: TCP,
//! established, in our network namespace, with the asked address at its other end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
use portreeve_broker::channel::{Buffer, Channel, ChannelError};
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::dialer::{AT_ONCE, Dial, Dialed};
use portreeve_sys::namespace_cookie;
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use crate::limits;
use crate::sessions::Session;

/// One thread's channels.
pub(crate) struct Dialers {
    broker: Broker,
    /// Of our own network namespace.
    namespace: u64,
    by_uid: RefCell<HashMap<u32, Rc<OnceCell<Rc<Dialer>>>>>,
    tasks: TaskTracker,
}

/// A channel to one user's dialer.
struct Dialer {
    channel: Channel,
    next: Cell<u32>,
    waiting: RefCell<HashMap<u32, Waiting>>,
    over: Cell<bool>,
}

struct Waiting {
    to: SocketAddr,
    stream: Option<OwnedFd>,
    asker: oneshot::Sender<io::Result<TcpStream>>,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "nobody can connect as this user at the moment")
}

impl Dialers {
    pub(crate) fn new(broker: Broker, namespace: u64) -> Self {
        Self { broker, namespace, by_uid: RefCell::default(), tasks: TaskTracker::new() }
    }

    /// Connects as the session's user.
    pub(crate) async fn dial(&self, session: &Session, to: SocketAddr) -> io::Result<TcpStream> {
        let dialer = self.dialer(session).await?;
        let (asker, answered) = oneshot::channel();
        let id = dialer.next.get();
        dialer.next.set(id.wrapping_add(1));
        {
            let mut waiting = dialer.waiting.borrow_mut();
            if waiting.len() >= AT_ONCE {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "too many connections are being made"));
            }
            waiting.insert(id, Waiting { to, stream: None, asker });
        }
        let patience = u32::try_from(limits::CONNECT.as_millis()).unwrap_or(u32::MAX);
        if dialer.channel.send(&Dial { id, to, patience }).await.is_err() {
            dialer.end();
            return Err(gone());
        }
        // The dialer keeps the time; this is for one that does not.
        match tokio::time::timeout(limits::CONNECT + limits::DIALER_SLACK, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(gone()),
            Err(_) => {
                dialer.waiting.borrow_mut().remove(&id);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// The channel that is open, or a new one; several askers at once wait for one.
    async fn dialer(&self, session: &Session) -> io::Result<Rc<Dialer>> {
        let cell = {
            let mut by_uid = self.by_uid.borrow_mut();
            by_uid.retain(|_, cell| cell.get().is_none_or(|dialer| !dialer.over.get()));
            Rc::clone(by_uid.entry(session.uid).or_default())
        };
        cell.get_or_try_init(|| self.open(session)).await.cloned()
    }

    async fn open(&self, session: &Session) -> io::Result<Rc<Dialer>> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let question = Question::Dialer { ticket: session.ticket() };
        match self.broker.ask(question, Some(theirs)).await {
            Ok(Answer::Done) => {}
            Ok(Answer::NoTicket) => return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the session is over")),
            Ok(Answer::Failed { why }) => return Err(io::Error::other(why)),
            Ok(_) => return Err(gone()),
            Err(error) => return Err(io::Error::other(error)),
        }
        let dialer = Rc::new(Dialer {
            channel: Channel::new(ours)?,
            next: Cell::new(0),
            waiting: RefCell::default(),
            over: Cell::new(false),
        });
        let (hearing, namespace) = (Rc::clone(&dialer), self.namespace);
        self.tasks.spawn_local(async move {
            let ended = hearing.hear(namespace).await;
            tracing::debug!(error = %ended, "a dialer's channel ended");
            hearing.end();
        });
        Ok(dialer)
    }
}

impl Dialer {
    async fn hear(&self, namespace: u64) -> ChannelError {
        let mut buffer = Buffer::new();
        loop {
            match self.channel.receive::<Dialed>(&mut buffer).await {
                Ok((said, stream)) => self.heard(said, stream, namespace),
                Err(error) => return error,
            }
        }
    }

    fn heard(&self, said: Dialed, stream: Option<OwnedFd>, namespace: u64) {
        let mut waiting = self.waiting.borrow_mut();
        match said {
            Dialed::Connected { id } => {
                if let Some(asked) = waiting.get_mut(&id) {
                    asked.stream = stream;
                }
            }
            Dialed::Released { id } => {
                if let Some(Waiting { to, stream: Some(stream), asker }) = waiting.remove(&id) {
                    let _ = asker.send(checked(stream, to, namespace));
                }
            }
            Dialed::Failed { id, errno } => {
                if let Some(asked) = waiting.remove(&id) {
                    let _ = asked.asker.send(Err(io::Error::from_raw_os_error(errno)));
                }
            }
        }
    }

    /// Nobody is answered any more.
    fn end(&self) {
        self.over.set(true);
        self.waiting.borrow_mut().clear();
    }
}

/// The socket as a stream, if it is what was asked for.
fn checked(socket: OwnedFd, to: SocketAddr, namespace: u64) -> io::Result<TcpStream> {
    let refused = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    if getsockopt(&socket, sockopt::SockType)? != SockType::Stream {
        return Err(refused("the dialer handed over a socket of another type"));
    }
    if namespace_cookie(socket.as_fd())? != namespace {
        return Err(refused("the dialer handed over a socket of another network"));
    }
    let stream = std::net::TcpStream::from(socket);
    if stream.peer_addr()? != to {
        return Err(refused("the dialer handed over a connection to another address"));
    }
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}
