//! Each question of a portal's, and its answer. One function reads from top to bottom.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockname, getsockopt, sockopt};
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, Question};
use portreeve_model::wire::dialer::ToDialer;
use portreeve_model::wire::spawner::{Missing, Start};
use portreeve_model::wire::worker::ToWorker;
use portreeve_model::{Audience, Claims, ForwardName, Scope, Secret, SignIn};

use super::Service;
use super::accounts::all_groups;
use super::holders::{Left, failed};
use super::portal::PortalId;
use super::posts::PostError;

/// Whether a descriptor belongs to the question.
pub(super) fn takes_descriptor(question: &Question) -> bool {
    matches!(question, Question::Dialer { .. } | Question::Worker { .. } | Question::Ident2)
}

/// The value, or the answer that it is not there.
macro_rules! or_answer {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(answer) => return answer,
        }
    };
}
pub(super) use or_answer;

impl Service {
    /// Answers. `descriptor` is there exactly if [`takes_descriptor`] says so.
    pub(super) async fn answer(
        self: &Rc<Self>,
        portal: PortalId,
        question: Question,
        descriptor: Option<OwnedFd>,
    ) -> Answer {
        match (question, descriptor) {
            (Question::Begin { user, from, mark }, None) => self.begin(portal, user, from, mark).await,
            (Question::Reply { conversation, answers }, None) => {
                self.reply(portal, &conversation, answers).await
            }
            (Question::Look { code }, None) => self.look(&code),
            (Question::Enter { code, from }, None) => self.enter(&code, from).await,
            (Question::Token { token, from }, None) => self.take_token(&token, from).await,
            (Question::Renew { ticket }, None) => self.renew(&ticket).await,
            (Question::Entry { ticket, host, browser }, None) => self.entry(&ticket, &host, browser),
            (Question::TakeEntry { code, host, browser }, None) => {
                self.take_entry(&code, &host, &browser).await
            }
            (Question::SignOut { ticket, everywhere }, None) => self.sign_out(&ticket, everywhere),
            (Question::Groups { ticket }, None) => self.groups(&ticket).await,
            (Question::Dialer { ticket }, Some(channel)) => self.dialer(&ticket, channel).await,
            (Question::Worker { ticket }, Some(connection)) => self.worker(&ticket, connection).await,
            (Question::Forward { ticket, name }, None) => self.forward(&ticket, name).await,
            (Question::Ident2, Some(channel)) => self.ident2(portal, &channel),
            (Question::Login { uid }, None) => self.login(uid).await,
            (Question::LoginAddress { uid }, None) => self.relayed_login(uid).await,
            (_, Some(_)) | (Question::Dialer { .. } | Question::Worker { .. } | Question::Ident2, None) => {
                failed("a descriptor is missing, or does not belong there")
            }
        }
    }

    async fn renew(self: &Rc<Self>, ticket: &Secret) -> Answer {
        let claims = or_answer!(self.holder(ticket));
        let identity = or_answer!(self.identity(&claims).await);
        or_answer!(self.check(&claims).await);
        // Its end stays where it is; that it is younger never makes it older.
        let iat = self.now().max(claims.iat);
        let renewed = Claims { iat, ..claims };
        self.sessions.borrow_mut().shown(&renewed, None, self.now());
        self.signed(renewed, &identity, None, Vec::new())
    }

    fn sign_out(&self, ticket: &Secret, everywhere: bool) -> Answer {
        let claims = match self.holder(ticket) {
            Ok(claims) => claims,
            // It is over already.
            Err(Answer::NoTicket) => return Answer::Done,
            Err(other) => return other,
        };
        let kept = match (claims.how, everywhere) {
            // Whoever has a token may end that token, and nothing else.
            (SignIn::Token(_), true) => return failed("an access token does not end other sessions"),
            (SignIn::Token(_), false) => self.end_tokens("signed out", |token| token.has(&claims.sid)).1,
            (_, true) => self.end_user(claims.uid, "signed out everywhere", Left::Nothing).kept,
            (_, false) => self.end_session(&claims),
        };
        match kept {
            true => Answer::Done,
            false => failed("the session is over, but that could not be written down: the disk may be full"),
        }
    }

    async fn groups(self: &Rc<Self>, ticket: &Secret) -> Answer {
        let claims = or_answer!(self.holder(ticket));
        Answer::Groups(all_groups(&*or_answer!(self.identity(&claims).await)))
    }

