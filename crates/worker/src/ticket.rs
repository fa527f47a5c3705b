//! Whose request this is. Before: `connection`. After: `routes`, each of which wants a [`Holder`].
//!
//! Invariant: only here is a `Holder` made, of a ticket that was verified with the keys as they are now, is the portal's
//! own and is this process's own user's, and whose session is not over. Its header field goes no further.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use http::{HeaderMap, HeaderValue};
use portreeve_broker::Verifier;
use portreeve_model::wire::worker::TICKET;
use portreeve_model::{Audience, Claims, SessionId, SignIn, UserName};

use crate::limits;

/// The person whose session asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    user: UserName,
    how: SignIn,
}

impl Holder {
    pub(crate) fn user(&self) -> &UserName {
        &self.user
    }

    /// A person who signed in, and no program with an access token.
    pub(crate) fn is_a_person(&self) -> bool {
        matches!(self.how, SignIn::Code | SignIn::Pam | SignIn::Oidc | SignIn::Certificate)
    }
}

/// The keys as they are now, and the tickets that were verified with them: one is shown with each request of a session.
pub(crate) struct Keys {
    verifier: Verifier,
    known: RefCell<VecDeque<(HeaderValue, Claims)>>,
}

impl Keys {
    pub(crate) fn of(verifier: Verifier) -> Self {
        Self { verifier, known: RefCell::default() }
    }

    fn claims(&self, ticket: &HeaderValue, now: i64) -> Option<Claims> {
        let mut known = self.known.borrow_mut();
        if let Some((_, claims)) = known.iter().find(|(one, _)| one == ticket) {
            return Some(claims.clone()).filter(|claims| Verifier::is_time_for(claims, now));
        }
        // The ticket of an application's own origin opens that application, and nothing here.
        let claims = self.verifier.verify(ticket.to_str().ok()?, Audience::Portal.as_str(), now)?;
        known.truncate(limits::TICKETS - 1);
        known.push_front((ticket.clone(), claims.clone()));
        Some(claims)
    }
}

/// The user's sessions that are over before their tickets are. Whoever has kept a connection can't go on with them.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) sessions: HashSet<SessionId>,
    /// All that began then or earlier (unix seconds).
    pub(crate) until: i64,
}

impl Default for Ended {
    fn default() -> Self {
        Self { sessions: HashSet::new(), until: i64::MIN }
    }
}

impl Ended {
    fn has(&self, claims: &Claims) -> bool {
        self.sessions.contains(&claims.sid) || claims.auth_time <= self.until
    }
}

