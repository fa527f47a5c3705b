//! `portreeve-agent`, the process that runs on every node.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use portreeve_agent::{daemon, firewall, ident2, rules};
use tracing_subscriber::EnvFilter;

/// Tell the portals who owns this node's TCP sockets.
#[derive(Debug, Parser)]
#[command(name = "portreeve-agent", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file; need not be there if it is not named
    #[arg(long, value_name = "FILE", default_value = daemon::CONFIG)]
    config: PathBuf,
    /// Check configuration and key file, report every problem, and end
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide which new connections reach this node's ports, by who owns their two ends
    Firewall(firewall::Arguments),
    /// Print, install or remove the packet filter's rules that ask the firewall
    Rules(rules::Arguments),
    /// Answer the questions of sites that have ident2d
    Ident2(ident2::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        None if arguments.check => {
            daemon::check(&arguments.config).map(|found| println!("{}: {found}", arguments.config.display()))
        }
        None => {
            start_log();
            daemon::run(&arguments.config)
        }
        Some(Command::Firewall(firewall)) if firewall.check => firewall::check(firewall),
        Some(Command::Firewall(firewall)) if firewall.metrics => firewall::metrics(firewall),
        Some(Command::Firewall(firewall)) => {
            start_log();
            firewall::run(firewall)
        }
        Some(Command::Rules(rules)) => rules::rules(rules),
        Some(Command::Ident2(ident2)) if ident2.check => ident2::check(ident2),
        Some(Command::Ident2(ident2)) => {
            start_log();
            ident2::run(ident2)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portreeve-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env("PORTREEVE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // Said where nothing can be written, that would be a panic for every record: the disk that holds the log is full.
        .log_internal_errors(false)
        .init();
}
