//! Asks the firewall of this node: the other end of `control`, for `portreeve why`, `portreeve check --live` and `--metrics`.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
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
    send(socket.as_raw_fd(), &wire::encode_bare(question)?, MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = vec![0; limits::CONTROL_ANSWER];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())
        .with_context(|| format!("the firewall at {} did not answer in time", path.display()))?;
    if length == 0 {
        bail!("the firewall at {} is asked too much at once: try again", path.display());
    }
    Ok(wire::decode(&answer[..length])?)
}
