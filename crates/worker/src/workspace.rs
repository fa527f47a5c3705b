//! The first page: one's forwards, one's listening ports, a field to open an address.

use std::net::IpAddr;

use askama::Template;
use portreeve_agent::Listening;
use portreeve_broker::{Broker, Forwards};
use portreeve_model::wire::worker::View;
use portreeve_model::{ForwardFile, ForwardName};
use portreeve_pages::Frame;

/// Makes the pages of one person.
#[derive(Debug, Clone)]
pub struct Worker {
    uid: u32,
    forwards: Forwards,
    machine: String,
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
struct WorkspaceTemplate {
    machine: String,
    forwards: Vec<ForwardRow>,
    ports: Vec<PortRow>,
    trouble: Vec<String>,
    forwards_dir: String,
}

struct ForwardRow {
    name: ForwardName,
    target: String,
    note: Option<String>,
    own_origin: Option<String>,
    usable: bool,
}

struct PortRow {
    label: String,
    command: String,
    own_origin: Option<String>,
    reach: &'static str,
}

impl Worker {
    /// For the person that `broker` stands for.
    #[must_use]
    pub fn new(broker: &Broker, machine: String) -> Self {
        Self { uid: broker.account().uid, forwards: broker.forwards().clone(), machine }
    }

    /// The workspace's page. Reads the forwards' directory and the socket table: blocks.
    ///
    /// # Errors
    /// When the page can't be made. What can't be read is said on the page.
    pub fn workspace(&self, view: &View) -> Result<String, WorkspaceError> {
        let mut trouble = Vec::new();
        if let Some(typed) = &view.not_understood {
            trouble.push(format!(
                "{typed:?} is no address of an application: write a port, HOST:PORT, or a forward's name."
            ));
        }
        let forwards = self.forward_rows(view, &mut trouble);
        let ports = match portreeve_agent::listening(self.uid) {
            Ok(found) => found
                .into_iter()
                .filter(|row| Some(row.port) != view.own_port)
                .map(|row| PortRow::of(row, view))
                .collect(),
            Err(error) => {
                trouble.push(format!("Your listening ports can't be looked up: {error}."));
                Vec::new()
            }
        };
        let body = WorkspaceTemplate {
            machine: self.machine.clone(),
            forwards,
            ports,
            trouble,
            forwards_dir: self.forwards.dir().display().to_string(),
        }
        .render()?;
        let frame = Frame { title: "Workspace", user: Some(view.user.as_str()), ..Frame::default() };
        Ok(frame.around(&body)?)
    }

    fn forward_rows(&self, view: &View, trouble: &mut Vec<String>) -> Vec<ForwardRow> {
        let names = match self.forwards.owned_by(self.uid) {
            Ok(names) => names,
            Err(error) => {
                trouble.push(format!("Your forwards can't be listed: {error}."));
                return Vec::new();
            }
        };
        names
            .into_iter()
            .map(|name| {
                let (target, note, usable) = match self.forwards.read(&name) {
                    Ok(read) => match read.file {
                        ForwardFile::Disabled => ("disabled".to_owned(), None, false),
                        ForwardFile::Target { target, lines_differ } => {
                            let note = lines_differ.then(|| {
                                "The file has several lines that differ; the last one counts.".to_owned()
                            });
                            (target.to_string(), note, true)
                        }
                    },
                    Err(error) => ("can't be used".to_owned(), Some(explained(&error)), false),
                };
                let own_origin = view
                    .own_origins
                    .as_ref()
                    .filter(|_| usable && name.is_host_label())
                    .map(|suffix| format!("https://{name}.fn{suffix}/"));
                ForwardRow { name, target, note, own_origin, usable }
            })
            .collect()
    }
}

fn explained(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}."),
        None => format!("{error}."),
    }
}

impl PortRow {
    fn of(listening: Listening, view: &View) -> Self {
        let Listening { address, port, command, .. } = listening;
        // A socket on every address is reached by the name that is shortest to type.
        let (label, reach) = match address {
            ip if ip.is_unspecified() => (format!("localhost:{port}"), "every address of this machine"),
            ip if ip.to_canonical() == IpAddr::from([127, 0, 0, 1]) => {
                (format!("localhost:{port}"), "this machine only")
            }
            IpAddr::V4(ip) if ip.is_loopback() => (format!("{ip}:{port}"), "this machine only"),
            IpAddr::V6(ip) if ip.is_loopback() => (format!("[{ip}]:{port}"), "this machine only"),
            IpAddr::V4(ip) => (format!("{ip}:{port}"), "this address"),
            IpAddr::V6(ip) => (format!("[{ip}]:{port}"), "this address"),
        };
        let own_origin = view
            .own_origins
            .as_ref()
            .filter(|_| label.starts_with("localhost:"))
            .map(|suffix| format!("https://localhost-{port}{suffix}/"));
        Self { label, command: command.unwrap_or_default(), own_origin, reach }
    }
}
