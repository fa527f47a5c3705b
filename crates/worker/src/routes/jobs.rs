//! `/jobs`: the queue; `/jobs/ID`: one job, its output, and what can be done with it.

use askama::Template;
use futures_util::future::join_all;
use portreeve_jobs::history::{ERRORS, OUTPUT};
use portreeve_jobs::slurm::{JobState, Partition};
use portreeve_jobs::state::plainly;
use portreeve_jobs::{EntryId, History, State, Usage};
use portreeve_model::ForwardName;
use portreeve_pages::{Frame, Section};

use super::{Asked, address};
use crate::body::Filled;
use crate::jobs::{Change, Known};
use crate::limits;
use crate::respond::{self, Answer, Refused};
use crate::said::{JobSaid, RowSaid, duration};
use crate::visit::may_change;
use crate::workspace::sentence;

#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage {
    page: String,
    trouble: Vec<String>,
    rows: Vec<RowSaid>,
    systems: Vec<(String, Vec<Partition>, Option<String>)>,
    now: i64,
}

/// My queue, and what is free.
pub(super) async fn queue(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let jobs = &asked.desk.jobs;
    let listed = jobs.list().await;
    let mut systems = Vec::new();
    let slurms: Vec<_> = jobs.systems.iter().filter(|system| !system.is_here()).collect();
    let said = join_all(slurms.iter().map(|system| system.site(limits::PATIENCE))).await;
    for (system, said) in slurms.iter().zip(said) {
        let partitions = said.last.map(|site| site.partitions.clone()).unwrap_or_default();
        systems.push((system.name.clone(), partitions, said.doubt));
    }
    let rows = listed.rows.iter().map(|(system, row)| RowSaid::of(system, row, &listed.jobs)).collect();
    let page = QueuePage {
        page: asked.page_secret(),
        trouble: listed.trouble.clone(),
        rows,
        systems,
        now: jobs.now(),
    };
    show(asked, "Jobs", Section::Jobs, page.render())
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage<'p> {
    page: String,
    job: &'p JobSaid,
    now: i64,
    labels: Vec<(String, String)>,
    script: String,
    output: Written,
    errors: Written,
    groups: Vec<String>,
    suggested: String,
    /// Forwards that lead there.
    forwards: Vec<String>,
    app_exists: bool,
    /// The group that it is shown to, and whether it can be shown to one.
    shown_to: Option<String>,
    can_be_shown: bool,
    /// What it has made: names, and where they are read.
    files: Vec<(String, String)>,
}

/// What a job wrote, as far as it is shown.
pub(super) struct Written {
    pub(super) text: String,
    /// Where the file ends.
    pub(super) end: u64,
    /// Something before it is left out.
    pub(super) is_cut: bool,
}

impl Written {
    /// The last of it. Blocks.
    pub(super) fn read(history: &History, id: &EntryId, name: &str) -> Self {
        match history.tail(id, name, limits::OUTPUT_SHOWN) {
            Ok((bytes, end)) => Self {
                is_cut: end > bytes.len() as u64,
                text: String::from_utf8_lossy(&bytes).into_owned(),
                end,
            },
            Err(error) => Self { text: format!("It can't be read: {error}."), end: 0, is_cut: false },
        }
    }
}

/// One job.
pub(super) async fn page(asked: &Asked<'_>, id: &EntryId) -> Result<Answer, Refused> {
    let jobs = &asked.desk.jobs;
    let known = find(asked, id).await?;
    let (history, of) = (jobs.history.clone(), id.clone());
    let read = jobs.aside(move || {
        let written = |name| Written::read(&history, &of, name);
        (written(OUTPUT), written(ERRORS), history.script(&of).unwrap_or_default())
    });
    let (output, errors, script) =
        read.await.map_err(|hangs| Refused::NotDone(format!("Your history can't be read: {hangs}.")))?;
    let catalog = jobs.catalog().await.unwrap_or_default();
    let app = catalog.find(&known.entry.app);
    let label = |name: &String| {
        let label = app.and_then(|app| app.manifest.field(name)).map(|field| field.label.clone());
        label.unwrap_or_else(|| name.clone())
    };
    let labels = known.entry.values.iter().filter(|(_, value)| !value.is_empty());
    let job = JobSaid::of(&known);
    let person = &jobs.place.person.name;
    let forwards = match (job.state, &job.node, job.port) {
        (State::Ready, Some(node), Some(port)) => {
            let own = asked.desk.own_forwards().await.unwrap_or_default();
            own.iter().filter(|own| own.leads_to(node, port)).map(|own| own.name().to_string()).collect()
        }
        _ => Vec::new(),
    };
    let (shown_to, can_be_shown) =
        if job.state.is_over() { jobs.shown_to(id).await.unwrap_or_default() } else { (None, false) };
    let page = JobPage {
        page: asked.page_secret(),
        job: &job,
        now: jobs.now(),
        labels: labels.map(|(name, value)| (label(name), value.clone())).collect(),
        script,
        output,
        errors,
        groups: if job.state == State::Ready || can_be_shown { jobs.groups() } else { Vec::new() },
        suggested: format!("{person}-{}", known.entry.app),
        forwards,
        app_exists: app.is_some(),
        shown_to,
        can_be_shown,
        files: job
            .files
            .iter()
            .map(|name| (name.clone(), super::files::address(&format!("{}/{name}", job.directory))))
            .collect(),
    };
    show(asked, &job.title, Section::Workspace, page.render())
}

