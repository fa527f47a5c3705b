//! A connection to the target: one that is open already, or a new one. Before: `resolve`. After: `authorize`.
//!
//! Invariant: nothing is written to a new connection here, not even a TLS greeting.

use std::io;
use std::net::SocketAddr;

use portreeve_model::Tuple;
use tokio::net::TcpStream;

use crate::limits;
use crate::pool::{Key, Link};
use crate::powers::DialError;
use crate::resolve::Target;
use crate::room::Room;
use crate::sessions::Session;

/// A connection that nobody has judged.
pub(crate) enum Reached {
    /// From the pool.
    Open(Link),
    /// Just made.
    New { stream: TcpStream, tuple: Tuple, key: Key },
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nothing listens there (any address refused).
    #[error("nothing is listening on {0}")]
    NotListening(SocketAddr),
    /// The visitor's own listens there on the node's loopback, where nobody from elsewhere comes.
    #[error("the application listens on its node's loopback address only, not on {0}")]
    LoopbackOnly(SocketAddr),
    /// No answer.
    #[error("{0} did not answer in time")]
    TimedOut(SocketAddr),
    /// The node has none now.
    #[error("no address of this node is known")]
    NoAddress,
    /// This process may open nothing more.
    #[error("no descriptor is free")]
    NoDescriptor(#[source] io::Error),
    /// The session is over.
    #[error("your session has ended")]
    Over,
    /// The process that connects for this user can't be had.
    #[error("nobody can connect for you at the moment")]
    NoDialer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else.
    #[error("{address} can't be reached")]
    Failed { address: SocketAddr, source: io::Error },
}

/// Reaches the target, from the pool unless `fresh`.
pub(crate) async fn connect(
    room: &Room,
    session: &Session,
    target: &Target,
    fresh: bool,
) -> Result<Reached, ConnectError> {
    let key_of = |address| Key { uid: session.uid, address, tls: target.tls.clone() };
    if !fresh {
        for address in &target.addresses {
            while let Some(mut link) = room.pool.take(&key_of(*address)) {
                // Ready once the last answer was taken off it; an error means that the application closed it. One
                // whose last request is still being sent, though it was answered, is not waited for.
                let ready = link.sender.is_ready()
                    || matches!(
                        tokio::time::timeout(limits::POOL_READY, link.sender.ready()).await,
                        Ok(Ok(()))
                    );
                if ready {
                    room.tally.pooled(true);
                    return Ok(Reached::Open(link));
                }
            }
        }
    }
    room.tally.pooled(false);
    let mut failures = Vec::new();
    for address in &target.addresses {
        match room.tally.connected(dial(room, session, *address).await) {
            Ok((stream, tuple)) => return Ok(Reached::New { stream, tuple, key: key_of(*address) }),
            Err(error) => failures.push(error),
        }
    }
    // That nobody listens is said only if no address has anything else to tell.
    let telling = failures.iter().position(|failure| !matches!(failure, ConnectError::NotListening(_)));
    let failure = failures.into_iter().nth(telling.unwrap_or(0)).unwrap_or(ConnectError::NoAddress);
    Err(match failure {
        ConnectError::NotListening(address) if room.powers.is_loopback_only(session.uid, address).await => {
            ConnectError::LoopbackOnly(address)
        }
        other => other,
    })
}

async fn dial(
    room: &Room,
    session: &Session,
    address: SocketAddr,
) -> Result<(TcpStream, Tuple), ConnectError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::NotListening(address),
        io::ErrorKind::TimedOut => ConnectError::TimedOut(address),
        _ if portreeve_sys::is_out_of_descriptors(&error) => ConnectError::NoDescriptor(error),
        _ => ConnectError::Failed { address, source: error },
    };
    let dial = || room.powers.dial(session, address);
    let stream = match dial().await {
        Err(DialError::Io(error)) if portreeve_sys::is_out_of_descriptors(&error) => {
            // Idle connections save time; now they are in the way. Their tasks close them.
            room.pool.clear();
            tokio::task::yield_now().await;
            dial().await
        }
        dialled => dialled,
    };
    let stream = stream.map_err(|error| match error {
        DialError::Io(error) => failed(error),
        DialError::Over => ConnectError::Over,
        DialError::NoDialer(why) => ConnectError::NoDialer(why),
    })?;
    let client = stream.local_addr().map_err(failed)?;
    let server = stream.peer_addr().map_err(failed)?;
    // Connecting to an ephemeral port on the loopback can meet itself (simultaneous open): nobody listens there.
    if client == server || server != address {
        return Err(ConnectError::NotListening(address));
    }
    Ok((stream, Tuple { client, server }))
}
