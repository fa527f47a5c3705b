//! Connections with the site's ident2 service, for portals: those may connect to nothing, and its socket is often root's.
//!
//! Invariants: where the service listens the configuration says, and nobody who asks. A portal has one connection: with
//! the next one, and with its own end, it is shut down, whoever has copies of it. So a portal that was taken over uses up
//! no more of the service's places, which the node's firewall needs, than any other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{Shutdown, SockType, shutdown};
use portreeve_model::wire::broker::{Answer, Ident2Line};
use portreeve_model::wire::encode_bare;
use portreeve_sys::message;

use super::Service;
use super::holders::failed;
use super::portal::PortalId;
use super::questions::is_channel;

/// The connections that portals have.
#[derive(Default)]
pub(super) struct Ident2Lines {
    by_portal: RefCell<HashMap<PortalId, OwnedFd>>,
}

impl Ident2Lines {
    fn keep(&self, portal: PortalId, line: OwnedFd) {
        let before = self.by_portal.borrow_mut().insert(portal, line);
        before.iter().for_each(end);
    }

    /// The portal's connection ends with it.
    pub(super) fn end_of_portal(&self, portal: PortalId) {
        let line = self.by_portal.borrow_mut().remove(&portal);
        line.iter().for_each(end);
    }
}

fn end(line: &OwnedFd) {
    // The service may have ended it.
    let _ = shutdown(line.as_raw_fd(), Shutdown::Both);
}

impl Service {
    /// Gives a portal a connection, over the channel that it made.
    pub(super) fn ident2(&self, portal: PortalId, channel: &OwnedFd) -> Answer {
        let policy = self.policy();
        let Some(path) = &policy.ident2 else {
            return failed("the broker's configuration does not say that ident2 is asked");
        };
        if !is_channel(channel, SockType::SeqPacket) {
            return failed("a connection with ident2 is handed over by a pair of SEQPACKET sockets");
        }
        match message::connect(path).and_then(|line| hand_over(&line, channel).map(|()| line)) {
            Ok(line) => {
                self.ident2.keep(portal, line);
                Answer::Done
            }
            Err(error) => {
                self.refusals.note("ident2-unreachable", || {
                    tracing::warn!(socket = %path.display(), %error, "a portal can't be connected with ident2");
                });
                failed(&format!("the ident2 service at {} can't be reached: {error}", path.display()))
            }
        }
    }
}

/// Does not wait, whatever the portal made of its channel.
fn hand_over(line: &OwnedFd, channel: &OwnedFd) -> io::Result<()> {
    let frame = encode_bare(&Ident2Line {}).map_err(io::Error::other)?;
    message::send(channel, &frame, &[line.as_fd()])
}
