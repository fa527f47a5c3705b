//! Who somebody is now: asked of the user database and of PAM, in children that live for one question.
//!
//! Invariant: an account is served only if [`is_served`] says so here too, whatever the spawner says.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use portreeve_model::wire::broker::ForwardFound;
use portreeve_model::wire::pam::{PamNews, PamRefusal};
use portreeve_model::wire::spawner::{Found, Identity, LookUp, Missing, Start};
use portreeve_model::{ForwardName, Login, UserName};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::channel::Buffer;
use super::children::{Child, Children, StartError};
use super::limits;
use super::remembered::Remembered;
use crate::account::{is_person, is_served};

/// Asks, and remembers answers for a while.
pub(super) struct Accounts {
    children: Rc<Children>,
    first_uid: u32,
    /// Groups are good for so long.
    groups: Cell<Duration>,
    look_ups: Semaphore,
    /// Apart, because any user can ask for as many as they like.
    forward_reads: Semaphore,
    checks: Semaphore,
    by_name: Remembered<UserName, Result<Rc<Identity>, Missing>>,
    by_uid: Remembered<u32, Result<Rc<Identity>, Missing>>,
    logins: Remembered<u32, Result<Option<Login>, Missing>>,
    checked: Remembered<UserName, Result<(), PamRefusal>>,
}

fn failed(what: &str) -> Missing {
    Missing::Failed(what.to_owned())
}

/// All groups of a user, the login group among them, each once.
pub(super) fn all_groups(identity: &Identity) -> Vec<u32> {
    let mut groups = identity.groups.clone();
    groups.push(identity.gid);
    groups.sort_unstable();
    groups.dedup();
    groups
}

impl Accounts {
    pub(super) fn new(children: Rc<Children>, first_uid: u32, groups_refresh: Duration) -> Self {
        Self {
            children,
            first_uid,
            groups: Cell::new(groups_refresh.min(limits::GROUPS)),
            look_ups: Semaphore::new(limits::LOOK_UPS),
            forward_reads: Semaphore::new(limits::FORWARD_READS),
            checks: Semaphore::new(limits::ACCOUNT_CHECKS),
            by_name: Remembered::new(limits::REMEMBERED),
            by_uid: Remembered::new(limits::REMEMBERED),
            logins: Remembered::new(limits::REMEMBERED),
            checked: Remembered::new(limits::REMEMBERED),
        }
    }

    /// Takes over a new `groups.refresh`, for what is remembered already as well.
    pub(super) fn change(&self, groups_refresh: Duration) {
        self.groups.set(groups_refresh.min(limits::GROUPS));
    }

    fn good_for<T>(&self, found: &Result<T, Missing>) -> Duration {
        match found {
            Ok(_) => self.groups.get(),
            Err(Missing::NoAccount | Missing::NotServed) => limits::NO_ACCOUNT,
            Err(_) => Duration::ZERO,
        }
    }

    /// Whether a uid may have a session at all.
    pub(super) fn serves(&self, uid: u32) -> bool {
        is_person(self.first_uid, uid)
    }

    /// The account of this name.
    pub(super) async fn by_name(&self, name: &UserName) -> Result<Rc<Identity>, Missing> {
        let ask = async || self.account(LookUp::Name(name.clone())).await;
        self.by_name.answer(name, |found| self.good_for(found), ask).await
    }

    /// The same, but never from memory.
    pub(super) async fn by_name_anew(&self, name: &UserName) -> Result<Rc<Identity>, Missing> {
        self.by_name.forget(name);
        self.by_name(name).await
    }

    /// The account of this uid.
    pub(super) async fn by_uid(&self, uid: u32) -> Result<Rc<Identity>, Missing> {
        let ask = async || match self.account(LookUp::Uid(uid)).await {
            Ok(identity) if identity.uid == uid => Ok(identity),
            Ok(_) => Err(failed("another account than the one asked for was found")),
            missing => missing,
        };
        self.by_uid.answer(&uid, |found| self.good_for(found), ask).await
    }

    /// The account that PAM calls by this name. The user database may write it differently (`ALICE`, `alice@domain`); then
    /// its own name counts, if it leads to the same uid both ways.
    pub(super) async fn granted(&self, name: &UserName) -> Result<Rc<Identity>, Missing> {
        let identity = self.by_name_anew(name).await?;
        if identity.name == *name {
            return Ok(identity);
        }
        let again = self.by_name_anew(&identity.name).await?;
        if again.name == identity.name && again.uid == identity.uid {
            Ok(again)
        } else {
            Err(failed("the user database does not agree with itself about the account's name"))
        }
    }

