//! What the portal may not do, or can't know, by itself: sign tickets, look people up, read forward files, connect, ask who
//! owns a socket, make the workspace's pages. Here each thread asks those who can.
//!
//! Invariant: a refusal, a failure and an answer that comes too late are errors. Nothing here makes a yes of them.

mod embedded;
mod served;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
pub use embedded::{Embedded, StateDir};
use portreeve_broker::{CodeError, ForwardRead, ReadError, Verifier};
use portreeve_model::wire::broker::BadToken;
use portreeve_model::wire::pam::{PamRefusal, Prompt};
use portreeve_model::wire::worker::NodeView;
use portreeve_model::{
    Audience, Claims, ForwardName, ListenerId, Login, Owner, Secret, Tuple, Unowned, UserName,
};
pub(crate) use served::workers::{Kept, Sent, WorkerError, Workers};
pub use served::{Inherited, Served};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::nodes::Nodes;
use crate::portal::Portal;
use crate::reject::Form;
use crate::sessions::Session;

/// Who is asked.
#[derive(Clone)]
pub enum Service {
    /// Plain calls, in the one-process form for one user.
    Embedded(Arc<Embedded>),
    /// Broker, dialers, workers and agents of a cluster.
    Served(Arc<Served>),
}

impl Service {
    #[cfg(test)]
    pub(crate) fn embedded(&self) -> &Embedded {
        match self {
            Self::Embedded(own) => own,
            Self::Served(_) => panic!("tests of one room have the embedded form"),
        }
    }

    /// What it does beside answering, for as long as the portal runs.
    pub(crate) async fn run(self, portal: Arc<Portal>) {
        match self {
            Self::Embedded(own) => own.keep_ended_sessions().await,
            Self::Served(served) => served.run(portal).await,
        }
    }

    /// Writes down what is not written down yet. May block for ever.
    pub(crate) fn keep(&self) {
        match self {
            Self::Embedded(own) => own.keep(),
            // The broker does, at once.
            Self::Served(_) => {}
        }
    }

    /// Says what could not be done before the end.
    pub(crate) fn take_leave(&self) {
        match self {
            Self::Embedded(own) => own.take_leave(),
            Self::Served(served) => served.take_leave(),
        }
    }

    /// Knows the keys that tickets are signed with, as they are at any time.
    pub(crate) fn verifier(&self) -> Arc<ArcSwap<Verifier>> {
        match self {
            Self::Embedded(own) => {
                let (key, id) = own.broker().ticket_key();
                Arc::new(ArcSwap::from_pointee(Verifier::new([(id, key)])))
            }
            Self::Served(served) => Arc::clone(served.verifier()),
        }
    }

    /// Counts how often a key was taken back: what was verified before must be verified again.
    pub(crate) fn key_epoch(&self) -> u64 {
        match self {
            Self::Embedded(_) => 0,
            Self::Served(served) => served.key_epoch(),
        }
    }

    /// Whether it is known which sessions are over. Without that nobody is answered.
    pub(crate) fn knows_who_is_over(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Served(served) => served.is_fresh(),
        }
    }

    /// Returns when that is known for the first time, or can't be waited for any longer.
    pub(crate) async fn begun(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Served(served) => served.begun().await,
        }
    }

    /// How long ago the broker said that; `None`: never, or there is no broker.
    pub(crate) fn news_age(&self) -> Option<Duration> {
        match self {
            Self::Embedded(_) => None,
            Self::Served(served) => served.news_age(),
        }
    }

    /// Whether this session was said to be over. To be asked after it was admitted.
    pub(crate) fn is_over(&self, claims: &Claims) -> bool {
        match self {
            Self::Embedded(own) => own.broker().is_over(&claims.sid),
            Self::Served(served) => served.is_over(claims),
        }
    }

    /// Where nodes are looked for.
    ///
    /// # Errors
    /// When the kernel can't be asked for this machine's addresses.
    pub(crate) fn nodes(&self) -> std::io::Result<Nodes> {
        match self {
            Self::Embedded(_) => Nodes::of_this_machine(),
            Self::Served(served) => Ok(Nodes::of_a_cluster(Arc::clone(served.agents()))),
        }
    }

    /// Which remedies there are.
    pub(crate) fn form(&self) -> Form {
        match self {
            Self::Embedded(own) => Form::Up(own.state()),
            Self::Served(_) => Form::Cluster,
        }
    }

    /// Whether there are many users, who sign in with PAM.
    pub(crate) fn is_a_cluster(&self) -> bool {
        matches!(self, Self::Served(_))
    }
}

/// One thread's way of asking.
pub(crate) enum Powers {
    Embedded(Box<embedded::Thread>),
    Served(Box<served::Thread>),
}

