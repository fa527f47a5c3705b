//! The form of a cluster: the portal has no power of its own. The broker signs, looks people up and reads forward files;
//! each user's dialer connects; the nodes' agents, or a site's ident2 service, say who owns a socket; each user's worker
//! makes their pages.
//!
//! | file | who is asked |
//! | --- | --- |
//! | `line.rs` | the broker, by all threads |
//! | `shares.rs` | nobody: how much of the line one user may have |
//! | `ended.rs` | nobody: which sessions the broker said are over |
//! | `dialers.rs` | the dialer of a session's user, by one thread |
//! | `workers.rs` | the worker of a session's user, by one thread |
//! | `ident2.rs` | the broker, for a connection with the site's ident2 service, where that is asked (`lookup/`) |
//! | `nodes_view.rs`, `latest.rs` | the agents, once in a while for each user |
//! | `thread.rs` | one thread's way of asking them all |
//! | `channel.rs` | frames and descriptors on a channel |
//!
//! Invariant: whom something is done for is shown by the session's ticket, which the broker verifies itself. An agent is
//! believed about its own node only (`agents/`).

mod channel;
mod dialers;
mod ended;
mod ident2;
mod latest;
mod line;
mod nodes_view;
mod shares;
mod thread;
pub(super) mod workers;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portreeve_broker::Verifier;
use portreeve_model::config::LookupConfig;
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::{Claims, Secret, SignIn};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::line::{Line, LineError, Questions};
use self::nodes_view::NodesView;
pub(crate) use self::thread::Thread;
use self::thread::power;
use self::workers::Late;
use super::PowerError;
use crate::agents::{Agents, LoginAsked};
use crate::limits;
use crate::lookup::Lookup;
use crate::portal::{Portal, now};
use crate::sessions::Session;

/// What the threads share.
pub struct Served {
    line: Arc<Line>,
    agents: Arc<Agents>,
    lookup: Lookup,
    namespace: u64,
    late: Arc<Late>,
    nodes_view: NodesView,
    /// Sessions that were signed out here, and of which the broker could not be told.
    signed_out: Mutex<Vec<Secret>>,
    /// Taken by the task that serves them.
    begin: Mutex<Option<Begin>>,
}

/// What the tasks begin with.
struct Begin {
    broker: UnixListener,
    agents: Vec<std::net::TcpListener>,
    logins: mpsc::Receiver<LoginAsked>,
    questions: Questions,
}

/// What it takes to be served.
pub struct Inherited {
    /// Where the broker connects to (SEQPACKET).
    pub broker: UnixListener,
    /// Where agents connect to.
    pub agents: Vec<std::net::TcpListener>,
    /// The cookie of this network namespace: [`portreeve_sys::namespace_cookie`].
    pub namespace: u64,
}

impl Served {
    /// Asks whoever connects to these sockets, and who is configured about connections. `logins` is the other end of what
    /// `agents` was made with.
    #[must_use]
    pub fn new(
        inherited: Inherited,
        agents: Arc<Agents>,
        lookup: &LookupConfig,
        logins: mpsc::Receiver<LoginAsked>,
    ) -> Self {
        let (line, questions) = Line::new();
        let Inherited { broker, agents: listeners, namespace } = inherited;
        let begin = Begin { broker, agents: listeners, logins, questions };
        let (late, signed_out) = (Arc::default(), Mutex::default());
        let begin = Mutex::new(Some(begin));
        let (line, nodes_view) = (Arc::new(line), NodesView::new());
        let lookup = Lookup::new(lookup, Arc::clone(&agents));
        Self { line, agents, lookup, namespace, late, nodes_view, signed_out, begin }
    }

    /// The nodes' agents.
    #[must_use]
    pub fn agents(&self) -> &Arc<Agents> {
        &self.agents
    }

    pub(super) fn verifier(&self) -> &Arc<ArcSwap<Verifier>> {
        self.line.verifier()
    }

    pub(super) fn key_epoch(&self) -> u64 {
        self.line.epoch()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.line.ended.is_fresh()
    }

    /// Returns when the broker has spoken for the first time, or is not waited for any longer.
    pub(super) async fn begun(&self) {
        let spoken = async {
            while self.line.ended.age().is_none() {
                tokio::time::sleep(limits::BROKER_BEGUN).await;
            }
        };
        if tokio::time::timeout(limits::BROKER_BACK, spoken).await.is_err() {
            tracing::warn!("there is no broker: nobody is let in until it is back");
        }
    }

    pub(super) fn news_age(&self) -> Option<Duration> {
        self.line.ended.age()
    }

    pub(super) fn is_over(&self, claims: &Claims) -> bool {
        self.line.ended.list().has(claims)
    }

