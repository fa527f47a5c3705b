//! What is said of applications and jobs: the shapes of `/api/v1/`, which the pages show as well. Times are unix seconds.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use portreeve_jobs::slurm::Row;
use portreeve_jobs::{App, Outcome, Source, State, Usage};
use portreeve_model::manifest::{Choice, Field, FieldKind, Pattern};
use serde::Serialize;

use crate::jobs::{ByHand, Form, Jobs, Known, ShownToMe};

/// An application on the list.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AppSaid {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) icon: String,
    /// `shipped`, `site` or `own`.
    pub(crate) source: &'static str,
    /// Whether it has an address to be opened.
    pub(crate) opens: bool,
}

/// An application with its form.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FormSaid {
    #[serde(flatten)]
    pub(crate) app: AppSaid,
    /// Where it can run.
    pub(crate) systems: Vec<String>,
    /// The one that the choices below are for.
    pub(crate) system: String,
    /// What is not known of it.
    pub(crate) doubt: Option<String>,
    pub(crate) idle_minutes: Option<u32>,
    pub(crate) fields: Vec<FieldSaid>,
}

/// A field of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FieldSaid {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) help: String,
    /// `text`, `lines`, `number`, `select`, `checkbox`, `duration`, `file` or `directory`.
    pub(crate) kind: &'static str,
    pub(crate) required: bool,
    /// What stands in it.
    pub(crate) value: String,
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
    pub(crate) max_length: Option<usize>,
    pub(crate) pattern: Option<String>,
    /// A file of the visitor's own machine may be put there.
    pub(crate) upload: bool,
    /// Of a select; without it any word will do.
    pub(crate) choices: Option<Vec<Choice>>,
}

/// A job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JobSaid {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) title: String,
    pub(crate) system: String,
    pub(crate) state: State,
    pub(crate) reason: String,
    /// Why it may be otherwise by now.
    pub(crate) doubt: Option<String>,
    /// Slurm's number.
    pub(crate) slurm_job: Option<u32>,
    pub(crate) submitted: i64,
    /// When it began, or is expected to.
    pub(crate) start: Option<i64>,
    /// When its time is up.
    pub(crate) deadline: Option<i64>,
    pub(crate) ended: Option<i64>,
    pub(crate) nodes: String,
    /// Where it is opened, once it is ready.
    pub(crate) open: Option<String>,
    /// The same with the portal's name; for programs.
    pub(crate) address: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) last_used: Option<i64>,
    /// When it will be stopped if nobody uses it.
    pub(crate) idle_stop: Option<i64>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) usage: Option<Usage>,
    pub(crate) last_words: String,
    pub(crate) files: Vec<String>,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) directory: String,
    pub(crate) idle_minutes: Option<u32>,
}

/// A job that somebody else shows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SharedSaid {
    pub(crate) owner: String,
    /// Who may read it.
    pub(crate) group: String,
    #[serde(flatten)]
    pub(crate) job: JobSaid,
}

/// A job of Slurm's queue.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RowSaid {
    pub(crate) system: String,
    #[serde(flatten)]
    pub(crate) row: Row,
    /// The job of the history that it is.
    pub(crate) entry: Option<String>,
}

/// What was started without the workspace.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ByHandSaid {
    pub(crate) program: String,
    pub(crate) node: String,
    pub(crate) port: u16,
    pub(crate) open: Option<String>,
    pub(crate) slurm_job: Option<u32>,
    pub(crate) is_ready: bool,
    pub(crate) started: Option<i64>,
}

impl From<&App> for AppSaid {
    fn from(app: &App) -> Self {
        let manifest = &app.manifest;
        Self {
            name: app.name.to_string(),
            title: manifest.title.clone(),
            description: manifest.description.clone(),
            icon: manifest.icon.clone(),
            source: match app.source {
                Source::Shipped => "shipped",
                Source::Site => "site",
                Source::Own => "own",
            },
            opens: manifest.open.is_some(),
        }
    }
}

impl From<&Form> for FormSaid {
    fn from(form: &Form) -> Self {
        let chosen = form.systems.iter().find(|(name, _)| *name == form.wanted.system);
        Self {
            app: (&form.app).into(),
            systems: form.systems.iter().map(|(name, _)| name.clone()).collect(),
            system: form.wanted.system.clone(),
            doubt: chosen.and_then(|(_, doubt)| doubt.clone()),
            idle_minutes: form.wanted.idle_minutes,
            fields: form.app.manifest.fields.iter().map(|field| field_said(field, form)).collect(),
        }
    }
}

fn field_said(field: &Field, form: &Form) -> FieldSaid {
    let name = field.name.as_str();
    let mut said = FieldSaid {
        name: name.to_owned(),
        label: field.label.clone(),
        help: field.help.clone(),
        kind: "text",
        required: field.required,
        value: form.wanted.values.get(name).cloned().unwrap_or_default(),
        min: None,
        max: None,
        max_length: None,
        pattern: None,
        upload: false,
        choices: None,
    };
    match &field.kind {
        FieldKind::Text { pattern, most, lines } => {
            said.kind = if *lines { "lines" } else { "text" };
            said.max_length = Some(*most);
            said.pattern = pattern.as_ref().map(Pattern::in_html);
        }
        FieldKind::Number { min, max } => {
            (said.kind, said.min, said.max) = ("number", Some(*min), Some(*max))
        }
        FieldKind::Select(offered) => {
            let listed = || match offered {
                portreeve_model::manifest::Offered::Listed(choices) => Some(choices.clone()),
                _ => None,
            };
            said.choices = form.choices.get(name).cloned().or_else(listed);
            said.kind = if said.choices.is_some() { "select" } else { "text" };
        }
        FieldKind::Checkbox => said.kind = "checkbox",
        FieldKind::Duration => said.kind = "duration",
        FieldKind::File { directory, upload } => {
            said.kind = if *directory { "directory" } else { "file" };
            said.upload = *upload;
        }
    }
    said
}

