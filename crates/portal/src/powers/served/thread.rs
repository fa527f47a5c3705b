//! One thread's way of asking: each question of `powers.rs`, and who answers it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use portreeve_broker::{ForwardRead, ReadError};
use portreeve_model::forward_file::CountingLine;
use portreeve_model::wire::broker::{Answer, ForwardFound, Question};
use portreeve_model::wire::spawner::Missing;
use portreeve_model::wire::worker::NodeView;
use portreeve_model::{ForwardName, Login, Secret, UserName};
use tokio::net::TcpStream;

use super::Served;
use super::dialers::Dialers;
use super::line::LineError;
use super::shares::Sort;
use super::workers::{Way, Workers};
use crate::lookup::Lookup;
use crate::powers::{DialError, PowerError, SignedIn, Talk, Unread};
use crate::sessions::Session;

/// What one thread has for itself.
pub(crate) struct Thread {
    shared: Arc<Served>,
    dialers: Dialers,
    pub(in crate::powers) workers: Rc<Workers>,
}

pub(super) fn power(error: LineError) -> PowerError {
    match error {
        LineError::NotThere | LineError::Late | LineError::Busy => PowerError::Unavailable(error.into()),
        LineError::TooMany => PowerError::TooMany,
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
        Answer::BadToken(bad) => Err(PowerError::Token(bad)),
        Answer::Refused { why, .. } => Err(PowerError::Refused(why)),
        Answer::Wait { seconds } => Err(PowerError::Wait(seconds)),
        _ => Err(power(LineError::OtherAnswer)),
    }
}

impl Thread {
    pub(in crate::powers) fn open(shared: Arc<Served>) -> Self {
        let line = Arc::clone(&shared.line);
        Self {
            dialers: Dialers::new(Arc::clone(&line), shared.namespace),
            workers: Rc::new(Workers::new(Way::Broker(line), Arc::clone(&shared.late))),
            shared,
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, PowerError> {
        self.shared.line.ask(question, None).await.map_err(power)
    }

    async fn ask_for(&self, uid: u32, question: Question) -> Result<Answer, PowerError> {
        self.shared.line.ask_for(uid, Sort::Session, question, None).await.map_err(power)
    }

    pub(in crate::powers) async fn look(&self, code: &str) -> Result<UserName, PowerError> {
        match self.ask(Question::Look { code: Secret::new(code.to_owned()) }).await? {
            Answer::Code { user } => Ok(user),
            Answer::BadCode(bad) => Err(PowerError::Code(bad)),
            _ => Err(power(LineError::OtherAnswer)),
        }
    }

    pub(in crate::powers) async fn enter(&self, code: &str, from: IpAddr) -> Result<SignedIn, PowerError> {
        let code = Secret::new(code.to_owned());
        signed_in(self.ask(Question::Enter { code, from: from.to_canonical() }).await?)
    }

    pub(in crate::powers) async fn token(&self, token: Secret, from: IpAddr) -> Result<SignedIn, PowerError> {
        signed_in(self.ask(Question::Token { token, from: from.to_canonical() }).await?)
    }

    pub(in crate::powers) async fn begin(
        &self,
        user: UserName,
        from: IpAddr,
        mark: Option<Secret>,
    ) -> Result<Talk, PowerError> {
        talk(self.ask(Question::Begin { user, from: from.to_canonical(), mark }).await?)
    }

    pub(in crate::powers) async fn reply(
        &self,
        conversation: Secret,
        answers: Vec<Secret>,
    ) -> Result<Talk, PowerError> {
        talk(self.ask(Question::Reply { conversation, answers }).await?)
    }

    /// `ticket` is one for the portal's own origin: those of applications give no entry to others.
    pub(in crate::powers) async fn entry(
        &self,
        session: &Session,
        ticket: &str,
        host: &str,
        browser: &str,
    ) -> Result<String, PowerError> {
        let (host, browser) = (host.to_owned(), browser.to_owned());
        match self
            .ask_for(session.uid, Question::Entry { ticket: Secret::new(ticket.to_owned()), host, browser })
            .await?
        {
            Answer::Entry { code } => Ok(code.reveal().to_owned()),
            Answer::NoTicket => Err(PowerError::Over),
            _ => Err(power(LineError::OtherAnswer)),
        }
    }

    pub(in crate::powers) async fn take_entry(
        &self,
        code: &str,
        host: &str,
        browser: &str,
    ) -> Result<SignedIn, PowerError> {
        let (code, host, browser) = (Secret::new(code.to_owned()), host.to_owned(), browser.to_owned());
        signed_in(self.ask(Question::TakeEntry { code, host, browser }).await?)
    }

    /// `ticket` is one for the audience that is wanted.
    pub(in crate::powers) async fn renew(
        &self,
        session: &Session,
        ticket: &str,
    ) -> Result<SignedIn, PowerError> {
        let ticket = Secret::new(ticket.to_owned());
        signed_in(self.ask_for(session.uid, Question::Renew { ticket }).await?)
    }

    pub(in crate::powers) async fn sign_out(&self, session: &Session) -> Result<(), PowerError> {
        self.shared.sign_out(session.ticket()).await
    }

    pub(in crate::powers) async fn groups(&self, uid: u32, ticket: &str) -> Result<Arc<[u32]>, PowerError> {
        match self.ask_for(uid, Question::Groups { ticket: Secret::new(ticket.to_owned()) }).await? {
            Answer::Groups(groups) => Ok(groups.into()),
            Answer::NoTicket => Err(PowerError::Over),
            _ => Err(power(LineError::OtherAnswer)),
        }
    }

    pub(in crate::powers) async fn read_forward(
        &self,
        session: &Session,
        name: &ForwardName,
    ) -> Result<ForwardRead, Unread> {
        let question = Question::Forward { ticket: session.ticket(), name: name.clone() };
        let unavailable = |error: LineError| match error {
            LineError::TooMany => Unread::TooMany,
            other => Unread::Unavailable(other.into()),
        };
        let asked = self.shared.line.ask_for(session.uid, Sort::Forward, question, None).await;
        match asked.map_err(unavailable)? {
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

    pub(in crate::powers) async fn login(&self, uid: u32) -> Option<Login> {
        match self.ask(Question::Login { uid }).await {
            Ok(Answer::Login(login)) => login,
            // Nobody can tell, which grants nothing.
            Ok(_) | Err(_) => None,
        }
    }

    pub(in crate::powers) async fn dial(
        &self,
        session: &Session,
        address: SocketAddr,
    ) -> Result<TcpStream, DialError> {
        let stream = self.dialers.dial(session, address).await?;
        TcpStream::from_std(stream).map_err(DialError::Io)
    }

    /// Who says whose a connection's far end is.
    pub(in crate::powers) fn lookup(&self) -> &Lookup {
        &self.shared.lookup
    }

    pub(in crate::powers) async fn is_loopback_only(&self, uid: u32, address: SocketAddr) -> bool {
        let Served { nodes_view, agents, .. } = &*self.shared;
        nodes_view.is_loopback_only(agents, uid, address).await
    }

    pub(in crate::powers) async fn nodes_view(&self, uid: u32) -> Arc<[NodeView]> {
        let views = self.shared.nodes_view.of(&self.shared.agents, uid).await;
        match self.shared.lookup {
            Lookup::Agents(_) => views,
            // What listens ident2 can't tell. A node need not have an agent there, so that one is missing is no news.
            Lookup::Ident2(_) => views.iter().filter(|view| view.listening.is_ok()).cloned().collect(),
        }
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
