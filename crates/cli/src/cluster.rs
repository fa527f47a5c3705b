//! The login socket of a cluster: the broker's on the portal's machine, the agent's on another login node. Who asks is
//! known there from the kernel (peer credentials).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use portreeve_model::wire::{self, ControlReply, ControlRequest, MAX_FRAME};

/// Where it is.
pub(crate) const SOCKET: &str = "/run/portreeve/login.sock";
/// Says where it is instead.
const VARIABLE: &str = "PORTREEVE_LOGIN_SOCKET";
/// For an answer, in seconds: the broker may have to ask the user database and PAM.
const PATIENCE: i64 = 40;

/// Which socket.
#[derive(Debug, Args)]
pub(crate) struct LoginSocket {
    /// The cluster's login socket [default: $PORTREEVE_LOGIN_SOCKET, or /run/portreeve/login.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

impl LoginSocket {
    /// The one that was asked for, or the cluster's.
    pub(crate) fn path(&self) -> PathBuf {
        let named = || std::env::var_os(VARIABLE).map(PathBuf::from).filter(|path| path.is_absolute());
        self.socket.clone().or_else(named).unwrap_or_else(|| PathBuf::from(SOCKET))
    }

    /// Asks.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub(crate) fn ask(&self, request: &ControlRequest) -> anyhow::Result<ControlReply> {
        ask(&self.path(), request)
    }
}

/// Asks at this socket.
///
/// # Errors
/// As [`LoginSocket::ask`].
pub(crate) fn ask(path: &Path, request: &ControlRequest) -> anyhow::Result<ControlReply> {
    let shown = path.display();
    let socket = connected(path)?;
    let request = wire::encode_bare(request)?;
    send(socket.as_raw_fd(), &request, MsgFlags::MSG_NOSIGNAL).map_err(|errno| lost(path, errno))?;
    // One byte more, so that what was cut is seen to be too long.
    let mut frame = vec![0; MAX_FRAME + 1];
    let length =
        recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()).map_err(|errno| lost(path, errno))?;
    if length == 0 {
        bail!("whoever is at {shown} did not answer: you may be asking too often at once; wait a moment");
    }
    match wire::decode(&frame[..length]).with_context(|| format!("the answer from {shown} is no answer"))? {
        ControlReply::Refused { reason } => bail!("refused: {reason}"),
        reply => Ok(reply),
    }
}

fn connected(path: &Path) -> anyhow::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context("no socket can be made")?;
    let patience = TimeVal::new(PATIENCE, 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience).context("no socket can be made")?;
    setsockopt(&socket, sockopt::SendTimeout, &patience).context("no socket can be made")?;
    let address =
        UnixAddr::new(path).with_context(|| format!("{} is no path of a socket", path.display()))?;
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) => Ok(socket),
        Err(Errno::ENOENT) => {
            bail!("{} is not there: this machine is no login node of a cluster's portal", path.display())
        }
        Err(Errno::ECONNREFUSED) => bail!(
            "nobody answers at {}: portreeve-broker does not run (on a login node without the portal, \
             portreeve-agent)",
            path.display()
        ),
        Err(errno) => {
            Err(io::Error::from(errno)).with_context(|| format!("{} can't be used", path.display()))
        }
    }
}

fn lost(path: &Path, errno: Errno) -> anyhow::Error {
    let shown = path.display();
    let why = match errno {
        Errno::EAGAIN => format!("whoever is at {shown} did not answer in time"),
        Errno::EPIPE | Errno::ECONNRESET => {
            format!("whoever is at {shown} hung up: you may be asking too often at once; wait a moment")
        }
        _ => format!("{shown} can't be asked"),
    };
    anyhow::Error::from(io::Error::from(errno)).context(why)
}

/// An answer that belongs to another question.
pub(crate) fn unexpected<T>() -> anyhow::Result<T> {
    bail!("the answer is one to another question: the command and the portal are of different versions")
}