impl JobPage<'_> {
    fn warning(&self) -> Option<String> {
        self.job.warning(self.now)
    }

    fn word(state: &State) -> &'static str {
        word(*state)
    }

    /// Of a clause.
    fn sentence(clause: &str) -> String {
        sentence(clause)
    }

    fn cpu(usage: &Usage) -> String {
        if usage.cpu_seconds < 60.0 {
            return format!("{:.1} s", usage.cpu_seconds);
        }
        #[expect(clippy::cast_possible_truncation, reason = "no job uses 2^63 seconds")]
        duration(usage.cpu_seconds as i64)
    }

    fn memory(usage: &Usage) -> String {
        match usage.max_rss_kib {
            kib @ ..10_240 => format!("{kib} KiB"),
            kib @ ..10_485_760 => format!("{} MiB", kib / 1024),
            kib => format!("{} GiB", kib / 1024 / 1024),
        }
    }
}

/// A state in a word.
pub(crate) fn word(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Starting => "starting",
        State::Running => "running",
        State::Ready => "ready",
        State::Stopping => "stopping",
        State::Ended => "ended",
        State::Failed => "failed",
    }
}

impl QueuePage {
    /// `1 node`, `2 nodes`.
    fn count(number: impl std::borrow::Borrow<u32>, what: &str) -> String {
        match *number.borrow() {
            1 => format!("1 {what}"),
            number => format!("{number} {what}s"),
        }
    }

    /// Why it waits.
    fn reason(said: &RowSaid) -> Option<String> {
        let reason = said.row.reason.as_str();
        (said.row.state == JobState::Pending).then(|| plainly(reason))
    }

    /// What it has used of its time.
    fn used(&self, said: &RowSaid) -> Option<String> {
        let limit = said.row.limit.map_or_else(|| "any time".to_owned(), duration);
        match (said.row.state, said.row.start) {
            (JobState::Pending, _) => Some(format!("for {limit} at most")),
            (state, Some(start)) if !state.is_over() => {
                Some(format!("{} of {limit}", duration(self.now - start)))
            }
            _ => None,
        }
    }

    fn word(said: &RowSaid) -> &'static str {
        match said.row.state {
            JobState::Pending => "queued",
            JobState::Running => "running",
            JobState::Suspended => "suspended",
            JobState::Completing => "stopping",
            JobState::Completed => "ended",
            JobState::Cancelled => "cancelled",
            JobState::Timeout => "out of time",
            JobState::OutOfMemory => "out of memory",
            JobState::Failed | JobState::NodeFail | JobState::Preempted => "failed",
            JobState::Unknown => "unknown",
        }
    }
}

fn show(
    asked: &Asked<'_>,
    title: &str,
    section: Section,
    body: Result<String, askama::Error>,
) -> Result<Answer, Refused> {
    let secret = asked.page_secret();
    let frame = Frame {
        title,
        user: Some(asked.visit.user.as_str()),
        section: Some(section),
        live: Some(&secret),
        ..Frame::default()
    };
    respond::rendered(body.and_then(|body| frame.around(&body)))
}

pub(super) async fn find(asked: &Asked<'_>, id: &EntryId) -> Result<Known, Refused> {
    asked.desk.jobs.list().await.find(id).cloned().ok_or(Refused::NotFound)
}

/// Leads to the application itself, with its secret.
pub(super) async fn open(asked: &Asked<'_>, id: &EntryId) -> Result<Answer, Refused> {
    let known = find(asked, id).await?;
    let endpoint = known.endpoint.as_ref().filter(|_| known.job.state == State::Ready);
    let Some(endpoint) = endpoint else { return respond::see_other(&format!("/jobs/{id}")) };
    let address = address(&asked.visit, asked.desk.uid, &endpoint.node, endpoint.port).ok_or_else(|| {
        Refused::Conflict(format!(
            "{}:{} is no address that the portal could lead to.",
            endpoint.node, endpoint.port
        ))
    })?;
    respond::see_other(&format!("{address}{}", endpoint.open))
}

