//! `/apps/NAME`: an application's form, what it would start, and its start.

use askama::Template;
use http::StatusCode;
use portreeve_model::manifest::FieldKind;
use portreeve_pages::{Frame, Section};

use super::Asked;
use crate::body::Filled;
use crate::jobs::{NotStarted, Wanted};
use crate::respond::{self, Answer, Refused};
use crate::said::{FieldSaid, FormSaid};
use crate::visit::may_change;

#[derive(Template)]
#[template(path = "form.html")]
struct FormPage<'p> {
    form: &'p FormSaid,
    page: &'p str,
    /// What is wrong, by field; an empty name is the whole.
    wrong: Vec<(String, String)>,
    preview: Option<Preview>,
    idle: [(u32, &'static str); 6],
}

struct Preview {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    directory: String,
    script: String,
}

/// How long an application may be unused, in minutes.
const IDLE: [(u32, &str); 6] =
    [(0, "never"), (30, "30 minutes"), (60, "1 hour"), (120, "2 hours"), (240, "4 hours"), (480, "8 hours")];

impl FormPage<'_> {
    fn wrong(&self, name: &str) -> Option<&str> {
        self.wrong.iter().find(|(field, _)| field == name).map(|(_, why)| why.as_str())
    }

    /// Those that stand above the form: of no field that is on it.
    fn loose(&self) -> impl Iterator<Item = &(String, String)> {
        self.wrong.iter().filter(|(name, _)| self.form.fields.iter().all(|field| field.name != *name))
    }

    /// Where Slurm has nothing to choose from, nothing is asked.
    fn offers_something(field: &FieldSaid) -> bool {
        field.required || field.choices.as_ref().is_none_or(|choices| !choices.is_empty())
    }

    fn is_on(field: &FieldSaid) -> bool {
        matches!(field.value.as_str(), "1" | "on" | "true")
    }
}

pub(super) async fn form(asked: &Asked<'_>, name: &str) -> Result<Answer, Refused> {
    // "Run again" comes with the answers of that time.
    let again = match asked.parameter("again").and_then(|id| portreeve_jobs::EntryId::parse(&id)) {
        Some(id) => {
            let listed = asked.desk.jobs.list().await;
            let entry = listed.find(&id).map(|known| known.entry.clone()).filter(|entry| entry.app == name);
            entry.map(|entry| Wanted {
                system: entry.system,
                values: entry.values,
                idle_minutes: entry.idle_minutes,
            })
        }
        None => None,
    };
    let system = asked.parameter("system");
    let again = match (again, system) {
        (Some(again), None) => Some(again),
        (again, Some(system)) => {
            let form = asked.desk.jobs.form(name, again).await.map_err(refused)?;
            Some(Wanted { system, ..form.wanted })
        }
        (None, None) => None,
    };
    let again = with_files(asked, name, again).await?;
    show(asked, name, again, Vec::new(), None, StatusCode::OK).await
}

/// A link of the page *Files* says which file or directory it is about. Nothing else of a form can be filled in by an address.
async fn with_files(asked: &Asked<'_>, name: &str, given: Option<Wanted>) -> Result<Option<Wanted>, Refused> {
    if !asked.query.contains("f.") {
        return Ok(given);
    }
    let form = asked.desk.jobs.form(name, given).await.map_err(refused)?;
    let mut wanted = form.wanted;
    for field in &form.app.manifest.fields {
        let is_path = matches!(field.kind, FieldKind::File { .. });
        if let Some(path) = asked.parameter(&format!("f.{}", field.name.as_str())).filter(|_| is_path) {
            wanted.values.insert(field.name.as_str().to_owned(), path);
        }
    }
    Ok(Some(wanted))
}