impl JobSaid {
    pub(crate) fn of(known: &Known) -> Self {
        let Known { entry, job, endpoint } = known;
        let outcome: Option<&Outcome> = job.outcome.as_ref();
        let going = endpoint.as_ref().filter(|_| !job.state.is_over());
        let is_ready = job.state == State::Ready && going.is_some();
        Self {
            id: entry.id.to_string(),
            app: entry.app.clone(),
            title: entry.title.clone(),
            system: entry.system.clone(),
            state: job.state,
            reason: match (going.and_then(|endpoint| endpoint.why.clone()), job.reason.is_empty()) {
                (Some(why), true) => why,
                _ => job.reason.clone(),
            },
            doubt: job.doubt.clone(),
            slurm_job: entry.slurm_job(),
            submitted: entry.submitted,
            start: job.start,
            deadline: job.deadline,
            ended: outcome.map(|outcome| outcome.ended),
            nodes: job.nodes.clone(),
            open: is_ready.then(|| format!("/jobs/{}/open", entry.id)),
            address: None,
            node: going.map(|endpoint| endpoint.node.clone()),
            port: going.map(|endpoint| endpoint.port),
            last_used: going.and_then(|endpoint| endpoint.last_used),
            idle_stop: going.and_then(|endpoint| endpoint.idle_stop),
            exit_code: outcome.and_then(|outcome| outcome.exit_code),
            signal: outcome.and_then(|outcome| outcome.signal),
            usage: outcome.and_then(|outcome| outcome.usage),
            last_words: outcome.map(|outcome| outcome.last_words.clone()).unwrap_or_default(),
            files: outcome.map(|outcome| outcome.files.clone()).unwrap_or_default(),
            values: entry.values.clone(),
            arguments: entry.arguments.clone(),
            directory: entry.directory.clone(),
            idle_minutes: entry.idle_minutes,
        }
    }

    /// For a program, which opens it at this portal (`https://HOST`).
    pub(crate) fn at(self, origin: &str) -> Self {
        Self { address: self.open.as_ref().map(|open| format!("{origin}{open}")), ..self }
    }

    /// What the person should know before it happens.
    pub(crate) fn warning(&self, now: i64) -> Option<String> {
        const SOON: i64 = 15 * 60;
        let deadline = self.deadline.filter(|at| *at - now < SOON);
        let idle = self.idle_stop.filter(|at| *at - now < SOON);
        match (deadline, idle) {
            (Some(at), _) => Some(format!("Its time is up in {}.", duration((at - now).max(0)))),
            (None, Some(at)) => Some(format!(
                "Nobody has used it for a while: it is stopped in {}, unless somebody does.",
                duration((at - now).max(0))
            )),
            (None, None) => None,
        }
    }
}

impl SharedSaid {
    pub(crate) fn of(shown: &ShownToMe) -> Self {
        Self { owner: shown.owner.clone(), group: shown.group.clone(), job: JobSaid::of(&shown.known) }
    }
}

impl RowSaid {
    pub(crate) fn of(system: &str, row: &Row, jobs: &[Known]) -> Self {
        let entry =
            jobs.iter().find(|known| known.entry.system == system && known.entry.slurm_job() == Some(row.id));
        Self {
            system: system.to_owned(),
            row: row.clone(),
            entry: entry.map(|known| known.entry.id.to_string()),
        }
    }
}

impl ByHandSaid {
    pub(crate) fn of(one: &ByHand, address: Option<String>) -> Self {
        Self {
            program: one.program.clone(),
            node: one.node.clone(),
            port: one.port,
            open: address.filter(|_| one.is_ready),
            slurm_job: one.job,
            is_ready: one.is_ready,
            started: one.started,
        }
    }
}

impl Jobs {
    /// The groups that something may be shared with: those of this process that have a name.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut gids = nix::unistd::getgroups().unwrap_or_default();
        gids.push(nix::unistd::getgid());
        let mut names: Vec<String> = gids
            .into_iter()
            .filter(|gid| gid.as_raw() != 0)
            .filter_map(|gid| portreeve_broker::account::group_name(gid.as_raw()))
            .collect();
        names.sort();
        names.dedup();
        names.retain(|name| *name != self.place.person.name);
        names
    }
}

/// Seconds in words: `1 h 30 min`.
pub(crate) fn duration(seconds: impl Borrow<i64>) -> String {
    let seconds = *seconds.borrow();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (1, 0, _) => "1 day".to_owned(),
        (days, 0, _) => format!("{days} days"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// How long it is from one moment to another.
pub(crate) fn span(from: impl Borrow<i64>, to: impl Borrow<i64>) -> String {
    duration((to.borrow() - from.borrow()).max(0))
}

/// A moment in UTC: `2026-11-26 16:00`.
pub(crate) fn moment(seconds: impl Borrow<i64>) -> String {
    jiff::Timestamp::from_second(*seconds.borrow())
        .map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// As `<time datetime>` wants it.
pub(crate) fn datetime(seconds: impl Borrow<i64>) -> String {
    jiff::Timestamp::from_second(*seconds.borrow()).map_or_else(|_| String::new(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words() {
        for (seconds, words) in [
            (5, "5 s"),
            (60, "1 min"),
            (3600, "1 h"),
            (5400, "1 h 30 min"),
            (86_400, "1 day"),
            (172_800, "2 days"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), words);
        }
        assert_eq!((moment(0).as_str(), datetime(0).as_str()), ("1970-01-01 00:00", "1970-01-01T00:00:00Z"));
    }
}
