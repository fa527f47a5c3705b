//! One sign-in: authentication, the account, and a new password where the old one has expired, in one conversation.
//!
//! PAM_SILENT is not set: what modules say is for the person. An unknown user is asked what a known one is, by the modules
//! themselves, and refused after the same delay, which libpam keeps (pam_fail_delay(3)).

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use pam_client2::{Context, ErrorCode, Flag};
use portreeve_model::UserName;
use portreeve_model::wire::pam::{PamNews, PamRefusal};

use crate::TTY;
use crate::talk::Talk;
use crate::verdict::{of_account, of_change, of_proof};

pub(crate) fn converse(
    channel: OwnedFd,
    service: &str,
    from: IpAddr,
    user: Option<&UserName>,
) -> anyhow::Result<u8> {
    let mut pam = Context::new(service, user.map(UserName::as_str), Talk::new(channel))
        .context("PAM can't be begun")?;
    let outcome = sign_in(&mut pam, from);
    let said = pam.conversation_mut().take_said();
    let news = match outcome {
        Ok(user) => PamNews::Granted { user, said },
        Err(why) => PamNews::Refused { why, said },
    };
    // Nobody may be there any more to hear it.
    if let Err(error) = pam.conversation().end(&news) {
        tracing::debug!(%error, "nobody hears how the sign-in ended");
    }
    Ok(0)
}

fn sign_in(pam: &mut Context<Talk>, from: IpAddr) -> Result<UserName, PamRefusal> {
    let failed = |what: &str, error: pam_client2::Error| {
        tracing::error!(%error, "{what}");
        PamRefusal::System
    };
    pam.set_rhost(Some(&from.to_canonical().to_string())).map_err(|e| failed("PAM_RHOST can't be set", e))?;
    pam.set_tty(Some(TTY)).map_err(|e| failed("PAM_TTY can't be set", e))?;
    // Whoever has no password can't sign in over the network, whatever the modules' options say.
    pam.authenticate(Flag::DISALLOW_NULL_AUTHTOK).map_err(|error| {
        match error.code() {
            // The person left.
            ErrorCode::CONV_ERR => tracing::debug!(%from, %error, "not authenticated"),
            code => tracing::info!(%from, ?code, %error, "not authenticated"),
        }
        of_proof(error.code())
    })?;
    if let Err(error) = pam.acct_mgmt(Flag::DISALLOW_NULL_AUTHTOK) {
        tracing::info!(%from, code = ?error.code(), %error, "the account check says no");
        let why = of_account(error.code());
        if why != PamRefusal::PasswordExpired {
            return Err(why);
        }
        pam.chauthtok(Flag::CHANGE_EXPIRED_AUTHTOK).map_err(|error| {
            tracing::info!(%from, code = ?error.code(), %error, "the expired password was not changed");
            of_change(error.code())
        })?;
    }
    // A module may have mapped the name.
    let user = pam.user().map_err(|e| failed("PAM does not tell the user", e))?;
    UserName::parse(&user).map_err(|error| {
        tracing::error!(%error, "PAM's name for the user can't be used");
        PamRefusal::System
    })
}
