//! Who asks. Before: `site`. After: `route`. A cookie's ticket becomes a [`Principal`].
//!
//! Invariant: a principal can only be made here, from a ticket that was verified for this very origin and whose
//! session is live. The ticket's signature is checked once a connection; that the session is live, at every request.

use std::sync::Arc;

use http::HeaderMap;
use http::header::COOKIE;
use portreeve_model::{Claims, Scope, SignIn};
use portreeve_rewrite::cookie_pairs;

use crate::chain::chain;
use crate::front::Connection;
use crate::portal::{Settings, now};
use crate::powers::PowerError;
use crate::reject::Reject;
use crate::room::Room;
use crate::sessions::Session;
use crate::site::Site;

/// The name of the session cookie. Every name that begins with it is ours.
pub(crate) const COOKIE_NAME: &str = "__Host-portreeve";

/// Somebody who signed in.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    session: Arc<Session>,
    old_ticket: Option<Box<str>>,
}

/// Nobody known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthenticated {
    /// No ticket came with the request, or none that is genuine here.
    #[error("you are not signed in")]
    NoTicket,
    /// The ticket was good once.
    #[error("your session has ended")]
    Over,
    /// The table of sessions is full.
    #[error("too many people are signed in")]
    Full,
    /// Whoever could tell does not answer.
    #[error("nobody can tell at the moment who you are")]
    Unavailable,
}

/// What a connection showed last, so that the same ticket need not be looked up again.
pub(crate) struct Memo {
    ticket: Box<str>,
    audience: Box<str>,
    known: Known,
}

/// A ticket that was verified.
#[derive(Clone)]
pub(crate) struct Known {
    session: Arc<Session>,
    /// When it was signed (seconds since 1970).
    signed: i64,
    /// See [`crate::powers::Service::key_epoch`].
    key_epoch: u64,
}

impl Known {
    pub(crate) fn new(session: Arc<Session>, signed: i64, key_epoch: u64) -> Self {
        Self { session, signed, key_epoch }
    }

    /// Whether it was verified since a key was taken back last, and its session is in the table still.
    pub(crate) fn is_of(&self, key_epoch: u64) -> bool {
        self.key_epoch == key_epoch && !self.session.is_forgotten()
    }

    /// Whether its ticket was signed within this time. `now` in seconds since 1970.
    pub(crate) fn is_younger(&self, now: i64, most: std::time::Duration) -> bool {
        now - self.signed < most.as_secs().cast_signed()
    }

    pub(crate) fn is_live(&self, now: i64, idle: i64) -> bool {
        self.session.is_live(now, idle)
    }

    /// Who it is, if the session is live. Notes that they are there.
    pub(crate) fn principal(self, now: i64, idle: i64) -> Result<Principal, Unauthenticated> {
        let Self { session, .. } = self;
        if !session.is_live(now, idle) {
            return Err(Unauthenticated::Over);
        }
        session.touch(now);
        Ok(Principal { session, old_ticket: None })
    }
}

impl Memo {
    /// The login name.
    pub(crate) fn user(&self) -> &str {
        self.known.session.user.as_str()
    }
}

impl Principal {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// A person may do all that a person may; a program what its token is for.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Reject> {
        if self.session.claims.allows(scope) { Ok(()) } else { Err(Reject::Scope(scope)) }
    }

    /// Pages are for people.
    pub(crate) fn require_person(&self) -> Result<(), Reject> {
        match self.session.claims.how {
            SignIn::Token(_) => Err(Reject::ForPeople),
            SignIn::Code | SignIn::Pam | SignIn::Oidc | SignIn::Certificate => Ok(()),
        }
    }

    /// The ticket, if it should be replaced by a younger one, so that the session outlives a restart of the portal.
    pub(crate) fn old_ticket(&self) -> Option<&str> {
        self.old_ticket.as_deref()
    }
}

