//! `portreeve`, the command line. Each subcommand is a file; `arguments.rs` says what can be typed.

mod arguments;
mod check;
mod config;
mod control;
mod forward;
mod keys;
mod listen;
mod login;
mod nodes;
mod nodes_file;
mod state;
mod up;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Up(up) => up::up(&up),
        Command::Login(login) => login::login(&login),
        Command::Forward(forward) => forward::forward(&forward),
        Command::Check(check) => check::check(&check),
        Command::Keys(keys) => keys::keys(&keys),
        Command::Nodes(nodes) => nodes::nodes(&nodes),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, causes included: it is read in a terminal and in a unit's log.
            eprintln!("portreeve: {error:#}");
            ExitCode::FAILURE
        }
    }
}
