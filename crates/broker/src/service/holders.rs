//! Whose ticket this is, whether its session is live, and how sessions end.
//!
//! Invariant: what ended is in force in this process before it is written, and is told to every portal; an account that is
//! gone, or not served any more, loses its sessions, and that is recorded.

use std::net::IpAddr;
use std::rc::Rc;

use portreeve_model::wire::broker::Answer;
use portreeve_model::wire::pam::{PamRefusal, Prompt};
use portreeve_model::wire::spawner::{Identity, Missing};
use portreeve_model::wire::worker::ToWorker;
use portreeve_model::{Audience, Claims, Secret, SessionId, SignIn, UserName};
use tokio::time::sleep;

use super::accounts::all_groups;
use super::keyring::Change;
use super::random::random;
use super::throttle::NameKey;
use super::{Service, limits};
use crate::authority::ISSUER;

/// What a user has left when all sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// Access tokens. They are good again when the account is.
    Tokens,
}

/// What ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllEnded {
    /// Sessions that were known.
    pub(super) known: u32,
    /// Access tokens.
    pub(super) tokens: u32,
    /// It stays so over a restart.
    pub(super) kept: bool,
}

/// An answer that says that something did not work, and is no verdict.
pub(super) fn failed(why: &str) -> Answer {
    Answer::Failed { why: why.to_owned() }
}

impl Service {
    /// What a ticket says, if its session is live.
    pub(super) fn holder(&self, ticket: &Secret) -> Result<Claims, Answer> {
        let now = self.now();
        let verified = self.keys.borrow().verifier().verify_anywhere(ticket.reveal(), now);
        let claims = verified.filter(|claims| self.is_live(claims)).ok_or(Answer::NoTicket)?;
        self.sessions.borrow_mut().shown(&claims, None, now);
        Ok(claims)
    }

    /// Whether the session of a ticket that was genuine when it was looked at is live still.
    pub(super) fn is_live(&self, claims: &Claims) -> bool {
        self.accounts.serves(claims.uid)
            && self.now() < claims.exp
            && !self.revocations.borrow().is_over(claims)
            && (!matches!(claims.how, SignIn::Token(_)) || self.tokens.borrow().has(&claims.sid))
    }

    /// The `auth_time` of what begins now. A session that begins in the very second in which the older ones ended, or after
    /// the clock went back, is not one of them.
    pub(super) fn begins_at(&self, uid: u32) -> i64 {
        self.now().max(self.revocations.borrow().user_until(uid).saturating_add(1))
    }

    /// The account of a ticket's holder as it is now.
    pub(super) async fn identity(self: &Rc<Self>, claims: &Claims) -> Result<Rc<Identity>, Answer> {
        let found = self.accounts.by_name(&claims.sub).await;
        // The session may have ended while we asked.
        if !self.is_live(claims) {
            return Err(Answer::NoTicket);
        }
        match found {
            Ok(identity) if is_of(&identity, claims) => Ok(identity),
            Ok(_) | Err(Missing::NoAccount | Missing::NotServed) => {
                self.doubt(claims.uid, &claims.sub);
                Err(failed("the user database does not know this account at the moment"))
            }
            Err(missing) => Err(failed(&missing.to_string())),
        }
    }

    /// An account was not found. Looks once more after a while: a user database that is just being started has nobody. Until
    /// then nothing is done for the account.
    pub(super) fn doubt(self: &Rc<Self>, uid: u32, user: &UserName) {
        if !self.doubtful.borrow_mut().insert(uid) {
            return;
        }
        let (service, user) = (Rc::clone(self), user.clone());
        tokio::task::spawn_local(async move {
            sleep(limits::GONE).await;
            let why = match service.accounts.by_name_anew(&user).await {
                Ok(identity) if identity.uid == uid => None,
                Ok(_) => Some("another account has the name"),
                Err(Missing::NoAccount) => Some("the account is gone"),
                Err(Missing::NotServed) => Some("the account is not served any more"),
                Err(missing) => {
                    tracing::warn!(uid, %missing, "an account can't be looked up");
                    None
                }
            };
            if let Some(why) = why {
                service.end_user(uid, why, Left::Nothing);
            }
            service.doubtful.borrow_mut().remove(&uid);
        });
    }

