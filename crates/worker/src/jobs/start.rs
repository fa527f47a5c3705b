//! Starts a job. Before: a form, or a program's request. After: it is in the history, and with Slurm or on this machine.
//!
//! Invariant: it is in the history before it is handed over: what Slurm took and we could not note is found again by its comment.
//! What was refused leaves nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use portreeve_jobs::slurm::{Batch, CommandError};
use portreeve_jobs::submission::environment;
use portreeve_jobs::{App, Draft, Entry, EntryId, JobRef, Refusal, here};
use portreeve_model::manifest::{Choice, Field, FieldKind, Manifest, Resource};

use super::systems::Site;
use super::{Hangs, Jobs, System};
use crate::limits;

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) system: String,
    pub(crate) values: BTreeMap<String, String>,
    /// Unused for so long, it is stopped.
    pub(crate) idle_minutes: Option<u32>,
}

/// A form to be shown.
pub(crate) struct Form {
    pub(crate) app: App,
    /// Where it can run, and a word about each that can't be asked.
    pub(crate) systems: Vec<(String, Option<String>)>,
    /// What each select of the chosen system offers, by the field's name; without: it is free text.
    pub(crate) choices: BTreeMap<String, Vec<Choice>>,
    /// What stands in it: what was filled in last, or the manifest's defaults.
    pub(crate) wanted: Wanted,
}

/// Why nothing was started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// What was filled in does not fit.
    Refused(Vec<Refusal>),
    /// There is no such application.
    NoApp,
    /// There is no such system, or the application may not run there.
    NoSystem,
    /// Slurm refused it, in these words.
    Slurm(String),
    /// Slurm can't be asked, for this reason.
    Away(String),
    /// The disk is full, or the system refused.
    Disk(std::io::Error),
    /// The file system hangs.
    Hangs,
}

impl From<Hangs> for NotStarted {
    fn from(_: Hangs) -> Self {
        Self::Hangs
    }
}

impl Jobs {
    fn may_run(&self, manifest: &Manifest, system: &System) -> bool {
        !system.is_here() || self.place.is_up || (manifest.on_portal_node && self.place.site.on_portal_node)
    }

    /// The form of an application: filled in as `given`, or as the last time.
    pub(crate) async fn form(&self, name: &str, given: Option<Wanted>) -> Result<Form, NotStarted> {
        let catalog = self.catalog().await?;
        let app = catalog.find(name).cloned().ok_or(NotStarted::NoApp)?;
        let runs_on: Vec<&Rc<System>> =
            self.systems.iter().filter(|system| self.may_run(&app.manifest, system)).collect();
        let mut wanted = match given {
            Some(given) => given,
            None => self.last_time(&app.manifest, name).await.unwrap_or_default(),
        };
        let chosen = runs_on.iter().find(|system| system.name == wanted.system).or_else(|| runs_on.first());
        wanted.system = chosen.map(|system| system.name.clone()).unwrap_or_default();
        if wanted.values.is_empty()
            && let Some(chosen) = chosen
        {
            let site = chosen.site(limits::PATIENCE).await.last;
            for field in &app.manifest.fields {
                wanted.values.insert(field.name.as_str().to_owned(), usual(field, site.as_deref()));
            }
        }
        let (mut choices, mut systems) = (BTreeMap::new(), Vec::new());
        for system in &runs_on {
            let is_chosen = system.name == wanted.system;
            let said =
                system.site(if is_chosen { limits::PATIENCE } else { std::time::Duration::ZERO }).await;
            if is_chosen && let Some(site) = &said.last {
                for field in &app.manifest.fields {
                    if let FieldKind::Select(offered) = &field.kind
                        && let Some(offers) = site.offers(offered)
                    {
                        choices.insert(field.name.as_str().to_owned(), offers);
                    }
                }
            }
            systems.push((system.name.clone(), said.doubt.filter(|_| is_chosen)));
        }
        Ok(Form { app, systems, choices, wanted })
    }

    /// With the manifest's defaults for what is not said. (In a form of a page, what is not said is a box without a tick.)
    pub(crate) async fn with_defaults(&self, name: &str, wanted: Wanted) -> Result<Wanted, NotStarted> {
        let (app, system) = self.app_and_system(name, &wanted).await?;
        let site = system.site(limits::PATIENCE).await.last;
        let mut wanted = wanted;
        for field in &app.manifest.fields {
            let value = || usual(field, site.as_deref());
            wanted.values.entry(field.name.as_str().to_owned()).or_insert_with(value);
        }
        Ok(wanted)
    }

