//! A connection to the target: one that is open already, or a new one. Before: `resolve`. After: `authorize`.
//!
//! Invariant: nothing is written to a new connection here, not even a TLS greeting.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use nix::sys::socket::{setsockopt, sockopt};
use portreeve_model::Tuple;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::limits;
use crate::link::{Key, Link};
use crate::powers::DialError;
use crate::resolve::Target;
use crate::room::Room;
use crate::sessions::Session;

/// A connection that nobody has judged.
pub(crate) enum Reached {
    /// From the pool.
    Open(Box<Link>),
    /// Just made.
    New(Box<New>),
}

/// A connection on which nothing was sent yet.
pub(crate) struct New {
    pub(crate) stream: TcpStream,
    pub(crate) tuple: Tuple,
    pub(crate) key: Key,
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
    /// No way there: no machine has the address now, or a firewall on the way says so.
    #[error("there is no way to {address}")]
    NoRoute { address: SocketAddr, source: io::Error },
    /// Anything else.
    #[error("{address} can't be reached")]
    Failed { address: SocketAddr, source: io::Error },
}

/// Reaches the target, from the pool unless `fresh`. `asked` is when the request came.
pub(crate) async fn connect(
    room: &Room,
    session: &Session,
    target: &Target,
    asked: Instant,
    fresh: bool,
) -> Result<Reached, ConnectError> {
    let key_of = |address| Key { uid: session.uid, address, tls: target.tls.clone() };
    if !fresh {
        for address in &target.addresses {
            while let Some(mut link) = room.pool.take(&key_of(*address), asked) {
                // Ready once the last answer was taken off it.
                let ready = match link.is_ready() {
                    true => Ok(Ok(())),
                    false => timeout(limits::POOL_READY, link.ready()).await,
                };
                match ready {
                    Ok(Ok(())) => {
                        room.tally.pooled(true);
                        return Ok(Reached::Open(link));
                    }
                    // The application closed it.
                    Ok(Err(_)) => {}
                    // Its last request is still being sent, though it was answered. The others may be no better.
                    Err(_) => break,
                }
            }
        }
    }
    room.tally.pooled(false);
    let (address, stream, tuple) = Box::pin(dial_any(room, session, &target.addresses)).await?;
    Ok(Reached::New(Box::new(New { stream, tuple, key: key_of(address) })))
}

/// A connection to the first of these addresses that takes one. Each has a little time before the next one is tried beside it:
/// a node whose cable is cut must not cost the whole limit for each of its addresses.
async fn dial_any(
    room: &Room,
    session: &Session,
    addresses: &[SocketAddr],
) -> Result<(SocketAddr, TcpStream, Tuple), ConnectError> {
    let attempt = async |place, address| (place, room.tally.connected(dial(room, session, address).await));
    let (mut rest, mut attempts, mut failures) = (addresses.iter().enumerate(), Vec::new(), Vec::new());
    loop {
        match rest.next() {
            Some((place, address)) => attempts.push(Box::pin(attempt(place, *address))),
            None if attempts.is_empty() => break,
            None => {}
        }
        let ended = poll_fn(|cx| {
            for under_way in 0..attempts.len() {
                if let Poll::Ready(ended) = attempts[under_way].as_mut().poll(cx) {
                    drop(attempts.swap_remove(under_way));
                    return Poll::Ready(ended);
                }
            }
            Poll::Pending
        });
        let ended = match rest.len() {
            0 => Ok(ended.await),
            _ => timeout(limits::CONNECT_NEXT, ended).await,
        };
        match ended {
            Ok((place, Ok((stream, tuple)))) => return Ok((addresses[place], stream, tuple)),
            // The same at every address.
            Ok((_, Err(error @ (ConnectError::Over | ConnectError::NoDialer(_))))) => return Err(error),
            Ok((place, Err(error))) => failures.push((place, error)),
            Err(_) => {}
        }
    }
    // That nobody listens is said only if no address has anything else to tell; else what the first one has.
    failures.sort_by_key(|(place, failure)| (matches!(failure, ConnectError::NotListening(_)), *place));
    let failure = failures.into_iter().next().map_or(ConnectError::NoAddress, |(_, failure)| failure);
    Err(match failure {
        ConnectError::NotListening(address) if room.powers.is_loopback_only(session.uid, address).await => {
            ConnectError::LoopbackOnly(address)
        }
        other => other,
    })
}

