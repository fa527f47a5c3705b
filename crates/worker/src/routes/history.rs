//! `/history`: all that was ever started, the youngest first, as far as it fits what is looked for.

use askama::Template;
use portreeve_jobs::State;
use portreeve_pages::{Frame, Section};

use super::Asked;
use crate::jobs::Known;
use crate::limits;
use crate::respond::{self, Answer, Refused};
use crate::said::JobSaid;
use crate::workspace::shown;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Search {
    /// Words that all stand somewhere in its parameters.
    pub(super) words: String,
    pub(super) app: String,
    pub(super) state: String,
}

impl Search {
    pub(super) fn of(asked: &Asked<'_>) -> Self {
        let parameter = |name| asked.parameter(name).unwrap_or_default();
        Self { words: parameter("q"), app: parameter("app"), state: parameter("state") }
    }

    pub(super) fn fits(&self, known: &Known) -> bool {
        let Known { entry, job, .. } = known;
        let fits_state = match self.state.as_str() {
            "" => true,
            "going" => !job.state.is_over(),
            "ended" => job.state == State::Ended,
            "failed" => job.state == State::Failed,
            _ => false,
        };
        let texts = || {
            let number = entry.slurm_job().map(|number| number.to_string()).unwrap_or_default();
            let fixed = [
                entry.title.clone(),
                entry.app.clone(),
                entry.system.clone(),
                entry.id.to_string(),
                number,
                job.reason.clone(),
            ];
            entry.values.values().cloned().chain(fixed).map(|text| text.to_lowercase()).collect::<Vec<_>>()
        };
        let fits_words = || {
            let texts = texts();
            self.words
                .to_lowercase()
                .split_whitespace()
                .all(|word| texts.iter().any(|text| text.contains(word)))
        };
        fits_state
            && (self.app.is_empty() || self.app == entry.app)
            && (self.words.trim().is_empty() || fits_words())
    }
}

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    search: Search,
    apps: Vec<(String, String)>,
    jobs: Vec<JobSaid>,
    found: usize,
    total: usize,
    number: usize,
    last: usize,
    trouble: Vec<String>,
}

impl HistoryPage {
    fn word(job: &JobSaid) -> &'static str {
        super::jobs::word(job.state)
    }

    /// The first answers that say most.
    fn summary(job: &JobSaid) -> String {
        let said = job.values.iter().filter(|(name, value)| {
            !value.is_empty() && !matches!(name.as_str(), "time" | "cores" | "nodes" | "tasks")
        });
        let values: Vec<String> =
            said.take(3).map(|(_, value)| shown(&value.replace('\n', " "), 60)).collect();
        values.join(", ")
    }

    /// The address of another page of the same search.
    fn link(&self, number: usize) -> String {
        let Search { words, app, state } = &self.search;
        let number = number.to_string();
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([("q", words), ("app", app), ("state", state), ("page", &number)]);
        format!("/history?{}", query.finish())
    }
}

pub(super) async fn page(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let search = Search::of(asked);
    let listed = asked.desk.jobs.list().await;
    let found: Vec<&Known> = listed.jobs.iter().filter(|known| search.fits(known)).collect();
    let last = found.len().div_ceil(limits::HISTORY_PAGE).max(1);
    let number =
        asked.parameter("page").and_then(|text| text.parse::<usize>().ok()).unwrap_or(1).clamp(1, last);
    let shown = found.iter().skip((number - 1) * limits::HISTORY_PAGE).take(limits::HISTORY_PAGE);
    let mut apps: Vec<(String, String)> =
        listed.jobs.iter().map(|known| (known.entry.app.clone(), known.entry.title.clone())).collect();
    apps.sort();
    apps.dedup_by(|one, other| one.0 == other.0);
    let page = HistoryPage {
        jobs: shown.map(|known| JobSaid::of(known)).collect(),
        found: found.len(),
        total: listed.jobs.len(),
        search,
        apps,
        number,
        last,
        trouble: listed.trouble.clone(),
    };
    let secret = asked.page_secret();
    let frame = Frame {
        title: "History",
        user: Some(asked.visit.user.as_str()),
        section: Some(Section::History),
        live: Some(&secret),
        ..Frame::default()
    };
    respond::rendered(page.render().and_then(|body| frame.around(&body)))
}
