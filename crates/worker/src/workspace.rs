//! The first page: one's forwards, what one has listening, a field to open an address.

mod links;
mod own_forwards;
mod ports;
mod shown;

use std::io;

use askama::Template;
use portreeve_broker::{Broker, Forwards};
use portreeve_model::wire::agent::Row;
use portreeve_model::wire::worker::{NodeView, View};
use portreeve_pages::Frame;

use crate::limits;
use links::Links;
use own_forwards::ForwardRow;
use ports::PortRow;
use shown::shown;

pub(crate) use own_forwards::{OwnForward, own_forwards};

/// What a uid has listening on this machine. Blocks.
pub type Look = fn(uid: u32) -> io::Result<Vec<Row>>;

/// Makes the pages of one person in `portreeve up`, who has one machine.
#[derive(Debug, Clone)]
pub struct Worker {
    uid: u32,
    forwards: Forwards,
    machine: String,
    look: Look,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The template failed.
    #[error("the page could not be made")]
    Page(#[from] askama::Error),
}

#[derive(Template)]
#[template(path = "workspace.html")]
struct WorkspaceTemplate<'a> {
    /// The one that is shown; `None` for nodes.
    machine: Option<&'a str>,
    forwards: Vec<ForwardRow>,
    ports: Vec<PortRow>,
    /// Nodes of which not all is known.
    doubts: Vec<String>,
    trouble: Vec<String>,
    forwards_dir: String,
}

impl Worker {
    /// For the person that `broker` stands for.
    #[must_use]
    pub fn new(broker: &Broker, machine: String, look: Look) -> Self {
        Self { uid: broker.account().uid, forwards: broker.forwards().clone(), machine, look }
    }

    /// The workspace's page. Reads the forwards' directory, and the socket table unless the view has nodes: blocks.
    ///
    /// # Errors
    /// When the page can't be made. What can't be read is said on the page.
    pub fn workspace(&self, view: &View) -> Result<String, WorkspaceError> {
        let forwards = own_forwards(&self.forwards, self.uid);
        if let Some(nodes) = &view.nodes {
            return page_of_nodes(view, self.uid, nodes, &self.forwards, forwards);
        }
        let mut trouble = Vec::new();
        let links = Links::new(view, self.uid);
        let ports = match (self.look)(self.uid) {
            Ok(found) => found
                .iter()
                .filter(|row| Some(row.port) != view.own_port)
                .map(|row| PortRow::here(row, &links))
                .collect(),
            Err(error) => {
                trouble.push(format!("Your listening ports can't be looked up: {error}."));
                Vec::new()
            }
        };
        let page = WorkspaceTemplate {
            machine: Some(&self.machine),
            forwards: Vec::new(),
            ports,
            doubts: Vec::new(),
            trouble,
            forwards_dir: self.forwards.dir().display().to_string(),
        };
        page.with(view, self.uid, forwards)
    }
}

/// The page of a cluster. `forwards` are the person's own, or a clause saying why they can't be listed.
pub(crate) fn page_of_nodes(
    view: &View,
    uid: u32,
    nodes: &[NodeView],
    directory: &Forwards,
    forwards: Result<Vec<OwnForward>, String>,
) -> Result<String, WorkspaceError> {
    let (ports, doubts) = ports::on_nodes(nodes, &Links::new(view, uid));
    let page = WorkspaceTemplate {
        machine: None,
        forwards: Vec::new(),
        ports,
        doubts,
        trouble: Vec::new(),
        forwards_dir: directory.dir().display().to_string(),
    };
    page.with(view, uid, forwards)
}

impl WorkspaceTemplate<'_> {
    fn with(
        mut self,
        view: &View,
        uid: u32,
        forwards: Result<Vec<OwnForward>, String>,
    ) -> Result<String, WorkspaceError> {
        match forwards {
            Ok(found) => {
                let links = Links::new(view, uid);
                self.forwards = found.into_iter().map(|own| own.row(&links)).collect();
            }
            Err(why) => self.trouble.insert(0, format!("Your forwards can't be listed: {why}.")),
        }
        if let Some(typed) = &view.not_understood {
            let typed = shown(typed, limits::CLAUSE);
            self.trouble.insert(
                0,
                format!(
                    "{typed:?} is no address of an application: write {}HOST:PORT, or a forward's name.",
                    if self.machine.is_some() { "a port, " } else { "" }
                ),
            );
        }
        let body = self.render()?;
        let frame = Frame { title: "Workspace", user: Some(view.user.as_str()), ..Frame::default() };
        Ok(frame.around(&body)?)
    }
}

#[cfg(test)]
mod tests;
