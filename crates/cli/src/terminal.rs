//! `portreeve terminal`: one program on a pseudoterminal, shown in the browser. Usually started by `portreeve launch`, which gives
//! it its port and its token.

use std::ffi::OsString;
use std::net::ToSocketAddrs;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use portreeve_terminal::{Settings, TOKEN_VARIABLE, Terminal as Server, Token};

use crate::launch::exit_code;

/// `portreeve terminal`
#[derive(Debug, Args)]
pub(crate) struct Terminal {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,
    /// Shown above the terminal [default: the command line]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Others whom it is shared with may type as well
    #[arg(long)]
    others_may_type: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(crate) fn terminal(terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let found =
        terminal.listen.to_socket_addrs().with_context(|| format!("{} is no address", terminal.listen))?;
    let address = found.into_iter().next().with_context(|| format!("{} has no address", terminal.listen))?;
    let given = std::env::var(TOKEN_VARIABLE).ok();
    let token = match &given {
        Some(text) => Token::parse(text).with_context(|| format!("{TOKEN_VARIABLE} is no token"))?,
        None => Token::generate()?,
    };
    let mut settings = Settings::new(terminal.program.clone(), address, token.clone());
    if let Some(title) = &terminal.title {
        ensure!(!title.chars().any(char::is_control), "a title is one plain line");
        settings.title.clone_from(title);
    }
    settings.others_may_type = terminal.others_may_type;
    settings.owner = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let server =
        Server::bind(settings).with_context(|| format!("{} can't be listened on", terminal.listen))?;
    if given.is_none() {
        println!("http://{}/?token={}", server.address(), token.reveal());
    }
    Ok(exit_code(server.run()?).into())
}
