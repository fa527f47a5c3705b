//! A small application for tests that need one of another user: answers each request with "I am uid N", a request for
//! an upgrade by echoing, and reports on request what reached it.
//!
//! `--listen ADDRESS:PORT` may have a name in the address's place. `--v6only`: `[::]` takes no IPv4.
//! `--drop UID`: opens and binds its socket as whoever starts it, becomes UID, and only then listens.
//! `--mute`: accepts, and never answers. `--deaf`: never accepts.

use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    ended: AtomicUsize,
    bytes: AtomicUsize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let mut found = after("--listen").ok_or("--listen ADDRESS is missing")?.to_socket_addrs()?;
    let address: SocketAddr = found.next().ok_or("--listen has a name without an address")?;

    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let bound = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&bound, sockopt::ReuseAddr, &true)?;
    if has("--v6only") {
        setsockopt(&bound, sockopt::Ipv6V6Only, &true)?;
    }
    bind(bound.as_raw_fd(), &SockaddrStorage::from(address))?;
    if let Some(uid) = after("--drop") {
        let uid: u32 = uid.parse()?;
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setgroups(&[group])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
    }
    listen(&bound, Backlog::new(64)?)?;
    let listener = TcpListener::from(bound);
    println!("listening on {}", listener.local_addr()?.port());
    std::io::stdout().flush()?;

    let counts = Arc::new(Counts::default());
    let (mute, deaf, shared) = (has("--mute"), has("--deaf"), Arc::clone(&counts));
    std::thread::spawn(move || {
        if deaf {
            std::thread::park();
        }
        for stream in listener.incoming().flatten() {
            shared.connections.fetch_add(1, SeqCst);
            let counts = Arc::clone(&shared);
            std::thread::spawn(move || {
                converse(stream, &counts, mute);
                counts.ended.fetch_add(1, SeqCst);
            });
        }
    });
    for line in std::io::stdin().lock().lines() {
        if line? == "report" {
            let of = |count: &AtomicUsize| count.load(SeqCst);
            println!("report {} {} {}", of(&counts.connections), of(&counts.ended), of(&counts.bytes));
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

fn converse(mut stream: TcpStream, counts: &Counts, mute: bool) {
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    let mut echoes = false;
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        counts.bytes.fetch_add(length, SeqCst);
        if mute {
            continue;
        }
        if echoes {
            if stream.write_all(&chunk[..length]).is_err() {
                break;
            }
            continue;
        }
        head.extend_from_slice(&chunk[..length]);
        if !head.windows(4).any(|window| window == b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        head.clear();
        let answer = if text.contains("\r\nupgrade: echo\r\n") {
            echoes = true;
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".to_owned()
        } else {
            let body = format!("I am uid {}\n", Uid::effective());
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}
