//! `POST /workspace`: a view (`wire::worker::View`) becomes the first page.

use bytes::Bytes;
use hyper::body::Body;
use portreeve_model::wire::worker::View;

use crate::body;
use crate::process::Desk;
use crate::respond::{self, Answer, Refused};
use crate::ticket::Holder;
use crate::workspace::page_of_nodes;

pub(super) async fn page<B>(desk: &Desk, holder: &Holder, body: B) -> Result<Answer, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Pages are for browsers.
    if !holder.is_a_person() {
        return Err(Refused::Ticket);
    }
    let view: View = body::json(body).await?;
    // This machine is the portal's: what listens here is of no interest. And a page names nobody but the ticket's holder.
    let nodes = view.nodes.as_ref().filter(|_| view.user == *holder.user()).ok_or(Refused::Malformed)?;
    let forwards = desk.own_forwards().await;
    match page_of_nodes(&view, desk.uid, nodes, &desk.forwards, forwards) {
        Ok(html) => Ok(respond::page(html)),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no page");
            Err(Refused::Failed)
        }
    }
}
