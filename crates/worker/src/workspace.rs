//! The first page: what can be started, what runs, one's forwards, what one has listening, a field to open an address.

pub(crate) mod here;
pub(crate) mod links;
mod own_forwards;
mod ports;
mod shown;

use std::rc::Rc;

use askama::Template;
use portreeve_model::wire::worker::{Nodes, Visit};
use portreeve_pages::{Frame, Section};

use crate::desk::Desk;
use crate::limits;
use crate::routes::address;
use crate::said::{AppSaid, ByHandSaid, JobSaid};
use links::Links;
use own_forwards::ForwardRow;
use ports::PortRow;
pub(crate) use shown::shown;

/// A clause, from its capital letter to its full stop.
pub(crate) fn sentence(clause: &str) -> String {
    format!("{}.", capital(clause.trim_end_matches('.')))
}

pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

pub(crate) use own_forwards::{OwnForward, own_forwards};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    /// The template failed.
    #[error("the page could not be made")]
    Page(#[from] askama::Error),
}

#[derive(Template)]
#[template(path = "workspace.html")]
struct WorkspaceTemplate<'a> {
    /// The one that is shown; `None` for nodes.
    machine: Option<&'a str>,
    apps: Vec<AppSaid>,
    /// What is wrong with the site's or one's own applications.
    problems: Vec<String>,
    running: Vec<JobSaid>,
    by_hand: Vec<ByHandSaid>,
    forwards: Vec<ForwardRow>,
    ports: Vec<PortRow>,
    /// Nodes of which not all is known.
    doubts: Vec<String>,
    trouble: Vec<String>,
    forwards_dir: String,
}

impl WorkspaceTemplate<'_> {
    fn word(job: &JobSaid) -> &'static str {
        crate::routes::word(job.state)
    }
}

/// The page. In `up` the socket table is read, aside.
pub(crate) async fn page(desk: &Rc<Desk>, visit: &Visit, nodes: &Nodes) -> Result<String, WorkspaceError> {
    let links = Links::new(visit, desk.uid);
    let mut trouble = Vec::new();
    if let Some(typed) = &nodes.not_understood {
        let typed = shown(typed, limits::CLAUSE);
        let port = if desk.machine.is_some() { "a port, " } else { "" };
        trouble.push(format!(
            "{typed:?} is no address of an application: write {port}HOST:PORT, or a forward's name."
        ));
    }
    // All at once: what hangs holds the others up no longer than itself.
    let (own, (ports, doubts, ports_trouble), catalog, listed, by_hand) = tokio::join!(
        desk.own_forwards(),
        ports(desk, nodes, &links),
        desk.jobs.catalog(),
        desk.jobs.list(),
        desk.jobs.by_hand(),
    );
    let forwards = match own {
        Ok(found) => found.into_iter().map(|own| own.row(&links)).collect(),
        Err(why) => {
            trouble.push(format!("Your forwards can't be listed: {why}."));
            Vec::new()
        }
    };
    trouble.extend(ports_trouble);
    trouble.extend(listed.trouble.iter().cloned());
    let (catalog, by_hand) = (catalog.unwrap_or_default(), by_hand.unwrap_or_default());
    let page = WorkspaceTemplate {
        machine: desk.machine.as_ref().map(|machine| machine.name.as_str()),
        apps: catalog.apps.values().map(AppSaid::from).collect(),
        problems: catalog
            .problems
            .iter()
            .map(|problem| shown(&problem.to_string(), limits::CLAUSE))
            .collect(),
        running: listed.jobs.iter().filter(|known| !known.job.state.is_over()).map(JobSaid::of).collect(),
        by_hand: by_hand
            .iter()
            .map(|one| {
                let open = address(visit, desk.uid, &one.node, one.port)
                    .map(|address| format!("{address}{}", one.open));
                ByHandSaid::of(one, open)
            })
            .collect(),
        forwards,
        ports,
        doubts,
        trouble,
        forwards_dir: desk.forwards.dir().display().to_string(),
    };
    let body = page.render()?;
    let secret = visit.page_secret.as_ref().map(|secret| secret.reveal().to_owned()).unwrap_or_default();
    let frame = Frame {
        title: "Workspace",
        user: Some(visit.user.as_str()),
        section: Some(Section::Workspace),
        live: Some(&secret),
        ..Frame::default()
    };
    Ok(frame.around(&body)?)
}

/// What one has listening, nodes of which not all is known, and why nothing is known of this machine.
async fn ports(
    desk: &Rc<Desk>,
    nodes: &Nodes,
    links: &Links<'_>,
) -> (Vec<PortRow>, Vec<String>, Option<String>) {
    if let Some(nodes) = &nodes.nodes {
        let (ports, doubts) = ports::on_nodes(nodes, links);
        return (ports, doubts, None);
    }
    let Some(machine) = &desk.machine else { return (Vec::new(), Vec::new(), None) };
    let (look, uid) = (machine.look, desk.uid);
    let found = match desk.jobs.aside(move || look(uid)).await {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(hangs) => Err(hangs.to_string()),
    };
    match found {
        Ok(found) => {
            let others = found.iter().filter(|row| Some(row.port) != nodes.own_port);
            (others.map(|row| PortRow::here(row, links)).collect(), Vec::new(), None)
        }
        Err(why) => {
            (Vec::new(), Vec::new(), Some(format!("Your listening ports can't be looked up: {why}.")))
        }
    }
}

/// The page with nothing but what listens on the nodes.
pub(crate) fn page_of_nodes(visit: &Visit, nodes: &Nodes) -> Option<String> {
    let (ports, doubts) = ports::on_nodes(nodes.nodes.as_ref()?, &Links::new(visit, 20001));
    let page = WorkspaceTemplate {
        machine: None,
        apps: Vec::new(),
        problems: Vec::new(),
        running: Vec::new(),
        by_hand: Vec::new(),
        forwards: Vec::new(),
        ports,
        doubts,
        trouble: nodes.not_understood.iter().map(|typed| shown(typed, limits::CLAUSE)).collect(),
        forwards_dir: String::new(),
    };
    let frame = Frame { title: "Workspace", user: Some(visit.user.as_str()), ..Frame::default() };
    frame.around(&page.render().ok()?).ok()
}

#[cfg(test)]
mod tests;
