//! Who is around `portreeve-broker` in a test.
//!
//!   portreeve-test-broker ask SOCKET REQUEST       asks at the login socket, and prints the answer
//!   portreeve-worker                               plays a worker: tells each connection who it is and how many keys it knows

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::getuid;
use portreeve_model::wire::worker::ToWorker;
use portreeve_model::wire::{MAX_FRAME, decode};
use portreeve_sys::message::{self, ReceiveError};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [_, "ask", socket, request] => ask(socket, request),
        [program] if program.ends_with("portreeve-worker") => work(),
        _ => Err(Error::other("unknown arguments")),
    }
}

/// The next message, of which something was made before the next one is waited for.
fn listen<T>(channel: impl AsFd, made: impl FnOnce(message::Message<'_>) -> T) -> Result<T> {
    let mut buffer = vec![0; MAX_FRAME];
    poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    match message::receive(&channel, &mut buffer, 1) {
        Ok(message) => Ok(made(message)),
        Err(ReceiveError::Closed) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(Error::other(error)),
    }
}

fn ask(path: &str, request: &str) -> Result<()> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    message::send(&socket, request.as_bytes(), &[])?;
    let answer = listen(&socket, |message| String::from_utf8_lossy(message.bytes).into_owned())?;
    println!("{answer}");
    Ok(())
}

fn work() -> Result<()> {
    let control = portreeve_sys::inherited(3)?;
    let mut known = 0;
    loop {
        let (word, mut descriptors) =
            match listen(&control, |message| (decode(message.bytes), message.descriptors)) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                heard => heard?,
            };
        match word.map_err(Error::other)? {
            ToWorker::Site { .. } | ToWorker::Ended { .. } => {}
            ToWorker::Keys(keys) => known = keys.len(),
            ToWorker::Connection => {
                let connection = descriptors.pop().ok_or_else(|| Error::other("nothing came along"))?;
                let home = std::env::var("HOME").unwrap_or_default();
                let said = format!("uid {} keys {known} home {home}", getuid());
                nix::unistd::write(&connection, said.as_bytes())?;
            }
        }
    }
}
