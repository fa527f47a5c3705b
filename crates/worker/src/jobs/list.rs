//! All jobs as they are now: what the history has, and what Slurm and this machine say of those that are going on.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use portreeve_jobs::records::Endpoint;
use portreeve_jobs::slurm::{Past, Row};
use portreeve_jobs::state::{Records, judge};
use portreeve_jobs::{Entry, EntryId, Job, JobRef, Kept, Outcome, Seen, here, shares};
use tokio::time::Instant;

use super::{Hangs, Jobs};
use crate::limits;

/// What begins the comment of a job that was started here; its id follows.
pub(super) const COMMENT: &str = "portreeve:";

/// A job and how it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    pub(crate) job: Job,
    pub(crate) endpoint: Option<Endpoint>,
}

/// The list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    made: Instant,
    generation: u64,
    /// The youngest first.
    pub(crate) jobs: Vec<Known>,
    /// All rows of the queues, those of other origin as well, each with its system's name.
    pub(crate) rows: Vec<(String, Row)>,
    /// What is not known, in sentences.
    pub(crate) trouble: Vec<String>,
}

impl Listed {
    pub(crate) fn find(&self, id: &EntryId) -> Option<&Known> {
        self.jobs.iter().find(|known| known.entry.id == *id)
    }

    /// What somebody who watches would see change.
    fn differs(&self, other: &Self) -> bool {
        let own = |listed: &Self| {
            let jobs = listed.jobs.iter().take(limits::WATCHED);
            jobs.map(|known| (known.entry.id.clone(), known.job.clone(), known.endpoint.clone()))
                .collect::<Vec<_>>()
        };
        own(self) != own(other) || self.rows != other.rows || self.trouble != other.trouble
    }
}

impl Jobs {
    /// The list as it is now, or as it was a moment ago.
    pub(crate) async fn list(&self) -> Rc<Listed> {
        let listing = Rc::clone(&self.listing);
        let _turn = listing.lock().await;
        if let Some(listed) = self.listed.borrow().as_ref().filter(|listed| {
            listed.made.elapsed() < limits::LIST_AGE && listed.generation == self.generation.get()
        }) {
            return Rc::clone(listed);
        }
        let before = self.listed.borrow().clone();
        let listed = Rc::new(self.look(before.as_deref()).await);
        self.listed.replace(Some(Rc::clone(&listed)));
        if before.is_none_or(|before| listed.differs(&before)) {
            self.version.send_modify(|version| *version += 1);
        }
        listed
    }

    async fn look(&self, before: Option<&Listed>) -> Listed {
        let generation = self.generation.get();
        let mut trouble = Vec::new();
        let kept = match self.kept(&mut trouble).await {
            Ok(kept) => kept,
            // As they were known last.
            Err(Hangs) => {
                trouble.push(format!(
                    "Your history in {} can't be read: the file system does not answer.",
                    self.place.state.display()
                ));
                let jobs = before.map(|before| before.jobs.clone()).unwrap_or_default();
                return Listed { made: Instant::now(), generation, jobs, rows: Vec::new(), trouble };
            }
        };
        let (mut rows, mut away) = (Vec::new(), Vec::new());
        // One that is slow holds the others up no longer than itself.
        let asked = self.systems.iter().map(|system| system.queue(Duration::ZERO, limits::PATIENCE));
        let said = join_all(asked).await;
        for (system, said) in self.systems.iter().zip(said) {
            if let Some(last) = &said.last {
                rows.extend(last.iter().map(|row| (system.name.clone(), row.clone())));
            }
            if let Some(why) = said.doubt {
                trouble.push(format!(
                    "Slurm of {} can't be asked: {}.",
                    system.name,
                    why.trim_end_matches('.')
                ));
                away.push((system.name.clone(), why));
            }
        }
        let mut jobs = Vec::with_capacity(kept.len());
        for Kept { entry, outcome } in kept {
            match outcome {
                Some(outcome) => {
                    jobs.push(Known { entry, job: Job::of_outcome(outcome), endpoint: None });
                }
                None => match self.judged(entry, &rows, &away).await {
                    Ok(known) => jobs.push(known),
                    Err((entry, why)) => trouble.push(format!("The job {} can't be read: {why}.", entry.id)),
                },
            }
        }
        Listed { made: Instant::now(), generation, jobs, rows, trouble }
    }

