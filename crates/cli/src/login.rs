//! `portreeve login`: a fresh sign-in address.

use anyhow::bail;
use portreeve_model::{ControlReply, ControlRequest};

use crate::arguments::Login;
use crate::control;

pub(crate) fn login(login: &Login) -> anyhow::Result<()> {
    let state = login.state.path()?;
    match control::ask(&state, &ControlRequest::Login)? {
        ControlReply::Address { url } => println!("{url}"),
        ControlReply::Refused { reason } => bail!("refused: {reason}"),
        ControlReply::Portal { .. }
        | ControlReply::Sessions { .. }
        | ControlReply::Ended { .. }
        | ControlReply::Token { .. }
        | ControlReply::Tokens { .. } => {
            bail!("the portal gave an answer to another question")
        }
    }
    Ok(())
}
