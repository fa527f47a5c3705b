//! Ends a job, gives it more time, shares what it shows.

use portreeve_broker::forward_edit::EditError;
use portreeve_jobs::{EntryId, JobRef, here, shares};
use portreeve_model::{ForwardName, ForwardTarget};

use super::{Hangs, Jobs, Known};

/// What was asked and could not be done: a sentence for the person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is no such job.
    NoJob,
    /// What was named beside it is not there.
    NotThere(String),
    /// What was said does not fit: the field, and a clause.
    Unfit(&'static str, String),
    /// It is not so that it could be done.
    Not(String),
    /// Slurm, or the system, refused.
    Refused(String),
    /// The file system hangs.
    Hangs,
}

impl From<Hangs> for Change {
    fn from(_: Hangs) -> Self {
        Self::Hangs
    }
}

impl From<EditError> for Change {
    fn from(error: EditError) -> Self {
        match error {
            EditError::NotFound(name) => Self::NotThere(format!("there is no forward called {name}")),
            EditError::NoSuchGroup(_) => Self::Unfit("group", "there is no such group".to_owned()),
            EditError::Taken(..) | EditError::Exists(_) => Self::Not(error.to_string()),
            EditError::NotPlain(_) | EditError::Io { .. } => Self::Refused(said(&error)),
        }
    }
}

impl Jobs {
    pub(super) async fn known(&self, id: &EntryId) -> Result<Known, Change> {
        self.list().await.find(id).cloned().ok_or(Change::NoJob)
    }

    /// Ends it. One that is over is left alone.
    pub(crate) async fn cancel(&self, id: &EntryId) -> Result<(), Change> {
        let known = self.known(id).await?;
        if known.job.state.is_over() {
            return Ok(());
        }
        let (history, id, now) = (self.history.clone(), id.clone(), self.now());
        let noted = self.aside(move || history.cancel(&id, now)).await?;
        if let Err(error) = noted {
            // It can be ended all the same; then it looks as if somebody else had.
            tracing::warn!(%error, "that a job is to end could not be noted");
        }
        let ended = match known.entry.job {
            Some(JobRef::Slurm(number)) => self.cancel_in_slurm(&known.entry.system, number).await,
            Some(JobRef::Process { pid, began }) => {
                here::stop(pid, began).map_err(|error| Change::Refused(error.to_string()))
            }
            None => Err(Change::Not("it has not been handed over yet".to_owned())),
        };
        self.changed();
        ended
    }

    /// Ends a job of the queue, whoever handed it over.
    pub(crate) async fn cancel_in_slurm(&self, system: &str, number: u32) -> Result<(), Change> {
        let slurm = self.systems.find(system).and_then(|system| system.slurm.clone()).ok_or(Change::NoJob)?;
        let done = slurm.cancel(number).await.map_err(|error| Change::Refused(error.to_string()));
        self.changed();
        done
    }

    /// Asks for so many minutes more.
    pub(crate) async fn extend(&self, id: &EntryId, minutes: u32) -> Result<(), Change> {
        let known = self.known(id).await?;
        let (Some(number), false) = (known.entry.slurm_job(), known.job.state.is_over()) else {
            return Err(Change::Not("only a job of Slurm's that is going on has a time limit".to_owned()));
        };
        let slurm = self
            .systems
            .find(&known.entry.system)
            .and_then(|system| system.slurm.clone())
            .ok_or(Change::NoJob)?;
        let done = slurm.extend(number, minutes).await.map_err(|error| Change::Refused(error.to_string()));
        self.changed();
        done
    }

    /// Lets the members of a group use it, by a forward that goes when it ends.
    pub(crate) async fn share(&self, id: &EntryId, name: ForwardName, group: String) -> Result<(), Change> {
        let known = self.known(id).await?;
        let Some(endpoint) = known.endpoint.filter(|_| known.job.state == portreeve_jobs::State::Ready)
        else {
            return Err(Change::Not("only what can be opened now can be shared".to_owned()));
        };
        let scheme = if endpoint.tls { "https" } else { "http" };
        let line = format!("{scheme}://{}:{}/", endpoint.node, endpoint.port);
        let target = ForwardTarget::parse(&line).map_err(|error| Change::Refused(error.to_string()))?;
        let (forwards, directory) = (self.place.forwards.clone(), self.history.directory(id));
        let done = self.aside(move || shares::begin(&directory, &forwards, &name, &target, &group));
        done.await?.map_err(Change::from)?;
        self.changed();
        Ok(())
    }

    /// Takes a forward away.
    pub(crate) async fn unshare(&self, name: ForwardName) -> Result<(), Change> {
        let forwards = self.place.forwards.clone();
        self.aside(move || forwards.remove(&name)).await?.map_err(Change::from)?;
        self.changed();
        Ok(())
    }
}

fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