/// A sign-in that was granted, or a younger ticket.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) claims: Claims,
    pub(crate) ticket: String,
    /// All groups of the user.
    pub(crate) groups: Arc<[u32]>,
    /// Shows the next time that this user signed in with this browser.
    pub(crate) mark: Option<Secret>,
}

/// A step of a conversation with PAM.
#[derive(Debug)]
pub(crate) enum Talk {
    /// These are to be shown, and those that ask to be answered.
    Asks { conversation: Secret, prompts: Vec<Prompt> },
    /// In.
    Granted { signed_in: Box<SignedIn>, said: Vec<Prompt> },
    /// Not in.
    Refused { why: PamRefusal, said: Vec<Prompt> },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PowerError {
    /// The code is no good.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The token is no good.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The account may not be used.
    #[error(transparent)]
    Refused(PamRefusal),
    /// After too many tries one has to wait, for so many seconds.
    #[error("too many tries, or too many people at once")]
    Wait(u32),
    /// This user's requests ask for more at once than they may.
    #[error("you ask for too much at once")]
    TooMany,
    /// The session is over, or its account is not served any more.
    #[error("this session has ended")]
    Over,
    /// Whoever has the power does not answer now.
    #[error("nobody who could do it answers")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    /// The session is over.
    #[error("this session has ended")]
    Over,
    /// This user looks up as many at once as they may.
    #[error("you look up too many forwards at once")]
    TooMany,
    /// The file system did not answer.
    #[error("the file system that holds the forwards does not answer")]
    Hanging,
    /// Whoever reads them does not answer.
    #[error("nobody can read forwards at the moment")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The system says so.
    #[error(transparent)]
    Io(std::io::Error),
    /// The session is over.
    #[error("this session has ended")]
    Over,
    /// The process that connects for this user can't be had.
    #[error("nobody can connect for this user at the moment")]
    NoDialer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Powers {
    /// For one thread.
    ///
    /// # Errors
    /// When the kernel can't be asked who owns a socket.
    pub(crate) fn open(service: &Service) -> std::io::Result<Self> {
        Ok(match service {
            Service::Embedded(shared) => {
                Self::Embedded(Box::new(embedded::Thread::open(Arc::clone(shared))?))
            }
            Service::Served(shared) => Self::Served(Box::new(served::Thread::open(Arc::clone(shared)))),
        })
    }

    /// Whom a sign-in code signs in, without using it up; `None` where there is one user only.
    pub(crate) async fn look(&self, code: &str) -> Result<Option<UserName>, PowerError> {
        match self {
            Self::Embedded(_) => Ok(None),
            Self::Served(served) => served.look(code).await.map(Some),
        }
    }

    /// Takes a sign-in code.
    pub(crate) async fn enter(&self, code: &str, from: IpAddr) -> Result<SignedIn, PowerError> {
        match self {
            Self::Embedded(own) => own.enter(code),
            Self::Served(served) => served.enter(code, from).await,
        }
    }

    /// Takes an access token.
    pub(crate) async fn token(&self, token: Secret, from: IpAddr) -> Result<SignedIn, PowerError> {
        match self {
            // One's own portal hands out none.
            Self::Embedded(_) => Err(BadToken::Unknown.into()),
            Self::Served(served) => served.token(token, from).await,
        }
    }

    /// Begins a conversation with PAM.
    pub(crate) async fn begin(
        &self,
        user: UserName,
        from: IpAddr,
        mark: Option<Secret>,
    ) -> Result<Talk, PowerError> {
        match self {
            Self::Embedded(_) => Ok(Talk::Refused { why: PamRefusal::System, said: Vec::new() }),
            Self::Served(served) => served.begin(user, from, mark).await,
        }
    }

    /// Goes on with one.
    pub(crate) async fn reply(&self, conversation: Secret, answers: Vec<Secret>) -> Result<Talk, PowerError> {
        match self {
            Self::Embedded(_) => Ok(Talk::Refused { why: PamRefusal::System, said: Vec::new() }),
            Self::Served(served) => served.reply(conversation, answers).await,
        }
    }

    /// A code that lets this session enter an application's origin from one browser.
    pub(crate) async fn entry(
        &self,
        session: &Session,
        ticket: &str,
        host: &str,
        browser: &str,
    ) -> Result<String, PowerError> {
        match self {
            Self::Embedded(own) => own.entry(session, host, browser),
            Self::Served(served) => served.entry(session, ticket, host, browser).await,
        }
    }

    /// Takes such a code: a ticket for that origin.
    pub(crate) async fn take_entry(
        &self,
        code: &str,
        host: &str,
        browser: &str,
    ) -> Result<SignedIn, PowerError> {
        match self {
            Self::Embedded(own) => own.take_entry(code, host, browser),
            Self::Served(served) => served.take_entry(code, host, browser).await,
        }
    }

    /// A younger ticket of the session in the place of this one, which is for `audience`.
    pub(crate) async fn renew(
        &self,
        session: &Session,
        audience: Audience,
        ticket: &str,
    ) -> Result<SignedIn, PowerError> {
        match self {
            Self::Embedded(own) => own.renew(session, audience),
            Self::Served(served) => served.renew(session, ticket).await,
        }
    }

    /// Ends the session for good, here and after a restart.
    pub(crate) async fn sign_out(&self, session: &Session) -> Result<(), PowerError> {
        match self {
            Self::Embedded(own) => own.sign_out(session).await,
            Self::Served(served) => served.sign_out(session).await,
        }
    }

    /// The groups of whom a verified ticket is about.
    pub(crate) async fn groups(&self, claims: &Claims, ticket: &str) -> Result<Arc<[u32]>, PowerError> {
        match self {
            Self::Embedded(own) => own.groups(claims),
            Self::Served(served) => served.groups(claims.uid, ticket).await,
        }
    }

    /// Reads a forward file as the session's user.
    ///
    /// `turn` is held until the read has ended, also when nobody waits for it any more.
    pub(crate) async fn read_forward(
        &self,
        session: &Session,
        name: &ForwardName,
        turn: OwnedSemaphorePermit,
    ) -> Result<ForwardRead, Unread> {
        match self {
            Self::Embedded(own) => own.read_forward(name, turn).await,
            Self::Served(served) => {
                let read = served.read_forward(session, name).await;
                drop(turn);
                read
            }
        }
    }

    /// Another user's login group; `None` when nobody can tell, which grants nothing.
    pub(crate) async fn login(&self, uid: u32) -> Option<Login> {
        match self {
            Self::Embedded(own) => own.login(uid).await,
            Self::Served(served) => served.login(uid).await,
        }
    }

    /// Connects as the session's user.
    pub(crate) async fn dial(&self, session: &Session, address: SocketAddr) -> Result<TcpStream, DialError> {
        match self {
            Self::Embedded(own) => own.dial(address).await.map_err(DialError::Io),
            Self::Served(served) => served.dial(session, address).await,
        }
    }

    /// Who owns the server's end of a connection.
    pub(crate) async fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        match self {
            Self::Embedded(own) => own.owner(tuple),
            Self::Served(served) => served.lookup().owner(tuple).await,
        }
    }

    /// The same with the group of the processes that hold it; it stays unknown when that can't be seen. An error when by now it
    /// is nobody's, or somebody else's.
    pub(crate) async fn with_group(&self, tuple: &Tuple, owner: Owner) -> Result<Owner, Unowned> {
        match self {
            Self::Embedded(own) => Ok(own.with_group(tuple, owner).await),
            Self::Served(served) => served.lookup().with_group(tuple, owner).await,
        }
    }

    /// Who owns it, now that it must have been accepted.
    pub(crate) async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        match self {
            Self::Embedded(own) => own.confirm(tuple, before).await,
            Self::Served(served) => served.lookup().confirm(tuple, before).await,
        }
    }

