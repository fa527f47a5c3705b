//! Asks the firewall of this node: the other end of `control`, for `portreeve why`, `portreeve check --live` and `--metrics`.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use portreeve_model::wire;
use portreeve_model::wire::firewall::{ControlAnswer, ControlQuestion};

use super::{CONFIG, limits, read_config};

/// Where the control socket is, by the configuration of this node.
///
/// # Errors
/// Every problem of the configuration.
pub fn socket_path() -> anyhow::Result<PathBuf> {
    Ok(read_config(Path::new(CONFIG))?.control_socket)
}

/// Asks.
///
/// # Errors
/// When there is no answer.
pub fn ask(path: &Path, question: &ControlQuestion) -> anyhow::Result<ControlAnswer> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::new(limits::CONTROL_ASKING.as_secs().cast_signed(), 0);
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    setsockopt(&socket, SendTimeout, &patience)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?).with_context(|| {
        format!("the firewall does not answer at {}: is portreeve-firewall started?", path.display())
    })?;
    let question = wire::encode_bare(question)?;
    let mut answer = vec![0; limits::CONTROL_ANSWER];
    let asked = send(socket.as_raw_fd(), &question, MsgFlags::MSG_NOSIGNAL)
        .and_then(|_| recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()));
    let length = match asked {
        // It was closed before the question came, or was read.
        Err(Errno::EPIPE | Errno::ECONNRESET) => 0,
        asked => {
            asked.with_context(|| format!("the firewall at {} did not answer in time", path.display()))?
        }
    };
    if length == 0 {
        bail!("the firewall at {} is asked too much at once: try again", path.display());
    }
    Ok(wire::decode(&answer[..length])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_turned_away_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listening = crate::seqpacket::listen_at(&path, 8, 0o600, None).unwrap();
        listening.set_nonblocking(false).unwrap();
        // A thread that the test need not outlive where it fails.
        let turns_away = std::thread::spawn(move || {
            // With the question unread, and at once.
            for is_asked in [true, false] {
                let (caller, _) = listening.accept().unwrap();
                if is_asked {
                    recv(caller.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_PEEK).unwrap();
                }
            }
        });
        for _ in 0..2 {
            let error = ask(&path, &ControlQuestion::Status).unwrap_err().to_string();
            assert!(error.contains("is asked too much at once"), "{error}");
        }
        turns_away.join().unwrap();
    }
}
