//! `/history/shared`: what others show; one of it at `/history/shared/ID`, to be read.

use askama::Template;
use portreeve_jobs::EntryId;
use portreeve_jobs::history::{ERRORS, OUTPUT};
use portreeve_pages::{Frame, Section};

use super::Asked;
use super::jobs::{Written, said, written};
use crate::respond::{self, Answer, Refused};
use crate::said::SharedSaid;

#[derive(Template)]
#[template(path = "shared.html")]
struct ListPage {
    jobs: Vec<SharedSaid>,
}

#[derive(Template)]
#[template(path = "shared_job.html")]
struct JobPage {
    shown: SharedSaid,
    script: String,
    output: Written,
    errors: Written,
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let found = asked.desk.jobs.shown_to_me().await.map_err(said)?;
    let page = ListPage { jobs: found.iter().map(SharedSaid::of).collect() };
    show(asked, "Shown by others", page.render())
}

pub(super) async fn page(asked: &Asked<'_>, id: &EntryId) -> Result<Answer, Refused> {
    let jobs = &asked.desk.jobs;
    let shown = SharedSaid::of(&jobs.one_shown_to_me(id).await.map_err(said)?);
    let (history, of) = (jobs.shared().history(), id.clone());
    let read = jobs.aside(move || {
        let written = |name| Written::read(&history, &of, name);
        (written(OUTPUT), written(ERRORS), history.script(&of).unwrap_or_default())
    });
    let (output, errors, script) =
        read.await.map_err(|hangs| Refused::NotDone(format!("It can't be read: {hangs}.")))?;
    let title = shown.job.title.clone();
    show(asked, &title, JobPage { shown, script, output, errors }.render())
}

/// What it wrote.
pub(super) async fn output(asked: &Asked<'_>, id: &EntryId) -> Result<Answer, Refused> {
    let jobs = &asked.desk.jobs;
    jobs.one_shown_to_me(id).await.map_err(said)?;
    written(asked, jobs.shared().history(), id).await
}

/// Its script.
pub(super) async fn script(asked: &Asked<'_>, id: &EntryId) -> Result<Answer, Refused> {
    let jobs = &asked.desk.jobs;
    jobs.one_shown_to_me(id).await.map_err(said)?;
    let (history, id) = (jobs.shared().history(), id.clone());
    match jobs.aside(move || history.script(&id)).await {
        Ok(Ok(script)) => Ok(respond::output(script.into_bytes())),
        Ok(Err(error)) => Err(Refused::NotDone(format!("It can't be read: {error}."))),
        Err(hangs) => Err(Refused::NotDone(format!("It can't be read: {hangs}."))),
    }
}

fn show(asked: &Asked<'_>, title: &str, body: Result<String, askama::Error>) -> Result<Answer, Refused> {
    let secret = asked.page_secret();
    let frame = Frame {
        title,
        user: Some(asked.visit.user.as_str()),
        section: Some(Section::History),
        live: Some(&secret),
        ..Frame::default()
    };
    respond::rendered(body.and_then(|body| frame.around(&body)))
}