    async fn dialer(self: &Rc<Self>, ticket: &Secret, channel: OwnedFd) -> Answer {
        let claims = or_answer!(self.holder_for(ticket, &[Scope::Apps]));
        if !is_channel(&channel, SockType::SeqPacket) {
            return failed("a dialer's channel is a pair of SEQPACKET sockets");
        }
        let identity = or_answer!(self.identity(&claims).await);
        let order = Start::Dialer((*identity).clone());
        let no_news = Vec::<ToDialer>::new;
        let handed = self.dialers.hand_over(claims.uid, order, no_news, &ToDialer::Channel, channel).await;
        self.handed(&claims, "dialer", handed)
    }

    async fn worker(self: &Rc<Self>, ticket: &Secret, connection: OwnedFd) -> Answer {
        let claims = or_answer!(self.holder_for(ticket, &[Scope::Files, Scope::Api]));
        if claims.aud != Audience::Portal {
            return failed("only the portal's own session has a worker");
        }
        if !is_channel(&connection, SockType::Stream) {
            return failed("a worker's connection is a pair of STREAM sockets");
        }
        let identity = or_answer!(self.identity(&claims).await);
        let order = Start::Worker { user: identity.name.clone() };
        let first = || {
            let (forwards, workspace) = (self.settings.forwards.clone(), self.settings.workspace.clone());
            let site = ToWorker::Site { forwards, workspace };
            vec![site, ToWorker::Keys(self.keys.borrow().public()), self.ended_of(claims.uid)]
        };
        let handed =
            self.workers.hand_over(claims.uid, order, first, &ToWorker::Connection, connection).await;
        self.handed(&claims, "worker", handed)
    }

    fn handed(&self, claims: &Claims, what: &str, handed: Result<(), PostError>) -> Answer {
        match handed {
            // It may have ended while we waited; then nobody keeps what was started for it.
            Ok(()) if self.is_live(claims) => Answer::Done,
            Ok(()) | Err(PostError::Closed) => {
                if !self.sessions.borrow().has(claims.uid) {
                    self.dialers.close(claims.uid);
                }
                Answer::NoTicket
            }
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(uid = claims.uid, what, error = cause, "nothing could be handed over");
                failed(&format!("your {what} can't be reached: {error}"))
            }
        }
    }

    async fn forward(self: &Rc<Self>, ticket: &Secret, name: ForwardName) -> Answer {
        let claims = or_answer!(self.holder_for(ticket, &[Scope::Apps]));
        let identity = or_answer!(self.identity(&claims).await);
        let found = self.accounts.forward((*identity).clone(), name).await;
        if !self.is_live(&claims) {
            return Answer::NoTicket;
        }
        Answer::Forward(found)
    }

    async fn login(&self, uid: u32) -> Answer {
        match self.accounts.login(uid).await {
            Ok(login) => Answer::Login(login),
            Err(Missing::Failed(why)) => failed(&why),
            Err(_) => Answer::Login(None),
        }
    }

    async fn relayed_login(&self, uid: u32) -> Answer {
        if !self.policy().relays_logins {
            self.refusals.note("login-refused", || {
                tracing::warn!(target: "audit", event = "login-refused", uid, "no login nodes are configured");
            });
            let reason = "this cluster gives no sign-in addresses on other nodes".to_owned();
            return Answer::LoginAddress(ControlReply::Refused { reason });
        }
        Answer::LoginAddress(self.login_address(uid, "another node").await)
    }

    /// A code that lets a session enter an application's origin.
    fn entry(&self, ticket: &Secret, host: &str, browser: String) -> Answer {
        let claims = or_answer!(self.holder_for(ticket, &[Scope::Apps]));
        let is_application = matches!(Audience::parse(host), Ok(Audience::Application(_)));
        if claims.aud != Audience::Portal || !is_application || !is_digest(&browser) {
            return failed("only the portal's own session enters an application's origin");
        }
        self.entry_code(claims, host.to_owned(), browser)
    }
}

/// SHA-256 in base64url without padding.
fn is_digest(text: &str) -> bool {
    data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).is_ok_and(|bytes| bytes.len() == 32)
}

/// Whether this is one end of a pair of sockets of that kind: no address at either end, no listener, no network.
pub(super) fn is_channel(descriptor: &OwnedFd, kind: SockType) -> bool {
    let has_no_name = |name: UnixAddr| name.path().is_none() && name.as_abstract().is_none();
    let number = descriptor.as_raw_fd();
    getsockopt(descriptor, sockopt::SockType).is_ok_and(|found| found == kind)
        && getsockname(number).is_ok_and(has_no_name)
        && getpeername(number).is_ok_and(has_no_name)
}

/// Where a person is, for the log.
pub(super) fn place(from: IpAddr) -> String {
    from.to_canonical().to_string()
}
