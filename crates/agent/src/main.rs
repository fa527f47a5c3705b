//! `portreeve-agent`, the process that runs on every node.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use portreeve_agent::daemon;
use tracing_subscriber::EnvFilter;

/// Tell the portals who owns this node's TCP sockets.
#[derive(Debug, Parser)]
#[command(name = "portreeve-agent", version)]
struct Arguments {
    /// Configuration file; need not be there if it is not named
    #[arg(long, value_name = "FILE", default_value = daemon::CONFIG)]
    config: PathBuf,
    /// Check configuration and key file, report every problem, and end
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.check {
        daemon::check(&arguments.config).map(|found| println!("{}: {found}", arguments.config.display()))
    } else {
        start_log();
        daemon::run(&arguments.config)
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