async fn show(
    asked: &Asked<'_>,
    name: &str,
    wanted: Option<Wanted>,
    wrong: Vec<(String, String)>,
    preview: Option<Preview>,
    status: StatusCode,
) -> Result<Answer, Refused> {
    let form = asked.desk.jobs.form(name, wanted).await.map_err(refused)?;
    let form = FormSaid::from(&form);
    let page = asked.page_secret();
    let title = form.app.title.clone();
    let body = FormPage { form: &form, page: &page, wrong, preview, idle: IDLE }.render();
    let home = asked.desk.jobs.place.person.home.display().to_string();
    let frame = Frame {
        title: &title,
        home: Some(&home),
        user: Some(asked.visit.user.as_str()),
        section: Some(Section::Workspace),
        live: Some(&page),
        ..Frame::default()
    };
    respond::rendered(body.and_then(|body| frame.around(&body)))
        .map(|answer| respond::with_status(answer, status))
}

pub(super) async fn start(asked: &Asked<'_>, name: &str, filled: Filled) -> Result<Answer, Refused> {
    may_change(&asked.visit, filled.value("page"))?;
    let wanted = Wanted {
        system: filled.value("system").unwrap_or_default().to_owned(),
        values: filled.beginning_with("f."),
        idle_minutes: filled.value("idle").and_then(|text| text.parse().ok()).filter(|minutes| *minutes > 0),
    };
    let wants_preview = filled.value("action") == Some("preview");
    let jobs = &asked.desk.jobs;
    let done = if wants_preview {
        jobs.preview(name, &wanted).await.map(Ok)
    } else {
        let own = asked.visit.own_origins.as_ref().is_some_and(|origins| origins.tagged);
        jobs.start(name, &wanted, own).await.map(Err)
    };
    match done {
        Ok(Err(id)) => respond::see_other(&format!("/jobs/{id}")),
        Ok(Ok(draft)) => {
            let preview = Preview {
                arguments: draft.arguments,
                variables: draft.variables,
                directory: draft.directory.display().to_string(),
                script: draft.script,
            };
            show(asked, name, Some(wanted), Vec::new(), Some(preview), StatusCode::OK).await
        }
        Err(why) => {
            let (status, wrong) = match refused(why) {
                Refused::Unfit { why, fields } if fields.is_empty() => {
                    (StatusCode::UNPROCESSABLE_ENTITY, vec![(String::new(), why)])
                }
                Refused::Unfit { fields, .. } => (StatusCode::UNPROCESSABLE_ENTITY, fields),
                Refused::NotDone(why) => (StatusCode::BAD_GATEWAY, vec![(String::new(), why)]),
                Refused::Full(why) => (StatusCode::INSUFFICIENT_STORAGE, vec![(String::new(), why)]),
                other => return Err(other),
            };
            show(asked, name, Some(wanted), wrong, None, status).await
        }
    }
}

/// What is told of what was not started.
pub(super) fn refused(why: NotStarted) -> Refused {
    match why {
        NotStarted::Refused(fields) => Refused::Unfit {
            why: "Some fields can't be taken as they are.".to_owned(),
            fields: fields.into_iter().map(|refusal| (refusal.field, refusal.why)).collect(),
        },
        NotStarted::NoApp => Refused::NotFound,
        NotStarted::NoSystem => Refused::Unfit {
            why: "This application can't run on that system.".to_owned(),
            fields: vec![("system".to_owned(), "there is no such system for this application".to_owned())],
        },
        NotStarted::Slurm(words) => Refused::Unfit {
            why: format!("Slurm refused it: {}.", words.trim_end_matches('.')),
            fields: Vec::new(),
        },
        NotStarted::Away(why) => Refused::NotDone(format!(
            "Slurm can't be asked now: {}. If it took the job all the same, the job appears in your list.",
            why.trim_end_matches('.')
        )),
        NotStarted::Disk(error) if is_full(&error) => Refused::Full(
            "Nothing was started: its record could not be written, because your disk or your quota is full."
                .to_owned(),
        ),
        NotStarted::Disk(error) => Refused::NotDone(format!("Nothing was started: {error}.")),
        NotStarted::Hangs => {
            Refused::NotDone("Nothing was started: the file system does not answer.".to_owned())
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
