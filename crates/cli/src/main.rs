//! `portreeve`, the command line. Each subcommand is a file; `arguments.rs` says what can be typed.

mod apps;
mod arguments;
mod batch;
mod check;
mod cluster;
mod config;
mod config_page;
mod control;
mod documents;
mod forward;
mod http_client;
mod keys;
mod launch;
mod listen;
mod listening;
mod login;
mod nodes;
mod nodes_file;
mod nodes_list;
mod portal_client;
mod sessions;
mod state;
mod table;
mod terminal;
mod token;
mod up;
mod why;
mod workspace;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // These end as what they ran did.
    let done = match arguments.command {
        Command::Launch(launch) => return exit(launch::launch(&launch)),
        Command::Batch => return exit(batch::batch()),
        Command::Terminal(terminal) => return exit(terminal::terminal(&terminal)),
        Command::Up(up) => up::up(&up),
        Command::Login(login) => login::login(&login),
        Command::SignOut(sign_out) => sessions::sign_out(&sign_out),
        Command::Listening(listening) => listening::listening(&listening),
        Command::Jobs(jobs) => workspace::jobs(&jobs),
        Command::LaunchApp(launch) => workspace::launch_app(&launch),
        Command::Cancel(cancel) => workspace::cancel(&cancel),
        Command::History(history) => workspace::history(&history),
        Command::Cp(cp) => workspace::cp(&cp),
        Command::Apps(apps) => apps::apps(&apps),
        Command::Token(token) => token::token(&token),
        Command::Sessions(sessions) => sessions::sessions(&sessions),
        Command::Revoke(revoke) => sessions::revoke(&revoke),
        Command::Completions(completions) => documents::completions(&completions),
        Command::Man(man) => documents::man(&man),
        Command::Forward(forward) => forward::forward(&forward),
        Command::Check(check) => check::check(&check),
        Command::Why(why) => why::why(&why),
        Command::Keys(keys) => keys::keys(&keys),
        Command::Nodes(nodes) => nodes::nodes(&nodes),
    };
    exit(done.map(|()| ExitCode::SUCCESS))
}

fn exit(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            // One line, causes included: it is read in a terminal and in a unit's log.
            eprintln!("portreeve: {error:#}");
            ExitCode::FAILURE
        }
    }
}
