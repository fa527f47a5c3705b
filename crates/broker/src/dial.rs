//! Opens a TCP connection as the person it is for.
//!
//! In the one-process form that person is whoever runs it, so this is `connect` and nothing more.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// Connects to exactly this address.
///
/// # Errors
/// What the system says; `TimedOut` when it says nothing within `deadline`.
pub async fn dial(address: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // Small messages of interactive applications must not wait for each other.
    stream.set_nodelay(true)?;
    Ok(stream)
}
