//! Access tokens: made, shown and ended by whoever types `portreeve token` on this machine; taken from programs that a
//! portal serves.
//!
//! Invariants: a token is made for the uid that asks and for no other; the account check runs when a portal shows one, and
//! while something is open by it, and its yes is good for five minutes; what a token's ticket may do is the token's scopes,
//! whoever asks for more; a token that was ended is over at once and stays over.

use std::net::IpAddr;
use std::rc::Rc;

use portreeve_model::wire::ControlReply;
use portreeve_model::wire::broker::{Answer, BadToken};
use portreeve_model::wire::control::{MAX_TOKEN_LIFETIME, MIN_TOKEN_LIFETIME};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::wire::spawner::Missing;
use portreeve_model::{Claims, Scope, Scopes, Secret, SessionId, TokenName, UserName};
use tokio::time::Instant;

use super::Service;
use super::holders::failed;
use super::login::refused;
use super::questions::place;
use super::tokens::Token;

/// Who asks for something of their own, or of somebody's.
pub(super) enum Whose {
    Own(u32),
    /// Root asks.
    Of(Option<UserName>),
}

impl Service {
    /// A program shows a token.
    pub(super) async fn take_token(self: &Rc<Self>, shown: &Secret, from: IpAddr) -> Answer {
        let found = self.tokens.borrow().find(shown.reveal(), self.now()).cloned();
        let token = match found {
            Ok(token) => token,
            Err(bad) => return self.bad_token(bad, from),
        };
        let refuse = |why: PamRefusal| {
            let (user, name) = (token.user.as_str(), token.name());
            self.refusals.note("token-refused", || {
                tracing::warn!(target: "audit", event = "token-refused", user, token = name, from = place(from), why = %why);
            });
            Answer::Refused { why, said: Vec::new() }
        };
        let identity = match self.accounts.by_name(&token.user).await {
            Ok(identity) if identity.uid == token.uid && identity.name == token.user => identity,
            Ok(_) | Err(Missing::NoAccount | Missing::NotServed) => {
                self.doubt(token.uid, &token.user);
                return refuse(PamRefusal::Account);
            }
            Err(missing) => return failed(&missing.to_string()),
        };
        if let Err(why) = self.accounts.check(&token.user).await {
            return refuse(why);
        }
        let now = self.now();
        let claims = token.claims(now, self.begins_at(token.uid));
        // It may have been ended while we asked.
        if !self.is_live(&claims) {
            return Answer::BadToken(BadToken::Unknown);
        }
        let answer = self.signed(claims.clone(), &identity, None, Vec::new());
        if matches!(answer, Answer::SignedIn { .. }) {
            self.tokens.borrow_mut().used(&claims.sid, now);
            if self.sessions.borrow_mut().shown(&claims, Some(from), now) {
                let (user, name) = (token.user.as_str(), token.name());
                let session = claims.sid.as_str();
                tracing::info!(target: "audit", event = "token-used", user, uid = token.uid, token = name, session, from = place(from));
            }
        }
        answer
    }

    /// A genuine token never waits for others' wrong ones.
    fn bad_token(&self, bad: BadToken, from: IpAddr) -> Answer {
        match self.throttle.wrong_token(from, Instant::now()) {
            Ok(()) => {
                self.refusals.note("token-refused", || {
                    tracing::warn!(target: "audit", event = "token-refused", from = place(from), why = %bad);
                });
                Answer::BadToken(bad)
            }
            Err(rest) => {
                let seconds = rest.as_secs() + u64::from(rest.subsec_nanos() > 0);
                Answer::Wait { seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
            }
        }
    }

    /// What a ticket says, if its session is live and good for one of these.
    pub(super) fn holder_for(&self, ticket: &Secret, any_of: &[Scope]) -> Result<Claims, Answer> {
        let claims = self.holder(ticket)?;
        if any_of.iter().any(|scope| claims.allows(*scope)) {
            return Ok(claims);
        }
        let (user, session) = (claims.sub.as_str(), claims.sid.as_str());
        self.refusals.note("token-exceeded", || {
            tracing::warn!(target: "audit", event = "token-exceeded", user, uid = claims.uid, session, "an access token was used for what it is not good for");
        });
        Err(failed("this access token is not good for that"))
    }

    /// Makes a token for whoever has this uid.
    pub(super) async fn make_token(
        &self,
        uid: u32,
        name: TokenName,
        scopes: Scopes,
        lifetime: u32,
    ) -> ControlReply {
        if !(MIN_TOKEN_LIFETIME..=MAX_TOKEN_LIFETIME).contains(&lifetime) {
            return refused("a token lasts an hour at least, and 400 days at most");
        }
        let identity = match self.accounts.by_uid(uid).await {
            Ok(identity) => identity,
            Err(missing) => return refused(&missing.to_string()),
        };
        let called = name.as_str().to_owned();
        let made = self.tokens.borrow_mut().make(&identity, name, scopes, lifetime, self.now());
        match made {
            Ok((token, expires)) => {
                let user = identity.name.as_str();
                tracing::info!(target: "audit", event = "token-made", user, uid, token = called, scopes = %scopes, expires);
                ControlReply::Token { token, expires }
            }
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(uid, error = cause, "a token was not made");
                refused(&error.to_string())
            }
        }
    }

    pub(super) fn list_tokens(&self, whose: &Whose, after: Option<&SessionId>) -> ControlReply {
        let tokens = self.tokens.borrow();
        match whose {
            Whose::Own(uid) => tokens.list(Some(*uid), None, after),
            Whose::Of(user) => tokens.list(None, user.as_ref(), after),
        }
    }

    pub(super) fn revoke_token(&self, whose: &Whose, name: &TokenName) -> ControlReply {
        let (removed, kept) = match whose {
            Whose::Own(uid) => self.end_tokens("by its owner", |token| token.is(*uid, name)),
            Whose::Of(Some(user)) => self.end_tokens("by root", |token| token.is_of(user, name)),
            Whose::Of(None) => return refused("say whose token, with --user"),
        };
        match (removed, kept) {
            (0, _) => refused("there is no token of this name"),
            (tokens, true) => ControlReply::Ended { known: 0, tokens },
            (_, false) => refused(
                "the token is over, but that could not be written down: see the broker's log, and revoke it again \
                 after a restart",
            ),
        }
    }

    /// Ends tokens: what is open by them ends, too. Returns how many, and false when that can't be kept over a restart.
    pub(super) fn end_tokens(&self, why: &str, is: impl Fn(&Token) -> bool) -> (u32, bool) {
        let (removed, mut kept) = self.remove_tokens(why, is);
        let now = self.now();
        for token in &removed {
            kept &= self.end_session(&token.claims(now, now));
        }
        (u32::try_from(removed.len()).unwrap_or(u32::MAX), kept)
    }

    /// Removes tokens. Their tickets are for the caller to end.
    pub(super) fn remove_tokens(&self, why: &str, is: impl Fn(&Token) -> bool) -> (Vec<Token>, bool) {
        let (removed, written) = self.tokens.borrow_mut().remove(is);
        for token in &removed {
            let (user, name) = (token.user.as_str(), token.name());
            tracing::info!(target: "audit", event = "token-revoked", user, uid = token.uid, token = name, why);
        }
        if let Err(error) = &written {
            let cause = error as &dyn std::error::Error;
            tracing::error!(error = cause, "access tokens are over, but would come back after a restart");
        }
        (removed, written.is_ok())
    }
}