/// What it wrote, as plain text; with `offset`, from there on.
pub(super) async fn output(asked: &Asked<'_>, id: &EntryId) -> Result<Answer, Refused> {
    find(asked, id).await?;
    written(asked, asked.desk.jobs.history.clone(), id).await
}

/// The same of any history.
pub(super) async fn written(asked: &Asked<'_>, history: History, id: &EntryId) -> Result<Answer, Refused> {
    let name = match asked.said("stream").as_deref() {
        None | Some("output") => OUTPUT,
        Some("errors") => ERRORS,
        Some(_) => return Err(Refused::NotUnderstood("stream is output or errors.".to_owned())),
    };
    let offset = match asked.said("offset") {
        // No file reaches further.
        Some(text) => text
            .parse()
            .ok()
            .filter(|offset| *offset <= i64::MAX.unsigned_abs())
            .ok_or_else(|| Refused::NotUnderstood("offset is a number of bytes, from 0 on.".to_owned()))?,
        None => 0,
    };
    let id = id.clone();
    let read = asked.desk.jobs.aside(move || history.written(&id, name, offset, limits::OUTPUT_MOST)).await;
    let (bytes, end) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return Err(Refused::NotDone(format!("It can't be read: {error}."))),
        Err(hangs) => return Err(Refused::NotDone(format!("It can't be read: {hangs}."))),
    };
    let next = offset.saturating_add(bytes.len() as u64);
    let mut answer = respond::output(bytes);
    // Where to go on, and where the file ends.
    for (name, value) in [("x-portreeve-next", next), ("x-portreeve-end", end)] {
        answer.headers_mut().insert(name, value.into());
    }
    Ok(answer)
}

/// What was asked on a job's page.
pub(super) async fn change(asked: &Asked<'_>, id: &EntryId, filled: Filled) -> Result<Answer, Refused> {
    may_change(&asked.visit, filled.value("page"))?;
    let jobs = &asked.desk.jobs;
    let done = match filled.value("action") {
        Some("cancel") => jobs.cancel(id).await,
        Some("extend") => {
            let minutes = filled
                .value("minutes")
                .and_then(|text| text.parse().ok())
                .filter(|minutes| (1..=10_080).contains(minutes));
            jobs.extend(id, minutes.ok_or(Refused::Malformed)?).await
        }
        Some("share") => {
            let (name, group) =
                (filled.value("name").unwrap_or_default(), filled.value("group").unwrap_or_default());
            let name = ForwardName::parse(name).map_err(|error| Refused::Unfit {
                why: format!("This is no name: {error}."),
                fields: vec![],
            })?;
            jobs.share(id, name, group.to_owned()).await
        }
        Some("show") => jobs.show(id, filled.value("group").unwrap_or_default().to_owned()).await,
        Some("hide") => jobs.hide(id).await,
        Some("unshare") => {
            let name = ForwardName::parse(filled.value("name").unwrap_or_default())
                .map_err(|_| Refused::Malformed)?;
            jobs.unshare(name).await
        }
        _ => return Err(Refused::Malformed),
    };
    done.map_err(said)?;
    respond::see_other(&format!("/jobs/{id}"))
}

/// Cancels a job of the queue that the history may not know.
pub(super) async fn cancel_in_slurm(asked: &Asked<'_>, filled: Filled) -> Result<Answer, Refused> {
    may_change(&asked.visit, filled.value("page"))?;
    let number = filled.value("job").and_then(|text| text.parse().ok()).ok_or(Refused::Malformed)?;
    let system = filled.value("system").unwrap_or_default();
    asked.desk.jobs.cancel_in_slurm(system, number).await.map_err(said)?;
    respond::see_other("/jobs")
}

pub(super) fn said(change: Change) -> Refused {
    match change {
        Change::NoJob => Refused::NotFound,
        Change::NotThere(why) => Refused::NoFile(sentence(&why)),
        Change::Unfit(field, why) => {
            Refused::Unfit { why: sentence(&why), fields: vec![(field.to_owned(), why)] }
        }
        Change::Not(why) => Refused::Conflict(sentence(&why)),
        Change::Refused(why) => Refused::NotDone(sentence(&why)),
        Change::Hangs => Refused::NotDone("The file system does not answer.".to_owned()),
    }
}
