//! `/api/v1/`: what the pages do, for programs. `docs/openapi.json` describes it, and is served as `/api/v1/openapi.json`.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use hyper::body::Body;
use portreeve_model::ForwardName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Asked, address, apps, events, files, history, jobs, parsed, shared};
use crate::body;
use crate::jobs::{Known, NotStarted, Wanted};
use crate::limits;
use crate::respond::{self, Answer, Refused};
use crate::said::{AppSaid, ByHandSaid, FormSaid, JobSaid, RowSaid, SharedSaid};
use crate::visit::may_change;

/// Its description.
const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// A start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    #[serde(default)]
    system: String,
    #[serde(default, deserialize_with = "body::each_once")]
    values: BTreeMap<String, Value>,
    #[serde(default)]
    idle_minutes: Option<u32>,
}

/// What a field may be given.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Number(serde_json::Number),
    Boolean(bool),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extend {
    minutes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    name: String,
    group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Show {
    group: String,
}

#[derive(Serialize)]
struct Preview {
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
    directory: String,
    script: String,
}

impl From<Start> for Wanted {
    fn from(start: Start) -> Self {
        let text = |value| match value {
            Value::Text(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Boolean(is) => if is { "1" } else { "" }.to_owned(),
        };
        Self {
            system: start.system,
            values: start.values.into_iter().map(|(name, value)| (name, text(value))).collect(),
            idle_minutes: start.idle_minutes.filter(|minutes| *minutes > 0),
        }
    }
}

pub(super) async fn answer<B>(asked: &Asked<'_>, path: &str, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let method = &asked.method;
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if !reads {
        may_change(&asked.visit, None)?;
    }
    let desk = asked.desk;
    let segments: Vec<&str> = path.split('/').collect();
    match &segments[..] {
        ["files", rest @ ..] if !rest.is_empty() => files::answer(asked, &rest.join("/"), body).await,
        ["files"] if reads => respond::json(&serde_json::json!({
            "home": desk.jobs.place.person.home.display().to_string(),
            "roots": desk.jobs.place.site.roots,
        })),
        ["uploads"] if *method == Method::POST => {
            files::uploads::begin(asked, sent(asked, body).await?).await
        }
        ["uploads", id] if reads || matches!(*method, Method::PUT | Method::DELETE) => {
            files::uploads::answer(asked, id, body).await
        }
        ["openapi.json"] if reads => {
            let document: serde_json::Value = serde_json::from_str(OPENAPI).map_err(|_| Refused::Failed)?;
            respond::json(&document)
        }
        ["events"] if reads => events::watch(asked),
        ["apps"] if reads => list_apps(asked).await,
        ["apps", name] if reads => {
            let system = asked.parameter("system");
            let mut form = desk.jobs.form(name, None).await.map_err(apps::refused)?;
            if let Some(system) = system {
                form = desk
                    .jobs
                    .form(name, Some(Wanted { system: system.clone(), ..form.wanted }))
                    .await
                    .map_err(apps::refused)?;
                if form.wanted.system != system {
                    return Err(apps::refused(NotStarted::NoSystem));
                }
            }
            respond::json(&FormSaid::from(&form))
        }
        ["apps", name, "preview"] if *method == Method::POST => {
            let start: Start = sent(asked, body).await?;
            let wanted = desk.jobs.with_defaults(name, start.into()).await.map_err(apps::refused)?;
            let draft = desk.jobs.preview(name, &wanted).await.map_err(apps::refused)?;
            respond::json(&Preview {
                arguments: draft.arguments,
                variables: draft.variables.into_iter().collect(),
                directory: draft.directory.display().to_string(),
                script: draft.script,
            })
        }
        ["apps", name, "jobs"] if *method == Method::POST => {
            let start: Start = sent(asked, body).await?;
            let own = asked.visit.own_origins.as_ref().is_some_and(|origins| origins.tagged);
            let wanted = desk.jobs.with_defaults(name, start.into()).await.map_err(apps::refused)?;
            let id = desk.jobs.start(name, &wanted, own).await.map_err(apps::refused)?;
            let known = jobs::find(asked, &id).await?;
            respond::json(&said(asked, &known))
                .map(|answer| respond::with_status(answer, StatusCode::CREATED))
        }
        ["jobs"] if reads => list_jobs(asked).await,
        ["jobs", id] if reads => respond::json(&said(asked, &jobs::find(asked, &parsed(id)?).await?)),
        ["jobs", id, "output"] if reads => jobs::output(asked, &parsed(id)?).await,
        ["jobs", id, "script"] if reads => script(asked, id).await,
        ["jobs", id, "cancel"] if *method == Method::POST => {
            desk.jobs.cancel(&parsed(id)?).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["jobs", id, "show"] if *method == Method::POST => {
            let Show { group } = sent(asked, body).await?;
            desk.jobs.show(&parsed(id)?, group).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["jobs", id, "hide"] if *method == Method::POST => {
            desk.jobs.hide(&parsed(id)?).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["shared"] if reads => {
            let found = desk.jobs.shown_to_me().await.map_err(jobs::said)?;
            respond::json(
                &serde_json::json!({ "jobs": found.iter().map(SharedSaid::of).collect::<Vec<_>>() }),
            )
        }
        ["shared", id] if reads => {
            let found = desk.jobs.one_shown_to_me(&parsed(id)?).await.map_err(jobs::said)?;
            respond::json(&SharedSaid::of(&found))
        }
        ["shared", id, "output"] if reads => shared::output(asked, &parsed(id)?).await,
        ["shared", id, "script"] if reads => shared::script(asked, &parsed(id)?).await,
        ["jobs", id, "extend"] if *method == Method::POST => {
            let Extend { minutes } = sent(asked, body).await?;
            if !(1..=10_080).contains(&minutes) {
                let fields = vec![("minutes".to_owned(), "it must be from 1 to 10080".to_owned())];
                return Err(Refused::Unfit { why: "That is no time to add.".to_owned(), fields });
            }
            desk.jobs.extend(&parsed(id)?, minutes).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["jobs", id, "share"] if *method == Method::POST => {
            let Share { name, group } = sent(asked, body).await?;
            let name = ForwardName::parse(&name).map_err(|error| Refused::Unfit {
                why: "This is no name.".to_owned(),
                fields: vec![("name".to_owned(), error.to_string())],
            })?;
            desk.jobs.share(&parsed(id)?, name, group).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["forwards", name, "unshare"] if *method == Method::POST => {
            let name = ForwardName::parse(name).map_err(|_| Refused::NotFound)?;
            desk.jobs.unshare(name).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["queue"] if reads => {
            let listed = desk.jobs.list().await;
            let rows: Vec<RowSaid> =
                listed.rows.iter().map(|(system, row)| RowSaid::of(system, row, &listed.jobs)).collect();
            respond::json(&serde_json::json!({ "jobs": rows, "trouble": listed.trouble }))
        }
        ["queue", system, number, "cancel"] if *method == Method::POST => {
            let number = number.parse().map_err(|_| Refused::NotFound)?;
            desk.jobs.cancel_in_slurm(system, number).await.map_err(jobs::said)?;
            Ok(respond::nothing())
        }
        ["systems"] if reads => list_systems(asked).await,
        ["servers"] if reads => list_servers(asked).await,
        [
            "openapi.json" | "events" | "apps" | "files" | "jobs" | "queue" | "shared" | "systems"
            | "servers",
        ]
        | ["apps" | "jobs" | "shared", _]
        | ["jobs" | "shared", _, "output" | "script"] => Err(Refused::Method { allowed: "GET, HEAD" }),
        ["apps", _, "preview" | "jobs"]
        | ["jobs", _, "cancel" | "extend" | "share" | "show" | "hide"]
        | ["queue", _, _, "cancel"]
        | ["forwards", _, "unshare"] => Err(Refused::Method { allowed: "POST" }),
        ["uploads"] => Err(Refused::Method { allowed: "POST" }),
        ["uploads", _] => Err(Refused::Method { allowed: "GET, HEAD, PUT, DELETE" }),
        _ => Err(Refused::NotFound),
    }
}

fn said(asked: &Asked<'_>, known: &Known) -> JobSaid {
    JobSaid::of(known).at(&asked.visit.origin)
}

/// What a body says. A page of another site can't say that it is JSON without asking first.
async fn sent<T, B>(asked: &Asked<'_>, body: B) -> Result<T, Refused>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if asked.sends_json { body::json(body).await } else { Err(Refused::NotJson) }
}

async fn list_apps(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let hangs = |_| Refused::NotDone("The file system does not answer.".to_owned());
    let catalog = asked.desk.jobs.catalog().await.map_err(hangs)?;
    let apps: Vec<AppSaid> = catalog.apps.values().map(AppSaid::from).collect();
    let problems: Vec<String> = catalog.problems.iter().map(ToString::to_string).collect();
    respond::json(&serde_json::json!({ "apps": apps, "problems": problems }))
}

async fn list_jobs(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let search = history::Search::of(asked);
    let number = |name: &str, otherwise: usize, fits: std::ops::RangeInclusive<usize>| match asked.said(name)
    {
        Some(text) => text.parse().ok().filter(|number| fits.contains(number)).ok_or_else(|| {
            Refused::NotUnderstood(format!("{name} is a number from {} to {}.", fits.start(), fits.end()))
        }),
        None => Ok(otherwise),
    };
    let limit = number("limit", limits::HISTORY_PAGE, 1..=1000)?;
    let offset = number("offset", 0, 0..=1_000_000_000)?;
    if !matches!(search.state.as_str(), "" | "going" | "ended" | "failed") {
        return Err(Refused::NotUnderstood("state is going, ended or failed.".to_owned()));
    }
    let listed = asked.desk.jobs.list().await;
    let found: Vec<_> = listed.jobs.iter().filter(|known| search.fits(known)).collect();
    let jobs: Vec<JobSaid> = found.iter().skip(offset).take(limit).map(|known| said(asked, known)).collect();
    respond::json(&serde_json::json!({ "jobs": jobs, "found": found.len(), "trouble": listed.trouble }))
}

async fn script(asked: &Asked<'_>, id: &str) -> Result<Answer, Refused> {
    let id = parsed(id)?;
    jobs::find(asked, &id).await?;
    let history = asked.desk.jobs.history.clone();
    match asked.desk.jobs.aside(move || history.script(&id)).await {
        Ok(Ok(script)) => Ok(respond::output(script.into_bytes())),
        Ok(Err(error)) => Err(Refused::NotDone(format!("It can't be read: {error}."))),
        Err(hangs) => Err(Refused::NotDone(format!("It can't be read: {hangs}."))),
    }
}

async fn list_systems(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let mut systems = Vec::new();
    let all = &asked.desk.jobs.systems;
    let said = join_all(all.iter().map(|system| system.site(limits::PATIENCE))).await;
    for (system, said) in all.iter().zip(said) {
        let site = said.last.map(|site| (*site).clone()).unwrap_or_default();
        systems.push(serde_json::json!({
            "name": system.name,
            "kind": if system.is_here() { "this-machine" } else { "slurm" },
            "doubt": said.doubt,
            "partitions": site.partitions,
            "accounts": site.associations,
        }));
    }
    respond::json(&serde_json::json!({ "systems": systems }))
}

async fn list_servers(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let hangs = |_| Refused::NotDone("The file system does not answer.".to_owned());
    let found = asked.desk.jobs.by_hand().await.map_err(hangs)?;
    let said = found.iter().map(|one| {
        let address = address(&asked.visit, asked.desk.uid, &one.node, one.port)
            .map(|address| format!("{address}{}", one.open));
        ByHandSaid::of(one, address)
    });
    respond::json(&serde_json::json!({ "servers": said.collect::<Vec<_>>() }))
}
