//! Reaches portals. One connection more than were taken always waits in the queue of the portal's socket, so that a portal that
//! is started while an old one drains finds it there.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_seqpacket::UnixSeqpacket;

use super::channel::Channel;
use super::portal::{Connection, PortalId};
use super::{Service, ServiceError, limits};

/// Keeps connections for as long as the broker runs.
pub(super) async fn reach(service: Rc<Service>) -> ServiceError {
    // Whoever takes all that wait only gets so many.
    let places = Arc::new(Semaphore::new(limits::PORTALS));
    let mut pause = limits::RECONNECT_FIRST;
    let mut next = 0;
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        let connected = UnixSeqpacket::connect(&service.settings.portal_socket).await;
        let made = connected.and_then(|socket| Connection::new(PortalId(next), Channel::connected(socket)));
        let waiting = match made {
            Ok(connection) => Rc::new(connection),
            Err(error) => {
                tracing::debug!(%error, "no portal can be reached");
                backed_off(&mut pause).await;
                continue;
            }
        };
        next += 1;
        let (own, connection) = (Rc::clone(&service), Rc::clone(&waiting));
        let mut serving = tokio::task::spawn_local(async move {
            let _place = place;
            connection.serve(&own).await;
        });
        let taken = tokio::select! {
            () = waiting.is_taken() => true,
            _ = &mut serving => false,
        };
        // What ended is closed now, and not when the pause is over.
        drop(waiting);
        if taken {
            pause = limits::RECONNECT_FIRST;
        } else {
            backed_off(&mut pause).await;
        }
    }
}

async fn backed_off(pause: &mut Duration) {
    sleep(*pause).await;
    *pause = (*pause * 2).min(limits::RECONNECT_MOST);
}