    /// Takes in broker and agents, and keeps groups fresh, for as long as the portal runs.
    pub(super) async fn run(self: Arc<Self>, portal: Arc<Portal>) {
        let begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Begin { broker, agents, logins, questions }) = begin else { return };
        let mut agents_tasks = JoinSet::new();
        for listener in agents {
            agents_tasks.spawn(take_agents(Arc::clone(&self.agents), listener));
        }
        tokio::join!(
            self.line.serve(broker, questions, &portal.sessions),
            self.relay_logins(logins),
            self.refresh_groups(&portal),
            self.keep_signing_out(),
            ident2::keep(&self.lookup, &self.line),
        );
    }

    /// Ends a session for good. While the broker can't be told, this portal alone knows that it is over.
    async fn sign_out(&self, ticket: Secret) -> Result<(), PowerError> {
        let question = Question::SignOut { ticket: ticket.clone(), everywhere: false };
        match self.line.ask(question, None).await.map_err(power) {
            Ok(Answer::Done) => Ok(()),
            Ok(_) => Err(power(LineError::OtherAnswer)),
            Err(error) => {
                if let PowerError::Unavailable(_) = &error {
                    let mut waiting = self.signed_out.lock().unwrap_or_else(PoisonError::into_inner);
                    if waiting.len() < limits::SIGN_OUTS {
                        waiting.push(ticket);
                    }
                }
                Err(error)
            }
        }
    }

    /// Says what could not be done before the end.
    pub(super) fn take_leave(&self) {
        if !self.signed_out.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            tracing::error!("the broker could not be told of all sign-outs: these sessions are valid again");
        }
    }

    /// Tells the broker what it could not be told when somebody signed out.
    async fn keep_signing_out(&self) {
        loop {
            tokio::time::sleep(limits::STATE_RETRY).await;
            let waiting =
                std::mem::take(&mut *self.signed_out.lock().unwrap_or_else(PoisonError::into_inner));
            for ticket in waiting {
                // What fails waits again.
                if self.sign_out(ticket).await.is_ok() {
                    tracing::info!("a sign-out that the broker could not be told of is written down now");
                }
            }
        }
    }

    /// Sign-in addresses that somebody on a login node asks for.
    async fn relay_logins(&self, mut logins: mpsc::Receiver<LoginAsked>) {
        let mut going = JoinSet::new();
        while let Some(LoginAsked { node, uid, reply }) = logins.recv().await {
            while going.try_join_next().is_some() {}
            let line = Arc::clone(&self.line);
            going.spawn(async move {
                let said = match line.ask(Question::LoginAddress { uid }, None).await {
                    Ok(Answer::LoginAddress(said)) => said,
                    Ok(_) => refused(&LineError::OtherAnswer),
                    Err(error) => refused(&error),
                };
                tracing::info!(target: "audit", event = "login-relayed", %node, uid);
                // The agent may have gone.
                let _ = reply.send(said);
            });
        }
        // Nobody asks any more; the others go on.
        std::future::pending::<()>().await;
    }

    /// Asks for the groups of everybody who is signed in again, from time to time; and for what came with an access token, whether
    /// its account may still be used.
    async fn refresh_groups(&self, portal: &Portal) {
        loop {
            let (every, idle) = {
                let settings = portal.settings.load();
                (settings.groups_refresh(), settings.idle_seconds())
            };
            tokio::time::sleep(every).await;
            let mut asking = JoinSet::new();
            // Of those who are away, too: who comes back is not judged by what was so an hour ago.
            for session in portal.sessions.live(now(), idle) {
                // Side by side: somebody whose directory hangs holds nobody else up.
                if asking.len() >= limits::GROUPS_AT_ONCE {
                    asking.join_next().await;
                }
                asking.spawn(refresh(Arc::clone(&self.line), session));
            }
            while asking.join_next().await.is_some() {}
        }
    }
}

async fn refresh(line: Arc<Line>, session: Arc<Session>) {
    match line.ask(question_about(session.claims.how, session.ticket()), None).await {
        Ok(Answer::Groups(groups)) => session.set_groups(&groups),
        Ok(Answer::SignedIn { claims, ticket, groups, .. }) if claims.sid == session.id => {
            session.set_groups(&groups);
            session.note_ticket(ticket.reveal(), &claims.aud);
        }
        Ok(Answer::NoTicket) => session.end(),
        // A directory that hangs stalls nobody who is in: the broker ends what must end.
        Ok(_) | Err(_) => tracing::debug!(user = %session.user, "the groups could not be read again"),
    }
}

/// Whoever renews a person's ticket asks PAM's account check by that. What a program opened once would outlive an account that
/// was closed meanwhile.
fn question_about(how: SignIn, ticket: Secret) -> Question {
    match how {
        SignIn::Token(_) => Question::Renew { ticket },
        SignIn::Code | SignIn::Pam | SignIn::Oidc | SignIn::Certificate => Question::Groups { ticket },
    }
}

fn refused(error: &LineError) -> ControlReply {
    ControlReply::Refused { reason: error.to_string() }
}

async fn take_agents(agents: Arc<Agents>, listener: std::net::TcpListener) {
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the agents' socket can't be listened on"),
    };
    // How many there may be is for `agents/waiting.rs` to say, and for the node map.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                let agents = Arc::clone(&agents);
                connections.spawn(async move { agents.accept(stream).await });
            }
            Err(error) => {
                tracing::warn!(%error, "an agent's connection could not be accepted");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{Scope, Scopes};

    use super::*;

    #[test]
    fn what_came_with_a_token_is_asked_about_by_the_account_check() {
        let ticket = || Secret::new("t".to_owned());
        let token = SignIn::Token(Scopes::new(&[Scope::Apps]).unwrap());
        assert_eq!(question_about(token, ticket()), Question::Renew { ticket: ticket() });
        for how in [SignIn::Code, SignIn::Pam] {
            assert_eq!(question_about(how, ticket()), Question::Groups { ticket: ticket() });
        }
    }
}
