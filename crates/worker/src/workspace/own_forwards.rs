//! The person's own forward files, as the page shows them.

use portreeve_broker::Forwards;
use portreeve_model::{ForwardFile, ForwardName};

use super::links::{Link, Links};

/// A forward of the person's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnForward {
    name: ForwardName,
    target: String,
    note: Option<String>,
    usable: bool,
}

/// As it stands on the page.
pub(super) struct ForwardRow {
    pub(super) name: ForwardName,
    pub(super) target: String,
    pub(super) note: Option<String>,
    pub(super) link: Link,
    pub(super) usable: bool,
}

/// The forwards that belong to `uid`, or a clause saying why they can't be listed. Blocks on the file system.
pub(crate) fn own_forwards(forwards: &Forwards, uid: u32) -> Result<Vec<OwnForward>, String> {
    let names = forwards.owned_by(uid).map_err(|error| error.to_string())?;
    Ok(names.into_iter().map(|name| OwnForward::read(forwards, name)).collect())
}

impl OwnForward {
    fn read(forwards: &Forwards, name: ForwardName) -> Self {
        let (target, note, usable) = match forwards.read(&name) {
            Ok(read) => match read.file {
                ForwardFile::Disabled => ("disabled".to_owned(), None, false),
                ForwardFile::Target { target, lines_differ } => {
                    let note = lines_differ
                        .then(|| "The file has several lines that differ; the last one counts.".to_owned());
                    (target.to_string(), note, true)
                }
            },
            Err(error) => ("can't be used".to_owned(), Some(explained(&error)), false),
        };
        Self { name, target, note, usable }
    }

    pub(crate) fn name(&self) -> &ForwardName {
        &self.name
    }

    /// Whether it is in use and leads to this port.
    pub(crate) fn leads_to(&self, node: &str, port: u16) -> bool {
        let place = format!("://{node}:{port}/");
        self.usable && self.target.contains(&place)
    }

    pub(super) fn row(self, links: &Links<'_>) -> ForwardRow {
        let Self { name, target, note, usable } = self;
        let link = links.forward(&name);
        ForwardRow { name, target, note, link, usable }
    }
}

fn explained(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}."),
        None => format!("{error}."),
    }
}
