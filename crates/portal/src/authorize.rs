//! May this person use this connection? Before: `connect`. After: `forward`, which takes nothing but [`Owned`].
//!
//! A new connection's owner is looked up by its very addresses and ports, after `connect` and before the first byte:
//! there is no gap between the check and the use. The judgement is made again for every request, from the owner that
//! was observed and the right as it is now.

use std::rc::Rc;

use portreeve_model::{
    Decision, Owner, OwnerGroups, Refusal, SessionId, Tuple, Unowned, Visitor, Why, direct_needs_group,
    forward_needs_group, judge_direct, judge_forward,
};

use tokio::time::Instant;

use crate::audit;
use crate::connect::Reached;
use crate::limits;
use crate::mode::Mode;
use crate::resolve::{self, Grant, Withdrawn};
use crate::room::Room;
use crate::sessions::Session;

/// A connection that its visitor may use. Made here and nowhere else.
#[must_use]
pub(crate) struct Owned {
    reached: Reached,
    owner: Owner,
    grant: Rc<Grant>,
    why: Why,
}

/// A judgement that the audit log has, so that only a different one is written again.
pub(crate) struct Audited {
    session: SessionId,
    grant: Rc<Grant>,
    why: Why,
}

impl Audited {
    pub(crate) fn new(session: &Session, grant: &Rc<Grant>, why: Why) -> Self {
        Self { session: session.id.clone(), grant: Rc::clone(grant), why }
    }

    fn is(&self, session: &Session, grant: &Rc<Grant>, why: Why) -> bool {
        self.session == session.id
            && self.why == why
            && (Rc::ptr_eq(&self.grant, grant) || self.grant.place() == grant.place())
    }
}

impl Owned {
    /// Whose application it is.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Why it may be used.
    pub(crate) fn why(&self) -> Why {
        self.why
    }

    /// Its four addresses and ports.
    pub(crate) fn tuple(&self) -> Tuple {
        match &self.reached {
            Reached::Open(link) => link.tuple,
            Reached::New(new) => new.tuple,
        }
    }

    /// By which right.
    pub(crate) fn grant(&self) -> &Rc<Grant> {
        &self.grant
    }

    /// How the application wants its paths, if this very connection knows.
    pub(crate) fn known_mode(&self, prefix: &str) -> Option<Mode> {
        match &self.reached {
            Reached::Open(link) => link.known_mode(prefix),
            Reached::New(_) => None,
        }
    }

    /// The connection, for the one step that may write to it.
    pub(crate) fn into_reached(self) -> Reached {
        self.reached
    }
}

/// Finds the owner of a new connection, and judges.
pub(crate) async fn authorize(
    room: &Room,
    session: &Session,
    grant: &Rc<Grant>,
    reached: Reached,
) -> Result<Owned, Refusal> {
    let needs = |owner: &Owner| needs_group(room, session, grant, owner);
    let (tuple, observed) = match &reached {
        Reached::Open(link) => (link.tuple, Ok(link.owner.get())),
        // On the heap, as all that few requests wait for: a future is moved, and kept, with room for its largest wait.
        Reached::New(new) => {
            let look = || room.powers.owner(&new.tuple);
            let seen = Box::pin(room.tally.looked_up(look())).await;
            let seen = match seen {
                Ok(owner) if needs(&owner) => Box::pin(once_accepted(owner, look)).await,
                other => other,
            };
            (new.tuple, seen)
        }
    };
    let observed = match observed {
        Ok(owner) if needs(&owner) => Box::pin(room.powers.with_group(&tuple, owner)).await,
        other => other,
    };
    if let Ok(owner) = &observed {
        learn_login(room, session, grant, owner).await;
    }
    let judged = match &observed {
        Ok(owner) => judge(room, session, grant, owner),
        Err(unowned) => Err(Refusal::from(unowned.clone())),
    };
    let is_known = match (&reached, &judged) {
        (Reached::Open(link), Ok(why)) => {
            let mut audited = link.audited.borrow_mut();
            let is_known = audited.as_ref().is_some_and(|audited| audited.is(session, grant, *why));
            if !is_known {
                *audited = Some(Audited::new(session, grant, *why));
            }
            is_known
        }
        _ => false,
    };
    if !is_known {
        audit::decided(session, grant, &tuple, observed.as_ref().ok(), &judged);
    }
    let why = judged?;
    let owner = observed.map_err(Refusal::from)?;
    if let Reached::Open(link) = &reached {
        link.owner.set(owner);
    }
    Ok(Owned { reached, owner, grant: Rc::clone(grant), why })
}

