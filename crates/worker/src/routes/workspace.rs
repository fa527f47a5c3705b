//! `POST /workspace`: the first page. The portal says what listens on the nodes.

use portreeve_model::wire::worker::Nodes;

use super::Asked;
use crate::respond::{self, Answer, Refused};
use crate::workspace;

pub(super) async fn page(asked: &Asked<'_>, nodes: Nodes) -> Result<Answer, Refused> {
    // This machine is the portal's: what listens here is of interest in `up` alone.
    if nodes.nodes.is_none() != asked.desk.machine.is_some() {
        return Err(Refused::Malformed);
    }
    let page = workspace::page(asked.desk, &asked.visit, &nodes).await;
    respond::rendered(page.map_err(|error| match error {
        workspace::WorkspaceError::Page(error) => error,
    }))
}
