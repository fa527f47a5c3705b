//! The sessions that are known: begun here, or shown by a portal since the broker started. For the sysadmin's list, and to know
//! when a user's last one is over. Whether a session is good is not decided here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use portreeve_model::wire::control::MAX_SESSION_ROWS;
use portreeve_model::wire::{ControlReply, SessionRow};
use portreeve_model::{Claims, SessionId, UserName};

use super::limits;

/// Sessions of one user that are kept when there is no room for all.
const ENOUGH_OF_A_USER: usize = 256;

struct Session {
    row: SessionRow,
    /// When a ticket of it was last seen (unix seconds).
    shown: i64,
}

/// The table.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    by_uid: HashMap<u32, HashSet<SessionId>>,
}

impl Sessions {
    /// A ticket with these claims was made or seen. Says whether its session was not known.
    pub(super) fn shown(&mut self, claims: &Claims, from: Option<IpAddr>, now: i64) -> bool {
        if let Some(known) = self.by_id.get_mut(&claims.sid) {
            known.shown = now;
            known.row.renewed = known.row.renewed.max(claims.iat);
            // Each ticket that is given for an access token begins anew.
            known.row.since = known.row.since.max(claims.auth_time);
            return false;
        }
        if self.by_id.len() >= limits::SESSIONS {
            self.make_room(claims.uid);
        }
        let row = SessionRow {
            id: claims.sid.clone(),
            user: claims.sub.clone(),
            uid: claims.uid,
            since: claims.auth_time,
            renewed: claims.iat,
            ends: claims.exp,
            from,
            how: claims.how,
        };
        self.by_uid.entry(claims.uid).or_default().insert(claims.sid.clone());
        self.by_id.insert(claims.sid.clone(), Session { row, shown: now });
        true
    }

    /// Forgets the session that was shown longest ago: of this user if they have very many, else of anybody.
    fn make_room(&mut self, uid: u32) {
        let oldest = match self.by_uid.get(&uid).filter(|own| own.len() >= ENOUGH_OF_A_USER) {
            Some(own) => {
                own.iter().min_by_key(|id| self.by_id.get(*id).map(|session| session.shown)).cloned()
            }
            None => self.by_id.iter().min_by_key(|(_, session)| session.shown).map(|(id, _)| id.clone()),
        };
        if let Some(oldest) = oldest {
            self.forget(&oldest);
        }
    }

    /// A session is over.
    pub(super) fn forget(&mut self, id: &SessionId) {
        if let Some(session) = self.by_id.remove(id)
            && let Some(own) = self.by_uid.get_mut(&session.row.uid)
        {
            own.remove(id);
            if own.is_empty() {
                self.by_uid.remove(&session.row.uid);
            }
        }
    }

    /// All of a user's sessions are over. Returns how many were known.
    pub(super) fn forget_user(&mut self, uid: u32) -> u32 {
        let own = self.by_uid.remove(&uid).unwrap_or_default();
        for id in &own {
            self.by_id.remove(id);
        }
        u32::try_from(own.len()).unwrap_or(u32::MAX)
    }

    /// When the youngest known session of a user began (unix seconds).
    pub(super) fn latest_of(&self, uid: u32) -> Option<i64> {
        let own = self.by_uid.get(&uid)?;
        own.iter().filter_map(|id| self.by_id.get(id)).map(|session| session.row.since).max()
    }

    /// Whether a user has a session that is known.
    pub(super) fn has(&self, uid: u32) -> bool {
        self.by_uid.contains_key(&uid)
    }