    /// Runs PAM's account check for a ticket's holder. Its no ends the user's sessions. Access tokens stay: what comes
    /// with one is checked as well, and PAM may close an account for a day (pam_nologin).
    pub(super) async fn check(&self, claims: &Claims) -> Result<(), Answer> {
        match self.accounts.check(&claims.sub).await {
            // No program can choose a new one. As when a token is shown.
            Err(PamRefusal::PasswordExpired) if matches!(claims.how, SignIn::Token(_)) => {
                Err(Answer::NoTicket)
            }
            // An expired password is for the next sign-in to ask about.
            Ok(()) | Err(PamRefusal::PasswordExpired) if self.is_live(claims) => Ok(()),
            Ok(()) | Err(PamRefusal::PasswordExpired) => Err(Answer::NoTicket),
            Err(PamRefusal::System) => Err(failed("the account could not be checked")),
            Err(PamRefusal::Account | PamRefusal::Credentials | PamRefusal::TooManyTries) => {
                self.end_user(claims.uid, "PAM does not let the account in any more", Left::Tokens);
                Err(Answer::NoTicket)
            }
        }
    }

    /// Begins a session for somebody who was proven to be this account, and whom PAM lets in.
    pub(super) fn begin_session(
        &self,
        identity: &Identity,
        how: SignIn,
        from: IpAddr,
        typed: &UserName,
        said: Vec<Prompt>,
    ) -> Answer {
        let now = self.now();
        let Ok(id) = random() else { return failed("the system gives no random numbers") };
        let auth_time = self.begins_at(identity.uid);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: identity.name.clone(),
            uid: identity.uid,
            sid: SessionId::from_bytes(id),
            iat: now,
            auth_time,
            exp: now + self.policy().lifetimes.session,
            how,
            aud: Audience::Portal,
        };
        let answer = self.signed(claims.clone(), identity, self.marks.make(&NameKey::of(typed), now), said);
        if matches!(answer, Answer::SignedIn { .. }) {
            self.sessions.borrow_mut().shown(&claims, Some(from), now);
            tracing::info!(
                target: "audit",
                event = "sign-in",
                user = identity.name.as_str(),
                uid = identity.uid,
                session = claims.sid.as_str(),
                how = ?how,
                %from,
                "a session began"
            );
        }
        answer
    }

    /// The ticket of these claims.
    pub(super) fn signed(
        &self,
        claims: Claims,
        identity: &Identity,
        mark: Option<Secret>,
        said: Vec<Prompt>,
    ) -> Answer {
        match self.keys.borrow_mut().sign(&claims, self.now()) {
            Ok(ticket) => Answer::SignedIn {
                claims: Box::new(claims),
                ticket: Secret::new(ticket),
                groups: all_groups(identity),
                mark,
                said,
            },
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a ticket can't be signed");
                failed("the ticket could not be signed")
            }
        }
    }

    /// Ends one session. False when that can't be kept over a restart.
    pub(super) fn end_session(&self, claims: &Claims) -> bool {
        self.make_room_for_an_end();
        let (all, kept) = self.revocations.borrow_mut().end_session(claims, self.now());
        let last = {
            let mut sessions = self.sessions.borrow_mut();
            sessions.forget(&claims.sid);
            if all.is_some() {
                sessions.forget_user(claims.uid);
            }
            !sessions.has(claims.uid)
        };
        self.news.session_ended(&claims.sid);
        if let Some(all) = all {
            self.news.user_ended(all);
        }
        if last {
            self.dialers.close(claims.uid);
        }
        // It goes on: what runs in it is not the session's. But nobody reaches it any more with this one's ticket.
        self.workers.tell(claims.uid, self.ended_of(claims.uid));
        tracing::info!(
            target: "audit",
            event = "session-ended",
            user = claims.sub.as_str(),
            uid = claims.uid,
            session = claims.sid.as_str(),
            "a session was ended"
        );
        is_kept(kept)
    }

    /// What a worker of this user is told of sessions that are over.
    pub(super) fn ended_of(&self, uid: u32) -> ToWorker {
        let revocations = self.revocations.borrow();
        ToWorker::Ended { sessions: revocations.sessions_of(uid), until: revocations.user_until(uid) }
    }

    /// Ends all sessions of a user, also those that were not seen since the broker started, and what runs for them. The
    /// tickets that were given for access tokens end with them; the tokens themselves as `left` says.
    pub(super) fn end_user(&self, uid: u32, why: &str, left: Left) -> AllEnded {
        self.make_room_for_an_end();
        self.end_all_of(uid, why, left)
    }

    /// The list of what ended has an end: who signed out most often has one entry instead of many.
    fn make_room_for_an_end(&self) {
        loop {
            let Some(uid) = self.revocations.borrow().crowded() else { return };
            self.end_all_of(uid, "too many ended sessions are kept on record", Left::Tokens);
        }
    }

    fn end_all_of(&self, uid: u32, why: &str, left: Left) -> AllEnded {
        let (tokens, tokens_kept) = match left {
            Left::Nothing => self.remove_tokens(why, |token| token.uid == uid),
            Left::Tokens => (Vec::new(), true),
        };
        let tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let now = self.now();
        let latest = self.sessions.borrow().latest_of(uid).unwrap_or(now);
        let tickets_end = self.keys.borrow().tickets_end();
        let (ended, kept) =
            self.revocations.borrow_mut().end_user(uid, now.max(latest), tickets_end.max(now), now);
        let known = self.sessions.borrow_mut().forget_user(uid);
        self.news.user_ended(ended);
        self.dialers.close(uid);
        self.workers.close(uid);
        tracing::warn!(target: "audit", event = "sessions-ended", uid, known, tokens, why, "a user's sessions were ended");
        AllEnded { known, tokens, kept: is_kept(kept) && tokens_kept }
    }

    /// Every second: sessions that ended by themselves. A user's dialer ends with the last one; the worker leaves when it is
    /// idle.
    pub(super) fn let_sessions_expire(&self) {
        let without = self.sessions.borrow_mut().expire(self.policy().idle, self.now());
        for uid in without {
            self.dialers.close(uid);
        }
    }

    /// Every few seconds: ended sessions that could not be written down.
    pub(super) fn write_again(&self) {
        match self.revocations.borrow_mut().write_again() {
            Ok(false) => {}
            Ok(true) => tracing::info!("all ended sessions are written down now"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "ended sessions are not written down yet: they would come back after a restart"
            ),
        }
    }

    /// Every minute: access tokens whose end was a while ago, and the days on which they were used.
    pub(super) fn tidy_tokens(&self) {
        if let Err(error) = self.tokens.borrow_mut().tidy(self.now()) {
            tracing::error!(error = &error as &dyn std::error::Error, "the access tokens can't be written");
        }
    }

    /// Every minute: keys that are due, and a clock that was wrong.
    pub(super) fn turn_keys(&self) {
        let now = self.now();
        let forgot = self.revocations.borrow().forgot();
        let was_ahead = self.keys.borrow().clock_was_ahead(forgot, now);
        if was_ahead {
            return self.drop_keys(now);
        }
        let turned = self.keys.borrow_mut().turn(self.policy().key_period, now);
        match turned {
            Ok(None) => {}
            Ok(Some(change)) => {
                let event = match change {
                    Change::Rotated => "key-rotated",
                    Change::Expired => "key-expired",
                };
                tracing::info!(target: "audit", event, "the ticket keys changed");
                self.tell_keys();
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the ticket keys can't be changed");
            }
        }
    }

    fn drop_keys(&self, now: i64) {
        if let Err(error) = self.keys.borrow_mut().drop_all(now) {
            tracing::error!(error = &error as &dyn std::error::Error, "the ticket keys can't be dropped");
            return;
        }
        tracing::error!(
            target: "audit",
            event = "keys-dropped",
            "the clock was days ahead while tickets were signed or ended: everybody signs in again"
        );
        // No ticket is left that could be over, but portals hold sessions that they verified before.
        let known = self.sessions.take();
        for session in known.ids() {
            self.news.session_ended(session);
        }
        for uid in known.users() {
            self.dialers.close(uid);
            self.workers.close(uid);
        }
        if let Err(error) = self.revocations.borrow_mut().clear(now) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the list of ended sessions can't be kept"
            );
        }
        self.tell_keys();
    }

    fn tell_keys(&self) {
        self.news.keys_changed();
        self.workers.tell_all(ToWorker::Keys(self.keys.borrow().public()));
    }
}

fn is_of(identity: &Identity, claims: &Claims) -> bool {
    identity.uid == claims.uid && identity.name == claims.sub
}

fn is_kept(kept: Result<(), crate::revocations::RevocationError>) -> bool {
    kept.inspect_err(|error| {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "an ended session is over, but would come back after a restart"
        );
    })
    .is_ok()
}
