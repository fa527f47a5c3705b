//! The one-process form: what a cluster spreads over broker, dialer, worker and agents are plain calls here, for the one
//! user whose process this is. The kernel holds the line: nothing can be done that this user could not do.

use std::net::SocketAddr;
use std::sync::Arc;

use portreeve_agent::Lookup;
use portreeve_broker::account::login_group;
use portreeve_broker::{Broker, BrokerError, CodeError, ForwardRead, Purpose};
use portreeve_model::{
    Audience, Claims, ForwardName, ListenerId, LoginGroup, Owner, OwnerGroups, SessionId, SignIn, Tuple,
    Unowned,
};
use portreeve_worker::{View, Worker};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{Admitted, PowerError, SignedIn, Unread};
use crate::limits;
use crate::portal::now;
use crate::reject::Reject;
use crate::resolve::ResolveError;
use crate::sessions::Session;

/// What the threads share.
pub struct Embedded {
    broker: Arc<Broker>,
    worker: Worker,
    /// For the slow look at who holds a socket, off the threads that serve.
    lookup: Lookup,
}

impl Embedded {
    /// For the account that `broker` stands for.
    ///
    /// # Errors
    /// When the kernel can't be asked who owns a socket: then nothing could be allowed.
    pub fn new(broker: Arc<Broker>, worker: Worker) -> std::io::Result<Self> {
        Ok(Self { broker, worker, lookup: Lookup::open()? })
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }
}

/// What one thread has for itself.
pub(crate) struct Thread {
    shared: Arc<Embedded>,
    lookup: Lookup,
    /// Places for reading forward files.
    reads: Arc<Semaphore>,
}

impl From<BrokerError> for PowerError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Code(code) => Self::Code(code),
            BrokerError::Over => Self::Over,
            other => Self::Failed(other.into()),
        }
    }
}

impl Thread {
    pub(super) fn open(shared: Arc<Embedded>) -> std::io::Result<Self> {
        let reads = Arc::new(Semaphore::new(limits::FORWARD_READS));
        Ok(Self { shared, lookup: Lookup::open()?, reads })
    }

    fn broker(&self) -> &Broker {
        &self.shared.broker
    }

    fn signed_in(&self, claims: Claims, ticket: String) -> SignedIn {
        SignedIn { claims, ticket, groups: Arc::clone(&self.broker().account().groups) }
    }

    pub(super) fn enter(&self, code: &str) -> Result<SignedIn, PowerError> {
        match self.broker().redeem(code, now())? {
            Purpose::SignIn => {
                let (claims, ticket) = self.broker().start_session(SignIn::Code, now())?;
                Ok(self.signed_in(claims, ticket))
            }
            Purpose::EnterApplication { .. } => Err(CodeError::Unknown.into()),
        }
    }

    pub(super) fn entry(&self, session: &Session, host: &str, browser: &str) -> Result<String, PowerError> {
        let purpose = Purpose::EnterApplication {
            host: host.to_owned(),
            claims: Box::new(session.claims.clone()),
            browser: browser.to_owned(),
        };
        Ok(self.broker().application_code(purpose, now())?)
    }

    pub(super) fn take_entry(&self, code: &str, host: &str, browser: &str) -> Result<SignedIn, PowerError> {
        match self.broker().redeem(code, now())? {
            Purpose::EnterApplication { host: meant, claims, browser: asked }
                if meant == host && asked == browser =>
            {
                let audience = Audience::parse(host).map_err(|_| CodeError::Unknown)?;
                let ticket = self.broker().renew(&claims, audience.clone(), now())?;
                Ok(self.signed_in(Claims { aud: audience, ..*claims }, ticket))
            }
            _ => Err(CodeError::Unknown.into()),
        }
    }

    pub(super) fn renew(&self, session: &Session, audience: Audience) -> Result<SignedIn, PowerError> {
        let ticket = self.broker().renew(&session.claims, audience, now())?;
        Ok(self.signed_in(session.claims.clone(), ticket))
    }

