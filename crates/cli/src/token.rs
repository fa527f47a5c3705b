//! `portreeve token`: access tokens, by which programs sign in at the cluster's portal as you, for less than you may.

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use portreeve_model::wire::TokenRow;
use portreeve_model::wire::control::{MAX_TOKEN_LIFETIME, MIN_TOKEN_LIFETIME};
use portreeve_model::{ControlReply, ControlRequest, Scope, Scopes, TokenName, UserName};

use crate::cluster::{LoginSocket, unexpected};
use crate::table::{self, day, moment};

/// `portreeve token`
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token; it is printed once, alone on standard output
    Create {
        /// What you call it: letters, digits and . _ -
        #[arg(long, value_parser = TokenName::parse)]
        name: TokenName,
        /// What it is good for; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<ScopeArgument>,
        /// How long it lasts, such as 12h, 90d or 8w: from 1h to 400d
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
        expires: u32,
        #[command(flatten)]
        socket: LoginSocket,
    },
    /// Show your tokens, without what they are; for root, everybody's
    List {
        /// For root: only this user's
        #[arg(long, value_name = "USER", value_parser = UserName::parse)]
        user: Option<UserName>,
        /// As JSON; times are unix seconds
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: LoginSocket,
    },
    /// End a token, and everything that is open by it
    Revoke {
        /// What you call it
        #[arg(value_parser = TokenName::parse)]
        name: TokenName,
        /// For root: whose it is
        #[arg(long, value_name = "USER", value_parser = UserName::parse)]
        user: Option<UserName>,
        #[command(flatten)]
        socket: LoginSocket,
    },
}

/// A scope as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArgument {
    /// Your applications: /fw/, /fw2/ and their own addresses
    Apps,
    /// Your files: /dav/
    Files,
    /// The interface for programs: /api/v1/
    Api,
}

impl From<ScopeArgument> for Scope {
    fn from(typed: ScopeArgument) -> Self {
        match typed {
            ScopeArgument::Apps => Self::Apps,
            ScopeArgument::Files => Self::Files,
            ScopeArgument::Api => Self::Api,
        }
    }
}

pub(crate) fn token(token: &Token) -> anyhow::Result<()> {
    match &token.action {
        Action::Create { name, scopes, expires, socket } => create(name, scopes, *expires, socket),
        Action::List { user, json, socket } => list(user.as_ref(), *json, socket),
        Action::Revoke { name, user, socket } => {
            let request = ControlRequest::RevokeToken { user: user.clone(), name: name.clone() };
            let ControlReply::Ended { .. } = socket.ask(&request)? else { return unexpected() };
            println!("revoked {name}");
            Ok(())
        }
    }
}

fn create(
    name: &TokenName,
    scopes: &[ScopeArgument],
    lifetime: u32,
    socket: &LoginSocket,
) -> anyhow::Result<()> {
    let scopes: Vec<Scope> = scopes.iter().map(|scope| (*scope).into()).collect();
    let scopes = Scopes::new(&scopes).context("--scope")?;
    let request = ControlRequest::MakeToken { name: name.clone(), scopes, lifetime };
    let ControlReply::Token { token, expires } = socket.ask(&request)? else { return unexpected() };
    println!("{}", token.reveal());
    eprintln!(
        "This is the token {name}, good for {scopes} until {}. It is not shown again: keep it where only your program \
         reads it.\n`portreeve token revoke {name}` ends it.",
        moment(expires)
    );
    Ok(())
}

fn list(user: Option<&UserName>, json: bool, socket: &LoginSocket) -> anyhow::Result<()> {
    let mut all: Vec<TokenRow> = Vec::new();
    loop {
        let after = all.last().map(|row| row.id.clone());
        let request = ControlRequest::Tokens { user: user.cloned(), after };
        let ControlReply::Tokens { rows, more } = socket.ask(&request)? else { return unexpected() };
        let more = more && !rows.is_empty();
        all.extend(rows);
        if !more {
            break;
        }
    }
    all.sort_by(|one, other| (&one.user, &one.name).cmp(&(&other.user, &other.name)));
    if json {
        return table::json(&all);
    }
    let now = jiff::Timestamp::now().as_second();
    let rows: Vec<[String; 6]> = all
        .into_iter()
        .map(|row| {
            let over = if row.expires <= now { " (expired)" } else { "" };
            let used = row.used.map_or_else(|| "never".to_owned(), day);
            let expires = format!("{}{over}", moment(row.expires));
            [
                row.user.to_string(),
                row.name.to_string(),
                row.scopes.to_string(),
                moment(row.created),
                expires,
                used,
            ]
        })
        .collect();
    table::print(["USER", "NAME", "SCOPES", "MADE", "EXPIRES", "LAST USED"], &rows)?;
    Ok(())
}

/// A time such as `90d` or `1d 12h`, in seconds.
fn lifetime(text: &str) -> anyhow::Result<u32> {
    let mut seconds: u32 = 0;
    for part in text.split_whitespace() {
        let unit = match part.chars().next_back() {
            Some('h') => 3600,
            Some('d') => 24 * 3600,
            Some('w') => 7 * 24 * 3600,
            _ => bail!("{text:?} is no time: write 12h, 90d or 8w"),
        };
        let number = &part[..part.len() - 1];
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let number: Option<u32> = number.parse().ok().filter(|_| digits);
        let number = number.with_context(|| format!("{text:?} is no time: write 12h, 90d or 8w"))?;
        let sum = number.checked_mul(unit).and_then(|part| seconds.checked_add(part));
        seconds = sum.filter(|sum| *sum <= MAX_TOKEN_LIFETIME).context("a token lasts 400 days at most")?;
    }
    if seconds < MIN_TOKEN_LIFETIME {
        bail!("a token lasts an hour at least");
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        const HOUR: u32 = 3600;
        for (text, seconds) in [
            ("1h", Some(HOUR)),
            ("90d", Some(90 * 24 * HOUR)),
            ("8w", Some(56 * 24 * HOUR)),
            ("1d 12h", Some(36 * HOUR)),
            ("400d", Some(400 * 24 * HOUR)),
            ("", None),
            ("0d", None),
            ("401d", None),
            ("400d 1h", None),
            ("99999999999d", None),
            ("4294967295w", None),
            ("-1d", None),
            ("+1d", None),
            ("1", None),
            ("d", None),
            ("1m", None),
            ("1ä", None),
            ("1dh", None),
        ] {
            assert_eq!(lifetime(text).ok(), seconds, "{text}");
        }
    }
}