    /// Whether the LISTEN socket that took the connection listens still.
    pub(crate) async fn listens_still(&self, tuple: &Tuple, listener: ListenerId) -> bool {
        match self {
            Self::Embedded(own) => own.listens_still(tuple, listener),
            Self::Served(served) => served.lookup().listens_still(tuple, listener).await,
        }
    }

    /// Which boot of its node an address belongs to: what was learned of a listener holds for one boot.
    pub(crate) fn generation(&self, address: SocketAddr) -> u64 {
        match self {
            Self::Embedded(_) => 0,
            Self::Served(served) => served.lookup().generation(address),
        }
    }

    /// Whether whoever connects from this machine may be answered at all. On a cluster, everybody: many users work there, and a
    /// browser is kept from sending its cookie to a port of theirs by HTTPS (`respond.rs`).
    pub(crate) fn admits(&self, tuple: &Tuple) -> Admitted {
        match self {
            Self::Embedded(own) => own.admits(tuple),
            Self::Served(_) => Admitted::Yes,
        }
    }

    /// Whether this user listens on that port, but on the node's loopback address alone: as it was a moment ago.
    pub(crate) async fn is_loopback_only(&self, uid: u32, address: SocketAddr) -> bool {
        match self {
            // Its addresses lead to the loopback as well.
            Self::Embedded(_) => false,
            Self::Served(served) => served.is_loopback_only(uid, address).await,
        }
    }

    /// What a user listens on at each node of a cluster: as it was a moment ago.
    pub(crate) async fn nodes_view(&self, uid: u32) -> Arc<[NodeView]> {
        match self {
            Self::Embedded(_) => Arc::default(),
            Self::Served(served) => served.nodes_view(uid).await,
        }
    }

    /// Who makes the workspace's pages.
    pub(crate) fn workers(&self) -> &Rc<Workers> {
        match self {
            Self::Embedded(own) => &own.workers,
            Self::Served(served) => &served.workers,
        }
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
