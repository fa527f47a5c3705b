//! `portreeve login`: a fresh sign-in address, from one's own portal or from the cluster's.

use std::path::PathBuf;

use anyhow::bail;
use portreeve_model::{ControlReply, ControlRequest};

use crate::arguments::Login;
use crate::cluster::{self, unexpected};
use crate::control;

/// Who is asked.
pub(crate) enum Place {
    /// One's own portal, by its state directory.
    Own(PathBuf),
    /// The cluster's, by its login socket.
    Cluster(PathBuf),
}

impl Place {
    /// As was asked for; without that, one's own portal if it runs, else the cluster's.
    ///
    /// # Errors
    /// When neither is there.
    pub(crate) fn of(login: &Login) -> anyhow::Result<Self> {
        let socket = login.socket.path();
        if login.socket.socket.is_some() {
            return Ok(Self::Cluster(socket));
        }
        let state = login.state.path();
        if login.state.dir.is_some() {
            return state.map(Self::Own);
        }
        match &state {
            Ok(state) if control::runs(state) => Ok(Self::Own(state.clone())),
            _ if socket.exists() => Ok(Self::Cluster(socket)),
            Ok(state) => bail!(
                "no portal is running on {}: start one with `portreeve up`, or name another --state DIR; and this \
                 machine is no login node of a cluster's portal, since {} is not there",
                state.display(),
                socket.display()
            ),
            Err(error) => bail!("{} is not there, and {error}", socket.display()),
        }
    }

    /// Asks there.
    pub(crate) fn ask(&self, request: &ControlRequest) -> anyhow::Result<ControlReply> {
        match self {
            Self::Own(state) => match control::ask(state, request)? {
                ControlReply::Refused { reason } => bail!("refused: {reason}"),
                reply => Ok(reply),
            },
            Self::Cluster(socket) => cluster::ask(socket, request),
        }
    }
}

pub(crate) fn login(login: &Login) -> anyhow::Result<()> {
    println!("{}", address(&Place::of(login)?)?);
    Ok(())
}

/// A fresh sign-in address.
pub(crate) fn address(place: &Place) -> anyhow::Result<String> {
    match place.ask(&ControlRequest::Login)? {
        ControlReply::Address { url } => Ok(url),
        _ => unexpected(),
    }
}
