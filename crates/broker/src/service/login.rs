//! The login socket: whoever types `portreeve login` or `portreeve token` on this machine has proven by that who they are.
//! And the sysadmin's verbs.
//!
//! Invariant: who asks is read from the socket's peer credentials; a process of a worker's is refused; only uid 0 hears or
//! ends what is somebody else's.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use portreeve_model::UserName;
use portreeve_model::wire::spawner::Missing;
use portreeve_model::wire::{ControlReply, ControlRequest};
use portreeve_sys::PeerProcess;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_seqpacket::{UCred, UnixSeqpacket, UnixSeqpacketListener};

use super::access::Whose;
use super::caller::Caller;
use super::channel::{Buffer, Channel, ChannelError};
use super::holders::{AllEnded, Left};
use super::shares::Shares;
use super::{Service, ServiceError, limits};

/// Listens.
pub(super) struct LoginSocket {
    listener: UnixSeqpacketListener,
}

impl LoginSocket {
    /// Replaces what is there. The directory is root's, so nobody else put it there.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixSeqpacketListener::bind(path)?;
        // Everybody may ask.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener })
    }

    /// Answers for as long as the broker runs.
    pub(super) async fn serve(mut self, service: Rc<Service>) -> ServiceError {
        let mut callers = JoinSet::new();
        let shares = Rc::<Shares>::default();
        loop {
            while callers.try_join_next().is_some() {}
            let caller = match self.listener.accept().await {
                Ok(caller) => caller,
                Err(error) => {
                    tracing::warn!(%error, "the login socket failed to accept");
                    sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(credentials) = caller.peer_cred() else { continue };
            let uid = credentials.uid();
            // Root is let in when others fill it up.
            if uid != 0 && callers.len() >= limits::CALLERS {
                continue;
            }
            let Some(share) = shares.take(shares.of(uid)) else { continue };
            let (service, shares) = (Rc::clone(&service), Rc::clone(&shares));
            callers.spawn_local(async move {
                let Some(_share) = shares.settled(share, uid, &service).await else { return };
                match timeout(limits::CALLER, one_question(caller, credentials, &service)).await {
                    Ok(Ok(())) | Ok(Err(ChannelError::Closed)) => {}
                    Ok(Err(error)) => tracing::debug!(uid, %error, "a caller's question can't be answered"),
                    Err(_) => tracing::debug!(uid, "a caller took too long"),
                }
            });
        }
    }
}

async fn one_question(
    caller: UnixSeqpacket,
    credentials: UCred,
    service: &Rc<Service>,
) -> Result<(), ChannelError> {
    let asks = Caller { pid: credentials.pid(), process: PeerProcess::of(&caller) };
    let channel = Channel::connected(caller);
    let request = channel.receive_plain(&mut Buffer::new()).await?;
    let reply = service.control(request, credentials.uid(), &asks).await;
    channel.send(&reply).await
}

pub(super) fn refused(reason: &str) -> ControlReply {
    ControlReply::Refused { reason: reason.to_owned() }
}

impl Service {
    /// Answers whoever has this uid, by the kernel's word.
    pub(super) async fn control(&self, request: ControlRequest, uid: u32, asks: &Caller) -> ControlReply {
        if request == ControlRequest::Where {
            return ControlReply::Portal { url: format!("{}/", self.policy().url), pid: std::process::id() };
        }
        // A pid that the kernel does not tell is in a namespace that we can't see.
        if asks.is_of_a_worker(&self.workers.processes()) {
            let pid = asks.pid;
            self.refusals.note("login-refused", || {
                tracing::warn!(target: "audit", event = "login-refused", uid, ?pid, "asked from inside the portal");
            });
            return refused(
                "not from a terminal that the portal opened: use the one you signed in to the machine with",
            );
        }
        match request {
            ControlRequest::Login => self.login_address(uid, "this machine").await,
            ControlRequest::SignOutEverywhere if self.accounts.serves(uid) => {
                ended(&[self.end_user(uid, "signed out everywhere", Left::Nothing)])
            }
            ControlRequest::Sessions { user, after } if uid == 0 => {
                self.sessions.borrow().list(user.as_ref(), after.as_ref())
            }
            ControlRequest::Revoke { user } if uid == 0 => self.revoke(&user).await,
            ControlRequest::MakeToken { name, scopes, lifetime } => {
                self.make_token(uid, name, scopes, lifetime).await
            }
            ControlRequest::Tokens { user, after } if uid == 0 => {
                self.list_tokens(&Whose::Of(user), after.as_ref())
            }
            ControlRequest::Tokens { user: None, after } => {
                self.list_tokens(&Whose::Own(uid), after.as_ref())
            }
            ControlRequest::RevokeToken { user, name } if uid == 0 => {
                self.revoke_token(&Whose::Of(user), &name)
            }
            ControlRequest::RevokeToken { user: None, name } => self.revoke_token(&Whose::Own(uid), &name),
            ControlRequest::SignOutEverywhere => refused("this account is not served"),
            ControlRequest::Sessions { .. }
            | ControlRequest::Revoke { .. }
            | ControlRequest::Tokens { user: Some(_), .. }
            | ControlRequest::RevokeToken { user: Some(_), .. } => {
                self.refusals.note("control-refused", || {
                    tracing::warn!(target: "audit", event = "control-refused", uid, "somebody asked as only root may");
                });
                refused("only root may do that")
            }
            ControlRequest::Where => refused("it was answered above"),
        }
    }

    /// Ends all sessions and access tokens of a user. One whom the user database does not know any more may have some still; and
    /// the name may have gone to another uid while the old one's lived.
    async fn revoke(&self, user: &UserName) -> ControlReply {
        let mut uids: BTreeSet<u32> = self.sessions.borrow().uid_of(user).into_iter().collect();
        uids.extend(self.tokens.borrow().uids_of(user));
        match self.accounts.by_name_anew(user).await {
            Ok(identity) => drop(uids.insert(identity.uid)),
            Err(Missing::NoAccount) if uids.is_empty() => {
                return refused("there is no such account, and no session or access token of that name");
            }
            Err(missing) if uids.is_empty() => return refused(&missing.to_string()),
            Err(_) => {}
        }
        let all: Vec<AllEnded> =
            uids.into_iter().map(|uid| self.end_user(uid, "revoked by root", Left::Nothing)).collect();
        ended(&all)
    }
}

fn ended(all: &[AllEnded]) -> ControlReply {
    let sum = |number: fn(&AllEnded) -> u32| all.iter().map(number).fold(0, u32::saturating_add);
    match all.iter().all(|ended| ended.kept) {
        true => ControlReply::Ended { known: sum(|ended| ended.known), tokens: sum(|ended| ended.tokens) },
        false => refused("the sessions are over, but that could not be written down: see the broker's log"),
    }
}
