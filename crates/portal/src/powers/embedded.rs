//! The one-process form: what a cluster spreads over broker, dialer, worker and agents are plain calls here, for the one
//! user whose process this is. The kernel holds the line: nothing can be done that this user could not do.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use portreeve_agent::Lookup;
use portreeve_broker::account::login;
use portreeve_broker::{Broker, BrokerError, CodeError, ForwardRead, Purpose, RevocationError};
use portreeve_model::{
    Audience, Claims, ForwardName, ListenerId, Login, Owner, OwnerGroups, SessionId, SignIn, Tuple, Unowned,
};
use portreeve_worker::Local;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::served::workers::{Way, Workers};
use super::{Admitted, PowerError, SignedIn, Unread};
use crate::aside::Aside;
use crate::chain::chain;
use crate::limits;
use crate::portal::now;
use crate::sessions::Session;

/// What the threads share.
pub struct Embedded {
    broker: Arc<Broker>,
    worker: Local,
    /// For the slow look at who holds a socket, off the threads that serve.
    lookup: Lookup,
    state: StateDir,
}

/// Where this portal's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateDir {
    /// Where its user's commands look for it.
    Usual,
    /// Elsewhere: they are told where, with `--state`.
    Own,
}

impl Embedded {
    /// For the account that `broker` stands for.
    ///
    /// # Errors
    /// When the kernel can't be asked who owns a socket: then nothing could be allowed.
    pub fn new(broker: Arc<Broker>, worker: Local, state: StateDir) -> std::io::Result<Self> {
        Ok(Self { broker, worker, lookup: Lookup::open()?, state })
    }

    pub(super) fn state(&self) -> StateDir {
        self.state
    }

    /// Writes down what a sign-out could not: the disk was full, or did not answer.
    pub(super) async fn keep_ended_sessions(self: Arc<Self>) {
        loop {
            tokio::time::sleep(limits::STATE_RETRY).await;
            if self.broker.ended_sessions_are_kept() {
                continue;
            }
            let broker = Arc::clone(&self.broker);
            match tokio::task::spawn_blocking(move || broker.keep_ended_sessions()).await {
                Ok(Ok(())) => tracing::info!("the sessions that were signed out are written down now"),
                Ok(Err(error)) => tracing::debug!(error = %chain(&error), "still not written down"),
                Err(_) => {}
            }
        }
    }

    pub(super) fn keep(&self) {
        if let Err(error) = self.broker.keep_ended_sessions() {
            tracing::warn!(error = %chain(&error), "not written down");
        }
    }

    pub(super) fn take_leave(&self) {
        if !self.broker.ended_sessions_are_kept() {
            tracing::error!(
                "sessions that were signed out are not written down: after a restart they are valid again"
            );
        }
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
    forward_reads: Aside,
    pub(super) workers: Rc<Workers>,
    group_looks: Aside,
    state_writes: Aside,
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
        Ok(Self {
            lookup: Lookup::open()?,
            forward_reads: Aside::new(limits::FORWARD_READS, limits::FORWARD_READ),
            workers: Rc::new(Workers::new(Way::Local(shared.worker.clone()), Arc::default())),
            shared,
            group_looks: Aside::new(limits::GROUP_LOOKS, limits::GROUP_LOOK),
            state_writes: Aside::new(limits::STATE_WRITES, limits::STATE_WRITE),
        })
    }

    fn broker(&self) -> &Broker {
        &self.shared.broker
    }

    fn signed_in(&self, claims: Claims, ticket: String) -> SignedIn {
        SignedIn { claims, ticket, groups: Arc::clone(&self.broker().account().groups), mark: None }
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

    pub(super) async fn sign_out(&self, session: &Session) -> Result<(), PowerError> {
        let broker = Arc::clone(&self.shared.broker);
        broker.end_session(&session.id, session.claims.exp, now());
        session.end_as_listed();
        let kept = self.state_writes.run(move || broker.keep_ended_sessions());
        let kept = kept.await.unwrap_or(Err(RevocationError::Hanging));
        kept.map_err(|error| PowerError::Failed(error.into()))
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

    pub(super) async fn read_forward(
        &self,
        name: &ForwardName,
        turn: OwnedSemaphorePermit,
    ) -> Result<ForwardRead, Unread> {
        let (broker, name) = (Arc::clone(&self.shared.broker), name.clone());
        let read = self.forward_reads.run(move || (broker.read_forward(&name), turn));
        let (read, _turn) = read.await.ok_or(Unread::Hanging)?;
        Ok(read?)
    }

    pub(super) async fn login(&self, uid: u32) -> Option<Login> {
        self.group_looks.run(move || login(uid)).await.flatten()
    }

    pub(super) async fn dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.broker().dial(address, limits::CONNECT).await
    }

    pub(super) fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        self.lookup.owner(tuple)
    }

    pub(super) async fn with_group(&self, tuple: &Tuple, owner: Owner) -> Owner {
        let (shared, tuple) = (Arc::clone(&self.shared), *tuple);
        let looked = self.group_looks.run(move || shared.lookup.with_group(&tuple, owner));
        // Without an answer the group stays "not looked", which grants nothing.
        looked.await.unwrap_or(owner)
    }

    pub(super) async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        if before.groups == OwnerGroups::NotLooked {
            return self.lookup.confirm(tuple, before);
        }
        let (shared, tuple, before) = (Arc::clone(&self.shared), *tuple, *before);
        let asked = self.group_looks.run(move || shared.lookup.confirm(&tuple, &before));
        let too_long = || Err(Unowned::Lookup("the look at the processes took too long".to_owned()));
        asked.await.unwrap_or_else(too_long)
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
}
