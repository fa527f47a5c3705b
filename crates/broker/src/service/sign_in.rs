//! The ways in: conversations with PAM, and single-use codes. Each ends with PAM's account check and a fresh look-up.
//!
//! Invariants: a conversation belongs to one portal connection and one browser, which names it by 128 random bits, and is
//! answered once a step; it lives three minutes, however it is used. Whatever else goes wrong, a try that was answered
//! counts as a wrong one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use data_encoding::BASE64URL_NOPAD;
use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, BadCode};
use portreeve_model::wire::pam::{MAX_PROMPTS, MAX_TEXT, PamNews, PamRefusal, PamReply, Prompt};
use portreeve_model::wire::spawner::Missing;
use portreeve_model::{Audience, Claims, Secret, SignIn, UserName};
use tokio::time::{Instant, sleep, timeout_at};

use super::channel::Buffer;
use super::children::Child;
use super::holders::failed;
use super::places::{Place, Places, Stage};
use super::portal::PortalId;
use super::questions::{or_answer, place};
use super::random::random;
use super::throttle::{NameKey, Network, Try};
use super::{Service, limits};

/// Whom a sign-in code signs in.
#[derive(Debug, Clone)]
pub(super) struct SignInCode {
    user: UserName,
    uid: u32,
}

/// Which session a code lets into an application's origin.
#[derive(Debug, Clone)]
pub(super) struct EntryCode {
    claims: Box<Claims>,
    host: String,
    /// SHA-256 of a secret of the browser's, base64url.
    browser: String,
}

/// The conversations that wait for an answer, and the places for all.
#[derive(Default)]
pub(super) struct Conversations {
    open: RefCell<HashMap<String, Open>>,
    of_strangers: Rc<Places>,
    /// Of browsers that are known: no stranger gets one of these, nor takes one away.
    of_known: Rc<Places>,
}

/// One that waits for an answer.
struct Open {
    portal: PortalId,
    /// How many answers are asked for.
    asked: usize,
    /// `None` once it goes on.
    talk: Option<Talk>,
}

/// One conversation.
struct Talk {
    child: Child,
    counted: Try,
    /// Something was answered: it may have been a guess.
    answered: bool,
    deadline: Instant,
    typed: UserName,
    from: IpAddr,
    place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        // Left at a question that nobody answered: no guess. One that had to make room counts, or whoever takes others'
        // places could go on for ever.
        if let Some(talk) = self.talk.take()
            && !talk.answered
            && !talk.place.is_lost()
        {
            talk.counted.take_back();
        }
    }
}

impl Conversations {
    /// A place for one more. Whoever must make room for it is told that it is over.
    fn place(&self, name: NameKey, from: IpAddr, is_marked: bool) -> Option<Place> {
        let places = if is_marked { &self.of_known } else { &self.of_strangers };
        let place = places.take(name, Network::of(from))?;
        self.open.borrow_mut().retain(|_, open| open.talk.as_ref().is_some_and(|talk| !talk.place.is_lost()));
        Some(place)
    }

    /// Ends those whose three minutes are over.
    pub(super) fn end_late(&self, now: Instant) {
        self.open.borrow_mut().retain(|_, open| open.talk.as_ref().is_some_and(|talk| now < talk.deadline));
    }

    /// Ends those of a portal that is gone.
    pub(super) fn end_of_portal(&self, portal: PortalId) {
        self.open.borrow_mut().retain(|_, open| open.portal != portal);
    }

    /// Takes one out to go on with it. Another portal's is as unknown as one that never was.
    fn take(&self, portal: PortalId, conversation: &Secret) -> Option<(Talk, usize)> {
        let mut open = self.open.borrow_mut();
        open.get(conversation.reveal()).filter(|found| found.portal == portal)?;
        let mut found = open.remove(conversation.reveal())?;
        Some((found.talk.take()?, found.asked))
    }
}

fn refused(why: PamRefusal, said: Vec<Prompt>) -> Answer {
    Answer::Refused { why, said }
}

fn over() -> Answer {
    failed("this sign-in is over: begin again")
}

