//! The form of a cluster: the portal has no power of its own. The broker signs, looks people up and reads forward files;
//! each user's dialer connects; the nodes' agents say who owns a socket; each user's worker makes their pages.
//!
//! | file | who is asked |
//! | --- | --- |
//! | `line.rs` | the broker, by all threads |
//! | `ended.rs` | nobody: which sessions the broker said are over |
//! | `dialers.rs` | the dialer of a session's user, by one thread |
//! | `workers.rs` | the worker of a session's user, by one thread |
//! | `channel.rs` | frames and descriptors on a channel |
//!
//! Invariant: whom something is done for is shown by the session's ticket, which the broker verifies itself. An agent is
//! believed about its own node only (`agents/`).

mod channel;
mod dialers;
mod ended;
mod line;
mod nodes_view;
mod workers;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portreeve_broker::{ForwardRead, ReadError, Verifier};
use portreeve_model::forward_file::CountingLine;
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, ForwardFound, Question};
use portreeve_model::wire::spawner::Missing;
use portreeve_model::wire::worker::{MAX_BODY, View, WORKSPACE};
use portreeve_model::{Claims, ForwardName, ListenerId, LoginGroup, Owner, Secret, Tuple, Unowned, UserName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::dialers::Dialers;
use self::line::{Line, Questions};
use self::workers::{Late, Workers};
use super::{DialError, PowerError, SignedIn, Talk, Unread};
use crate::agents::{Agents, Heard, LoginAsked, NoOwner};
use crate::limits;
use crate::portal::{Portal, now};
use crate::sessions::Session;

pub(crate) use self::line::LineError;
pub(crate) use self::workers::WorkerError;

/// What the threads share.
pub struct Served {
    line: Arc<Line>,
    agents: Arc<Agents>,
    namespace: u64,
    late: Arc<Late>,
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
    /// Asks whoever connects to these sockets. `logins` is the other end of what `agents` was made with.
    #[must_use]
    pub fn new(inherited: Inherited, agents: Arc<Agents>, logins: mpsc::Receiver<LoginAsked>) -> Self {
        let (line, questions) = Line::new();
        let Inherited { broker, agents: listeners, namespace } = inherited;
        let begin = Begin { broker, agents: listeners, logins, questions };
        let (late, signed_out) = (Arc::default(), Mutex::default());
        let begin = Mutex::new(Some(begin));
        Self { line: Arc::new(line), agents, namespace, late, signed_out, begin }
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
            while self.line.ended.age_ms().is_none() {
                tokio::time::sleep(limits::BROKER_BEGUN).await;
            }
        };
        if tokio::time::timeout(limits::BROKER_BACK, spoken).await.is_err() {
            tracing::warn!("there is no broker: nobody is let in until it is back");
        }
    }

    pub(super) fn news_age(&self) -> Option<Duration> {
        self.line.ended.age_ms().map(Duration::from_millis)
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

    /// Asks for the groups of whoever uses the portal again, from time to time.
    async fn refresh_groups(&self, portal: &Portal) {
        loop {
            let (every, idle) = {
                let settings = portal.settings.load();
                (settings.groups_refresh(), settings.idle_seconds())
            };
            tokio::time::sleep(every).await;
            let since = now() - 2 * every.as_secs().cast_signed() - 1;
            for session in portal.sessions.live(now(), idle) {
                if session.is_in_use(since) {
                    self.refresh(&session).await;
                }
            }
        }
    }

    async fn refresh(&self, session: &Session) {
        match self.line.ask(Question::Groups { ticket: session.ticket() }, None).await {
            Ok(Answer::Groups(groups)) => session.set_groups(&groups),
            Ok(Answer::NoTicket) => session.end(),
            // A directory that hangs stalls nobody who is in: the broker ends what must end.
            Ok(_) | Err(_) => {
                tracing::debug!(user = %session.user, "the groups could not be read again");
            }
        }
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

/// What one thread has for itself.
pub(crate) struct Thread {
    shared: Arc<Served>,
    dialers: Dialers,
    workers: Workers,
}

fn power(error: LineError) -> PowerError {
    match error {
        LineError::NotThere | LineError::Late | LineError::Busy => PowerError::Unavailable(error.into()),
        LineError::Failed(_) | LineError::OtherAnswer => PowerError::Failed(error.into()),
    }
}

fn signed_in(answer: Answer) -> Result<SignedIn, PowerError> {
    match answer {
        Answer::SignedIn { claims, ticket, groups, mark, said: _ } => {
            Ok(SignedIn { claims: *claims, ticket: ticket.reveal().to_owned(), groups: groups.into(), mark })
        }
        Answer::NoTicket => Err(PowerError::Over),
        Answer::BadCode(bad) => Err(PowerError::Code(bad)),
        Answer::Refused { why, .. } => Err(PowerError::Refused(why)),
        Answer::Wait { seconds } => Err(PowerError::Wait(seconds)),
        _ => Err(power(LineError::OtherAnswer)),
    }
}

impl Thread {
    pub(super) fn open(shared: Arc<Served>) -> Self {
        let line = Arc::clone(&shared.line);
        Self {
            dialers: Dialers::new(Arc::clone(&line), shared.namespace),
            workers: Workers::new(line, Arc::clone(&shared.late)),
            shared,
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, PowerError> {
        self.shared.line.ask(question, None).await.map_err(power)
    }

    pub(super) async fn look(&self, code: &str) -> Result<UserName, PowerError> {
        match self.ask(Question::Look { code: Secret::new(code.to_owned()) }).await? {
            Answer::Code { user } => Ok(user),
            Answer::BadCode(bad) => Err(PowerError::Code(bad)),
            _ => Err(power(LineError::OtherAnswer)),
        }
    }

    pub(super) async fn enter(&self, code: &str, from: IpAddr) -> Result<SignedIn, PowerError> {
        let code = Secret::new(code.to_owned());
        signed_in(self.ask(Question::Enter { code, from: from.to_canonical() }).await?)
    }

    pub(super) async fn begin(
        &self,
        user: UserName,
        from: IpAddr,
        mark: Option<Secret>,
    ) -> Result<Talk, PowerError> {
        talk(self.ask(Question::Begin { user, from: from.to_canonical(), mark }).await?)
    }

    pub(super) async fn reply(&self, conversation: Secret, answers: Vec<Secret>) -> Result<Talk, PowerError> {
        talk(self.ask(Question::Reply { conversation, answers }).await?)
    }

    pub(super) async fn entry(
        &self,
        session: &Session,
        host: &str,
        browser: &str,
    ) -> Result<String, PowerError> {
        let (host, browser) = (host.to_owned(), browser.to_owned());
        match self.ask(Question::Entry { ticket: session.ticket(), host, browser }).await? {
            Answer::Entry { code } => Ok(code.reveal().to_owned()),
            Answer::NoTicket => Err(PowerError::Over),
            _ => Err(power(LineError::OtherAnswer)),
        }
    }

    pub(super) async fn take_entry(
        &self,
        code: &str,
        host: &str,
        browser: &str,
    ) -> Result<SignedIn, PowerError> {
        let (code, host, browser) = (Secret::new(code.to_owned()), host.to_owned(), browser.to_owned());
        signed_in(self.ask(Question::TakeEntry { code, host, browser }).await?)
    }

    /// `ticket` is one for the audience that is wanted.
    pub(super) async fn renew(&self, ticket: &str) -> Result<SignedIn, PowerError> {
        signed_in(self.ask(Question::Renew { ticket: Secret::new(ticket.to_owned()) }).await?)
    }

    pub(super) async fn sign_out(&self, session: &Session) -> Result<(), PowerError> {
        self.shared.sign_out(session.ticket()).await
    }

    pub(super) async fn groups(&self, ticket: &str) -> Result<Arc<[u32]>, PowerError> {
        match self.ask(Question::Groups { ticket: Secret::new(ticket.to_owned()) }).await? {
            Answer::Groups(groups) => Ok(groups.into()),
            Answer::NoTicket => Err(PowerError::Over),
            _ => Err(power(LineError::OtherAnswer)),
        }
    }

    pub(super) async fn read_forward(
        &self,
        session: &Session,
        name: &ForwardName,
    ) -> Result<ForwardRead, Unread> {
        let question = Question::Forward { ticket: session.ticket(), name: name.clone() };
        let unavailable = |error: LineError| Unread::Unavailable(error.into());
        match self.shared.line.ask(question, None).await.map_err(unavailable)? {
            Answer::Forward(Ok(ForwardFound { stat, line, lines_differ })) => {
                let line = CountingLine { text: &line, lines_differ };
                let file = line.parse().map_err(ReadError::from)?;
                Ok(ForwardRead { stat, file })
            }
            Answer::Forward(Err(missing)) => Err(missed(missing)),
            Answer::NoTicket => Err(Unread::Over),
            _ => Err(unavailable(LineError::OtherAnswer)),
        }
    }

    pub(super) async fn login_group(&self, uid: u32) -> Option<LoginGroup> {
        match self.ask(Question::LoginGroup { uid }).await {
            Ok(Answer::LoginGroup(group)) => group,
            // Nobody can tell, which grants nothing.
            Ok(_) | Err(_) => None,
        }
    }

    pub(super) async fn dial(&self, session: &Session, address: SocketAddr) -> Result<TcpStream, DialError> {
        let stream = self.dialers.dial(session, address).await?;
        TcpStream::from_std(stream).map_err(DialError::Io)
    }

    pub(super) async fn owner(&self, tuple: &Tuple) -> Result<Owner, Unowned> {
        let heard = self.shared.agents.owner(tuple, false).await;
        Ok(self.heard(tuple, heard)?.said.owner)
    }

    pub(super) async fn with_group(&self, tuple: &Tuple, owner: Owner) -> Owner {
        let heard = self.shared.agents.owner(tuple, true).await;
        match self.heard(tuple, heard) {
            Ok(heard) if (heard.said.owner.uid, heard.said.owner.listener) == (owner.uid, owner.listener) => {
                heard.said.owner
            }
            // Without an answer the group stays "not looked", which grants nothing.
            Ok(_) | Err(_) => owner,
        }
    }

    pub(super) async fn confirm(&self, tuple: &Tuple, before: &Owner) -> Result<Owner, Unowned> {
        let heard = self.shared.agents.confirm(tuple, before).await;
        Ok(self.heard(tuple, heard)?.said.owner)
    }

    /// Says in the log what an agent could not be asked for.
    fn heard<T>(&self, tuple: &Tuple, heard: Result<Heard<T>, NoOwner>) -> Result<Heard<T>, Unowned> {
        heard.map_err(|none| {
            if let NoOwner::Agent(error) = &none {
                tracing::warn!(server = %tuple.server, code = error.code(), %error, "an owner can't be asked for");
            }
            Unowned::from(none)
        })
    }

    pub(super) async fn listens_still(&self, tuple: &Tuple, listener: ListenerId) -> bool {
        self.shared.agents.listens_still(tuple, listener).await.is_ok_and(|heard| heard.said)
    }

    /// Counts the boots of the node that has this address.
    pub(super) fn generation(&self, address: SocketAddr) -> u64 {
        let nodes = self.shared.agents.nodes();
        nodes.at(address.ip()).map_or(0, |node| self.shared.agents.generation(&node.name))
    }

    pub(super) async fn nodes_view(&self, uid: u32) -> Vec<portreeve_model::wire::worker::NodeView> {
        nodes_view::ask(&self.shared.agents, uid).await
    }

    pub(super) async fn workspace(&self, session: &Session, view: View) -> Result<String, WorkerError> {
        let mut view = View { nodes: Some(self.nodes_view(session.uid).await), ..view };
        let text =
            |view: &View| serde_json::to_vec(view).map_err(|error| WorkerError::BrokeOff(error.into()));
        let mut json = text(&view)?;
        // Somebody with so much listening sees the first nodes.
        while json.len() > MAX_BODY
            && let Some(nodes) = view.nodes.as_mut().filter(|nodes| !nodes.is_empty())
        {
            nodes.truncate(nodes.len() / 2);
            json = text(&view)?;
        }
        self.workers.post(session, WORKSPACE, json).await
    }
}

/// What a step of a conversation came to.
fn talk(answer: Answer) -> Result<Talk, PowerError> {
    match answer {
        Answer::Prompts { conversation, prompts } => Ok(Talk::Asks { conversation, prompts }),
        Answer::SignedIn { ref said, .. } => {
            let said = said.clone();
            Ok(Talk::Granted { said, signed_in: Box::new(signed_in(answer)?) })
        }
        Answer::Refused { why, said } => Ok(Talk::Refused { why, said }),
        other => signed_in(other).and_then(|_| Err(power(LineError::OtherAnswer))),
    }
}

fn missed(missing: Missing) -> Unread {
    Unread::Refused(match missing {
        Missing::NoForward => ReadError::NotFound,
        Missing::NotExecutable => ReadError::NotExecutable,
        Missing::NotPlain(what) => ReadError::NotPlain(what.into()),
        Missing::Unreadable => ReadError::UnreadableByAnybody,
        Missing::Invalid(why) => ReadError::NotUnderstood(why),
        Missing::NoAccount | Missing::NotServed => return Unread::Over,
        Missing::Failed(why) => ReadError::Io(io::Error::other(why)),
    })
}