    /// The history, of which only what is new or was going on is read: the youngest first, as much as a moment allows, and the rest
    /// the next time.
    async fn kept(&self, trouble: &mut Vec<String>) -> Result<Vec<Kept>, Hangs> {
        let until = Instant::now() + limits::PATIENCE;
        let history = self.history.clone();
        let ids = match self.aside(move || history.ids()).await? {
            Ok(ids) => ids,
            Err(error) => {
                trouble.push(format!(
                    "Your history in {} can't be listed: {error}.",
                    self.place.state.display()
                ));
                return Ok(Vec::new());
            }
        };
        let is_over = |id: &EntryId| self.known.borrow().get(id).is_some_and(|kept| kept.outcome.is_some());
        let new: Vec<EntryId> = ids.iter().filter(|id| !is_over(id)).cloned().collect();
        let mut unread = new.len();
        for some in new.chunks(limits::READ_AT_ONCE * limits::READERS) {
            if Instant::now() >= until {
                trouble.push(format!(
                    "Your history is still being read: {unread} of {} jobs are missing.",
                    ids.len()
                ));
                break;
            }
            // Side by side: a file system at the other end of a network answers many as fast as one.
            let readers = some.chunks(limits::READ_AT_ONCE).map(|some| {
                let (history, some) = (self.history.clone(), some.to_vec());
                self.aside(move || some.into_iter().map(|id| (history.read(&id), id)).collect::<Vec<_>>())
            });
            for read in join_all(readers).await {
                for (kept, id) in read? {
                    unread -= 1;
                    self.take(id, kept, trouble);
                }
            }
        }
        let mut known = self.known.borrow_mut();
        let there: std::collections::BTreeSet<&EntryId> = ids.iter().collect();
        known.retain(|id, _| there.contains(id));
        Ok(ids.iter().filter_map(|id| known.get(id).cloned()).collect())
    }

    /// What was read of one.
    fn take(&self, id: EntryId, kept: std::io::Result<Kept>, trouble: &mut Vec<String>) {
        let mut known = self.known.borrow_mut();
        match kept {
            Ok(kept) => drop(known.insert(id, kept)),
            // It was removed a moment ago.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                trouble.push(format!("The record of the job {id} can't be read: {error}."));
                known.remove(&id);
            }
        }
    }

    /// How one is that has no outcome yet.
    async fn judged(
        &self,
        entry: Entry,
        rows: &[(String, Row)],
        away: &[(String, String)],
    ) -> Result<Known, (Entry, String)> {
        let (history, id) = (self.history.clone(), entry.id.clone());
        let records = match self.aside(move || history.records(&id)).await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => return Err((entry, error.to_string())),
            Err(hangs) => return Err((entry, hangs.to_string())),
        };
        let comment = format!("{COMMENT}{}", entry.id);
        let row = rows.iter().filter(|(system, _)| *system == entry.system).map(|(_, row)| row).find(|row| {
            match entry.job {
                Some(JobRef::Slurm(id)) => row.id == id,
                Some(JobRef::Process { .. }) => false,
                None => row.comment == comment,
            }
        });
        let trouble = away.iter().find(|(system, _)| *system == entry.system).map(|(_, why)| why.as_str());
        let past: Option<Past>;
        let seen = match (row, trouble, entry.job) {
            (Some(row), None, _) => Seen::Row(row),
            (_, Some(why), Some(JobRef::Slurm(_)) | None) => Seen::Away(why),
            (_, _, Some(JobRef::Process { pid, began })) => {
                if here::is_alive(pid, began) {
                    Seen::Alive
                } else {
                    Seen::Dead
                }
            }
            (None, None, Some(JobRef::Slurm(id))) => {
                past = self.past(&entry, id).await;
                Seen::Gone(past.as_ref())
            }
            (None, None, None) if self.systems.find(&entry.system).is_some_and(|system| system.is_here()) => {
                // It is noted as soon as it has begun.
                if self.now() - entry.submitted < limits::BEGINS { Seen::Alive } else { Seen::Dead }
            }
            (None, None, None) => Seen::Gone(None),
        };
        let mut entry = entry;
        if let (Some(row), None) = (row, entry.job) {
            let (history, noted, job) = (self.history.clone(), entry.clone(), JobRef::Slurm(row.id));
            let _ = self.aside(move || history.set_job(&noted, job)).await;
            entry.job = Some(job);
        }
        let job = judge(&entry, &records, seen, self.now());
        if let Some(outcome) = &job.outcome {
            self.finish(&entry, outcome).await;
        }
        let Records { endpoint, .. } = records;
        Ok(Known { entry, job, endpoint })
    }

    async fn past(&self, entry: &Entry, id: u32) -> Option<Past> {
        let slurm = self.systems.find(&entry.system)?.slurm.clone()?;
        // Without accounting there is nobody to ask.
        slurm.past(id).await.ok().flatten()
    }

    /// Notes how it ended, for good. What could not be written is judged anew the next time.
    async fn finish(&self, entry: &Entry, outcome: &Outcome) {
        let (history, id, noted) = (self.history.clone(), entry.id.clone(), outcome.clone());
        let done = self.aside(move || {
            // Before it is never looked at again.
            shares::end(&history.directory(&id))?;
            history.finish(&id, &noted)
        });
        match done.await {
            Ok(Ok(())) => {
                let kept = Kept { entry: entry.clone(), outcome: Some(outcome.clone()) };
                self.known.borrow_mut().insert(entry.id.clone(), kept);
            }
            Ok(Err(error)) => tracing::warn!(job = %entry.id, %error, "how it ended could not be noted"),
            Err(Hangs) => {}
        }
    }
}