/// Takes the ticket out of a request's fields: whose it is, if it is good for this process of `uid`. Without keys nobody's is.
pub(crate) fn holder(
    headers: &mut HeaderMap,
    keys: Option<&Keys>,
    ended: &Ended,
    uid: u32,
    now: i64,
) -> Option<Holder> {
    let shown: Vec<HeaderValue> = headers.get_all(TICKET).iter().cloned().collect();
    headers.remove(TICKET);
    // Of two, somebody else may have looked at the other one.
    let [ticket] = &shown[..] else { return None };
    let claims = keys?.claims(ticket, now)?;
    (claims.uid == uid && !ended.has(&claims)).then_some(Holder { user: claims.sub, how: claims.how })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_broker::TicketKey;

    const UID: u32 = 20001;
    const NOW: i64 = 1000;

    fn claims() -> Claims {
        Claims {
            iss: "portreeve".to_owned(),
            sub: UserName::parse("alice").unwrap(),
            uid: UID,
            sid: SessionId::from_bytes([1; 16]),
            iat: 900,
            auth_time: 900,
            exp: 2000,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    fn knows(keys: &[&TicketKey]) -> Keys {
        Keys::of(Verifier::new(keys.iter().map(|key| (key.id(), key.public()))))
    }

    fn fields(tickets: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for ticket in tickets {
            headers.append(TICKET, HeaderValue::from_str(ticket).unwrap());
        }
        headers
    }

    #[test]
    fn one_good_ticket_of_ones_own() {
        let (old, new) = (TicketKey::generate().unwrap().0, TicketKey::generate().unwrap().0);
        let both = knows(&[&old, &new]);
        for key in [&old, &new] {
            let mut headers = fields(&[&key.sign(&claims()).unwrap()]);
            let found = holder(&mut headers, Some(&both), &Ended::default(), UID, NOW).unwrap();
            assert_eq!(found.user().as_str(), "alice");
            assert!(headers.is_empty(), "it goes no further");
        }
    }

    #[test]
    fn everything_else_is_denied() {
        let (old, new) = (TicketKey::generate().unwrap().0, TicketKey::generate().unwrap().0);
        let knows_new = knows(&[&new]);
        let signed = |claims: Claims| new.sign(&claims).unwrap();
        let good = signed(claims());
        let none = Ended::default();
        assert!(holder(&mut fields(&[&good]), Some(&knows_new), &none, UID, NOW).is_some());
        let application = Audience::parse("c1-8888.example.org").unwrap();
        for (what, tickets) in [
            ("no ticket", vec![]),
            ("an empty one", vec![String::new()]),
            ("two", vec![good.clone(), good.clone()]),
            ("a good one after another", vec!["x".to_owned(), good.clone()]),
            ("two in one field", vec![format!("{good}, {good}")]),
            ("another user's", vec![signed(Claims { uid: UID + 1, ..claims() })]),
            ("root's", vec![signed(Claims { uid: 0, ..claims() })]),
            ("an expired one", vec![signed(Claims { exp: NOW, ..claims() })]),
            ("one of the future", vec![signed(Claims { iat: NOW + 61, ..claims() })]),
            ("one of another key", vec![old.sign(&claims()).unwrap()]),
            ("an application's", vec![signed(Claims { aud: application, ..claims() })]),
            ("half of one", vec![good[..good.len() / 2].to_owned()]),
        ] {
            let tickets: Vec<&str> = tickets.iter().map(String::as_str).collect();
            let mut headers = fields(&tickets);
            assert_eq!(holder(&mut headers, Some(&knows_new), &none, UID, NOW), None, "{what}");
            assert!(headers.is_empty(), "{what}");
        }
        for keys in [None, Some(&knows(&[])), Some(&knows(&[&old]))] {
            assert_eq!(holder(&mut fields(&[&good]), keys, &none, UID, NOW), None);
        }
    }

    #[test]
    fn a_ticket_that_is_known_is_good_no_longer_than_any() {
        let key = TicketKey::generate().unwrap().0;
        let keys = knows(&[&key]);
        let mut tickets: Vec<String> = (0..100)
            .map(|number| key.sign(&Claims { sid: SessionId::from_bytes([number; 16]), ..claims() }).unwrap())
            .collect();
        let none = Ended::default();
        let is_good = |ticket: &str, ended: &Ended, now| {
            holder(&mut fields(&[ticket]), Some(&keys), ended, UID, now).is_some()
        };
        for ticket in &tickets {
            assert!(is_good(ticket, &none, NOW) && is_good(ticket, &none, NOW));
        }
        assert_eq!(keys.known.borrow().len(), limits::TICKETS);
        let last = tickets.pop().unwrap();
        let over = Ended { sessions: HashSet::from([SessionId::from_bytes([99; 16])]), until: i64::MIN };
        assert!(!is_good(&last, &over, NOW) && !is_good(&last, &none, 2000) && !is_good(&last, &none, 839));
        assert!(!is_good(&last[..last.len() - 1], &none, NOW) && is_good(&last, &none, 1999));
        // Another one's: known, and yet not this process's.
        assert!(holder(&mut fields(&[&last]), Some(&keys), &none, UID + 1, NOW).is_none());
    }

    #[test]
    fn a_session_that_is_over_has_no_ticket() {
        let key = TicketKey::generate().unwrap().0;
        let ticket = key.sign(&claims()).unwrap();
        let (this, other) = (claims().sid, SessionId::from_bytes([2; 16]));
        for (sessions, until, good) in [
            (vec![], 899, true),
            (vec![other.clone()], i64::MIN, true),
            (vec![other, this], i64::MIN, false),
            (vec![], 900, false),
        ] {
            let ended = Ended { sessions: sessions.into_iter().collect(), until };
            let found = holder(&mut fields(&[&ticket]), Some(&knows(&[&key])), &ended, UID, NOW);
            assert_eq!(found.is_some(), good, "{ended:?}");
        }
    }
}
