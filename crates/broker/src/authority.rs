//! The questions that the portal may ask, and nothing else: each method is one of them.
//!
//! In the one-process form these are plain calls; with a broker of its own they are the verbs of its protocol.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portreeve_model::{Audience, Claims, ForwardName, SessionId, SignIn};
use tokio::net::TcpStream;

use crate::account::Account;
use crate::codes::{CodeError, Codes, Purpose};
use crate::forwards::{ForwardRead, Forwards, ReadError};
use crate::revocations::{RevocationError, Revocations};
use crate::tickets::{TicketError, TicketKey};

/// Who issued a ticket: the `iss` claim.
const ISSUER: &str = "portreeve";

/// How long things last, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// A code, from being handed out to being redeemed.
    pub code: i64,
    /// A session, from sign-in to its fixed end.
    pub session: i64,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The code is no good.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// Keys or signing.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The list of ended sessions.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The system gave no randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// The session was ended.
    #[error("this session has ended")]
    Over,
}

/// Holds the keys and the lists.
pub struct Broker {
    account: Account,
    key: TicketKey,
    forwards: Forwards,
    codes: Mutex<Codes>,
    revocations: Revocations,
    lifetimes: Mutex<Lifetimes>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not take everybody's sessions down; each critical section leaves its data whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random() -> Result<[u8; 16], BrokerError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| BrokerError::Random)?;
    Ok(bytes)
}

impl Broker {
    /// A broker for one account, which keeps its key and lists in `state`.
    ///
    /// # Errors
    /// When they can't be read or made.
    pub fn open(
        account: Account,
        state: &Path,
        forwards: Forwards,
        lifetimes: Lifetimes,
        now: i64,
    ) -> Result<Self, BrokerError> {
        Ok(Self {
            account,
            key: TicketKey::load_or_make(&state.join("ticket-key.der"))?,
            forwards,
            codes: Mutex::default(),
            revocations: Revocations::load(state.join("ended-sessions.json"), now)?,
            lifetimes: Mutex::new(lifetimes),
        })
    }

    /// Takes new lifetimes into use; what was handed out keeps its end.
    pub fn set_lifetimes(&self, lifetimes: Lifetimes) {
        *lock(&self.lifetimes) = lifetimes;
    }

    /// The public half of the ticket key, and its name.
    pub fn ticket_key(&self) -> (&[u8], &str) {
        (self.key.public(), self.key.id())
    }

    /// The person that sessions made here belong to.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Forward files, for the workspace.
    pub fn forwards(&self) -> &Forwards {
        &self.forwards
    }

    /// A code that signs in, once.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn sign_in_code(&self, now: i64) -> Result<String, BrokerError> {
        self.code(Purpose::SignIn, now)
    }

    /// A code that lets a live session enter the origin of one application, from one browser.
    ///
    /// # Errors
    /// When there is no randomness, or the session is over.
    pub fn application_code(&self, purpose: Purpose, now: i64) -> Result<String, BrokerError> {
        if let Purpose::EnterApplication { session, .. } = &purpose
            && self.is_over(session)
        {
            return Err(BrokerError::Over);
        }
        self.code(purpose, now)
    }

    fn code(&self, purpose: Purpose, now: i64) -> Result<String, BrokerError> {
        let ends = now + lock(&self.lifetimes).code;
        Ok(lock(&self.codes).issue(random()?, purpose, now, ends))
    }

    /// Takes a code, once.
    ///
    /// # Errors
    /// Why it is no good.
    pub fn redeem(&self, code: &str, now: i64) -> Result<Purpose, CodeError> {
        lock(&self.codes).redeem(code, now)
    }

    /// Starts a session: what its ticket says, and the ticket.
    ///
    /// # Errors
    /// When signing fails.
    pub fn start_session(&self, how: SignIn, now: i64) -> Result<(Claims, String), BrokerError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: self.account.name.clone(),
            uid: self.account.uid,
            sid: SessionId::from_bytes(random()?),
            iat: now,
            auth_time: now,
            exp: now + lock(&self.lifetimes).session,
            how,
            aud: Audience::Portal,
        };
        let ticket = self.key.sign(&claims)?;
        Ok((claims, ticket))
    }

    /// The same session's ticket anew: for another audience, or because it was used. Its end stays where it was.
    ///
    /// # Errors
    /// When the session is over or signing fails.
    pub fn renew(&self, claims: &Claims, audience: Audience, now: i64) -> Result<String, BrokerError> {
        if self.is_over(&claims.sid) || now >= claims.exp {
            return Err(BrokerError::Over);
        }
        Ok(self.key.sign(&Claims { iat: now, aud: audience, ..claims.clone() })?)
    }

    /// Whether a session was ended before its ticket does.
    pub fn is_over(&self, session: &SessionId) -> bool {
        self.revocations.contains(session)
    }

    /// Ends a session. In force at once; [`Self::keep_ended_sessions`] makes it last.
    pub fn end_session(&self, session: &SessionId, ticket_ends: i64, now: i64) {
        self.revocations.add(session, ticket_ends, now);
    }

    /// Writes the ended sessions down, so that they stay ended over a restart. Blocks on the file system.
    ///
    /// # Errors
    /// When that can't be done now: to be tried again.
    pub fn keep_ended_sessions(&self) -> Result<(), RevocationError> {
        self.revocations.keep()
    }

    /// Whether all that ended is written down.
    pub fn ended_sessions_are_kept(&self) -> bool {
        self.revocations.are_kept()
    }

    /// Reads a forward file as the account. Blocks on the file system.
    ///
    /// # Errors
    /// Every reason not to forward.
    pub fn read_forward(&self, name: &ForwardName) -> Result<ForwardRead, ReadError> {
        self.forwards.read(name)
    }

    /// Connects as the account.
    ///
    /// # Errors
    /// What the system says.
    pub async fn dial(&self, address: SocketAddr, deadline: Duration) -> std::io::Result<TcpStream> {
        crate::dial::dial(address, deadline).await
    }
}
