//! On login nodes: a socket on which a user's process asks for a sign-in address. Who asks is known from the kernel (peer
//! credentials); the question goes on to a portal, and its reply back. SEQPACKET, one question for each connection, in
//! the form of `wire::control`.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portreeve_model::wire::agent::FromAgent;
use portreeve_model::wire::{self, ControlReply, ControlRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::limits;
use crate::channel::queue_frame;
use crate::seqpacket::{accept, listen_at};
use crate::shares::Shares;

/// The socket, and the portals that can be asked.
pub(super) struct LoginDesk {
    /// Of the type SEQPACKET. That a read gives one message and a write sends one is all the difference.
    socket: UnixListener,
    lines: Mutex<Vec<Arc<Open>>>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    of_one: Shares<u32>,
}

/// The way through one connection to a portal.
pub(super) struct Line {
    desk: Arc<LoginDesk>,
    open: Arc<Open>,
}

struct Open {
    queue: mpsc::Sender<Vec<u8>>,
    next: AtomicU32,
    waiting: Mutex<HashMap<u32, oneshot::Sender<ControlReply>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(reason: &str) -> ControlReply {
    ControlReply::Refused { reason: reason.to_owned() }
}

/// Says that it is too often, without waiting for somebody who does not read.
async fn turn_away(mut caller: UnixStream, _place: OwnedSemaphorePermit) {
    let reply = refused("you are asking too often at once; wait a moment");
    if wire::encode_bare(&reply).is_ok_and(|reply| caller.try_write(&reply).is_ok()) {
        // Who was refused unheard may be about to ask: that must not fail before the reply was read.
        let _ = timeout(limits::LOGIN_LINGER, caller.read(&mut [0; 1])).await;
    }
}

impl LoginDesk {
    /// Begins to listen. Everybody on the node may connect.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        Ok(Self {
            socket: listen_at(path, limits::LOGIN_QUEUE, 0o666, None)?,
            lines: Mutex::default(),
            places: Arc::new(Semaphore::new(limits::LOGINS)),
            refusals: Arc::new(Semaphore::new(limits::LOGIN_REFUSALS)),
            of_one: Shares::default(),
        })
    }

    /// Answers for as long as the agent runs.
    pub(super) fn serve(self: Arc<Self>) -> io::Result<impl Future<Output = ()>> {
        let listening = tokio::net::UnixListener::from_std(self.socket.try_clone()?)?;
        Ok(async move {
            let mut callers = JoinSet::new();
            loop {
                while callers.try_join_next().is_some() {}
                let (caller, uid) = accept(&listening, "the login socket", limits::LOGIN_PAUSE).await;
                // Who has their share takes no place of the others.
                let Some(one) = self.of_one.take(uid, limits::LOGINS_OF_ONE) else {
                    if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
                        callers.spawn(turn_away(caller, place));
                    }
                    continue;
                };
                // With every place taken the caller is told by the closed connection.
                let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { continue };
                let desk = Arc::clone(&self);
                callers.spawn(async move {
                    let (_place, _one) = (place, one);
                    if let Err(error) = desk.answer(caller, uid).await {
                        tracing::debug!(%error, "a question on the login socket was not answered");
                    }
                });
            }
        })
    }

    async fn answer(&self, mut caller: UnixStream, uid: u32) -> io::Result<()> {
        let mut question = [0; limits::LOGIN_QUESTION];
        let length = timeout(limits::LOGIN, caller.read(&mut question)).await??;
        // One that was longer was cut, and is no whole message.
        let reply = match wire::decode(&question[..length]) {
            Ok(ControlRequest::Login) => self.ask(uid).await,
            Ok(_) => refused(
                "only sign-in addresses can be asked for on this node: type that where the portal runs",
            ),
            Err(error) => refused(&error.to_string()),
        };
        let reply = wire::encode_bare(&reply).map_err(io::Error::other)?;
        timeout(limits::LOGIN, caller.write_all(&reply)).await?
    }

    async fn ask(&self, uid: u32) -> ControlReply {
        let Some(line) = locked(&self.lines).first().cloned() else {
            return refused("no portal can be reached from this node at the moment");
        };
        let (reply, replied) = oneshot::channel();
        let id = line.next.fetch_add(1, Relaxed);
        {
            let mut waiting = locked(&line.waiting);
            if waiting.len() >= limits::LOGINS {
                return refused("the portal does not answer");
            }
            waiting.insert(id, reply);
        }
        let asked = queue_frame(&line.queue, &FromAgent::Login { id, uid }).await;
        match asked {
            Ok(()) => match timeout(limits::LOGIN, replied).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(_)) => refused("the connection to the portal ended"),
                Err(_) => refused("the portal did not answer in time"),
            },
            Err(error) => refused(&error.to_string()),
        }
    }
}

impl Line {
    /// Not in use before `open`.
    pub(super) fn new(desk: &Arc<LoginDesk>, queue: mpsc::Sender<Vec<u8>>) -> Self {
        let open = Arc::new(Open { queue, next: AtomicU32::new(0), waiting: Mutex::default() });
        Self { desk: Arc::clone(desk), open }
    }

    /// From now on questions go this way, too.
    pub(super) fn open(&self) {
        locked(&self.desk.lines).push(Arc::clone(&self.open));
    }

    /// Hands a reply on; false if nobody asked that.
    pub(super) fn reply(&self, id: u32, reply: ControlReply) -> bool {
        let waiting = locked(&self.open.waiting).remove(&id);
        // That the caller is gone is no fault of the portal's.
        waiting.map(|caller| caller.send(reply)).is_some()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        locked(&self.desk.lines).retain(|line| !Arc::ptr_eq(line, &self.open));
        // Whoever waits hears that nothing comes any more.
        locked(&self.open.waiting).clear();
    }
}
