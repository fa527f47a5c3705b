//! The state directory's socket: how `portreeve login` asks a running portal. Both ends.
//!
//! Invariant: who asks is known from the kernel (peer credentials), and only the portal's own user is answered.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Uid;
use portreeve_model::wire::{self, ControlReply, ControlRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::up::SignIn;

const SOCKET: &str = "control.sock";
/// For a question and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptor is free), until it is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A path for the socket however long the directory's own is: socket addresses hold 107 bytes.
fn short_path(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Begins to listen. The lock on the directory makes a socket file that is left over nobody's.
pub(crate) fn listen(state: &Path) -> anyhow::Result<UnixListener> {
    let path = state.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} can't be replaced", path.display()));
        }
        _ => {}
    }
    let dir = File::open(state)?;
    UnixListener::bind(short_path(&dir)).with_context(|| format!("{} can't be made", path.display()))
}

/// Answers questions for as long as the portal runs.
pub(crate) async fn serve(listener: UnixListener, sign_in: Arc<SignIn>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let sign_in = Arc::clone(&sign_in);
                tokio::spawn(async move {
                    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer(stream, &sign_in)).await {
                        tracing::debug!(%error, "a question on the control socket was not answered");
                    }
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the control socket failed to accept; it is tried again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: tokio::net::UnixStream, sign_in: &SignIn) -> anyhow::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut frame = vec![0; wire::frame_length(head)?];
    stream.read_exact(&mut frame).await?;
    let reply = if peer == Uid::effective().as_raw() {
        match wire::decode(&frame)? {
            ControlRequest::Login => match sign_in.address() {
                Ok(url) => ControlReply::Address { url },
                Err(error) => ControlReply::Refused { reason: error.to_string() },
            },
            ControlRequest::Where => ControlReply::Portal { url: sign_in.portal(), pid: std::process::id() },
            ControlRequest::SignOutEverywhere
            | ControlRequest::Sessions { .. }
            | ControlRequest::Revoke { .. }
            | ControlRequest::MakeToken { .. }
            | ControlRequest::Tokens { .. }
            | ControlRequest::RevokeToken { .. } => {
                let reason = "this is a cluster's; one's own portal has a sign-out on its page".to_owned();
                ControlReply::Refused { reason }
            }
        }
    } else {
        tracing::warn!(target: "audit", event = "login-refused", uid = peer, "somebody else asked for a sign-in address");
        ControlReply::Refused { reason: format!("this portal is {}'s, not yours", sign_in.user()) }
    };
    stream.write_all(&wire::encode(&reply)?).await?;
    Ok(())
}

/// Whether a portal runs on this state directory.
pub(crate) fn runs(state: &Path) -> bool {
    File::open(state).is_ok_and(|dir| UnixStream::connect(short_path(&dir)).is_ok())
}

/// Asks the portal that runs on this state directory.
pub(crate) fn ask(state: &Path, request: &ControlRequest) -> anyhow::Result<ControlReply> {
    let not_running = || {
        format!(
            "no portal is running on {}: start one with `portreeve up`, or name another --state DIR",
            state.display()
        )
    };
    let dir = File::open(state).with_context(not_running)?;
    let mut stream = UnixStream::connect(short_path(&dir)).with_context(not_running)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if portreeve_sys::peer_uid(&stream)? != Uid::effective().as_raw() {
        bail!("the portal on {} is not yours", state.display());
    }
    stream.write_all(&wire::encode(request)?)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("the portal did not answer")?;
    let mut frame = vec![0; wire::frame_length(head)?];
    stream.read_exact(&mut frame).context("the portal did not answer")?;
    Ok(wire::decode(&frame)?)
}