/// The session whose ticket the request's cookie carries.
pub(crate) async fn authenticate(
    connection: &Connection,
    settings: &Settings,
    site: &Site,
    headers: &HeaderMap,
) -> Result<Principal, Unauthenticated> {
    let ticket = cookie(headers, COOKIE_NAME).ok_or(Unauthenticated::NoTicket)?;
    if !connection.room.portal.service.knows_who_is_over() {
        return Err(Unauthenticated::Unavailable);
    }
    let now = now();
    let idle = settings.idle_seconds();
    let known = known(connection, site.audience(), ticket, (now, idle)).await?;
    let is_old = now - known.signed > idle / 4;
    let who = known.principal(now, idle)?;
    Ok(Principal { old_ticket: is_old.then(|| ticket.into()), ..who })
}

async fn known(
    connection: &Connection,
    audience: &str,
    ticket: &str,
    (now, idle): (i64, i64),
) -> Result<Known, Unauthenticated> {
    let key_epoch = connection.room.portal.service.key_epoch();
    if let Some(memo) = &*connection.memo.borrow()
        && *memo.ticket == *ticket
        && *memo.audience == *audience
        && memo.known.is_of(key_epoch)
    {
        return Ok(memo.known.clone());
    }
    Box::pin(recall(connection, audience, ticket, (now, idle), key_epoch)).await
}

/// What a connection does not know by heart.
async fn recall(
    connection: &Connection,
    audience: &str,
    ticket: &str,
    (now, idle): (i64, i64),
    key_epoch: u64,
) -> Result<Known, Unauthenticated> {
    let room = &connection.room;
    // The audience is part of the key: a ticket for one origin says nothing about another.
    let key = format!("{audience} {ticket}").into_boxed_str();
    let remembered = room.tickets.borrow_mut().get(&key).cloned();
    let remembered = remembered.filter(|known| known.is_of(key_epoch));
    let known = match remembered {
        Some(known) => known,
        None => {
            let portal = &room.portal;
            let verified = portal.verifier.load().verify(ticket, audience, now);
            let claims = verified.ok_or(Unauthenticated::NoTicket)?;
            let session = match portal.sessions.find(&claims.sid) {
                Some(session) if session.uid != claims.uid || session.user != claims.sub => {
                    return Err(Unauthenticated::NoTicket);
                }
                Some(session) => {
                    // Another portal renewed it. Nobody asked for its groups here since it was left.
                    if session.is_idle(now, idle) {
                        session.set_groups(&groups(room, &claims, ticket).await?);
                    }
                    session.touch(claims.iat);
                    session.note_ticket(ticket, &claims.aud);
                    session
                }
                None => {
                    let groups = groups(room, &claims, ticket).await?;
                    admit(room, &claims, ticket, &groups, now)?
                }
            };
            let known = Known::new(session, claims.iat, key_epoch);
            room.tickets.borrow_mut().put(key, known.clone());
            known
        }
    };
    *connection.memo.borrow_mut() =
        Some(Memo { ticket: ticket.into(), audience: audience.into(), known: known.clone() });
    Ok(known)
}

/// Lets a session in by a ticket that is genuine. Whether it is over is looked at afterwards: it may have been said so
/// while its groups were read.
pub(crate) fn admit(
    room: &Room,
    claims: &Claims,
    ticket: &str,
    groups: &[u32],
    now: i64,
) -> Result<Arc<Session>, Unauthenticated> {
    let portal = &room.portal;
    let idle = portal.settings.load().idle_seconds();
    let session = portal.sessions.admit(claims, ticket, groups, now, idle).ok_or(Unauthenticated::Full)?;
    if portal.service.is_over(claims) {
        session.end_as_listed();
    }
    Ok(session)
}

