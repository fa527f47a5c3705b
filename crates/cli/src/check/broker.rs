//! The broker: whether it answers at the login socket, and for this portal.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};
use portreeve_model::{ControlReply, ControlRequest};

use super::{Finding, Installation, PATIENCE};

/// Where the broker answers whoever types `portreeve`.
const LOGIN_SOCKET: &str = "/run/portreeve/login.sock";

pub(super) fn check(at: &Installation) -> Vec<Finding> {
    let remedy = "systemctl status portreeve-broker says why";
    vec![match ask(Path::new(LOGIN_SOCKET)) {
        Ok(ControlReply::Portal { url, .. }) => of_portal(&url, at.config.portal.url.as_deref()),
        Ok(_) => Finding::problem(format!("{LOGIN_SOCKET}: an answer to another question"), remedy),
        Err(error) => Finding::problem(format!("{LOGIN_SOCKET}: {error:#}"), remedy),
    }]
}

fn of_portal(said: &str, configured: Option<&str>) -> Finding {
    match configured {
        Some(url) if said.trim_end_matches('/') != url => {
            let what = format!("it signs people in at {said}, and not at {url}");
            Finding::problem(
                what,
                "systemctl restart portreeve-broker portreeve-portal, so that both know the address",
            )
        }
        _ => Finding::fine(format!("it answers, for {said}")),
    }
}

fn ask(path: &Path) -> anyhow::Result<ControlReply> {
    let channel = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&channel, sockopt::ReceiveTimeout, &patience)?;
    setsockopt(&channel, sockopt::SendTimeout, &patience)?;
    match connect(channel.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => bail!("nobody listens there"),
        connected => connected.map_err(io::Error::from)?,
    }
    if portreeve_sys::peer_uid(&channel)? != 0 {
        bail!("whoever answers there is not root");
    }
    send(channel.as_raw_fd(), &encode_bare(&ControlRequest::Where)?, MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = vec![0; MAX_FRAME];
    let length = match recv(channel.as_raw_fd(), &mut answer, MsgFlags::empty()) {
        Ok(0) => bail!("it hung up"),
        Err(Errno::EAGAIN) => bail!("it does not answer"),
        received => received?,
    };
    decode(&answer[..length]).context("the answer is not understood")
}
