//! `portreeve sessions`, `portreeve revoke`, `portreeve sign-out`: who is signed in at the cluster's portal, and how that
//! ends.

use clap::Args;
use portreeve_model::wire::SessionRow;
use portreeve_model::{ControlReply, ControlRequest, SignIn, UserName};

use crate::cluster::{LoginSocket, unexpected};
use crate::table::{self, moment};

/// `portreeve sessions`
#[derive(Debug, Args)]
pub(crate) struct Sessions {
    /// Only this user's
    #[arg(long, value_name = "USER", value_parser = UserName::parse)]
    user: Option<UserName>,
    /// As JSON; times are unix seconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: LoginSocket,
}

/// `portreeve revoke`
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Whose sessions and access tokens
    #[arg(value_parser = UserName::parse)]
    user: UserName,
    #[command(flatten)]
    socket: LoginSocket,
}

/// `portreeve sign-out`
#[derive(Debug, Args)]
pub(crate) struct SignOut {
    /// All your sessions, in every browser, and your access tokens
    #[arg(long, required = true)]
    everywhere: bool,
    #[command(flatten)]
    socket: LoginSocket,
}

pub(crate) fn sessions(sessions: &Sessions) -> anyhow::Result<()> {
    let mut all: Vec<SessionRow> = Vec::new();
    loop {
        let after = all.last().map(|row| row.id.clone());
        let request = ControlRequest::Sessions { user: sessions.user.clone(), after };
        let ControlReply::Sessions { rows, more } = sessions.socket.ask(&request)? else {
            return unexpected();
        };
        let more = more && !rows.is_empty();
        all.extend(rows);
        if !more {
            break;
        }
    }
    // Which one begins first is chance: ids are random.
    all.sort_by(|one, other| (&one.user, one.since).cmp(&(&other.user, other.since)));
    if sessions.json {
        return table::json(&all);
    }
    let rows: Vec<[String; 7]> = all
        .into_iter()
        .map(|row| {
            let from = row.from.map(|from| from.to_canonical().to_string()).unwrap_or_default();
            let (since, renewed, ends) = (moment(row.since), moment(row.renewed), moment(row.ends));
            [row.user.to_string(), since, renewed, ends, from, way(row.how), row.id.to_string()]
        })
        .collect();
    table::print(["USER", "SINCE", "RENEWED", "ENDS", "FROM", "BY", "SESSION"], &rows)?;
    Ok(())
}

fn way(how: SignIn) -> String {
    match how {
        SignIn::Code => "portreeve login".to_owned(),
        SignIn::Pam => "PAM".to_owned(),
        SignIn::Oidc => "OpenID Connect".to_owned(),
        SignIn::Certificate => "certificate".to_owned(),
        SignIn::Token(scopes) => format!("token ({scopes})"),
    }
}

pub(crate) fn revoke(revoke: &Revoke) -> anyhow::Result<()> {
    end(&revoke.socket, &ControlRequest::Revoke { user: revoke.user.clone() })
}

pub(crate) fn sign_out(sign_out: &SignOut) -> anyhow::Result<()> {
    // The flag is there to be typed: a sign-out without it would read as that of one browser.
    debug_assert!(sign_out.everywhere);
    end(&sign_out.socket, &ControlRequest::SignOutEverywhere)
}

fn end(socket: &LoginSocket, request: &ControlRequest) -> anyhow::Result<()> {
    let ControlReply::Ended { known, tokens } = socket.ask(request)? else { return unexpected() };
    println!("all sessions have ended ({known} were known), and {tokens} access token(s)");
    Ok(())
}