/// The same once it was accepted, if that is soon. An application may answer and close as soon as it hears anything; who
/// accepted with which group nobody could see then, and a visitor by a group would be refused.
/// What was seen last counts.
async fn once_accepted(
    mut owner: Owner,
    look: impl AsyncFn() -> Result<Owner, Unowned>,
) -> Result<Owner, Unowned> {
    for _ in 0..limits::ACCEPT_LOOKS {
        if owner.accepted {
            break;
        }
        tokio::time::sleep(limits::ACCEPT_LOOK).await;
        owner = look().await?;
    }
    Ok(owner)
}

/// Whether the application's group could decide, and with it its owner's login group. Equal uid is the common case, and
/// needs no user database.
fn needs_login(session: &Session, grant: &Grant, owner: &Owner) -> bool {
    match grant {
        Grant::Direct(_) => owner.uid != session.uid,
        // Also when it is the visitor's own application, in somebody else's forward.
        Grant::Forward { stat, .. } => owner.uid != stat.uid || stat.is_writable_by_others(),
    }
}

/// Finds out the login group of an application's owner, if the judgement needs it.
async fn learn_login(room: &Room, session: &Session, grant: &Grant, owner: &Owner) {
    let uid = owner.uid;
    let is_known =
        || room.logins.borrow_mut().get(&uid).is_some_and(|(since, _)| since.elapsed() < limits::LOGIN_FRESH);
    if !needs_login(session, grant, owner) || is_known() {
        return;
    }
    let login = Box::pin(room.powers.login(uid)).await.map(|login| login.group);
    room.logins.borrow_mut().put(uid, (Instant::now(), login));
}

/// The judgement of a connection that was accepted meanwhile, by an owner who is looked up again.
pub(crate) async fn judge_confirmed(
    room: &Room,
    session: &Session,
    grant: &Grant,
    tuple: &Tuple,
    before: &Owner,
) -> Result<Owner, Refusal> {
    let judged = match room.powers.confirm(tuple, before).await {
        Ok(confirmed) => judge(room, session, grant, &confirmed).map(|_| confirmed),
        // Closing, gone, or gone so that the kernel answers with the LISTEN socket in its place: the application
        // answered and closed at once. Then the LISTEN socket must be the very one in whose queue the connection was
        // seen: whoever accepted from it had it from its owner. With which group, nobody saw.
        Err(Unowned::Closing | Unowned::NoSuchConnection | Unowned::ListenerOnly)
            if before.groups == OwnerGroups::NotLooked
                && room.powers.listens_still(tuple, before.listener).await =>
        {
            Ok(*before)
        }
        Err(unowned) => Err(unowned.into()),
    };
    if let Err(refusal) = &judged {
        audit::decided(session, grant, tuple, Some(before), &Err(refusal.clone()));
    }
    judged
}

/// Whether something that was allowed a while ago is allowed still; if not, the audit log has why.
pub(crate) async fn judge_again(
    room: &Room,
    session: &Session,
    grant: &Rc<Grant>,
    owner: &Owner,
) -> Result<(), Withdrawn> {
    let judged = match resolve::still_granted(room, session, grant).await {
        Ok(current) => {
            learn_login(room, session, &current, owner).await;
            judge(room, session, &current, owner).map(|_| ()).map_err(Withdrawn::from)
        }
        Err(withdrawn) => Err(withdrawn),
    };
    judged.inspect_err(|why| audit::ended(session, grant, why))
}

/// Whether it is somebody else's application, or reached through somebody else's forward: what it sends was not made by
/// the one who looks at it.
pub(crate) fn is_foreign(session: &Session, grant: &Grant, owner: &Owner) -> bool {
    let forward_owner = match grant {
        Grant::Direct(_) => session.uid,
        Grant::Forward { stat, .. } => stat.uid,
    };
    owner.uid != session.uid || forward_owner != session.uid
}

/// The judgement alone: this person, by this right, towards this owner.
pub(crate) fn judge(room: &Room, session: &Session, grant: &Grant, owner: &Owner) -> Result<Why, Refusal> {
    let groups = session.groups();
    let visitor = Visitor { uid: session.uid, groups: &groups };
    let settings = room.portal.settings.load();
    // `learn_login` was there before.
    let login = match needs_login(session, grant, owner) {
        true => room.logins.borrow_mut().get(&owner.uid).and_then(|(_, login)| *login),
        false => None,
    };
    let decision = match grant {
        Grant::Direct(_) => judge_direct(visitor, owner, &settings.groups, login),
        Grant::Forward { name, stat, .. } => {
            judge_forward(visitor, stat, owner, &settings.groups, login, settings.is_admin_forward(name))
        }
    };
    match decision {
        Decision::Allow(why) => Ok(why),
        Decision::Deny(refusal) => Err(refusal),
    }
}