    async fn account(&self, question: LookUp) -> Result<Rc<Identity>, Missing> {
        match self.find(&self.look_ups, Start::LookUp(question)).await? {
            Found::Account(mut identity) if is_served(self.first_uid, identity.uid, identity.gid) => {
                // In one order, so that the same groups are seen to be the same.
                identity.groups.sort_unstable();
                identity.groups.dedup();
                Ok(Rc::new(identity))
            }
            Found::Account(_) => Err(Missing::NotServed),
            Found::Nothing(missing) => Err(missing),
            _ => Err(failed("the look-up answered another question")),
        }
    }

    /// Name and login group of a uid; `None` when the user database can't tell.
    pub(super) async fn login(&self, uid: u32) -> Result<Option<Login>, Missing> {
        let good_for = |found: &Result<_, Missing>| match found {
            Ok(_) => limits::LOGIN_GROUP,
            Err(_) => Duration::ZERO,
        };
        let ask = async || match self.find(&self.look_ups, Start::LookUp(LookUp::Login(uid))).await? {
            Found::Login(login) => Ok(Some(login)),
            Found::Nothing(Missing::Failed(why)) => Err(Missing::Failed(why)),
            Found::Nothing(_) => Ok(None),
            _ => Err(failed("the look-up answered another question")),
        };
        self.logins.answer(&uid, good_for, ask).await
    }

    /// Reads a forward file for somebody.
    pub(super) async fn forward(
        &self,
        visitor: Identity,
        name: ForwardName,
    ) -> Result<ForwardFound, Missing> {
        match self.find(&self.forward_reads, Start::Forward { visitor, name }).await? {
            Found::Forward { stat, line, lines_differ } => Ok(ForwardFound { stat, line, lines_differ }),
            Found::Nothing(missing) => Err(missing),
            _ => Err(failed("the look-up answered another question")),
        }
    }

    async fn find(&self, places: &Semaphore, start: Start) -> Result<Found, Missing> {
        let asked = async {
            let _place = places.acquire().await.map_err(|_| failed("the broker ends"))?;
            let child = self.children.start(start).await.map_err(|error| not_started(&error))?;
            child.channel().receive_plain(&mut Buffer::new()).await.map_err(|error| {
                tracing::warn!(%error, "a look-up gave no answer");
                failed("the look-up gave no answer")
            })
        };
        timeout(limits::LOOK_UP, asked).await.unwrap_or_else(|_| Err(failed("the look-up took too long")))
    }

    /// Begins a conversation with PAM.
    pub(super) async fn converse(&self, user: UserName, from: IpAddr) -> Result<Child, StartError> {
        self.children.start(Start::Conversation { user: Some(user), from }).await
    }

    /// Whether PAM lets this account be used, without asking anybody anything. A yes is good for five minutes.
    pub(super) async fn check(&self, user: &UserName) -> Result<(), PamRefusal> {
        let good_for = |checked: &Result<(), PamRefusal>| match checked {
            Ok(()) => limits::CHECKED,
            Err(_) => Duration::ZERO,
        };
        self.checked.answer(user, good_for, async || self.check_now(user).await).await
    }

    /// Notes that PAM let this account be used just now.
    pub(super) async fn checked(&self, user: &UserName) {
        self.checked.note(user, Ok(())).await;
    }

    async fn check_now(&self, user: &UserName) -> Result<(), PamRefusal> {
        let asked = async {
            let _place = self.checks.acquire().await.map_err(|_| PamRefusal::System)?;
            let child =
                self.children.start(Start::AccountCheck { user: user.clone() }).await.map_err(|error| {
                    not_started(&error);
                    PamRefusal::System
                })?;
            match child.channel().receive_plain(&mut Buffer::new()).await {
                Ok(PamNews::Granted { user: granted, .. }) if granted == *user => Ok(()),
                Ok(PamNews::Refused { why, .. }) => Err(why),
                Ok(PamNews::Granted { .. } | PamNews::Prompts(_)) | Err(_) => {
                    tracing::warn!(user = user.as_str(), "the account check gave no answer that fits");
                    Err(PamRefusal::System)
                }
            }
        };
        timeout(limits::ACCOUNT_CHECK, asked).await.unwrap_or(Err(PamRefusal::System))
    }
}

fn not_started(error: &StartError) -> Missing {
    tracing::warn!(error = error as &dyn std::error::Error, "a child was not started");
    failed("the look-up could not be started")
}