    /// What was filled in last.
    async fn last_time(&self, manifest: &Manifest, name: &str) -> Option<Wanted> {
        let listed = self.list().await;
        let last = listed.jobs.iter().find(|known| known.entry.app == name)?;
        let value = |field: &Field| {
            let before = last.entry.values.get(field.name.as_str()).cloned();
            (field.name.as_str().to_owned(), before.unwrap_or_else(|| field.default.clone()))
        };
        let values = manifest.fields.iter().map(value).collect();
        Some(Wanted { system: last.entry.system.clone(), values, idle_minutes: last.entry.idle_minutes })
    }

    async fn draft(&self, app: &App, system: &Rc<System>, wanted: &Wanted) -> Result<Draft, NotStarted> {
        let site = system.site(limits::PATIENCE).await.last;
        let (manifest, person, given) =
            (app.manifest.clone(), self.place.person.clone(), wanted.values.clone());
        let offers: Vec<_> = manifest
            .fields
            .iter()
            .filter_map(|field| match &field.kind {
                FieldKind::Select(offered) => {
                    Some((offered.clone(), site.as_ref().and_then(|site| site.offers(offered))))
                }
                _ => None,
            })
            .collect();
        let is_here = system.is_here();
        let draft = self.aside(move || {
            let offered = |asked: &_| {
                // Slurm's words mean nothing here.
                if is_here {
                    return None;
                }
                offers.iter().find(|(offered, _)| offered == asked).and_then(|(_, choices)| choices.clone())
            };
            Draft::new(&manifest, &given, &person, &offered)
        });
        let draft = draft.await?.map_err(NotStarted::Refused)?;
        match site.as_deref().and_then(|site| too_long(&app.manifest, &draft, site)) {
            Some(refusal) => Err(NotStarted::Refused(vec![refusal])),
            None => Ok(draft),
        }
    }

    async fn app_and_system(&self, name: &str, wanted: &Wanted) -> Result<(App, Rc<System>), NotStarted> {
        let app = self.catalog().await?.find(name).cloned().ok_or(NotStarted::NoApp)?;
        let mut systems = self.systems.iter().filter(|system| self.may_run(&app.manifest, system));
        let found = if wanted.system.is_empty() {
            systems.next()
        } else {
            systems.find(|system| system.name == wanted.system)
        };
        let system = Rc::clone(found.ok_or(NotStarted::NoSystem)?);
        Ok((app, system))
    }

    /// What would be started.
    pub(crate) async fn preview(&self, name: &str, wanted: &Wanted) -> Result<Draft, NotStarted> {
        let (app, system) = self.app_and_system(name, wanted).await?;
        self.draft(&app, &system, wanted).await
    }

    /// Starts it. `own_origin`: it is opened in an origin of its own.
    pub(crate) async fn start(
        &self,
        name: &str,
        wanted: &Wanted,
        own_origin: bool,
    ) -> Result<EntryId, NotStarted> {
        let (app, system) = self.app_and_system(name, wanted).await?;
        let draft = self.draft(&app, &system, wanted).await?;
        let now = self.now();
        let entry = Entry {
            id: EntryId::new(now).map_err(NotStarted::Disk)?,
            app: name.to_owned(),
            title: app.manifest.title.clone(),
            system: system.name.clone(),
            values: draft.values.clone(),
            arguments: if system.is_here() { Vec::new() } else { draft.arguments.clone() },
            directory: draft.directory.display().to_string(),
            open: app.manifest.open.as_ref().map(|open| open.path.clone()),
            idle_minutes: wanted.idle_minutes.filter(|_| app.manifest.open.is_some()),
            submitted: now,
            job: None,
        };
        let (history, kept, script) = (self.history.clone(), entry.clone(), draft.script.clone());
        let dir = self.aside(move || history.create(&kept, &script)).await?.map_err(NotStarted::Disk)?;
        self.changed();
        let environment = self.environment(&entry, &draft, &dir, own_origin);
        let handed_over = match &system.slurm {
            Some(slurm) => {
                let arguments = arguments(&entry, &draft, &dir);
                let script = SCRIPT.to_owned();
                let batch = Batch { arguments: &arguments, environment: &environment, script: &script };
                slurm.submit(&batch).await.map(JobRef::Slurm).map_err(|error| match error {
                    CommandError::Refused { ref words, .. } if !error.is_away() => {
                        NotStarted::Slurm(words.clone())
                    }
                    other => NotStarted::Away(other.to_string()),
                })
            }
            None => here::start(&self.place.site.portreeve, &environment, &draft.directory, &dir)
                .map_err(NotStarted::Disk),
        };
        let history = self.history.clone();
        match handed_over {
            Ok(job) => {
                let noted = entry.clone();
                // Should it fail: Slurm's job is found again by its comment.
                if let Ok(Err(error)) = self.aside(move || history.set_job(&noted, job)).await {
                    tracing::warn!(job = %entry.id, %error, "its number could not be noted");
                }
                self.known.borrow_mut().remove(&entry.id);
            }
            // It may have taken it all the same: the list says what became of it.
            Err(NotStarted::Away(why)) if !why.contains("is not there") => {
                tracing::warn!(job = %entry.id, %why, "nobody knows whether Slurm has it");
                self.changed();
                return Err(NotStarted::Away(why));
            }
            Err(error) => {
                let id = entry.id.clone();
                let _ = self.aside(move || history.remove(&id)).await;
                self.known.borrow_mut().remove(&entry.id);
                self.changed();
                return Err(error);
            }
        }
        self.changed();
        Ok(entry.id)
    }