/// The groups of whom a genuine ticket is about, if its session has not ended and its account is served still.
async fn groups(room: &Room, claims: &Claims, ticket: &str) -> Result<Arc<[u32]>, Unauthenticated> {
    room.powers.groups(claims, ticket).await.map_err(|error| match error {
        PowerError::Over | PowerError::Code(_) | PowerError::Token(_) | PowerError::Refused(_) => {
            Unauthenticated::Over
        }
        PowerError::Wait(_) | PowerError::TooMany => Unauthenticated::Unavailable,
        PowerError::Failed(why) | PowerError::Unavailable(why) => {
            tracing::error!(error = %chain(&*why), "a session's groups can't be had");
            Unauthenticated::Unavailable
        }
    })
}

/// The value of the first cookie of this name. Browsers may split the cookies over several header lines (HTTP/2).
/// Looked for in bytes: an application's cookie that is no ASCII must not hide ours.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_all(COOKIE).iter().find_map(|line| {
        cookie_pairs(line).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok()
        })
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::rc::Rc;

    use super::*;

    /// With room for one ticket only, two people take turns.
    #[tokio::test]
    async fn a_ticket_that_was_forgotten_is_verified_again() {
        let (_state, room) = crate::room::tests::room();
        room.tickets.borrow_mut().resize(NonZeroUsize::MIN);
        let room = Rc::new(room);
        let settings = room.portal.settings.load_full();
        let site = Site::localhost();
        let connection = Connection::new(Rc::clone(&room), ([127, 0, 0, 1], 1).into()).unwrap();
        let people = [1, 2].map(|_| {
            let (claims, ticket) =
                room.portal.service.embedded().broker().start_session(SignIn::Code, now()).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("{COOKIE_NAME}={ticket}").parse().unwrap());
            (claims.sid, headers)
        });
        for (sid, headers) in people.iter().cycle().take(6) {
            let who = authenticate(&connection, &settings, &site, headers).await.unwrap();
            assert_eq!(who.session().id, *sid);
            assert_eq!(room.tickets.borrow().len(), 1);
        }
        // One that ended stays ended, remembered or not.
        room.portal.sessions.find(&people[0].0).unwrap().end();
        for (headers, live) in [(&people[0].1, false), (&people[1].1, true), (&people[0].1, false)] {
            assert_eq!(authenticate(&connection, &settings, &site, headers).await.is_ok(), live);
        }
    }

    #[tokio::test]
    async fn who_was_idle_here_and_comes_back_with_a_younger_ticket_has_the_groups_of_now() {
        let (_state, room) = crate::room::tests::room();
        let room = Rc::new(room);
        let settings = room.portal.settings.load_full();
        let connection = Connection::new(Rc::clone(&room), ([127, 0, 0, 1], 1).into()).unwrap();
        let broker = room.portal.service.embedded().broker();
        let (claims, ticket) = broker.start_session(SignIn::Code, now()).unwrap();
        let long_ago = now() - settings.idle_seconds() - 1;
        let (stale, older) = ([4_000_000_000], Claims { iat: long_ago, ..claims });
        let session =
            room.portal.sessions.admit(&older, "older", &stale, long_ago, settings.idle_seconds()).unwrap();
        assert!(session.is_idle(now(), settings.idle_seconds()));
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("{COOKIE_NAME}={ticket}").parse().unwrap());
        let who = authenticate(&connection, &settings, &Site::localhost(), &headers).await.unwrap();
        assert!(Arc::ptr_eq(who.session(), &session) && ***session.groups() != stale);
        session.end();
        assert!(!session.is_idle(now(), 0), "what ended is not asked about");
    }

    #[test]
    fn the_cookie_is_found_wherever_it_stands_and_only_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; __Host-portreeve-next=/x".parse().unwrap());
        assert_eq!(cookie(&headers, COOKIE_NAME), None);
        headers.append(COOKIE, "b=2;__Host-portreeve=T.I.C ; c=3".parse().unwrap());
        assert_eq!(cookie(&headers, COOKIE_NAME), Some("T.I.C"));
    }
}