    pub(super) fn sign_out(&self, session: &Session) -> Result<(), PowerError> {
        let ended = self.broker().end_session(&session.id, session.claims.exp, now());
        ended.map_err(|error| PowerError::Failed(error.into()))
    }

    pub(super) fn groups(&self, claims: &Claims) -> Result<Arc<[u32]>, PowerError> {
        let account = self.broker().account();
        let is_ours = claims.uid == account.uid && claims.sub == account.name;
        if is_ours && !self.is_over(&claims.sid) {
            Ok(Arc::clone(&account.groups))
        } else {
            Err(PowerError::Over)
        }
    }

    fn is_over(&self, session: &SessionId) -> bool {
        self.broker().is_over(session)
    }

    pub(super) async fn read_forward(&self, name: &ForwardName) -> Result<ForwardRead, Unread> {
        // The file may be on a network file system that hangs: never on this thread, not for ever, and not on so many
        // threads that nothing else gets one.
        let place = Arc::clone(&self.reads).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(limits::FORWARD_READ, place).await else {
            return Err(Unread::Hanging);
        };
        let (shared, name) = (Arc::clone(&self.shared), name.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            shared.broker.read_forward(&name)
        });
        match tokio::time::timeout(limits::FORWARD_READ, reading).await {
            Ok(Ok(read)) => Ok(read?),
            Ok(Err(_)) | Err(_) => Err(Unread::Hanging),
        }
    }

    pub(super) async fn login_group(&self, uid: u32) -> Option<LoginGroup> {
        // The user database may be a directory server, so not on a thread that serves others.
        let looked = tokio::task::spawn_blocking(move || login_group(uid));
        tokio::time::timeout(limits::GROUP_LOOK, looked).await.ok().and_then(Result::ok).flatten()
    }

    pub(super) async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.broker().dial(address, limits::CONNECT).await
    }

    pub(super) fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        self.lookup.owner(tuple)
    }

    pub(super) async fn with_group(&self, tuple: &Tuple, owner: Owner) -> Owner {
        // Milliseconds, so not on a thread that serves others.
        let (shared, tuple) = (Arc::clone(&self.shared), *tuple);
        let looked = tokio::task::spawn_blocking(move || shared.lookup.with_group(&tuple, owner));
        // Without an answer the group stays "not looked", which grants nothing.
        tokio::time::timeout(limits::GROUP_LOOK, looked).await.ok().and_then(Result::ok).unwrap_or(owner)
    }

    pub(super) async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        if before.groups == OwnerGroups::NotLooked {
            return self.lookup.confirm(tuple, before);
        }
        let (shared, tuple, before) = (Arc::clone(&self.shared), *tuple, *before);
        let asked = tokio::task::spawn_blocking(move || shared.lookup.confirm(&tuple, &before));
        match tokio::time::timeout(limits::GROUP_LOOK, asked).await {
            Ok(Ok(asked)) => asked,
            _ => Err(Unowned::Lookup("the look at the processes took too long".to_owned())),
        }
    }

    pub(super) fn listens_still(&self, tuple: &Tuple, listener: ListenerId) -> bool {
        self.lookup.listens_still(tuple, listener)
    }

    /// From this machine only our own user and root are answered: browsers send the session cookie to every port of a
    /// host, even over plain http:// to localhost, so whoever else listens on this machine could have it.
    pub(super) fn admits(&self, tuple: &Tuple) -> Admitted {
        match self.lookup.connector(tuple) {
            Ok(uid) if uid == self.broker().account().uid || uid == 0 => Admitted::Yes,
            Ok(uid) => Admitted::Stranger(uid),
            Err(why) => Admitted::Unknown(why),
        }
    }

    pub(super) async fn workspace(&self, view: View) -> Result<String, Reject> {
        // It reads the forwards' directory, which may be on a file system that hangs.
        let worker = self.shared.worker.clone();
        let made = tokio::task::spawn_blocking(move || worker.workspace(&view));
        tokio::time::timeout(limits::FORWARD_READ, made)
            .await
            .map_err(|_| ResolveError::Hanging)?
            .map_err(|error| Reject::Internal(error.into()))?
            .map_err(|error| Reject::Internal(error.into()))
    }
}