fn needs_group(room: &Room, session: &Session, grant: &Grant, owner: &Owner) -> bool {
    let groups = session.groups();
    let visitor = Visitor { uid: session.uid, groups: &groups };
    let settings = room.portal.settings.load();
    match grant {
        Grant::Direct(_) => direct_needs_group(visitor, owner, &settings.groups),
        Grant::Forward { name, stat, .. } => {
            forward_needs_group(visitor, stat, owner, &settings.groups, settings.is_admin_forward(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use portreeve_model::{
        ForwardName, ForwardStat, ForwardTarget, ListenerId, LoginGroup, NodePort, SignIn,
    };

    use super::*;
    use crate::portal::now;

    #[tokio::test(start_paused = true)]
    async fn until_it_is_accepted_the_last_look_counts() {
        let of =
            |uid, accepted| Owner { uid, groups: OwnerGroups::NotLooked, listener: ListenerId(1), accepted };
        for (looks, seen) in [
            (vec![], Ok(of(1, false))),
            (vec![Ok(of(1, true))], Ok(of(1, true))),
            // Whoever has it by then is judged, and if nobody can be told to have it, nobody is.
            (vec![Ok(of(1, false)), Ok(of(2, true))], Ok(of(2, true))),
            (vec![Ok(of(1, false)), Err(Unowned::NoSuchConnection)], Err(Unowned::NoSuchConnection)),
        ] {
            let (count, left) = (looks.len(), std::cell::RefCell::new(looks.into_iter()));
            let asked = std::cell::Cell::new(0);
            let look = async || {
                asked.set(asked.get() + 1);
                left.borrow_mut().next().unwrap_or(Ok(of(1, false)))
            };
            assert_eq!(once_accepted(of(1, false), look).await, seen);
            assert_eq!(asked.get(), if count == 0 { limits::ACCEPT_LOOKS as usize } else { count });
        }
        let never = async || panic!("it is known to be accepted");
        assert_eq!(once_accepted(of(1, true), never).await, Ok(of(1, true)));
    }

    #[tokio::test]
    async fn a_login_group_is_believed_for_a_while() {
        let (_state, room) = crate::room::tests::room();
        let (claims, _) = room.portal.service.embedded().broker().start_session(SignIn::Code, now()).unwrap();
        let session = room.portal.sessions.admit(&claims, "", &[], now(), 3600).unwrap();
        // Somebody else, whoever runs the tests, whom every user database has.
        let other = if session.uid == 0 { 65_534 } else { 0 };
        let told = Some(LoginGroup { gid: 4_000_000_000, private: true });
        let of = |uid| Owner { uid, groups: OwnerGroups::NotLooked, listener: ListenerId(1), accepted: true };
        let direct = Grant::Direct(NodePort::parse("localhost:8888").unwrap());
        for (age, believed) in
            [(limits::LOGIN_FRESH - std::time::Duration::from_secs(5), true), (limits::LOGIN_FRESH, false)]
        {
            let since = Instant::now().checked_sub(age).unwrap();
            room.logins.borrow_mut().put(other, (since, told));
            learn_login(&room, &session, &direct, &of(other)).await;
            let (_, login) = *room.logins.borrow_mut().get(&other).unwrap();
            assert_eq!(login == told, believed, "{age:?}: {login:?}");
        }
        let forward = |uid, mode| Grant::Forward {
            name: ForwardName::parse("shared").unwrap(),
            stat: ForwardStat { uid, gid: 1, mode },
            target: ForwardTarget::parse("http://localhost:8888/").unwrap(),
        };
        for grant in [&direct, &forward(session.uid, 0o750)] {
            learn_login(&room, &session, grant, &of(session.uid)).await;
            assert!(room.logins.borrow_mut().get(&session.uid).is_none(), "nobody asks about the visitor");
        }
        // Unless a group decides about the visitor's own application: in a forward of somebody else's, or one that
        // others write.
        for grant in [forward(other, 0o750), forward(session.uid, 0o770)] {
            room.logins.borrow_mut().pop(&session.uid);
            learn_login(&room, &session, &grant, &of(session.uid)).await;
            assert!(room.logins.borrow_mut().get(&session.uid).is_some());
        }
    }
}