fn wait(seconds: u64) -> Answer {
    Answer::Wait { seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
}

impl Service {
    /// Begins a sign-in with PAM.
    pub(super) async fn begin(
        self: &Rc<Self>,
        portal: PortalId,
        user: UserName,
        from: IpAddr,
        mark: Option<Secret>,
    ) -> Answer {
        let key = NameKey::of(&user);
        let mark = mark.and_then(|mark| self.marks.known(&mark, &key, self.now()));
        let counted = match self.throttle.begin(&key, mark, from, Instant::now()) {
            Ok(counted) => counted,
            Err(rest) => {
                self.refusals.note("sign-in-slowed", || {
                    tracing::warn!(target: "audit", event = "sign-in-slowed", user = user.as_str(), from = place(from));
                });
                return wait(rest.as_secs() + u64::from(rest.subsec_nanos() > 0));
            }
        };
        let Some(place) = self.conversations.place(key, from, counted.is_marked()) else {
            counted.take_back();
            return wait(5);
        };
        let deadline = Instant::now() + limits::CONVERSATION;
        match self.accounts.converse(user.clone(), from).await {
            Ok(child) => {
                let talk = Talk { child, counted, answered: false, deadline, typed: user, from, place };
                self.step(portal, talk).await
            }
            Err(error) => {
                counted.take_back();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no conversation with PAM can be begun"
                );
                refused(PamRefusal::System, Vec::new())
            }
        }
    }

    /// Goes on with one.
    pub(super) async fn reply(
        self: &Rc<Self>,
        portal: PortalId,
        conversation: &Secret,
        answers: Vec<Secret>,
    ) -> Answer {
        let Some((mut talk, asked)) = self.conversations.take(portal, conversation) else {
            return over();
        };
        talk.place.is_at(Stage::UnderWay);
        let fits = |answer: &Secret| answer.reveal().len() <= MAX_TEXT && !answer.reveal().contains('\0');
        talk.answered = true;
        if answers.len() != asked || !answers.iter().all(fits) {
            return refused(PamRefusal::Credentials, Vec::new());
        }
        let reply = PamReply { answers };
        match timeout_at(talk.deadline, talk.child.channel().send(&reply)).await {
            Ok(Ok(())) => self.step(portal, talk).await,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a conversation with PAM broke off");
                refused(PamRefusal::System, Vec::new())
            }
            Err(_) => refused(PamRefusal::System, Vec::new()),
        }
    }

    /// What PAM says next.
    async fn step(self: &Rc<Self>, portal: PortalId, talk: Talk) -> Answer {
        let mut buffer = Buffer::new();
        let news = timeout_at(talk.deadline, talk.child.channel().receive_plain(&mut buffer));
        let news = tokio::select! {
            news = news => news,
            () = talk.place.lost() => return over(),
        };
        match news {
            Ok(Ok(PamNews::Prompts(prompts))) => self.ask(portal, talk, prompts),
            Ok(Ok(PamNews::Granted { user, said })) => self.granted(talk, &user, said).await,
            Ok(Ok(PamNews::Refused { why, said })) => {
                tracing::warn!(
                    target: "audit",
                    event = "sign-in-refused",
                    user = talk.typed.as_str(),
                    from = place(talk.from),
                    why = %why
                );
                // What never asked anything and failed by itself was no guess.
                if why == PamRefusal::System && !talk.answered {
                    talk.counted.take_back();
                }
                refused(why, said)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a conversation with PAM broke off");
                refused(PamRefusal::System, Vec::new())
            }
            Err(_) => refused(PamRefusal::System, Vec::new()),
        }
    }

    fn ask(&self, portal: PortalId, talk: Talk, prompts: Vec<Prompt>) -> Answer {
        let asked = prompts.iter().filter(|prompt| prompt.kind.asks()).count();
        let fits = prompts.len() <= MAX_PROMPTS && prompts.iter().all(|prompt| prompt.text.len() <= MAX_TEXT);
        let id = match random() {
            Ok(id) if fits && asked > 0 => BASE64URL_NOPAD.encode(&id),
            _ => {
                tracing::error!("a conversation with PAM asked for nothing, or too much");
                return refused(PamRefusal::System, Vec::new());
            }
        };
        if talk.place.is_lost() {
            return over();
        }
        talk.place.is_at(if talk.answered { Stage::AskedAgain } else { Stage::Unanswered });
        let open = Open { portal, asked, talk: Some(talk) };
        self.conversations.open.borrow_mut().insert(id.clone(), open);
        Answer::Prompts { conversation: Secret::new(id), prompts }
    }

    /// PAM is content. Whether this account may be served is decided here.
    async fn granted(self: &Rc<Self>, talk: Talk, user: &UserName, said: Vec<Prompt>) -> Answer {
        match self.accounts.granted(user).await {
            Ok(identity) => {
                talk.counted.take_back();
                self.accounts.checked(&identity.name).await;
                self.begin_session(&identity, SignIn::Pam, talk.from, &talk.typed, said)
            }
            Err(Missing::Failed(why)) => {
                talk.counted.take_back();
                tracing::error!(user = user.as_str(), why, "an account that PAM granted can't be looked up");
                refused(PamRefusal::System, said)
            }
            Err(missing) => {
                tracing::warn!(
                    target: "audit",
                    event = "sign-in-refused",
                    user = user.as_str(),
                    from = place(talk.from),
                    why = %missing
                );
                // The same words after the same while as for a wrong password: whether it was root's right one is
                // nobody's business.
                let more = random().map_or(0, |bytes| u32::from(bytes[0]));
                sleep(limits::NOT_SERVED + limits::NOT_SERVED * more / 255).await;
                refused(PamRefusal::Credentials, Vec::new())
            }
        }
    }

    /// Whom does this code sign in?
    pub(super) fn look(&self, code: &Secret) -> Answer {
        match self.sign_in_codes.borrow().look(code.reveal(), self.now()) {
            Ok(found) => Answer::Code { user: found.user.clone() },
            Err(bad) => Answer::BadCode(bad),
        }
    }

    /// Takes a sign-in code.
    pub(super) async fn enter(self: &Rc<Self>, code: &Secret, from: IpAddr) -> Answer {
        // Taken before anything else is asked: two who come at once don't both get in.
        let redeemed = self.sign_in_codes.borrow_mut().redeem(code.reveal(), self.now());
        let SignInCode { user, uid } = match redeemed {
            Ok(code) => code,
            Err(bad) => {
                self.refusals.note("code-refused", || {
                    tracing::warn!(target: "audit", event = "code-refused", from = place(from), why = %bad);
                });
                return Answer::BadCode(bad);
            }
        };
        let refuse = |why: PamRefusal| {
            tracing::warn!(target: "audit", event = "sign-in-refused", user = user.as_str(), from = place(from), why = %why);
            refused(why, Vec::new())
        };
        let identity = match self.accounts.by_name_anew(&user).await {
            Ok(identity) if identity.uid == uid && identity.name == user => identity,
            Ok(_) | Err(Missing::NoAccount | Missing::NotServed) => return refuse(PamRefusal::Account),
            Err(missing) => return failed(&missing.to_string()),
        };
        match self.accounts.check(&user).await {
            Ok(()) => self.begin_session(&identity, SignIn::Code, from, &user, Vec::new()),
            Err(why) => refuse(why),
        }
    }

    /// A sign-in address for whoever has this uid. `place` says for the log where it was asked for.
    pub(super) async fn login_address(&self, uid: u32, place: &str) -> ControlReply {
        let refuse = |reason: &str| {
            self.refusals.note("login-refused", || {
                tracing::warn!(target: "audit", event = "login-refused", uid, place, reason);
            });
            ControlReply::Refused { reason: reason.to_owned() }
        };
        let identity = match self.accounts.by_uid(uid).await {
            Ok(identity) => identity,
            Err(missing) => return refuse(&missing.to_string()),
        };
        let now = self.now();
        let mut codes = self.sign_in_codes.borrow_mut();
        if codes.open(now, |code| code.uid == uid) >= limits::CODES_OF_A_USER {
            return refuse("you have many sign-in addresses already: use one, or wait until they expire");
        }
        let Ok(random) = random() else { return refuse("the system gives no random numbers") };
        let code = SignInCode { user: identity.name.clone(), uid };
        let code = codes.issue(random, code, now, now + self.policy().lifetimes.code);
        tracing::info!(target: "audit", event = "login-address", user = identity.name.as_str(), uid, place);
        ControlReply::Address { url: format!("{}/-/enter?code={code}", self.policy().url) }
    }

    pub(super) fn entry_code(&self, claims: Claims, host: String, browser: String) -> Answer {
        let now = self.now();
        let mut codes = self.entry_codes.borrow_mut();
        if codes.open(now, |code| code.claims.sid == claims.sid) >= limits::ENTRIES_OF_A_SESSION {
            return failed("too many applications are being opened at once");
        }
        let Ok(random) = random() else { return failed("the system gives no random numbers") };
        let ends = claims.exp.min(now + self.policy().lifetimes.code);
        let code = EntryCode { claims: Box::new(claims), host, browser };
        Answer::Entry { code: Secret::new(codes.issue(random, code, now, ends)) }
    }

    /// Takes a code that lets a session into an application's origin.
    pub(super) async fn take_entry(self: &Rc<Self>, code: &Secret, host: &str, browser: &str) -> Answer {
        let redeemed = self.entry_codes.borrow_mut().redeem(code.reveal(), self.now());
        let EntryCode { claims, host: meant, browser: asked } = match redeemed {
            Ok(code) => code,
            Err(bad) => return Answer::BadCode(bad),
        };
        // A code that is shown in the wrong place is used up: somebody may have it who should not.
        let Ok(aud @ Audience::Application(_)) = Audience::parse(host) else {
            return Answer::BadCode(BadCode::Unknown);
        };
        if meant != host || asked != browser {
            return Answer::BadCode(BadCode::Unknown);
        }
        if !self.is_live(&claims) {
            return Answer::NoTicket;
        }
        let identity = or_answer!(self.identity(&claims).await);
        let claims = Claims { iat: self.now().max(claims.iat), aud, ..*claims };
        self.signed(claims, &identity, None, Vec::new())
    }
}
