//! Whether an account may be used now: pam_acct_mgmt(3), for those whose identity was proven in another way.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use pam_client2::{Context, Flag};
use portreeve_model::UserName;
use portreeve_model::wire::pam::{PamNews, PamRefusal};

use crate::TTY;
use crate::talk::{NobodyThere, Talk};
use crate::verdict::of_account;

pub(crate) fn account(channel: OwnedFd, service: &str, user: &UserName) -> anyhow::Result<u8> {
    let mut pam =
        Context::new(service, Some(user.as_str()), NobodyThere::default()).context("PAM can't be begun")?;
    pam.set_tty(Some(TTY)).context("PAM_TTY can't be set")?;
    let outcome = may_be_used(&mut pam, user);
    let said = pam.conversation_mut().take_said();
    let news = match outcome {
        Ok(()) => PamNews::Granted { user: user.clone(), said },
        Err(why) => PamNews::Refused { why, said },
    };
    Talk::new(channel).end(&news).context("the answer can't be given")?;
    Ok(0)
}

/// The account check, which must be about the user it was asked about.
pub(crate) fn may_be_used(pam: &mut Context<NobodyThere>, user: &UserName) -> Result<(), PamRefusal> {
    if let Err(error) = pam.acct_mgmt(Flag::DISALLOW_NULL_AUTHTOK) {
        tracing::info!(user = user.as_str(), code = ?error.code(), %error, "the account check says no");
        return Err(of_account(error.code()));
    }
    match pam.user() {
        Ok(found) if found == user.as_str() => Ok(()),
        found => {
            tracing::error!(user = user.as_str(), ?found, "PAM answers about somebody else");
            Err(PamRefusal::System)
        }
    }
}
