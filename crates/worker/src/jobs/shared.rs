//! Jobs that are over, as groups are shown them: one's own to others, and others' to oneself.

use std::collections::BTreeMap;

use portreeve_broker::account;
use portreeve_jobs::{EntryId, Job, Shared, Shown};

use super::{Change, Hangs, Jobs, Known};

/// One that is shown to a group that this person is in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShownToMe {
    pub(crate) known: Known,
    pub(crate) owner: String,
    pub(crate) group: String,
}

impl Jobs {
    pub(crate) fn shared(&self) -> Shared {
        Shared::at(&self.place.site.shared)
    }

    /// Shows it to a group, to be read.
    pub(crate) async fn show(&self, id: &EntryId, group: String) -> Result<(), Change> {
        let known = self.known(id).await?;
        if !known.job.state.is_over() {
            return Err(Change::Not("it is shown once it is over".to_owned()));
        }
        let (shared, history, id, dir) =
            (self.shared(), self.history.clone(), id.clone(), self.place.site.shared.clone());
        let done = self.aside(move || {
            let none = || Change::Unfit("group", "there is no such group".to_owned());
            let gid = account::group_id(&group).ok_or_else(none)?;
            if !dir.is_dir() {
                return Err(Change::Not("there is no place here to show anything".to_owned()));
            }
            shared
                .show(&history, &id, gid)
                .map_err(|error| Change::Refused(format!("it can't be shown to {group}: {error}")))
        });
        done.await?
    }

    /// Shows it to nobody any more.
    pub(crate) async fn hide(&self, id: &EntryId) -> Result<(), Change> {
        self.known(id).await?;
        let (shared, id) = (self.shared(), id.clone());
        let done = self.aside(move || shared.hide(&id).map_err(|error| error.to_string())).await?;
        done.map_err(Change::Refused)
    }

    /// The group that it is shown to, and whether there is a place to show anything.
    pub(crate) async fn shown_to(&self, id: &EntryId) -> Result<(Option<String>, bool), Hangs> {
        let (shared, id, dir, uid) =
            (self.shared(), id.clone(), self.place.site.shared.clone(), self.place.person.uid);
        self.aside(move || {
            let found = shared.find(&id).ok().filter(|shown| shown.uid == uid);
            (found.map(|shown| group(shown.gid)), dir.is_dir())
        })
        .await
    }

    /// What others show.
    pub(crate) async fn shown_to_me(&self) -> Result<Vec<ShownToMe>, Change> {
        let (shared, uid) = (self.shared(), self.place.person.uid);
        let found = self.aside(move || {
            let mut names = Names::default();
            let all = shared.list().map_err(|error| error.to_string())?;
            Ok(all.into_iter().filter(|shown| shown.uid != uid).map(|shown| names.of(shown)).collect())
        });
        found.await?.map_err(Change::Refused)
    }

    /// One of these.
    pub(crate) async fn one_shown_to_me(&self, id: &EntryId) -> Result<ShownToMe, Change> {
        let (shared, id) = (self.shared(), id.clone());
        let found = self.aside(move || shared.find(&id).ok().map(|shown| Names::default().of(shown)));
        found.await?.ok_or(Change::NoJob)
    }
}

/// Asked for once.
#[derive(Default)]
struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    fn of(&mut self, shown: Shown) -> ShownToMe {
        let Shown { entry, outcome, uid, gid } = shown;
        let user = || account::login(uid).map_or_else(|| format!("uid {uid}"), |login| login.user);
        ShownToMe {
            owner: self.users.entry(uid).or_insert_with(user).clone(),
            group: self.groups.entry(gid).or_insert_with(|| group(gid)).clone(),
            known: Known { entry, job: Job::of_outcome(outcome), endpoint: None },
        }
    }
}

fn group(gid: u32) -> String {
    account::group_name(gid).unwrap_or_else(|| format!("gid {gid}"))
}