/// In milliseconds, as the system wants it.
fn gone_after() -> u32 {
    u32::try_from(limits::UPSTREAM_GONE.as_millis()).unwrap_or(u32::MAX)
}

async fn dial(
    room: &Room,
    session: &Session,
    address: SocketAddr,
) -> Result<(TcpStream, Tuple), ConnectError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::NotListening(address),
        io::ErrorKind::TimedOut => ConnectError::TimedOut(address),
        // The last is what IPv6 makes of a firewall's refusal.
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::PermissionDenied => ConnectError::NoRoute { address, source: error },
        _ if portreeve_sys::is_out_of_descriptors(&error) => ConnectError::NoDescriptor(error),
        _ => ConnectError::Failed { address, source: error },
    };
    let dial = || room.powers.dial(session, address);
    let stream = match dial().await {
        Err(DialError::Io(error)) if portreeve_sys::is_out_of_descriptors(&error) => {
            // Idle connections save time; now they are in the way. Some have tasks, which close them.
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
    setsockopt(&stream, sockopt::TcpUserTimeout, &gone_after()).map_err(|errno| failed(errno.into()))?;
    let client = stream.local_addr().map_err(failed)?;
    let server = stream.peer_addr().map_err(failed)?;
    // Connecting to an ephemeral port on the loopback can meet itself (simultaneous open): nobody listens there.
    if client == server || server != address {
        return Err(ConnectError::NotListening(address));
    }
    Ok((stream, Tuple { client, server }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, getsockopt, listen, socket,
    };
    use portreeve_model::SignIn;

    use super::*;
    use crate::portal::now;

    fn session(room: &Room) -> std::sync::Arc<Session> {
        let (claims, _) = room.portal.service.embedded().broker().start_session(SignIn::Code, now()).unwrap();
        room.portal.sessions.admit(&claims, "", &[], now(), 3600).unwrap()
    }

    #[tokio::test]
    async fn a_machine_that_is_gone_is_not_waited_for_without_end() {
        let (_state, room) = crate::room::tests::room();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (stream, _) = dial(&room, &session(&room), listener.local_addr().unwrap()).await.unwrap();
        let patience = getsockopt(&stream, sockopt::TcpUserTimeout).unwrap();
        assert_eq!(u128::from(patience), limits::UPSTREAM_GONE.as_millis());
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_costs_a_moment_where_another_one_does() {
        let (_state, room) = crate::room::tests::room();
        // A queue that is full answers no SYN.
        let full = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(full.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        listen(&full, Backlog::new(0).unwrap()).unwrap();
        let silent: SockaddrIn = getsockname(full.as_raw_fd()).unwrap();
        let silent: SocketAddr = std::net::SocketAddrV4::from(silent).into();
        let _first = std::net::TcpStream::connect(silent).unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = other.local_addr().map(|address| (address, other)).unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let began = Instant::now();
        let (address, ..) = dial_any(&room, &session(&room), &[silent, refusing, other.0]).await.unwrap();
        assert_eq!(address, other.0);
        assert!((limits::CONNECT_NEXT..limits::CONNECT).contains(&began.elapsed()), "{:?}", began.elapsed());
        // What the first one has to tell is told.
        let told = dial_any(&room, &session(&room), &[refusing, silent]).await;
        assert!(matches!(told, Err(ConnectError::TimedOut(address)) if address == silent), "{told:?}");
        let told = dial_any(&room, &session(&room), &[refusing]).await;
        assert!(matches!(told, Err(ConnectError::NotListening(_))), "{told:?}");
    }
}
