//! `GET /ws`: the WebSocket (RFC 6455, section 4.2).

use std::rc::Rc;

use http::{HeaderMap, Method, Request, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::access::Admitted;
use crate::desk::Desk;
use crate::respond::{self, Answer, Refused};
use crate::{limits, viewer};

pub(super) fn open(
    admitted: &Admitted,
    desk: &Rc<Desk>,
    mut request: Request<Incoming>,
) -> Result<Answer, Refused> {
    if request.method() != Method::GET {
        return Err(Refused::Method("GET"));
    }
    let key = key(request.headers()).ok_or(Refused::NotASocket)?;
    if !admitted.may_converse(request.headers()) {
        return Err(Refused::Origin);
    }
    let answer = respond::switch(&derive_accept_key(key.as_bytes()))?;
    let upgrade = on(&mut request);
    desk.beside(converse(upgrade, Rc::clone(desk), admitted.may_type()));
    Ok(answer)
}

fn key(headers: &HeaderMap) -> Option<String> {
    let names = |name, wanted: &str| {
        let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
        fields.flat_map(|field| field.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?;
    let good = names(header::CONNECTION, "upgrade") && names(header::UPGRADE, "websocket") && version == "13";
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    good.then(|| key.to_owned())
}

async fn converse(upgrade: OnUpgrade, desk: Rc<Desk>, may_type: bool) {
    let connection = match upgrade.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a connection ended before its WebSocket"
            );
            return;
        }
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::MESSAGE))
        .max_frame_size(Some(limits::MESSAGE))
        .write_buffer_size(0)
        .max_write_buffer_size(limits::WRITE_BUFFER);
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
    viewer::converse(socket, &desk.room, may_type).await;
}