    /// The uid that sessions of this name have.
    pub(super) fn uid_of(&self, user: &UserName) -> Option<u32> {
        self.by_id.values().find(|session| session.row.user == *user).map(|session| session.row.uid)
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = &SessionId> {
        self.by_id.keys()
    }

    /// Users who have sessions.
    pub(super) fn users(&self) -> impl Iterator<Item = u32> {
        self.by_uid.keys().copied()
    }

    /// Forgets sessions past their end, and those whose ticket nobody showed for `idle` seconds: every portal has
    /// let them go by then. Returns the users who have none left.
    pub(super) fn expire(&mut self, idle: i64, now: i64) -> Vec<u32> {
        let over = |session: &Session| now >= session.row.ends || now - session.shown > idle;
        let gone: Vec<(SessionId, u32)> = self
            .by_id
            .values()
            .filter(|session| over(session))
            .map(|session| (session.row.id.clone(), session.row.uid))
            .collect();
        for (id, _) in &gone {
            self.forget(id);
        }
        let mut users: Vec<u32> =
            gone.into_iter().map(|(_, uid)| uid).filter(|uid| !self.has(*uid)).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// A part of the list, by id.
    pub(super) fn list(&self, user: Option<&UserName>, after: Option<&SessionId>) -> ControlReply {
        use std::ops::Bound::{Excluded, Unbounded};
        let behind = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut rows: Vec<SessionRow> = self
            .by_id
            .range::<SessionId, _>(behind)
            .map(|(_, session)| &session.row)
            .filter(|row| user.is_none_or(|user| row.user == *user))
            .take(MAX_SESSION_ROWS + 1)
            .cloned()
            .collect();
        let more = rows.len() > MAX_SESSION_ROWS;
        rows.truncate(MAX_SESSION_ROWS);
        ControlReply::Sessions { rows, more }
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{Audience, SignIn};

    use super::*;

    fn claims(number: u128, uid: u32) -> Claims {
        Claims {
            iss: "portreeve".to_owned(),
            sub: UserName::parse(&format!("u{uid}")).unwrap(),
            uid,
            sid: SessionId::from_bytes(number.to_be_bytes()),
            iat: 10,
            auth_time: 5,
            exp: 1000,
            how: SignIn::Pam,
            aud: Audience::Portal,
        }
    }

    fn ids(reply: &ControlReply) -> (usize, bool, Option<SessionId>) {
        match reply {
            ControlReply::Sessions { rows, more } => {
                (rows.len(), *more, rows.last().map(|row| row.id.clone()))
            }
            _ => panic!("{reply:?}"),
        }
    }

    #[test]
    fn the_last_session_of_a_user_ends_by_expiry_idleness_or_sign_out() {
        let mut sessions = Sessions::default();
        sessions.shown(&claims(1, 1000), None, 10);
        sessions.shown(&claims(2, 1000), None, 10);
        sessions.shown(&claims(3, 1001), None, 10);
        assert!(sessions.expire(100, 110).is_empty());
        // Session 1 is shown still, the others are not.
        sessions.shown(&claims(1, 1000), None, 110);
        assert_eq!(sessions.expire(100, 111), [1001]);
        assert!(sessions.has(1000) && !sessions.has(1001));
        assert_eq!(sessions.expire(10_000, 999), [0; 0]);
        assert_eq!(sessions.expire(10_000, 1000), [1000]);
        sessions.shown(&claims(4, 1002), None, 10);
        sessions.forget(&claims(4, 1002).sid);
        assert!(!sessions.has(1002) && sessions.by_id.is_empty() && sessions.by_uid.is_empty());
    }

    #[test]
    fn the_list_goes_on_where_it_stopped() {
        let mut sessions = Sessions::default();
        for number in 0..300 {
            sessions.shown(&claims(number, 1000 + number as u32 % 2), None, 10);
        }
        let (mut seen, mut after) = (0, None);
        loop {
            let (rows, more, last) = ids(&sessions.list(None, after.as_ref()));
            seen += rows;
            after = last;
            if !more {
                break;
            }
            assert_eq!(rows, MAX_SESSION_ROWS);
        }
        assert_eq!(seen, 300);
        let user = UserName::parse("u1001").unwrap();
        assert_eq!(ids(&sessions.list(Some(&user), None)).0, MAX_SESSION_ROWS);
        assert_eq!(sessions.forget_user(1001), 150);
        assert_eq!(ids(&sessions.list(Some(&user), None)).0, 0);
    }

    #[test]
    fn the_table_is_bounded_and_one_user_does_not_push_others_out() {
        let mut sessions = Sessions::default();
        sessions.shown(&claims(u128::MAX, 7), None, 0);
        for number in 0..limits::SESSIONS as u128 + 100 {
            sessions.shown(&claims(number, 1000), None, 10);
        }
        assert_eq!(sessions.by_id.len(), limits::SESSIONS);
        assert!(sessions.has(7));
    }
}
