//! Whether the program answers, and is the one that was started.
//!
//! Invariant: what listens on the port counts only if a process that descends from ours holds it, by the kernel's own records.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portreeve_jobs::here::parent;
use portreeve_sys::SockDiag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One try to be answered.
const TRY: Duration = Duration::from_secs(5);
/// Ancestors that are looked at.
const DEPTH: usize = 64;

/// Who listens on a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// Nobody.
    Nobody,
    /// The program that was started, on this address.
    Ours(IpAddr),
    /// Something else: a clause about it.
    Other(String),
}

/// Who listens there now. Processes are looked at only once this uid is among them.
///
/// # Errors
/// When the kernel can't be asked.
pub(super) fn listener(diag: &mut SockDiag, port: u16, uid: u32) -> std::io::Result<Listener> {
    let found = diag.listening_on(port)?;
    if !found.iter().any(|record| record.uid == uid) {
        let stranger = found.first();
        return Ok(stranger.map_or(Listener::Nobody, |record| {
            Listener::Other(format!("a process of uid {} has port {port}", record.uid))
        }));
    }
    let ours = std::process::id();
    let mut other = None;
    for row in portreeve_agent::listening(uid)?.iter().filter(|row| row.port == port) {
        match row.pid {
            Some(pid) if descends(pid, ours) => return Ok(Listener::Ours(row.address)),
            Some(pid) => other = Some(format!("process {pid} of yours has port {port}")),
            None => other = Some(format!("a process of yours that can't be looked at has port {port}")),
        }
    }
    // Between the two looks it may have gone.
    Ok(other.map_or(Listener::Nobody, Listener::Other))
}

fn descends(mut pid: u32, from: u32) -> bool {
    for _ in 0..DEPTH {
        let Some(parent) = parent(pid) else { return false };
        if parent == from {
            return true;
        }
        pid = parent;
    }
    false
}

/// Whether something there answers HTTP, whatever it says.
pub(super) async fn answers_http(address: SocketAddr, host: &str, path: &str) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: portreeve-launch\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head == *b"HTTP/1.")
    };
    matches!(timeout(TRY, asked).await, Ok(Ok(true)))
}

/// Whether something there takes connections.
pub(super) async fn takes_connections(address: SocketAddr) -> bool {
    matches!(timeout(TRY, TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors() {
        let own = std::process::id();
        assert!(descends(own, parent(own).unwrap()));
        assert!(!descends(own, own) && !descends(1, own) && !descends(u32::MAX, own));
    }

    #[tokio::test]
    async fn answers() {
        let uid = nix::unistd::getuid().as_raw();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It is this process itself, and no descendant of it.
        let mut diag = SockDiag::open().unwrap();
        assert!(matches!(super::listener(&mut diag, address.port(), uid), Ok(Listener::Other(_))));
        assert!(takes_connections(address).await);
        for (says, good) in [
            ("HTTP/1.1 500 Oops\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\n\r\n", true),
            ("SSH-2.0\r\n", false),
            ("", false),
        ] {
            let serve = async {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut buffer = [0; 512];
                    // Of those that only see whether it listens nothing comes.
                    if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                        stream.write_all(says.as_bytes()).await.unwrap();
                        break;
                    }
                }
            };
            let (_, answered) = tokio::join!(serve, answers_http(address, "h", "/"));
            assert_eq!(answered, good, "{says:?}");
        }
        drop(listener);
        assert_eq!(super::listener(&mut diag, address.port(), uid).unwrap(), Listener::Nobody);
        assert!(!takes_connections(address).await);
    }
}