    fn environment(
        &self,
        entry: &Entry,
        draft: &Draft,
        dir: &Path,
        own_origin: bool,
    ) -> Vec<(String, String)> {
        let mut environment = environment(&self.place.person);
        let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
        set("PORTREEVE", self.place.site.portreeve.display().to_string());
        set("PORTREEVE_ENTRY", dir.display().to_string());
        set("PORTREEVE_APP", entry.app.clone());
        set("PORTREEVE_ORIGINS", if own_origin { "own" } else { "shared" }.to_owned());
        set("PORTREEVE_IDLE_MINUTES", entry.idle_minutes.unwrap_or(0).to_string());
        if self.place.is_up {
            set("PORTREEVE_HERE", "1".to_owned());
        }
        environment.extend(draft.variables.iter().cloned());
        environment
    }
}

/// What stands in a field at first: the manifest's default, but no more time than the usual partition gives.
fn usual(field: &Field, site: Option<&Site>) -> String {
    let is_time = field.resource == Some(Resource::Time) && field.kind == FieldKind::Duration;
    let site = site.filter(|_| is_time);
    let limit = site.and_then(|site| site.partitions.iter().find(|one| one.is_default)?.limit);
    let minutes =
        field.answer(&field.default, None).ok().and_then(|answer| answer.as_str().parse::<i64>().ok());
    match (limit, minutes) {
        (Some(limit), Some(minutes)) if minutes * 60 > limit => match limit / 60 {
            hours if hours % 60 == 0 && hours > 0 => format!("{}h", hours / 60),
            minutes => format!("{}m", minutes.max(1)),
        },
        _ => field.default.clone(),
    }
}

/// More time than its partition gives: Slurm would let it wait for ever.
fn too_long(manifest: &Manifest, draft: &Draft, site: &Site) -> Option<Refusal> {
    let argument = |begin: &str| draft.arguments.iter().find_map(|argument| argument.strip_prefix(begin));
    let minutes: i64 = argument("--time=")?.parse().ok()?;
    let named = argument("--partition=");
    let partition =
        site.partitions.iter().find(|one| named.map_or(one.is_default, |name| one.name == name))?;
    let limit = partition.limit.filter(|limit| minutes * 60 > *limit)?;
    let field = manifest.fields.iter().find(|field| field.resource == Some(Resource::Time));
    Some(Refusal {
        field: field.map(|field| field.name.as_str().to_owned()).unwrap_or_default(),
        why: format!("the partition {} gives {} at most", partition.name, crate::said::duration(limit)),
    })
}

/// What Slurm runs: the job's own script, with what becomes of it noted.
const SCRIPT: &str = "#!/bin/sh\nexec \"$PORTREEVE\" batch\n";

/// `sbatch`'s, beside those that were filled in.
fn arguments(entry: &Entry, draft: &Draft, dir: &Path) -> Vec<String> {
    // In a file name of Slurm's, '%' begins a pattern and '\' ends all (sbatch(1), filename pattern).
    let file = |name: &str| dir.join(name).display().to_string().replace('%', "%%");
    let mut arguments = vec![
        format!("--job-name={}", entry.app),
        format!("--comment={}{}", super::list::COMMENT, entry.id),
        format!("--output={}", file(portreeve_jobs::history::OUTPUT)),
        format!("--error={}", file(portreeve_jobs::history::ERRORS)),
        "--open-mode=append".to_owned(),
        "--export=ALL".to_owned(),
    ];
    arguments.extend(draft.arguments.iter().cloned());
    arguments
}
