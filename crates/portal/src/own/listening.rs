//! `/-/listening`: what the signed-in person has listening on each node, as JSON for programs.

use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use portreeve_model::Scope;
use portreeve_model::wire::worker::NodeView;
use serde_json::{Value, json};

use super::origins;
use crate::answer::Answer;
use crate::fetch::Fetch;
use crate::front::Connection;
use crate::portal::Settings;
use crate::reject::Reject;
use crate::respond;
use crate::sessions::Sort;
use crate::site::Site;
use crate::token;

/// The array, one object for each node that has something to tell.
pub(super) async fn answer(
    connection: &Rc<Connection>,
    settings: &Arc<Settings>,
    site: &Site,
    parts: &Parts,
) -> Result<Response<Answer>, Reject> {
    let who = token::ticket_or_token(connection, settings, site, parts).await?;
    who.require(Scope::Api)?;
    origins::refuse_cross_site(site, parts, Fetch::of(&parts.headers))?;
    let _place = who.session().begin_own(Sort::Page).ok_or(Reject::TooMany)?;
    let nodes = connection.room.powers.nodes_view(who.session().uid).await;
    let said: Vec<Value> = nodes.iter().map(|node| of_node(node, &site.authority)).collect();
    Ok(respond::data(&Value::from(said)))
}

fn of_node(view: &NodeView, authority: &str) -> Value {
    let rows = match &view.listening {
        Ok(rows) => rows,
        Err(problem) => return json!({ "node": view.node.as_str(), "problem": problem }),
    };
    let shown = |row: &portreeve_model::wire::agent::Row| {
        let open = view.place(row).map(|place| format!("https://{authority}/fw2/{place}/"));
        json!({
            "address": row.address, "port": row.port, "command": row.command, "job": row.job, "open": open,
        })
    };
    let shown: Vec<Value> = rows.rows.iter().map(shown).collect();
    json!({ "node": view.node.as_str(), "rows": shown, "more": rows.more })
}
