//! Each user's dialer, as one thread has it: a channel of its own, opened with the session's ticket when it is first needed.
//!
//! Invariant: a socket leaves here only after its dialer said that it has no copy any more, and after it was looked at: a TCP
//! connection, established, to the very address that was asked for, in this network namespace.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::dialer::{AT_ONCE, Dial, Dialed, MAX_MESSAGE};
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::channel::{Channel, ChannelError};
use super::line::{Line, LineError};
use crate::chain::chain;
use crate::limits;
use crate::powers::DialError;
use crate::sessions::Session;

/// The dialers of one thread.
pub(super) struct Dialers {
    line: Arc<Line>,
    by_uid: RefCell<HashMap<u32, Rc<Place>>>,
    /// Of our own sockets.
    namespace: u64,
    readers: RefCell<JoinSet<()>>,
}

/// Where a user's dialer is, or will be in a moment: whoever comes meanwhile waits for the same one.
#[derive(Default)]
struct Place(OnceCell<Rc<Dialer>>);

/// A dialer's channel.
struct Dialer {
    channel: Channel,
    open: RefCell<HashMap<u32, Attempt>>,
    next: Cell<u32>,
    is_over: Cell<bool>,
}

/// One connection that is being made.
struct Attempt {
    reply: oneshot::Sender<io::Result<OwnedFd>>,
    /// It is there, and the dialer has a copy still.
    socket: Option<OwnedFd>,
}

/// The channel ended before it had an answer.
struct Lost;

impl Dialers {
    pub(super) fn new(line: Arc<Line>, namespace: u64) -> Self {
        Self { line, by_uid: RefCell::default(), namespace, readers: RefCell::default() }
    }

    /// Connects as the session's user. A dialer that died is replaced by a new one, once.
    pub(super) async fn dial(&self, session: &Session, to: SocketAddr) -> Result<TcpStream, DialError> {
        for _ in 0..2 {
            let dialer = self.dialer(session).await?;
            match dialer.dial(to).await {
                Ok(answer) => {
                    let socket = answer.map_err(DialError::Io)?;
                    return portreeve_sys::take_connection(socket, to, self.namespace).map_err(|error| {
                        if matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::InvalidData) {
                            // Closed by the other end already, most likely.
                            tracing::warn!(uid = session.uid, %to, %error, "a dialer's connection was not used");
                        }
                        DialError::Io(error)
                    });
                }
                Err(Lost) => self.forget(session.uid, &dialer),
            }
        }
        Err(DialError::NoDialer("it ended twice before it had connected".into()))
    }

    /// The user's dialer, asked for if there is none.
    async fn dialer(&self, session: &Session) -> Result<Rc<Dialer>, DialError> {
        let uid = session.uid;
        let place = {
            let mut by_uid = self.by_uid.borrow_mut();
            // One that ended makes room.
            if by_uid.len() >= limits::DIALERS {
                by_uid.retain(|_, place| place.0.get().is_none_or(|dialer| !dialer.is_over.get()));
            }
            let over = |place: &Rc<Place>| place.0.get().is_some_and(|dialer| dialer.is_over.get());
            if by_uid.get(&uid).is_some_and(over) {
                by_uid.remove(&uid);
            }
            Rc::clone(by_uid.entry(uid).or_default())
        };
        let opened = place.0.get_or_try_init(|| self.open(session)).await;
        opened.cloned()
    }

    async fn open(&self, session: &Session) -> Result<Rc<Dialer>, DialError> {
        let (channel, theirs) = Channel::pair().map_err(DialError::Io)?;
        let question = Question::Dialer { ticket: session.ticket() };
        match self.line.ask(question, Some(theirs)).await {
            Ok(Answer::Done) => {}
            Ok(Answer::NoTicket) => return Err(DialError::Over),
            Ok(_) => return Err(DialError::NoDialer(LineError::OtherAnswer.into())),
            Err(error) => return Err(DialError::NoDialer(error.into())),
        }
        let dialer = Rc::new(Dialer {
            channel,
            open: RefCell::default(),
            next: Cell::new(0),
            is_over: Cell::new(false),
        });
        let (hearing, uid) = (Rc::clone(&dialer), session.uid);
        let mut readers = self.readers.borrow_mut();
        while readers.try_join_next().is_some() {}
        readers.spawn_local(async move {
            let error = hearing.hear().await;
            hearing.is_over.set(true);
            // Whoever waits hears that nothing comes any more.
            hearing.open.borrow_mut().clear();
            tracing::debug!(uid, error = %chain(&error), "a dialer's channel ended");
        });
        Ok(dialer)
    }

    fn forget(&self, uid: u32, dialer: &Rc<Dialer>) {
        let mut by_uid = self.by_uid.borrow_mut();
        let is_it = |place: &Rc<Place>| place.0.get().is_some_and(|known| Rc::ptr_eq(known, dialer));
        if by_uid.get(&uid).is_some_and(is_it) {
            by_uid.remove(&uid);
        }
    }
}

/// Takes an attempt out of the list when nobody waits for it any more.
struct Waiting<'d> {
    dialer: &'d Dialer,
    id: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.dialer.open.borrow_mut().remove(&self.id);
    }
}

impl Dialer {
    async fn dial(&self, to: SocketAddr) -> Result<io::Result<OwnedFd>, Lost> {
        if self.is_over.get() {
            return Err(Lost);
        }
        // Of those given up the dialer knows nothing; it keeps to the same number itself.
        if self.open.borrow().len() >= AT_ONCE {
            return Ok(Err(io::ErrorKind::ResourceBusy.into()));
        }
        let id = self.next.get().wrapping_add(1);
        self.next.set(id);
        let (reply, answer) = oneshot::channel();
        self.open.borrow_mut().insert(id, Attempt { reply, socket: None });
        let _waiting = Waiting { dialer: self, id };
        let patience = u32::try_from(limits::CONNECT.as_millis()).unwrap_or(u32::MAX);
        let asked = async {
            self.channel.send(&Dial { id, to, patience }, None).await.map_err(|_| Lost)?;
            answer.await.map_err(|_| Lost)
        };
        match timeout(limits::CONNECT + limits::DIALER_ANSWER, asked).await {
            Ok(answered) => answered,
            // It hangs: the next one who asks gets another.
            Err(_) => {
                self.is_over.set(true);
                Err(Lost)
            }
        }
    }

    /// Hears it, to the channel's end.
    async fn hear(&self) -> ChannelError {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            let heard = self.channel.receive::<Dialed>(&mut buffer).await;
            if let Err(error) = heard.and_then(|(said, socket)| self.take(said, socket)) {
                return error;
            }
        }
    }

    fn take(&self, said: Dialed, socket: Option<OwnedFd>) -> Result<(), ChannelError> {
        if socket.is_some() != matches!(said, Dialed::Connected { .. }) {
            return Err(ChannelError::Descriptor);
        }
        let mut open = self.open.borrow_mut();
        match said {
            // One that nobody waits for any more is closed.
            Dialed::Connected { id } => {
                if let Some(attempt) = open.get_mut(&id) {
                    attempt.socket = socket;
                }
            }
            Dialed::Released { id } => match open.remove(&id) {
                Some(Attempt { reply, socket: Some(socket) }) => drop(reply.send(Ok(socket))),
                Some(_) => return Err(ChannelError::NoQuestion),
                None => {}
            },
            Dialed::Failed { id, errno } => {
                if let Some(attempt) = open.remove(&id) {
                    let _ = attempt.reply.send(Err(io::Error::from_raw_os_error(errno)));
                }
            }
        }
        Ok(())
    }
}
