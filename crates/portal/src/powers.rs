//! What the portal may not do, or can't know, by itself: sign tickets, look people up, read forward files, connect, ask who
//! owns a socket, make the workspace's pages. Here each thread asks those who can.
//!
//! Invariant: a refusal, a failure and an answer that comes too late are errors. Nothing here makes a yes of them.

mod embedded;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use embedded::Embedded;
use portreeve_broker::{CodeError, ForwardRead, ReadError, Verifier};
use portreeve_model::{Audience, Claims, ForwardName, ListenerId, LoginGroup, Owner, Tuple, Unowned};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::sessions::Session;

/// Who is asked.
#[derive(Clone)]
pub enum Service {
    /// Plain calls, in the one-process form for one user.
    Embedded(Arc<Embedded>),
}

impl Service {
    #[cfg(test)]
    pub(crate) fn embedded(&self) -> &Embedded {
        let Self::Embedded(own) = self;
        own
    }

    /// What it does beside answering, for as long as the portal takes connections.
    pub(crate) async fn run(self) {
        match self {
            Self::Embedded(own) => own.keep_ended_sessions().await,
        }
    }

    /// Writes down what is not written down yet. May block for ever.
    pub(crate) fn keep(&self) {
        match self {
            Self::Embedded(own) => own.keep(),
        }
    }

    /// Says what could not be done before the end.
    pub(crate) fn take_leave(&self) {
        match self {
            Self::Embedded(own) => own.take_leave(),
        }
    }

    /// Knows the keys that tickets are signed with.
    pub(crate) fn verifier(&self) -> Verifier {
        match self {
            Self::Embedded(own) => {
                let (key, id) = own.broker().ticket_key();
                Verifier::new([(id, key)])
            }
        }
    }
}

/// One thread's way of asking.
pub(crate) enum Powers {
    Embedded(embedded::Thread),
}

/// A sign-in that was granted, or a younger ticket.
pub(crate) struct SignedIn {
    pub(crate) claims: Claims,
    pub(crate) ticket: String,
    /// All groups of the user.
    pub(crate) groups: Arc<[u32]>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PowerError {
    /// The code is no good.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The session is over, or its account is not served any more.
    #[error("this session has ended")]
    Over,
    /// Whoever has the power failed.
    #[error("it could not be done")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a forward file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// It gives nothing.
    #[error(transparent)]
    Refused(#[from] ReadError),
    /// The file system did not answer.
    #[error("the file system that holds the forwards does not answer")]
    Hanging,
}

impl Powers {
    /// For one thread.
    ///
    /// # Errors
    /// When the kernel can't be asked who owns a socket.
    pub(crate) fn open(service: &Service) -> std::io::Result<Self> {
        Ok(match service {
            Service::Embedded(shared) => Self::Embedded(embedded::Thread::open(Arc::clone(shared))?),
        })
    }

    /// Takes a sign-in code.
    pub(crate) async fn enter(&self, code: &str, _from: IpAddr) -> Result<SignedIn, PowerError> {
        let Self::Embedded(own) = self;
        own.enter(code)
    }

    /// A code that lets this session enter an application's origin from one browser.
    pub(crate) async fn entry(
        &self,
        session: &Session,
        host: &str,
        browser: &str,
    ) -> Result<String, PowerError> {
        let Self::Embedded(own) = self;
        own.entry(session, host, browser)
    }

    /// Takes such a code: a ticket for that origin.
    pub(crate) async fn take_entry(
        &self,
        code: &str,
        host: &str,
        browser: &str,
    ) -> Result<SignedIn, PowerError> {
        let Self::Embedded(own) = self;
        own.take_entry(code, host, browser)
    }

    /// A younger ticket of the session for the same audience.
    pub(crate) async fn renew(&self, session: &Session, audience: Audience) -> Result<SignedIn, PowerError> {
        let Self::Embedded(own) = self;
        own.renew(session, audience)
    }

    /// Ends the session for good, here and after a restart.
    pub(crate) async fn sign_out(&self, session: &Session) -> Result<(), PowerError> {
        let Self::Embedded(own) = self;
        own.sign_out(session).await
    }

    /// The groups of whom a verified ticket is about.
    pub(crate) async fn groups(&self, claims: &Claims) -> Result<Arc<[u32]>, PowerError> {
        let Self::Embedded(own) = self;
        own.groups(claims)
    }

    /// Reads a forward file as the session's user.
    ///
    /// `turn` is held until the read has ended, also when nobody waits for it any more.
    pub(crate) async fn read_forward(
        &self,
        _session: &Session,
        name: &ForwardName,
        turn: OwnedSemaphorePermit,
    ) -> Result<ForwardRead, Unread> {
        let Self::Embedded(own) = self;
        own.read_forward(name, turn).await
    }

    /// Another user's login group; `None` when nobody can tell, which grants nothing.
    pub(crate) async fn login_group(&self, uid: u32) -> Option<LoginGroup> {
        let Self::Embedded(own) = self;
        own.login_group(uid).await
    }

    /// Connects as the session's user.
    pub(crate) async fn dial(&self, _session: &Session, address: SocketAddr) -> std::io::Result<TcpStream> {
        let Self::Embedded(own) = self;
        own.dial(address).await
    }

    /// Who owns the server's end of a connection.
    pub(crate) async fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        let Self::Embedded(own) = self;
        own.owner(tuple)
    }

    /// The same with the group of the processes that hold it; it stays unknown when that can't be seen.
    pub(crate) async fn with_group(&self, tuple: &Tuple, owner: Owner) -> Owner {
        let Self::Embedded(own) = self;
        own.with_group(tuple, owner).await
    }

    /// Who owns it, now that it must have been accepted.
    pub(crate) async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        let Self::Embedded(own) = self;
        own.confirm(tuple, before).await
    }

    /// Whether the LISTEN socket that took the connection listens still.
    pub(crate) async fn listens_still(&self, tuple: &Tuple, listener: ListenerId) -> bool {
        let Self::Embedded(own) = self;
        own.listens_still(tuple, listener)
    }

    /// Whether whoever connects from this machine may be answered at all.
    pub(crate) fn admits(&self, tuple: &Tuple) -> Admitted {
        let Self::Embedded(own) = self;
        own.admits(tuple)
    }

    /// The workspace's page.
    pub(crate) async fn workspace(
        &self,
        view: portreeve_worker::View,
    ) -> Result<String, crate::reject::Reject> {
        let Self::Embedded(own) = self;
        own.workspace(view).await
    }
}

/// Whether a connection is answered.
pub(crate) enum Admitted {
    Yes,
    /// It is another user's of this machine.
    Stranger(u32),
    /// Nobody can tell whose it is.
    Unknown(Unowned),
}
